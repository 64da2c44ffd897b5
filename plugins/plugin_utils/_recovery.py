# Copyright: onprem.rollout contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""What the verb recover does: every host that a dead run left half done is settled, as many at once as may be in change, and nothing else.

Plays of ansible-core's own strategy do it, and ask this, as those of L(_linear.Linear) do. Without an operator's decision nothing depends on the
ledger: what is half done is settled though it cannot be written, which is said. What an operator forces is in it first.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from ansible.errors import AnsibleError
from ansible.utils.display import Display

from ansible_collections.onprem.rollout.plugins.plugin_utils import _anchor, _batches, _holder, _ledgers
from ansible_collections.onprem.rollout.plugins.plugin_utils._account import Account
from ansible_collections.onprem.rollout.plugins.plugin_utils._core_input import PlayInput
from ansible_collections.onprem.rollout.plugins.plugin_utils._hostrun import HostRun
from ansible_collections.onprem.rollout.plugins.plugin_utils._ledger import BrokenChain, Event, LedgerError
from ansible_collections.onprem.rollout.plugins.plugin_utils._recovered import OPEN, SETTLED, End, end_of, note_forced, report_lines, summary, task_of
from ansible_collections.onprem.rollout.plugins.plugin_utils._report import Report
from ansible_collections.onprem.rollout.plugins.plugin_utils._story import clean

display = Display()

UNREACHABLE = 4


