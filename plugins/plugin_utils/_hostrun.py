# Copyright: onprem.rollout contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""What this run has learned of one host, from what its tasks reported."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Protocol

from ansible_collections.onprem.rollout.plugins.module_utils import _checks, _record
from ansible_collections.onprem.rollout.plugins.plugin_utils._causes import Cause, is_login_refused
from ansible_collections.onprem.rollout.plugins.plugin_utils._crosscheck import Sick, sick_of
from ansible_collections.onprem.rollout.plugins.plugin_utils._states import State

RESTORE_OUTCOMES = {
    "restored": State.RESTORED,
    "committed": State.COMMITTED,
    "untouched": State.REFUSED,
    "restore_failed": State.RESTORE_FAILED,
    "held": State.HELD,
}


class Report(Protocol):
    """The result of one task; see L(_report.Report). kind: ok, failed, ignored skipped or unreachable; verb: of our modules, or empty;
    payload: include or task of the payload, or empty; asked: L(Stage.ask) ran it."""

    kind: str
    host: str
    task: str
    verb: str
    payload: str
    asked: bool
    data: Mapping[str, Any]


@dataclass(slots=True)
class HostRun:
    """dark: why the host could not be reached, until it can be again, and the cause of the last time; begun: its transaction is open;
    idle: its payload was included and ran no task yet;
    later_until: its payload asked to be run again then; half_done: an earlier run left it open or out of traffic;
    taken: another run that may be alive has it; drained: it may be out of traffic; stranded: so an earlier run left it, and no rejoin role is set;
    restoring: it is in its rescue; reverted: not for a failure of its own;
    unfit: why it could not keep a snapshot; put_back: no settle of it failed; unproven: a restore said that it left it inconsistent;
    sick: the required checks by which it failed; suffers: in an outage; doubted: so that it may not commit before it is proven;
    blamed: the host refuses the release, because it failed there; outage: it failed because its artifact could not be fetched; outcome: once it is known;
    unsettled: why a host that the customer holds is still half done."""

    record: Mapping[str, Any] = field(default_factory=dict)
    facts: Mapping[str, Any] = field(default_factory=dict)
    heard: bool = False
    heard_payload: bool = False
    begun: bool = False
    idle: bool = False
    outcome: State | None = None
    why: str = ""
    dark: str = ""
    cause: Cause | None = None
    half_done: bool = False
    settling: bool = False
    taken: bool = False
    drained: bool = False
    stranded: bool = False
    unfit: str = ""
    put_back: bool = True
    unproven: bool = False
    outage: bool = False
    blamed: bool = False
    sick: tuple[Sick, ...] = ()
    suffers: bool = False
    doubted: bool = False
    unsettled: str = ""
    restoring: bool = False
    reverted: bool = False
    turn_back: bool = False
    give_up_at: float = 0.0
    retry_at: float = 0.0
    later_until: float = 0.0

    @property
    def inconsistent(self) -> str:
        """Why nobody knows what state the host is in, by its record or by a restore of this run; else nothing."""
        transaction = self.record.get("transaction") or {}
        if self.unproven:
            return self.why or "its restore failed"
        return str(transaction.get("reason") or "its restore failed") if transaction.get("phase") == "inconsistent" else ""

    @property
    def kept(self) -> str:
        """Why the host is held on what cannot be undone, by its record or by this run; else nothing."""
        transaction = self.record.get("transaction") or {}
        if self.outcome is State.HELD and self.facts.get("outcome") == "held":
            return f"its change cannot be undone ({self.facts.get('irreversible')}) and did not go through: {self.why}"
        if transaction.get("phase") != "held":
            return ""
        return f"its change cannot be undone ({transaction.get('irreversible')}) and did not go through: {transaction.get('reason')}"

    @property
    def quarantined(self) -> Mapping[str, Any]:
        """Why, since and until when the host runs what is known to be unsafe, by its record or by a restore of this run; else nothing."""
        if self.outcome is State.COMMITTED:
            return {}
        found = self.facts.get("quarantined") or self.record.get("quarantined")
        return found if isinstance(found, Mapping) else {}

    def hear(self, report: Report) -> None:
        """A task ended."""
        if report.payload == "task":
            self.idle = False
        if report.kind == "skipped":
            return
        if report.payload == "include" and not self.heard_payload:
            self.idle = self.heard_payload = True
        if report.kind == "unreachable":
            message = str(report.data.get("msg", ""))
            refused = is_login_refused(message)
            self.cause = Cause.AFTER if self.begun or self.settling else Cause.LOGIN if refused else Cause.BEFORE
            self.dark = f"{'login refused' if refused else 'unreachable'} in {report.task!r}: {message}".strip()
        else:
            getattr(self, f"_after_{report.verb}", self._after_other)(report)
            self._note_outage(report)

    def _note_outage(self, report: Report) -> None:
        """Whether it was the fetch that sent the host back: not one that the payload made up for, before something else failed."""
        if report.kind in ("ok", "failed") and not self.restoring:
            unfetched = report.kind == "failed" and report.data.get("reason") == "fetch"
            self.outage = unfetched and (report.verb in ("archive", "container") or (report.verb == "retry" and self.outage))

    def _after_settle(self, report: Report) -> None:
        if self.settling and no_answer(report):
            self.dark = f"no answer in {report.task!r}: {report.data.get('msg', '')}"
            return
        self._after_other(report)
        self._note_unproven(report)
        self.put_back = report.kind == "ok"
        self.taken = report.kind == "failed" and report.data.get("reason") == "taken"
        self.heard = report.kind == "ok"
        self.record = report.data.get("record") or self.record
        self.half_done = self.half_done or bool(report.data.get("abandoned") or report.data.get("drained"))
        self.drained = self.drained or bool(report.data.get("drained"))
        self.unfit = str(report.data.get("unfit") or "")
        if self.settling and report.kind == "ok":
            self.why = ""  # a drain that failed before is no trouble any more

    def _after_traffic(self, report: Report) -> None:
        self._after_other(report)
        if report.kind == "ok":
            self.drained = bool(report.data.get("drained"))

    def _after_host_info(self, report: Report) -> None:
        self._after_settle(report)
        self.facts = report.data

    def _after_begin(self, report: Report) -> None:
        self._after_other(report)
        if report.kind == "ok":
            self.begun = report.data.get("outcome") != "skipped"
            self.outcome = None if self.begun else State.SKIPPED
            self._recover()
        elif report.data.get("refused"):
            self.outcome = State.REFUSED
            self.blamed = report.data.get("reason") == "failed_before"
            self.sick = sick_of(report.data.get("checks") or []) if report.data.get("reason") == "sick" else ()
            self.suffers = self.suffers and bool(self.sick)

    def _after_health(self, report: Report) -> None:
        """It was judged, for its transaction or for its commit."""
        self._after_other(report)
        if self.restoring or report.kind not in ("ok", "failed"):
            return
        self.sick = sick_of(report.data.get("checks") or []) if report.kind == "failed" else ()
        if report.kind == "ok":
            self._recover()

    def _recover(self) -> None:
        """If it was struck by an outage, that is over for it."""
        if self.suffers:
            self.suffers = self.doubted = False
            self.why = ""

    def _after_commit(self, report: Report) -> None:
        self._after_health(report)
        if report.kind == "ok" and report.data.get("outcome") == "committed":
            self.outcome = State.COMMITTED
            self.drained = self.stranded

    def _after_restore(self, report: Report) -> None:
        self._note_unproven(report)
        outcome = RESTORE_OUTCOMES.get(str(report.data.get("outcome")))
        if report.kind == "ok" and outcome is not None:
            if not self.begun and outcome is State.COMMITTED:
                outcome = State.REFUSED  # an earlier transaction of this run answered
            if outcome is State.REFUSED and self.reverted:
                outcome = State.HELD
            self.outcome = self.outcome or outcome
            self.blamed = bool(report.data.get("remembered"))
            self.facts = report.data
        elif no_answer(report) and self.begun:
            self.dark = f"no answer in {report.task!r}: {report.data.get('msg', '')}"
        elif report.kind == "failed" and not self.begun and outcome is None:
            self.outcome = State.REFUSED
        elif report.kind == "failed":
            self.outcome = State.RESTORE_FAILED
            self.why = f"{self.why}; then its restore failed: {report.data.get('msg', '')}".lstrip("; ")

    def _note_unproven(self, report: Report) -> None:
        self.unproven = self.unproven or (report.kind == "failed" and report.data.get("outcome") in ("restore_failed", "inconsistent"))

    def _after_retry(self, report: Report) -> None:
        if report.kind == "ok":
            self.why = ""
        elif not (self.why and (self.restoring or report.data.get("unexplained"))):  # else the payload's own failure has been heard
            self._after_other(report)

    def _after_other(self, report: Report) -> None:
        if report.kind == "failed" and self.restoring:
            self.why = f"{self.why}; then {report.task!r} failed: {report.data.get('msg', '')}".lstrip("; ")
        elif report.kind == "failed":
            said = report.data.get("msg") or ("" if report.verb else report.data.get("reason"))  # of an include
            self.why = failed_checks(report.data) or str(said or f"{report.task!r} failed")


