# Copyright: onprem.rollout contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""The driver of plays with C(serial): between the conductor, which decides, and batches, which core runs to their end.

steps = Lockstep(...)
every host is asked; for batch in steps.settling(): steps.settle(batch), and it is settled
for batch in steps.batches(): go on only if steps.let_in(batch), and its hosts run their transactions, with steps.soak() before their commits
steps.finish()

All the while L(report) hears what the tasks report. Nothing that keeps a host safe lives here.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from typing import Any

from ansible_collections.onprem.rollout.plugins.plugin_utils import _batches
from ansible_collections.onprem.rollout.plugins.plugin_utils._batches import Batch
from ansible_collections.onprem.rollout.plugins.plugin_utils._causes import Cause
from ansible_collections.onprem.rollout.plugins.plugin_utils._conductor import Conductor
from ansible_collections.onprem.rollout.plugins.plugin_utils._hostrun import HostRun, Report
from ansible_collections.onprem.rollout.plugins.plugin_utils._ledger import Entry
from ansible_collections.onprem.rollout.plugins.plugin_utils._orders import Event, Orders
from ansible_collections.onprem.rollout.plugins.plugin_utils._outcome import wanted
from ansible_collections.onprem.rollout.plugins.plugin_utils._reading import Reading
from ansible_collections.onprem.rollout.plugins.plugin_utils._stage import Place, Settings
from ansible_collections.onprem.rollout.plugins.plugin_utils._standing import Standing
from ansible_collections.onprem.rollout.plugins.plugin_utils._states import IN_CHANGE, Halt, State

TURN = "__upgrade_failure"  # the fact that the role sets when a host enters its rescue
POLL = 0.25
NOT_WAITED_FOR = "the linear engine does not wait for it: its revert timer or the next upgrade puts it back"


class Batched:
    """Core as L(_reading.Reading) sees it: when it looks, every host has run all tasks of its play."""

    width = 1 << 30

    def busy(self, host: str) -> bool:
        return False

    def place(self, host: str) -> Place:
        return Place.OVER

    def again(self, host: str) -> None:
        pass

    def leave_out(self, host: str) -> None:
        pass


