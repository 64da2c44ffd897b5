# Copyright: onprem.rollout contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""The conductor: a state machine over the plan that decides which host may do what, and when.

Pure: no Ansible, no disk, no clock. Whoever drives it reports what happened to hosts and asks what to do next:

    conductor = Conductor(plan)
    while not conductor.finished:
        orders = conductor.tick(now)
        ... admit, commit or revert the hosts named in orders ...
        ... call parked(), failing() and ended() as the hosts report ...

now is any clock in seconds that never runs backwards. Every host named in an order is named in it once.

What always holds, whatever the driver reports:

1. never more than L(Ring.concurrency) hosts of a wave are in change (changing, committing or restoring);
2. no host of a wave is admitted before the wave before it is judged;
3. when a budget (L(_budget.Budget)) is exceeded, a restore failed, a host was lost while it was settled, or while it is paused or in doubt, nothing new is
   admitted;
4. every host ends in exactly one outcome, and no host leaves it, but a lost one that came back;
5. when every admitted host reports an end, the rollout finishes;
6. never more than L(Spread.max) hosts of a failure domain are in change, those of all waves and rings counted.

A parked host that fails by itself goes back at once, whatever 1 and 6 say; it counts, and nobody joins it who would not fit.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Mapping

from ansible_collections.onprem.rollout.plugins.plugin_utils._budget import Budget
from ansible_collections.onprem.rollout.plugins.plugin_utils._causes import Cause
from ansible_collections.onprem.rollout.plugins.plugin_utils._halting import on_halt
from ansible_collections.onprem.rollout.plugins.plugin_utils._orders import Event, Orders
from ansible_collections.onprem.rollout.plugins.plugin_utils._plan import Plan, RingPlan
from ansible_collections.onprem.rollout.plugins.plugin_utils._spread import Crowd, Line
from ansible_collections.onprem.rollout.plugins.plugin_utils._states import IN_CHANGE, OUTCOMES, PROVES, TRANSITIONS, Halt, State, Wave
from ansible_collections.onprem.rollout.plugins.plugin_utils._waverun import WaveRun, set_release_points