def no_answer(report: Report) -> bool:
    """The task was cut off, its module killed, or another process of the host is at it: that tells nothing, and a second try may."""
    return report.kind == "failed" and bool(report.data.get("timedout") or report.data.get("reason") == "locked" or was_killed(report.data))


def was_killed(result: Mapping[str, Any]) -> bool:
    """A module that printed no result because a signal ended it, as the host's shell tells it."""
    rc = result.get("rc")
    return "module_stdout" in result and "outcome" not in result and isinstance(rc, int) and 128 < rc < 160


def failed_checks(result: Mapping[str, Any]) -> str:
    """The required checks that failed: which, what was seen, what was expected, after how long."""
    bad = _checks.failed(list(result.get("checks") or []))
    return f"check {_checks.describe(bad)}" if bad else ""


def in_progress(record: Mapping[str, Any]) -> bool:
    """A transaction of the host's record is neither committed nor restored."""
    transaction = record.get("transaction") or {}
    return transaction.get("phase") not in (None, "committed", "restored")


def failed_before(record: Mapping[str, Any], digest: str) -> str:
    """Why a release is not tried on this host again, if it failed there before; else nothing."""
    found = _record.failed_before(dict(record), digest)
    if not found:
        return ""
    return (
        f"this release failed here {'once' if found['times'] == 1 else str(found['times']) + ' times'} ({found.get('at')}) and is not tried "
        f"again without a new build or rollout_retry_failed: true: {found.get('reason')}"
    )


def drilled(record: Mapping[str, Any], digest: str) -> bool:
    """The last drill of the release on this host passed."""
    return _record.drilled(dict(record), digest)
