# Copyright: onprem.rollout contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""The driver: between the conductor, which decides, and core, which runs tasks.

Before every scheduling pass core asks L(Driver.hosts_left) which hosts may receive tasks. The driver

1. lets every host read: tasks that only ask a host what it runs, before any host is changed;
2. then tells the conductor what happened since the last pass (parked, failing, ended) and obeys its orders;
3. gives hosts that went dark after their change began another chance to reach their rescue, also those that it gave up, as long as the run goes on;
4. sleeps only when no host has anything to do and the conductor or a dark host waits for the clock.

Nothing that keeps a host safe lives here: a host whose controller dies at any line of this file has its own record.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable

from ansible_collections.onprem.rollout.plugins.plugin_utils import _withheld
from ansible_collections.onprem.rollout.plugins.plugin_utils._asks import Asks
from ansible_collections.onprem.rollout.plugins.plugin_utils._conductor import Conductor
from ansible_collections.onprem.rollout.plugins.plugin_utils._hostrun import HostRun, Report
from ansible_collections.onprem.rollout.plugins.plugin_utils._looks import Looks
from ansible_collections.onprem.rollout.plugins.plugin_utils._orders import Event
from ansible_collections.onprem.rollout.plugins.plugin_utils._outages import Outages
from ansible_collections.onprem.rollout.plugins.plugin_utils._outcome import wanted
from ansible_collections.onprem.rollout.plugins.plugin_utils._proofs import Proofs
from ansible_collections.onprem.rollout.plugins.plugin_utils._reading import Reading
from ansible_collections.onprem.rollout.plugins.plugin_utils._stage import Place, Settings, Stage, WorkerDied
from ansible_collections.onprem.rollout.plugins.plugin_utils._states import OUTCOMES, State


