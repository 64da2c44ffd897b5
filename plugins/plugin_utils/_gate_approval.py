# Copyright: onprem.rollout contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""The gate that waits for people: an approval of the plan by name, with a remark and an end.

An approval is an event of the ledger, or a file NAME.json with its signature NAME.json.sig beside it. With O(allowed_signers)
only those count that C(ssh-keygen -Y sign -n onprem-rollout) signed with a key of that file, and what was signed is all that is
believed; it is checked here, offline. Without it an approval is worth as much as the ledger that it stands in.

People are told apart by what stands before C(@) or before C( on ) of their name, whatever its case; signed approvals also by their key, others
also by who wrote the event. So one person who approves twice, or under two names with one key, counts once.
"""

from __future__ import annotations

import json
import os
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any

from ansible_collections.onprem.rollout.plugins.plugin_utils._gate import Answer, Situation, Verdict
from ansible_collections.onprem.rollout.plugins.plugin_utils._gate_options import Options
from ansible_collections.onprem.rollout.plugins.plugin_utils._ledger import ENCODER, Entry, stamp
from ansible_collections.onprem.rollout.plugins.plugin_utils._policy import Problem
from ansible_collections.onprem.rollout.plugins.plugin_utils._signatures import APPROVAL, LARGEST, NEVER, CannotAsk, launchers, person, read_text, verify
from ansible_collections.onprem.rollout.plugins.plugin_utils._verbs import end_of

TYPE = "approval"
OPTIONS = ("type", "name", "count", "not_launcher", "allowed_signers", "files", "max_age")
VERB = "ansible-playbook onprem.rollout.approve"
TOLD = 5  # approvals that do not count and are told of, the newest first


@dataclass(frozen=True, slots=True)
class Approval:
    """What somebody claims.

    where: its place, for people. at: seconds since 1970, None for a file, of which nobody knows. who: who wrote it into the ledger.
    text: what the signature is of. flaw: why it cannot be read, or nothing.
    """

    where: str
    by: str = ""
    plan: str = ""
    remark: str = ""
    expires: Any = None
    at: float | None = None
    who: str = ""
    text: str = ""
    signature: str = ""
    flaw: str = ""


def approval_text(plan: str, by: str, remark: str, expires: str | None) -> str:
    """What is signed, to the byte. plan: its digest; expires: ISO 8601 with its offset, or None."""
    return ENCODER.encode({"plan": plan, "by": by, "remark": remark, "expires": expires}) + "\n"


@dataclass(slots=True)
class ApprovalGate:
    """count: approvals by so many people. max_age: seconds that an approval without an end of its own holds, None for ever."""

    name: str
    count: int = 1
    not_launcher: bool = True
    allowed_signers: str | None = None
    files: str | None = None
    max_age: float | None = None

    def ask(self, situation: Situation) -> Answer:
        try:
            return self._judge(situation)
        except CannotAsk as error:
            return Answer(Verdict.ERROR, f"approvals cannot be checked: {error}")

    def _judge(self, situation: Situation) -> Answer:
        if self.not_launcher and not person(situation.launcher):
            raise CannotAsk("nobody knows who launched this run, and it must not be the approver")
        if self.allowed_signers:
            read_text(self.allowed_signers, "allowed_signers", NEVER)
        counted: list[str] = []
        ends: list[float] = []
        people: set[str] = set()
        flawed: list[str] = []
        for approval in [*_from_ledger(situation.events), *self._from_files()]:
            if len(counted) == self.count:
                break
            flaw, end, names = self._weigh(approval, situation)
            if not flaw and people & names:
                flaw = "is by somebody who is counted already"
            if flaw:
                flawed.append(f"that of {approval.by or 'somebody'} ({approval.where}) {flaw}")
                continue
            people |= names
            ends.append(end)
            counted.append(f"{approval.by} ({approval.remark})" if approval.remark else approval.by)
        if len(counted) == self.count:
            until = min(ends)
            return Answer(Verdict.PASS, f"plan {situation.plan[:12]} is approved by {' and '.join(counted)}", None if until == NEVER else until)
        return Answer(Verdict.HOLD, self._wait(situation, counted, flawed))

    def _wait(self, situation: Situation, counted: list[str], flawed: list[str]) -> str:
        missing = self.count - len(counted)
        why = f"waits for {missing} approval{'s' if missing > 1 else ''} of plan {situation.plan[:12]}"
        why += f", by somebody else than {' and '.join(sorted(launchers(situation.launcher, situation.launchers)))}" if self.not_launcher else ""
        why += f", signed by one of {self.allowed_signers}" if self.allowed_signers else ""
        why += f": {VERB}"
        why += f"; {' and '.join(counted)} approved it" if counted else ""
        more = f"; and {len(flawed) - TOLD} more" if len(flawed) > TOLD else ""
        return why + (f"; does not count: {'; '.join(flawed[:TOLD])}{more}" if flawed else "")

    def _weigh(self, approval: Approval, situation: Situation) -> tuple[str, float, set[str]]:
        """Why it does not count, or nothing; until when it holds; and whose it is, by every name and key."""
        if approval.flaw:
            return approval.flaw, 0.0, set()
        if self.allowed_signers and not approval.signature:
            return "is not signed", 0.0, set()
        if approval.plan != situation.plan:
            return f"is for plan {approval.plan[:12]}", 0.0, set()
        names = {person(approval.by)} if self.allowed_signers else {person(approval.by), person(approval.who)}
        if self.not_launcher and names & launchers(situation.launcher, situation.launchers):
            return "is by the launcher" if person(situation.launcher) in names else "is by the launcher of an earlier run of it", 0.0, set()
        flaw, end = self._end(approval)
        if flaw or situation.now > end:
            return flaw or f"expired at {approval.expires or stamp(end)}", 0.0, set()
        if self.allowed_signers:
            key, flaw = verify(approval.text, approval.signature, approval.by, self.allowed_signers, APPROVAL)
            names |= {key} if key else set()
        return flaw, end, names

    def _end(self, approval: Approval) -> tuple[str, float]:
        if approval.expires is None:
            if self.max_age is None:
                return "", NEVER
            if approval.at is None:
                return "names no end, and a file must when there is a max_age", 0.0
            return "", approval.at + self.max_age
        why, end = end_of(approval.expires)
        return f"expires {approval.expires!r}, which {why}" if why else "", end

    def _from_files(self) -> Iterator[Approval]:
        if self.files is None:
            return
        try:
            names = sorted(name for name in os.listdir(self.files) if name.endswith(".json"))
        except OSError as error:
            raise CannotAsk(f"the files {self.files} cannot be listed: {error.strerror}") from error
        for name in names:
            path = os.path.join(self.files, name)
            try:
                text, signature = read_text(path, "the file", LARGEST), read_text(path + ".sig", "its signature", LARGEST)
            except CannotAsk as error:
                yield Approval(path, flaw=f"cannot be read: {error}")
                continue
            yield _claim(Approval(path, text=text, signature=signature))


def _from_ledger(events: Iterable[Entry]) -> Iterator[Approval]:
    """The newest first: it is what somebody says now. Of one signature's events the oldest tells when it was made."""
    first: dict[str, float] = {}
    approvals = [entry for entry in events if entry.kind == "approve"]
    for entry in approvals:
        first.setdefault(str(entry.data.get("signature")), entry.at)
    for entry in reversed(approvals):
        data, where = entry.data, f"line {entry.head.number} of the ledger"
        signature = data.get("signature") or ""
        if not isinstance(signature, str):
            yield Approval(where, flaw="has a signature that is none")
        elif signature:
            text = data.get("text")
            yield _claim(Approval(where, at=first[signature], who=entry.who, text=text if isinstance(text, str) else "", signature=signature))
        else:
            yield _claim(Approval(where, at=entry.at, who=entry.who, text=json.dumps({"by": entry.who.partition(" on ")[0], **data})))