class Lockstep:
    """conductor: one of a plan that L(_batches.for_batches) made. soaks: seconds for each ring, which that plan does not have.

    note: what was decided is written down, before it is done. standing: what operators decided, if there is a ledger.
    """

    def __init__(
        self,
        conductor: Conductor,
        digest: str,
        tell: Callable[[Event], None],
        settings: Settings,
        look_only: bool = False,
        attend: Callable[[], None] | None = None,
        note: Callable[[], None] | None = None,
        soaks: Mapping[str, float] | None = None,
        standing: Callable[[], Standing | None] = lambda: None,
        clock: Callable[[], float] = time.monotonic,
        sleep: Callable[[float], None] = time.sleep,
    ) -> None:
        self.conductor = conductor
        self.runs = {host: HostRun() for host in conductor.states()}
        self._tell = tell
        self._look_only = look_only
        self._attend = attend or (lambda: None)
        self._note = note or (lambda: None)
        self._soaks = soaks or {}
        self._standing = standing
        self._clock = clock
        self._sleep = sleep
        stage: Any = Batched()
        at_once = replace(settings, reconnect_timeout=0.0)  # core takes a host that went dark out of all plays: it cannot come back
        self._reading = Reading(conductor, self.runs, stage, digest, at_once, look_only, tell, clock, self._end)
        self._batch: Batch = []
        self._soaked: Batch = []
        self._reached: set[str] = set()
        self._failed = ""

    # --- before anything is changed ---

    def settling(self) -> list[Batch]:
        """After every host was asked: who is settled first, as many at a time as may be in change."""
        half_done = [host for host, run in self.runs.items() if run.half_done and not (run.dark or run.why)]
        self._reading.step()
        return [] if self._look_only else _batches.settling(self.conductor.plan, half_done)

    def settle(self, batch: Sequence[str]) -> None:
        """The batches before this one are settled."""
        while not self._reading.done and set(self._reading.asking) != set(batch):
            self._reading.step()

    def batches(self) -> list[Batch]:
        """After all were settled: who is changed together."""
        while not self._reading.done:
            self._reading.step()
        self._tell_all()
        waiting = {host for host, state in self.conductor.states().items() if state is State.WAITING}
        return [] if self.conductor.halt is not None or self._look_only else _batches.batches(self.conductor.plan, waiting)

    # --- batch by batch ---

    def let_in(self, batch: Sequence[str]) -> bool:
        """The batches before this one are over: judge them, and wait until this one may begin. False if it may not any more."""
        self._judge_batch()
        admitted = self._go_on()
        if admitted and set(admitted) != set(batch):
            for host in admitted:
                self._end(host, State.HELD, self._clock())
            self.abort(f"core gives another batch than was planned: {', '.join(batch)}")
            admitted = []
        self._batch = admitted
        return bool(admitted)

    def finish(self) -> None:
        """Core gives nobody tasks any more."""
        self.batches()
        if self._look_only:
            return
        self._judge_batch()
        if self.conductor.halt is None and State.WAITING in self.conductor.states().values():
            self.abort("core ended the play before its last batch")
        self._go_on()

    def _go_on(self) -> list[str]:
        """Wait until somebody is let in, or the rollout is over."""
        while not self.conductor.finished:
            self._attend()
            now = self._clock()
            orders = self._tick(now)
            self._note()
            if orders.admit or self.conductor.finished:
                return orders.admit
            self._sleep(min(POLL, max((orders.wake_at or now + POLL) - now, 0.01)))
        return []

    def abort(self, why: str) -> None:
        """The run itself failed: nobody new is let in, and nobody commits who has not yet."""
        self._failed = f"this run of ansible-playbook failed: {why}"
        self.conductor.abort(why, self._clock())
        self._tell_all()

    def report(self, report: Report) -> None:
        """A task ended."""
        run, now = self.runs.get(report.host), self._clock()
        if run is None:
            return
        if report.kind != "unreachable":
            self._reached.add(report.host)
        states = (State.CHANGING, State.RESTORING) if self._failed else (State.CHANGING,)
        in_change = report.host in self._batch and self.conductor.state(report.host) in states
        turns = in_change and run.begun and report.kind == "ok" and TURN in (report.data.get("ansible_facts") or {})
        run.restoring = run.restoring or turns
        run.hear(report)
        if turns or (in_change and run.begun and run.dark and run.outcome is None):
            run.why = run.why or run.dark
            self.conductor.failing(report.host, run.why or "it failed", now, run.outage)
        if run.cause is Cause.AFTER and report.kind == "unreachable" and report.host in self._batch:
            self.conductor.went_dark(report.host, now)
        if report.data.get("settled"):
            self._tell(Event("settled", now, report.host, detail=str(report.data["settled"])))
        self._tell_all()

    def soak(self) -> str:
        """The healthy hosts of the batch stand before their commit. Why they must not commit after the soak, or nothing."""
        ring, wave, _state = self.conductor.current or ("", 0, None)
        soak, now = self._soaks.get(ring, 0.0), self._clock()
        if self._failed:
            return self._failed
        if self._soaked == self._batch or not self.before_commit():
            return ""
        self._soaked = self._batch
        if soak:
            self._tell(Event("soak", now, ring=ring, wave=wave, detail=f"{soak:g}"))
        before, until = self._promoted, now + soak
        while True:
            self._attend()
            self._tell_all()
            self._note()
            if self.conductor.halt is Halt.SUPERSEDED:
                return "another version supersedes this one"
            if self.conductor.halt is Halt.STOPPED and not self._kept:
                return "an operator aborted the rollout"
            now = self._clock()
            if self._failed:
                return self._failed
            if now >= until or self.conductor.halt is Halt.STOPPED or self._promoted is not before:
                return ""
            self._sleep(min(POLL, until - now))

    @property
    def _promoted(self) -> Entry | None:
        standing = self._standing()
        return standing.promote if standing else None

    @property
    def _kept(self) -> bool:
        standing = self._standing()
        return bool(standing and standing.abort and standing.abort.data.get("then") == "keep")

    def before_commit(self) -> Batch:
        """Who of the batch is healthy, as far as is known, and about to commit."""
        return [host for host in self._batch if self._is_before_commit(self.runs[host])]

    @staticmethod
    def _is_before_commit(run: HostRun) -> bool:
        return run.begun and run.outcome is None and not (run.restoring or run.dark)

    def _judge_batch(self) -> None:
        """Every host of the batch has run all its tasks, or gets none any more."""
        now, over = self._clock(), self._batch
        self._batch = []
        fine = [host for host in over if self.conductor.state(host) is State.CHANGING and self.runs[host].outcome is State.COMMITTED]
        _batches.commit(self.conductor, fine, now)
        for host in over:
            if self.conductor.state(host) in IN_CHANGE:
                self._judge(host, self.runs[host], now)
        self._tell_all()

    def _judge(self, host: str, run: HostRun, now: float) -> None:
        if run.outcome is not None:
            self._end(host, run.outcome, now, run.why)
        elif run.begun:
            run.why = f"{run.why or run.dark or 'the payload ended the play before the host was proven healthy'}; {NOT_WAITED_FOR}"
            self._end(host, State.LOST, now, run.why)
        elif run.dark:
            self._end(host, State.UNREACHABLE, now, run.dark)
        else:
            self._end(host, State.REFUSED, now, run.why or "its tasks ended without a verdict")

    def _end(self, host: str, outcome: State, now: float, detail: str = "") -> None:
        run = self.runs[host]
        run.outcome = outcome
        run.why = run.why or (detail if outcome is State.REFUSED else "")
        if outcome in (State.RESTORED, State.RESTORE_FAILED, State.LOST) and self.conductor.state(host) is State.CHANGING:
            self.conductor.failing(host, run.why, now)
        self.conductor.ended(host, outcome, now, detail, run.cause)

    def _tick(self, now: float) -> Orders:
        orders = self.conductor.tick(now)
        self._tell_all()
        return orders

    def _tell_all(self) -> None:
        while self.conductor.events:
            event = self.conductor.events.popleft()
            if event.kind != "parked":  # nobody waits before the commit here
                self._tell(event)

    # --- the end ---

    @property
    def wanted(self) -> str:
        """What the rollout wants of the exit code."""
        return wanted(self.conductor, self.runs, self._look_only)

    def speakers(self, hosts: Sequence[str]) -> list[str]:
        """Who speaks for the rollout: who failed, as far as core can reach them, else the first that it can."""
        failed = (State.RESTORED, State.RESTORE_FAILED, State.LOST, State.REFUSED)
        reached = [host for host in hosts if host in self._reached and not self.runs[host].dark]
        return [host for host in reached if self.conductor.state(host) in failed or self.runs[host].kept] or reached[:1]