class Conductor:
    def __init__(self, plan: Plan) -> None:
        self.plan = plan
        self.events: deque[Event] = deque()
        self.halt: Halt | None = None
        self.paused = self.doubt = self.look = ""
        self.gated: frozenset[str] = frozenset()
        self.announces = False
        self.finished = False
        self.exceeded = ""
        self._budget = Budget(plan)
        self._states: dict[str, State] = {}
        self._wave_of: dict[str, WaveRun] = {}
        self._waves: list[WaveRun] = []
        self._open: deque[WaveRun] = deque()
        self._in_change = 0
        self._crowd = Crowd(plan.domains)
        self._index = 0
        self._wave_state = Wave.PENDING
        self._soak_until = 0.0
        self.owed: dict[str, float] = {}  # by ring: until when a soak goes on that an earlier run did not bring to its end
        self._halt_ring: RingPlan | None = None
        self.kept = False
        self._opened: WaveRun | None = None
        self._looked = (-1, "")
        self._progress = 0.0
        for ring in plan.rings:
            for number, hosts in enumerate(ring.waves, 1):
                run = WaveRun(hosts, ring, number, self._crowd)
                self._waves.append(run)
                for host in hosts:
                    self._states[host] = State.WAITING
                    self._wave_of[host] = run
        set_release_points(self._waves)
        for host in plan.held:
            self._states[host] = State.HELD

    # --- what the driver may ask ---

    @property
    def failures(self) -> Mapping[str, int]:
        """How many hosts failed, by ring."""
        return self._budget.failures

    def state(self, host: str) -> State:
        return self._states[host]

    def states(self) -> dict[str, State]:
        return dict(self._states)

    @property
    def current(self) -> tuple[str, int, Wave] | None:
        """Ring, wave number from 1 on and state of the wave at work."""
        if self.finished or self._index >= len(self._waves):
            return None
        run = self._waves[self._index]
        return run.plan.ring.name, run.number, self._wave_state

    @property
    def at_gate(self) -> bool:
        """Whether the wave at work waits for its gates."""
        if self.finished or self.halt is not None or self._wave_state is not Wave.PENDING or self._index >= len(self._waves):
            return False
        run = self._waves[self._index]
        return run.plan.ring.name in self.gated and run is not self._opened and self._is_awaited(run)

    @property
    def stands_still(self) -> bool:
        """Whether nothing goes on: nobody is in change, and no wave soaks."""
        return not self._in_change and self._wave_state is not Wave.SOAKING

    @property
    def soak_interval(self) -> float:
        """Seconds after which hosts that soak now are checked again; infinite when none does."""
        soaks = not self.finished and self._wave_state is Wave.SOAKING
        return (soaks and self._waves[self._index].plan.ring.soak_interval) or float("inf")

    @property
    def wave_hosts(self) -> tuple[str, ...]:
        return self._waves[self._index].hosts if self._index < len(self._waves) else ()

    # --- what the driver reports ---

    def parked(self, host: str, now: float) -> None:
        """The host is upgraded and healthy, and stands before its commit. Late news of a reverted host is no news."""
        if self._states[host] is not State.RESTORING:
            self._move(host, State.PARKED, now)

    def failing(self, host: str, why: str, now: float, outage: bool = False) -> None:
        """The host entered its rescue, or went dark after its change began: it counts as failed from here on.

        outage: it goes back because what it needed could not be had. That says nothing about the release, and stops the rollout.
        """
        run = self._wave_of[host]
        if self._states[host] is not State.RESTORING:
            self._move(host, State.RESTORING, now, why)
            if outage:
                self._stop(Halt.OUTAGE, run, now)
            else:
                self._count(Halt.FAILURES, self._budget.failed(run.plan, run.number), run, now)

    def went_dark(self, host: str, now: float) -> None:
        """The host could not be reached although its change has begun: to be said once, after L(failing)."""
        run = self._wave_of[host]
        self._count(Halt.DARK, self._budget.unreachable(run.plan, Cause.AFTER), run, now)

    def ended(self, host: str, outcome: State, now: float, detail: str = "", cause: Cause | None = None) -> None:
        """The host is done with this rollout. cause: if it could not be reached."""
        if outcome not in OUTCOMES:
            raise ValueError(f"{outcome} is not an outcome; one of {', '.join(map(str, OUTCOMES))}")
        before_its_turn = self._states[host] is State.WAITING
        self._move(host, outcome, now, detail)
        run = self._wave_of[host]
        if outcome is State.UNREACHABLE:
            self._count(Halt.UNREACHABLE, self._budget.unreachable(run.plan, cause or Cause.BEFORE), run, now)
        if outcome is State.LOST and before_its_turn:
            self._stop(Halt.LOST, run, now)
        if outcome is State.RESTORE_FAILED:
            self._stop(Halt.RESTORE_FAILED, run, now)

    def unfit(self, now: float) -> None:
        """Hosts that are to take part cannot even keep a snapshot: nobody is admitted."""
        self._stop_here(Halt.UNFIT, now)

    def abort(self, why: str, now: float) -> None:
        """The run itself failed: nobody new is admitted, and every host that is not committed goes back."""
        if self._index < len(self._waves):
            self._stop_here(Halt.ABORTED, now)
        for host in [host for host, state in self._states.items() if state in (State.CHANGING, State.COMMITTING)]:
            self.failing(host, why, now)

    def stop(self, keep: bool, now: float, why: Halt = Halt.STOPPED) -> None:
        """An operator, or another version, ends the rollout: hosts that are not committed go back, or, if they are kept, the healthy ones commit."""
        self.kept = keep
        self.promote(now)
        self._stop_here(why, now)

    def give_way(self, now: float) -> None:
        """Nothing can go on for now: this run ends, what is healthy commits, and the next run goes on."""
        self._stop_here(Halt.WAITING, now)

    def outlasted(self, halt: Halt, why: str, now: float) -> None:
        """An outage, or a fleet that is not healthy, took too long. That is no verdict on the release, so whoever is not committed stays as it is."""
        self.exceeded = self.exceeded or why
        self._stop_here(halt, now)

    def looked(self) -> None:
        """The fleet is healthy: what waited for the L(look) may go on."""
        self._looked, self.look = (self._index, self.look), ""

    def open_gate(self) -> None:
        """The wave at work may begin. A ring in L(gated) keeps every wave, of which somebody waits, until this is called."""
        self._opened = self._waves[self._index]

    def refuse(self, now: float) -> None:
        """A gate says that the rollout may not go on."""
        self._stop_here(Halt.GATE, now)

    def promote(self, now: float) -> None:
        """The soak at work is over. Every host is still checked once more before its commit."""
        self._soak_until = min(self._soak_until, now)

    def _count(self, why: Halt, exceeded: str, run: WaveRun, now: float) -> None:
        if exceeded:
            self.exceeded = self.exceeded or exceeded
            self._stop(why, run, now)

    def _stop_here(self, why: Halt, now: float) -> None:
        if self._waves:  # or every host is held
            self._stop(why, self._waves[min(self._index, len(self._waves) - 1)], now)

    def _stop(self, why: Halt, run: WaveRun, now: float) -> None:
        if self.halt is None or why is Halt.ABORTED or (self.halt in (Halt.OUTAGE, Halt.UNREACHABLE, Halt.WAITING) and why not in (self.halt, Halt.WAITING)):
            self.halt = why
            self._halt_ring = run.plan
            self._tell("halted", now, run=run, detail=why.value)

    # --- what to do next ---

    def tick(self, now: float) -> Orders:
        """Decide. Call it after every report, and at wake_at."""
        orders = Orders()
        while not self.finished and self._step(orders, now):
            pass
        if not self.finished and self._in_change and self.halt is None:
            self._watch_progress(self._waves[self._index], orders, now)
        return orders

    def _watch_progress(self, run: WaveRun, orders: Orders, now: float) -> None:
        """Hosts in change that get nowhere for too long are no reason to wait for them. While nobody is, a gate or a person is awaited; in doubt, an answer."""
        deadline = run.plan.ring.progress_deadline
        if self.doubt:
            self._progress = now
        if deadline and now - self._progress > deadline:
            self._stop(Halt.STALLED, run, now)
        elif deadline:
            orders.wake_at = min(orders.wake_at or float("inf"), self._progress + deadline + 0.1)

    def _step(self, orders: Orders, now: float) -> bool:
        """Make at most one transition of the wave at work; True if there may be more to do."""
        if self._index >= len(self._waves):
            return self._finish(now)
        run = self._waves[self._index]
        if self.halt is not None and self._on_halt != "restore_host":
            return self._wind_down(run, orders, now)
        step = {
            Wave.PENDING: self._begin_wave,
            Wave.FILLING: self._fill,
            Wave.SOAKING: self._soak,
            Wave.COMMITTING: self._commit,
            Wave.JUDGED: self._judge,
        }[self._wave_state]
        return step(run, orders, now)

    @property
    def _on_halt(self) -> str:
        return on_halt(self.halt, self.kept, self._halt_ring)

    def _begin_wave(self, run: WaveRun, orders: Orders, now: float) -> bool:
        if self.at_gate or (self._is_awaited(run) and self._must_look("before")):
            return False
        self._open.append(run)
        self._enter(Wave.FILLING, run, now)
        if not self.announces or not run.waiting or self.halt is not None:
            return True
        orders.wake_at = now  # whoever is told of the wave may still pause it before its first host
        return False

    def _must_look(self, when: str) -> bool:
        """Whether the fleet is to be looked at, before or after the wave at work; L(look) says so until L(looked), but not before a wave that is held."""
        due = self.plan.max_unhealthy is not None and self._looked != (self._index, when)
        self.look = when if due and not (self.paused and when == "before") else ""
        return due

    def _is_awaited(self, run: WaveRun) -> bool:
        return any(self._states[host] is State.WAITING for host in run.hosts)

    def _fill(self, run: WaveRun, orders: Orders, now: float) -> bool:
        if run.plan.ring.commit == "host":
            self._order_commits(run, orders, now)
        self._admit(run, orders, now)
        if run.in_change or (run.waiting and self.halt is None):
            return False
        if not run.good:
            healthy = self.halt is not None and any(wave.parked for wave in self._open)
            return self._enter(Wave.COMMITTING if healthy else Wave.JUDGED, run, now)
        ring, new = run.plan.ring, any(self._states[host] is not State.SKIPPED for host in run.hosts)
        soak = ring.soak if new else max(0.0, min(ring.soak, self.owed.pop(ring.name, now) - now))
        soak = 0 if self.halt in (Halt.STOPPED, Halt.WAITING) else soak
        self._soak_until = now + soak
        if soak:
            self._tell("soak", now, run=run, detail=str(soak))
        return self._enter(Wave.SOAKING, run, now)

    def _admit(self, run: WaveRun, orders: Orders, now: float) -> None:
        while self.halt is None and not self.paused and not self.doubt and (host := self._next(run, run.waiting)):
            self._move(host, State.CHANGING, now)
            orders.admit.append(host)

    def _next(self, run: WaveRun, line: Line) -> str | None:
        """Who may go in change now, if anybody: the first in line whose failure domains have room."""
        return line.first() if run.free_slots else None

    def _soak(self, run: WaveRun, orders: Orders, now: float) -> bool:
        if now < self._soak_until:
            orders.wake_at = self._soak_until
            return False
        return self._enter(Wave.COMMITTING, run, now)

    def _commit(self, run: WaveRun, orders: Orders, now: float) -> bool:
        """Commit what is due, one wave after the other, the oldest first."""
        while self._open and (self.halt is not None or self._open[0].release_at <= self._index):
            self._order_commits(self._open[0], orders, now)
            if self._open[0].in_change or self._open[0].parked:
                return False
            self._open.popleft()
        return self._enter(Wave.JUDGED, run, now)

    def _order_commits(self, run: WaveRun, orders: Orders, now: float) -> None:
        while not self.doubt and (host := self._next(run, run.parked)):
            self._move(host, State.COMMITTING, now)
            orders.commit.append(host)

    def _judge(self, run: WaveRun, orders: Orders, now: float) -> bool:
        if self.halt is not None:
            return self._finish(now)
        if not run.good:
            self._stop(Halt.UNPROVEN, run, now)
            return True
        if self._looked == (self._index, "before") and self._must_look("after"):
            return False
        self._index += 1
        self._wave_state = Wave.PENDING
        return True

    def _wind_down(self, run: WaveRun, orders: Orders, now: float) -> bool:
        """After a halt: revert what is uncommitted, the newest wave first, or let it stand, as the ring says."""
        while self._on_halt == "restore_wave" and self._open:
            newest = self._open[-1]
            self._order_reverts(newest, orders, now)
            if newest.in_change or newest.parked:
                return False
            self._open.pop()
        return False if self._in_change else self._finish(now)

    def _order_reverts(self, run: WaveRun, orders: Orders, now: float) -> None:
        if not run.reverted:
            run.reverted = True
            for host in run.hosts:
                if self._states[host] is State.CHANGING:
                    self._revert(host, orders, now)
        while parked := self._next(run, run.parked):
            self._revert(parked, orders, now)

    def _revert(self, host: str, orders: Orders, now: float) -> None:
        self._move(host, State.RESTORING, now, "its wave is reverted")
        orders.revert.append(host)

    def _finish(self, now: float) -> bool:
        for host, state in list(self._states.items()):
            if state in (State.WAITING, State.PARKED):
                self._move(host, State.HELD, now)
        self.finished = True
        self._tell("finished", now)
        return False

    # --- the one writer of states ---

    def _move(self, host: str, to: State, now: float, detail: str = "") -> None:
        state = self._states[host]
        if to not in TRANSITIONS.get(state, ()):
            raise ValueError(f"{host} is {state}: it cannot become {to}")
        run = self._wave_of[host]
        self._states[host] = to
        self._progress = now
        change = (to in IN_CHANGE) - (state in IN_CHANGE)
        run.in_change += change
        self._in_change += change
        self._crowd.count(host, change)
        run.good += (to in PROVES) - (state in PROVES)
        if to is State.PARKED:
            run.parked.join(host)
        elif state in (State.WAITING, State.PARKED):
            (run.waiting if state is State.WAITING else run.parked).leave(host)
        kind = {State.CHANGING: "admitted", State.PARKED: "parked", State.COMMITTING: "committing", State.RESTORING: "failing"}
        self._tell(kind.get(to, "ended"), now, host, to, run, detail)

    def _enter(self, state: Wave, run: WaveRun, now: float) -> bool:
        self._wave_state = state
        self._tell("wave", now, run=run, detail=state.value)
        return True

    def _tell(self, kind: str, now: float, host: str = "", state: State | None = None, run: WaveRun | None = None, detail: str = "") -> None:
        ring, number = (run.plan.ring.name, run.number) if run else ("", 0)
        self.events.append(Event(kind, now, host, state, ring, number, detail))