class Driver:
    def __init__(
        self,
        conductor: Conductor,
        stage: Stage,
        digest: str,
        tell: Callable[[Event], None],
        settings: Settings,
        look_only: bool = False,
        clock: Callable[[], float] = time.monotonic,
        sleep: Callable[[float], None] = time.sleep,
        attend: Callable[[], None] | None = None,
    ) -> None:
        self.conductor = conductor
        self.runs = {host: HostRun() for host in conductor.states()}
        self._stage = stage
        self._tell = tell
        self._settings = settings
        self._look_only = look_only
        self._clock = clock
        self._sleep = sleep
        self._attend = attend or (lambda: None)
        self._asks = Asks(stage)
        self._outages = Outages(conductor, self.runs, stage, self._asks, settings, tell)
        self._looks = Looks(conductor, self._asks, settings, tell)
        self._reading = Reading(conductor, self.runs, stage, digest, settings, look_only, tell, clock, self._end)
        self._active: dict[str, None] = {}
        self._given_up: dict[str, float] = {}  # and when they are looked for again
        self._proofs = Proofs()
        self._wave: tuple[str, ...] = ()

    @property
    def asked(self) -> bool:
        """Whether all hosts have been asked what they run."""
        return self._reading.done

    # --- what core asks before every pass ---

    def hosts_left(self) -> list[str]:
        """The hosts that may receive tasks now; none when the rollout is over."""
        while not self._stage.terminated():
            if self._stage.dead_worker():
                raise WorkerDied("a worker process of this controller was killed, or could not be started")
            self._attend()
            if not self._reading.done and self._reading.step():
                reading = self._runnable(self._reading.asking)
                if reading:
                    return reading
                self._await(self._reading.asking, None, self._clock())
                continue
            if self._look_only:
                return []
            now = self._clock()
            for host in list(self._active):
                if not self._stage.busy(host):
                    self._observe(host, now)
            for host in self._outages.attend(now):
                self._let_stand(host, now)
            wake_at = self._obey(now)
            if self._looks.attend(now):
                continue
            self._renew(now)
            self._seek(now)
            runnable = self._runnable([*self._active, *self._asks.busy])
            if runnable or (self.conductor.finished and not self._active):
                return runnable
            self._await(self._active, wake_at, now)
        return []

    def _is_waiting(self, host: str) -> bool:
        return bool(self.runs[host].dark) or self.runs[host].later_until > self._clock() or self._outages.withholds(host)

    def _runnable(self, hosts: Iterable[str]) -> list[str]:
        """All but those that wait for the clock."""
        runnable = [host for host in hosts if self._stage.busy(host) or not self._is_waiting(host)]
        if runnable and all(self._stage.busy(host) for host in runnable):
            self._stage.await_result()
        return runnable

    def _await(self, hosts: Iterable[str], wake_at: float | None, now: float) -> None:
        """Nobody has anything to do until the clock says so. Bounded, so that an abort is seen soon."""
        waiting = [self.runs[host] for host in hosts]
        moments = [run.retry_at if run.dark else run.later_until for run in waiting] + ([] if wake_at is None else [wake_at])
        self._sleep(min([max(moment - now, 0.01) for moment in moments] + [0.25]))

    # --- what happened to hosts in change ---

    def report(self, report: Report) -> None:
        """A task ended; core calls this before the next pass."""
        run = self.runs.get(report.host)
        if run is None:
            return
        if report.asked:
            self._asks.heard(report.host, report.data.get("checks"))
            return
        run.hear(report)
        if report.verb == "retry" and report.kind == "ok" and report.data.get("wait"):
            run.later_until = self._clock() + float(report.data["wait"])
            self._tell(Event("later", self._clock(), report.host, detail=str(report.data["wait"])))
        if report.data.get("settled"):
            self._tell(Event("settled", self._clock(), report.host, detail=str(report.data["settled"])))

    def _observe(self, host: str, now: float) -> None:
        run = self.runs[host]
        if run.dark:
            self._look_for(host, run, now)
            return
        place = self._stage.place(host)
        if run.turn_back and run.outcome is None:
            run.turn_back = False
            if place is Place.RESCUE:  # it failed by itself in the meantime
                run.restoring = True
            elif run.begun:
                self._turn_back(host, run)
            else:
                run.why = ""
                self._end(host, State.HELD, now)
        elif place is Place.OVER:
            self._over(host, run, now)
        elif place is Place.COMMIT and run.outcome is None and self.conductor.state(host) is State.RESTORING:
            self._turn_back(host, run)
        elif place is Place.RESCUE and not run.begun and run.sick:
            self._outages.explain(host, now)
        elif place is Place.RESCUE and run.begun and run.outcome is None and not run.restoring:
            if self._outages.explain(host, now):
                return
            run.restoring = True
            run.why = run.why or "it failed"
            if self.conductor.state(host) is State.PARKED:
                run.why = f"while it was parked, {run.why}"
            self.conductor.failing(host, run.why, now, run.outage)
        elif place is Place.COMMIT and run.doubted and run.outcome is None:
            if run.later_until <= now:
                self._stage.prove_again(host)
        elif place is Place.COMMIT and run.idle and run.outcome is None:
            run.idle, run.why = False, _withheld.IDLE
            self._fail(host, run, now)
            self._turn_back(host, run)
        elif place is Place.COMMIT and self.conductor.state(host) is State.CHANGING and run.outcome is None:
            del self._active[host]
            self._proofs.proven(host, now)
            self.conductor.parked(host, now)
        elif place is Place.COMMIT and self.conductor.state(host) is State.PARKED:
            del self._active[host]
            self._proofs.proven(host, now)

    def _renew(self, now: float) -> None:
        """Parked hosts prove themselves again: before their leases end, and while they soak as often as their ring says."""
        interval = min(self._settings.renew_interval, self.conductor.soak_interval)
        while (host := self._proofs.due(now, interval)) is not None:
            if self.conductor.state(host) is State.PARKED:
                if not self._stage.prove_again(host):
                    return
                self._active[host] = None
            self._proofs.forget(host)

    def _over(self, host: str, run: HostRun, now: float) -> None:
        """The host has no task left: by its outcome, or cut short by an end_host or end_play before it had one."""
        if run.outcome is None and run.begun and not run.restoring:
            run.why = run.why or "the payload ended the play before the host was proven healthy"
            self._fail(host, run, now)
            self._turn_back(host, run, blameless=False)
        elif run.outcome is None:
            run.why = run.why or "its tasks ended without a verdict"
            self._end(host, State.LOST if run.begun else State.REFUSED, now, run.why)
        else:
            self._end(host, run.outcome, now, "" if run.outcome is State.COMMITTED else run.why)

    def _look_for(self, host: str, run: HostRun, now: float) -> None:
        """A host went dark: wait for it, then send it where its rescue begins."""
        if host in self._given_up:
            self._miss(host, run)
        elif (run.outcome is not None and not run.drained) or not run.begun:
            self._end(host, run.outcome or State.UNREACHABLE, now, run.why or run.dark)
        elif not run.give_up_at:
            run.why = (run.restoring and run.why) or run.dark  # its own trouble, also when its wave is to be reverted
            run.give_up_at = now + self._settings.reconnect_timeout
            run.retry_at = now + self._settings.reconnect_interval
            self._fail(host, run, now)
            if run.cause:
                self.conductor.went_dark(host, now)
        elif now >= run.give_up_at:
            run.why = f"{run.why}; did not come back within {self._settings.reconnect_timeout:g} s"
            if run.outcome is None:
                self._given_up[host] = now + self._settings.seek_interval
            self._end(host, run.outcome or State.LOST, now, run.why)
        elif now >= run.retry_at:
            run.retry_at = now + self._settings.reconnect_interval
            self._try_again(host, run)

    def _try_again(self, host: str, run: HostRun) -> None:
        """Let the host, if it can be reached, do what it is to do next on its way back."""
        run.dark = ""
        if run.turn_back or not run.restoring:
            run.turn_back = False
            self._turn_back(host, run)
        else:
            self._stage.again(host)

    def _seek(self, now: float) -> None:
        """Look again for those that were given up, one at a time. The run does not stay for them."""
        if self.conductor.finished or any(host in self._active for host in self._given_up):
            return
        host = next((host for host, due in self._given_up.items() if due <= now), None)
        if host is not None:
            self._given_up[host] = now + self._settings.seek_interval
            self._active[host] = None
            run = self.runs[host]
            run.outcome = None if run.outcome is State.LOST else run.outcome  # or all that is left to do is its rejoin
            self._try_again(host, run)

    def _miss(self, host: str, run: HostRun) -> None:
        """It was looked for again, and is still dark."""
        run.outcome = run.outcome or State.LOST
        del self._active[host]
        self._stage.withdraw(host)

    def _fail(self, host: str, run: HostRun, now: float) -> None:
        if self.conductor.state(host) not in (State.RESTORING, State.LOST):
            self.conductor.failing(host, run.why, now)

    def _turn_back(self, host: str, run: HostRun, blameless: bool = True) -> bool:
        """Into its rescue; and its place there is looked at at once, so that a second try starts there.

        blameless: this says nothing against the release: a wave that is reverted, an outage, an error of the run itself.
        """
        run.restoring = True
        run.later_until = 0.0
        turned = self._stage.turn_back(host, run.why, blameless)
        self._stage.place(host)
        return turned

    def _end(self, host: str, outcome: State, now: float, detail: str = "") -> None:
        run = self.runs[host]
        if outcome is State.LOST and self.conductor.state(host) is State.LOST:
            self._miss(host, run)
            return
        run.outcome = outcome
        run.why = run.why or (detail if outcome is State.REFUSED else "")
        if outcome is not State.LOST and host in self._given_up:
            del self._given_up[host]
            run.why += ", but later"
        self._active.pop(host, None)
        self._stage.withdraw(host)
        if outcome in (State.RESTORED, State.RESTORE_FAILED, State.LOST) and self.conductor.state(host) is not State.WAITING:
            self._fail(host, run, now)
        self.conductor.ended(host, outcome, now, detail, run.cause)

    def _let_stand(self, host: str, now: float) -> None:
        """It stays on the release, uncommitted, and nobody says whether that is any good."""
        del self._active[host]
        self._stage.withdraw(host)
        self.conductor.ended(host, State.HELD, now, self.runs[host].why)

    # --- what the conductor wants ---

    def _obey(self, now: float) -> float | None:
        orders = self.conductor.tick(now)
        for host in orders.admit:
            self._active[host] = None
        for host in orders.commit:
            self._active[host] = None
        for host in orders.revert:
            run = self.runs[host]
            run.why = run.why or "its wave is reverted"
            run.reverted = run.turn_back = True
            self._active[host] = None
            if not self._stage.busy(host):
                self._observe(host, now)
        if self.conductor.wave_hosts is not self._wave and not self.conductor.finished:
            self._wave = self.conductor.wave_hosts
            self._stage.restrict(self._wave)
        while self.conductor.events:
            self._tell(self.conductor.events.popleft())
        return orders.wake_at

    def abort(self, why: str) -> None:
        """The run failed in the middle of a pass: send everybody who is not committed back."""
        now = self._clock()
        self._reading.give_up()
        self._outages.give_up()
        self._looks.give_up()
        for host in [host for host in self._given_up if host in self._active]:
            self._miss(host, self.runs[host])
        for host, state in self.conductor.states().items():
            run = self.runs[host]
            if state in (State.CHANGING, State.COMMITTING, State.RESTORING) and run.outcome is None:
                run.why = run.why or why
                run.dark = ""
                self._active[host] = None
                if run.restoring:
                    self._stage.again(host)  # a turn would take it past its restore
                elif self._turn_back(host, run):
                    run.reverted = run.reverted or not run.begun
                    run.begun = True  # or its begin was cut off, and only the host knows
                elif not run.begun:
                    run.why = ""
                    self._end(host, State.HELD, now)
        self.conductor.abort(why, now)

    # --- the end ---

    @property
    def wanted(self) -> str:
        """What the rollout wants of the exit code."""
        return wanted(self.conductor, self.runs, self._look_only)

    def withdraw_rest(self) -> None:
        """Hosts that were never started, and parked ones that stay as they are, end here without a failure."""
        for host, state in self.conductor.states().items():
            if state in OUTCOMES or state is State.WAITING:
                self._stage.withdraw(host)