class Recovery(Account):
    def __init__(self, core: PlayInput) -> None:
        self._take_in(core, "linear")
        self._runs = {host: HostRun() for host in core.hosts}
        self._tasks: dict[str, str] = {}
        self._found: dict[str, str] = {}
        self._events: dict[str, Event] = {}
        self._away: set[str] = set()
        self._answers: dict[str, list[Any]] = {}
        self._ends: dict[str, End] = {}
        self._unwritten = self._broken = ""
        for note in self._inputs.notes:
            display.warning(note)

    # --- what the callback tells ---

    def hear(self, kind: str, result: Any) -> None:
        try:
            self._learn(Report(kind, result))
        except Exception as error:  # core would warn, and go on
            self._broken = f"what a task reported is not understood: {type(error).__name__}: {error}"
            display.error(self._broken, wrap_text=False)

    def _learn(self, report: Report) -> None:
        run = self._runs.get(report.host)
        if run is None or self._ends:
            return
        if report.kind == "unreachable":
            self._away.add(report.host)
        run.hear(report)
        forced = self._inputs.force and report.kind == "ok" and report.verb in ("restore", "commit")
        if forced and report.data.get("outcome") in ("restored", "committed"):
            note_forced(run, str(report.data["outcome"]))
        if report.data.get("settled") and not self._core.check_mode:
            self._say(f"  {clean(report.host)}: {clean(report.data['settled'])}")

    def begin_batch(self, part: str, hosts: Sequence[str]) -> None:
        if part == "settle":
            for host in hosts:
                self._runs[host].settling, self._runs[host].why = True, ""

    def before_commits(self) -> None:
        """An operator commits a host that was held: nothing soaks."""

    def end(self) -> int | None:
        self._finish()
        lines = report_lines(self._runs, self._ends, self._found, self._commands, self._core.check_mode)
        so = ", so nothing was forced" if self._inputs.force and not any(run.outcome for run in self._runs.values()) else ""
        lines += [f"  NOT KNOWN FOR ALL: {clean(self._broken)}"] if self._broken else []
        lines += [f"  NOT IN THE LEDGER{so}: {clean(self._unwritten)}"] if self._unwritten else []
        display.display("\n" + "\n".join([*lines, f"  exit code: {self._exit_code}"]))
        given = 2 if self._answers.get("failed") == [True] and self._answers["speakers"] else UNREACHABLE if self._away else 0
        return None if given == self._exit_code else self._exit_code

    # --- what the plays ask ---

    def ask(self, what: str) -> list[Any]:
        if what == "go":
            return [True]
        if what not in self._answers:
            self._answers.update(self._answer(what))
        return self._answers[what]

    def _answer(self, what: str) -> dict[str, list[Any]]:
        if what in ("settle", "settle_sizes"):
            batches = _batches.settling(self._inputs.plan, self._decide())
            return {"settle": [host for batch in batches for host in batch], "settle_sizes": [len(batch) for batch in batches]}
        if what in ("speakers", "failed", "summary"):
            self._finish()
            failed = self._exit_code == 2
            reached = [host for host in self._core.hosts if host not in self._away]
            speakers = [host for host in reached if self._ends[host] in OPEN] or reached[:1]
            return {"speakers": speakers, "failed": [failed], "summary": [self._summary()]}
        raise AnsibleError(f"{what!r} is nothing that a play of recover can ask for")

    def why(self, host: str) -> str:
        return f"{self._ends[host]}: {summary(self._runs, self._ends)[host]['why'] or self._unwritten or self._broken}; see below"

    # --- the decisions ---

    def _decide(self) -> list[str]:
        """Whom something is done with; what that is, is in the ledger from here on."""
        force = self._inputs.force
        for host, run in self._runs.items():
            task, transaction = task_of(run, force), run.record.get("transaction") or {}
            if task:
                self._tasks[host] = task
                self._found[host] = _found(transaction, task)
                self._events[host] = Event("recover", str(transaction.get("rollout") or ""), self._data(host, task, transaction))
            elif force and self._core.limited and not run.dark and not run.why:
                phase = transaction.get("phase")
                run.why = (
                    f"{host} waits for no operator: its record {f'says {phase}' if phase else 'names no transaction'}. Nothing was touched. "
                    "What a dead run left half done onprem.rollout.recover settles without rollout_force_*"
                )
        return list(self._tasks) if self._write(list(self._events.values())) or not force else []

    def _data(self, host: str, task: str, transaction: Mapping[str, Any]) -> dict[str, Any]:
        shared = self._core.variables(host)
        return {
            "by": _ledgers.user(shared), "why": str(self._core.template(shared.get("rollout_why", ""), shared)), "host": host, "then": task,
            "forced": bool(self._inputs.force), "transaction": transaction.get("id"), "phase": transaction.get("phase"), "from": _left_by(transaction),
        }  # fmt: skip

    def _write(self, events: list[Event]) -> bool:
        if not events or self._core.check_mode:
            return True
        ledger = self._open_ledger()
        try:
            _anchor.drop(ledger.append(events))
        except (LedgerError, BrokenChain) as error:
            self._unwritten = f"{ledger.name}: {error}"
            display.warning(f"rollout_ledger: {self._unwritten}")
            return False
        return True

    def _finish(self) -> None:
        if self._ends:
            return
        check = self._core.check_mode
        self._ends = {host: end_of(run, self._tasks.get(host, ""), host in self._away, check) for host, run in self._runs.items()}
        ended = []
        for host, event in self._events.items():
            why = "" if self._ends[host] in SETTLED else summary(self._runs, self._ends)[host]["why"]
            ended.append(Event("recover", event.rollout, {"by": event.data["by"], "host": host, "outcome": str(self._ends[host]), "why": why}))
        self._write(ended)
        states = set(self._ends.values())
        self._exit_code = 2 if states & set(OPEN) or self._unwritten or self._broken else UNREACHABLE if End.UNREACHABLE in states else 0
        if self._inputs.json_file:
            self._write_json(self._inputs.json_file)

    def _summary(self) -> dict[str, Any]:
        return {"verb": self._inputs.verb, "check_mode": self._core.check_mode, "hosts": summary(self._runs, self._ends)}


def _found(transaction: Mapping[str, Any], task: str) -> str:
    what = "was out of traffic" if task == "rejoin" else f"was {transaction.get('phase')} to {(transaction.get('release') or {}).get('version')}"
    return f"{what}, left by {_left_by(transaction)}"


def _left_by(transaction: Mapping[str, Any]) -> str:
    evicted = transaction.get("evicted") or {}
    return _holder.describe(evicted.get("holder") or transaction.get("holder") or {})