def _claim(approval: Approval) -> Approval:
    """The approval with what its text says."""
    try:
        said = json.loads(approval.text)
    except (ValueError, RecursionError):
        said = None
    if not isinstance(said, Mapping):
        return Approval(approval.where, flaw="is no JSON text with plan, by, remark and expires")
    by, plan, remark = said.get("by"), said.get("plan"), said.get("remark") or ""
    if not isinstance(by, str) or not person(by) or not by.isprintable():
        return Approval(approval.where, flaw=f"is by {by!r}, which is no name")
    if not isinstance(plan, str) or not isinstance(remark, str):
        return Approval(approval.where, by, flaw="says no plan or no remark as text")
    return Approval(approval.where, by, plan, " ".join(remark.split()), said.get("expires"), approval.at, approval.who, approval.text, approval.signature)


def parse(raw: Mapping[str, Any], where: str) -> tuple[ApprovalGate | None, list[Problem]]:
    """One item of the policy. The files must be there already; their content may change while the rollout waits."""
    options = Options(raw, OPTIONS, where)
    signers, files = (
        options.text("allowed_signers", "", "write the path of a file on the controller"),
        options.text("files", "", "write the path of a directory"),
    )
    gate = ApprovalGate(
        options.name(TYPE),
        options.whole("count", 1),
        options.flag("not_launcher", True),
        os.path.abspath(os.path.expanduser(signers)) if signers else None,
        os.path.abspath(os.path.expanduser(files)) if files else None,
        options.seconds("max_age", 0.0, 1.0) or None,
    )
    if gate.allowed_signers:
        try:
            read_text(gate.allowed_signers, "the file", NEVER)
        except CannotAsk as error:
            options.wrong("allowed_signers", f"cannot be read: {error}; relative paths are looked for in {os.getcwd()}")
    if gate.files and not gate.allowed_signers:
        options.wrong("files", "anybody may write a file: give allowed_signers too, so that it must be signed")
    elif gate.files and not os.path.isdir(gate.files):
        options.wrong("files", f"make this directory; relative paths are looked for in {os.getcwd()}")
    return (None if options.problems else gate), options.problems
