# Copyright: onprem.rollout contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""The first part of a run: every host is asked what it runs, and what is half done is settled, before any host is changed."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Mapping

from ansible_collections.onprem.rollout.plugins.plugin_utils import _floors
from ansible_collections.onprem.rollout.plugins.plugin_utils._conductor import Conductor
from ansible_collections.onprem.rollout.plugins.plugin_utils._hostrun import HostRun, drilled, failed_before, in_progress
from ansible_collections.onprem.rollout.plugins.plugin_utils._orders import Event
from ansible_collections.onprem.rollout.plugins.plugin_utils._settling import Settling
from ansible_collections.onprem.rollout.plugins.plugin_utils._stage import Place, Settings, Stage
from ansible_collections.onprem.rollout.plugins.plugin_utils._states import State


class Reading:
    """asking: the hosts that may receive tasks; done: all have been asked. end(host, outcome, now, detail) is for those that take no part."""

    def __init__(
        self,
        conductor: Conductor,
        runs: Mapping[str, HostRun],
        stage: Stage,
        digest: str,
        settings: Settings,
        look_only: bool,
        tell: Callable[[Event], None],
        clock: Callable[[], float],
        end: Callable[[str, State, float, str], None],
    ) -> None:
        self.asking: dict[str, None] = {}
        self.done = False
        self._conductor = conductor
        self._runs = runs
        self._stage = stage
        self._digest = digest
        self._settings = settings
        self._look_only = look_only
        self._tell = tell
        self._clock = clock
        self._end = end
        self._to_ask = deque(runs)
        self._half_done: list[str] = []
        self._settling = Settling(conductor.plan)

    def give_up(self) -> None:
        """The run failed: nobody is asked any more."""
        self._to_ask.clear()
        self._half_done.clear()
        self.asking.clear()
        self.done = True

    def step(self) -> bool:
        """Let the hosts read, as many at a time as core has workers. True while some of them still do."""
        for host in list(self.asking):
            if not self._stage.busy(host) and not self._still_reads(host) and not self._comes_back(host):
                del self.asking[host]
                self._read(host)
        while self._to_ask and len(self.asking) < max(self._stage.width, 1):
            host = self._to_ask.popleft()
            if self._still_reads(host):
                self.asking[host] = None
            else:
                self._read(host)
        if not self.asking or all(self._runs[host].settling for host in self.asking):
            self._settle()
        self.done = not self.asking
        if self.done and any(run.unfit and run.outcome is State.REFUSED for run in self._runs.values()) and not self._look_only:
            self._conductor.unfit(self._clock())
        if self.done:
            self._require_drills()
            self._tell(Event("asked", self._clock()))
        return not self.done

    def _require_drills(self) -> None:
        """Before any host is touched: rings that want the release rehearsed are refused as a whole if it was not."""
        passed = False
        for ring in self._conductor.plan.rings:
            passed = passed or any(drilled(self._runs[host].record, self._digest) for host in ring.hosts)
            if ring.ring.require_drill and not passed:
                why = (
                    f"ring {ring.ring.name} requires a drill of this release, and no host of it or of a ring before it has passed one: run onprem.rollout.drill"
                )
                for host in ring.hosts:
                    if self._conductor.state(host) is State.WAITING:
                        self._end(host, State.REFUSED, self._clock(), why)

    def _read(self, host: str) -> None:
        run = self._runs[host]
        if run.half_done and not (run.settling or run.dark or run.why):
            self._half_done.append(host)
        else:
            self._learn(host)

    def _settle(self) -> None:
        """Let hosts that are half done be settled, after all were asked and as many at once as may be in change."""
        for host in list(self._half_done):
            if self._settling.may_join(host, self.asking):
                self._half_done.remove(host)
                self._runs[host].settling = True
                self.asking[host] = None

    def _still_reads(self, host: str) -> bool:
        """A host that is settled does that, and rejoins, before its turn comes."""
        run = self._runs[host]
        if run.dark:
            return False
        place = self._stage.place(host)
        return place is Place.READING or (run.settling and place is Place.WORKING)

    def _comes_back(self, host: str) -> bool:
        """A host that gives no answer while it is settled has as long to come back as one in change."""
        run, now = self._runs[host], self._clock()
        if not (run.dark and run.settling):
            return False
        if not run.give_up_at:
            run.give_up_at = now + self._settings.reconnect_timeout
            run.retry_at = now + self._settings.reconnect_interval
        elif now >= run.give_up_at:
            run.why = f"{run.dark}; did not come back within {self._settings.reconnect_timeout:g} s"
            return False
        elif now >= run.retry_at:
            run.dark = ""
            run.retry_at = now + self._settings.reconnect_interval
            self._stage.again(host)
        return True

    def _learn(self, host: str) -> None:
        """What the host said decides whether it takes part."""
        run, now = self._runs[host], self._clock()
        run.give_up_at = 0.0
        run.stranded = run.settling and run.drained and not (run.why or run.dark)
        if self._conductor.state(host) is State.HELD:
            self._keep_out(host, run)
        elif run.dark and run.settling:
            self._end(host, State.LOST, now, run.why)
        elif run.dark:
            self._end(host, State.UNREACHABLE, now, run.dark)
        elif run.kept:
            self._end(host, State.REFUSED, now, f"an operator must decide: {run.kept}")
        elif run.why and run.settling:  # or what was left to do was the rejoin alone
            failed = not run.put_back and in_progress(run.record)
            self._end(host, State.RESTORE_FAILED if failed else State.REFUSED, now, run.why)
        elif (run.record.get("transaction") or {}).get("phase") == "inconsistent":
            self._end(host, State.REFUSED, now, "it is inconsistent: nobody touches it until an operator says so")
        elif run.why or (not run.heard and self._stage.place(host) is Place.OVER):
            self._end(host, State.REFUSED, now, run.why or "it failed in an earlier play")
        elif (run.record.get("installed") or {}).get("digest") == self._digest and not in_progress(run.record):
            self._end(host, State.SKIPPED, now, "")
        elif below := self._below_floor(host, run):
            self._end(host, State.REFUSED, now, below)
        elif host not in self._settings.retry_failed and failed_before(run.record, self._digest):
            run.blamed = True
            self._end(host, State.REFUSED, now, failed_before(run.record, self._digest))
        elif run.unfit:
            self._end(host, State.REFUSED, now, run.unfit)

    def _below_floor(self, host: str, run: HostRun) -> str:
        """Why the host may not run this release; nothing when it may, or when a waiver lets it, of which it is told."""
        why = _floors.below(run.record, self._settings.release)
        if not why:
            return ""
        waiver, used = _floors.waiver_of(run.record, host, self._settings.waivers)
        if waiver is None:
            return _floors.refusal(f"{why}; {used}" if used else why, self._settings.waivers)
        self._tell(Event("waived", self._clock(), host, detail=f"{waiver['id']} of {waiver['by']}, until {waiver['expires']}: {waiver['why']}; {why}"))
        return ""

    def _keep_out(self, host: str, run: HostRun) -> None:
        """The customer holds the host: what is half done was settled, but it takes no part, and no trouble of it is the rollout's."""
        run.unsettled = (run.why or run.dark) if run.half_done else ""
        if not self._look_only:
            self._stage.leave_out(host)
