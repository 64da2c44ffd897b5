# Copyright: onprem.rollout contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""A simulated fleet that drives the conductor; its invariants are checked after every single step."""

from __future__ import annotations

import heapq
import itertools
from collections import Counter
from dataclasses import dataclass, field

from ansible_collections.onprem.rollout.plugins.plugin_utils._budget import allowed
from ansible_collections.onprem.rollout.plugins.plugin_utils._conductor import Conductor
from ansible_collections.onprem.rollout.plugins.plugin_utils._plan import Plan, RingPlan, waves
from ansible_collections.onprem.rollout.plugins.plugin_utils._policy import Release, Ring
from ansible_collections.onprem.rollout.plugins.plugin_utils._states import IN_CHANGE, OUTCOMES, State, Wave

RELEASE = Release("shop", "2.0", ())


@dataclass
class Fate:
    """How one simulated host behaves: seconds per step, and what goes wrong."""

    change: float = 1.0
    commit: float = 0.1
    restore: float = 1.0
    fault: str = "none"  # none, fails, fails_at_commit, fails_parked, sick, dark_before, lost, restore_fails, ran_already, outage


@dataclass
class Simulation:
    """Drives a conductor as the strategy does, over a heap of things that will happen."""

    plan: Plan
    fates: dict[str, Fate]
    check: bool = True
    now: float = 0.0
    log: list[tuple[float, str, str]] = field(default_factory=list)

    def __post_init__(self) -> None:
        self.conductor = Conductor(self.plan)
        self.heap: list[tuple[float, int, str, str]] = []
        self.ticket = itertools.count()
        self.wave_of = {}
        for number, wave in enumerate(wave for ring in self.plan.rings for wave in ring.waves):
            self.wave_of.update(dict.fromkeys(wave, number))
        self.limit = [ring.ring.concurrency or len(wave) for ring in self.plan.rings for wave in ring.waves]
        self.halted_before_tick = False
        self.busy: set[str] = set()
        self.reverting: set[str] = set()
        self.by_itself: set[str] = set()
        self.ring_of = {host: ring.ring for ring in self.plan.rings for host in ring.hosts}
        self.domains = {host: dict(domains) for host, domains in self.plan.domains.items()}

    def later(self, seconds: float, host: str, what: str) -> None:
        self.busy.add(host)
        heapq.heappush(self.heap, (self.now + seconds, next(self.ticket), host, what))

    def run(self) -> dict[str, State]:
        for _step in range(40 * len(self.fates) + 40 * len(self.limit) + 100):
            self.halted_before_tick = self.conductor.halt is not None
            orders = self.conductor.tick(self.now)
            self.obey(orders)
            self.conductor.events.clear()
            if self.check:
                self.invariants(orders)
            if self.conductor.finished:
                return self.conductor.states()
            if self.heap:
                self.now, _ticket, host, what = heapq.heappop(self.heap)
                if orders.wake_at is not None and orders.wake_at < self.now:
                    heapq.heappush(self.heap, (self.now, _ticket, host, what))
                    self.now = orders.wake_at
                    continue
                self.report(host, what)
            else:
                assert orders.wake_at is not None, "nothing happens any more and the rollout is not finished"
                self.now = orders.wake_at
        raise AssertionError("the rollout does not end")

    def obey(self, orders) -> None:
        self.ordered = [*orders.admit, *orders.commit, *(host for host in orders.revert if host not in self.busy)]
        for host in orders.admit:
            self.log.append((self.now, "admit", host))
            fate = self.fates[host]
            what = {
                "none": "park",
                "fails_at_commit": "park",
                "fails_parked": "park",
                "sick": "refused",
                "dark_before": "unreachable",
                "ran_already": "skipped",
            }.get(fate.fault, "fail")
            self.later(fate.change, host, what)
        for host in orders.commit:
            self.log.append((self.now, "commit", host))
            self.later(self.fates[host].commit, host, "fail" if self.fates[host].fault == "fails_at_commit" else "committed")
        for host in orders.revert:
            self.log.append((self.now, "revert", host))
            if host in self.busy:
                self.reverting.add(host)
            else:
                self.later(self.fates[host].restore, host, self.after_restore(host))

    def after_restore(self, host: str) -> str:
        return {"restore_fails": "restore_failed", "lost": "lost"}.get(self.fates[host].fault, "restored")

    def report(self, host: str, what: str) -> None:
        """A task of the host ended. One that is to be reverted meanwhile turns back only now, as a real host does."""
        if what == "fail_parked":
            if self.conductor.state(host) is State.PARKED:
                self.by_itself.add(host)
                self.conductor.failing(host, "its renewal failed", self.now)
                self.later(self.fates[host].restore, host, self.after_restore(host))
            return
        self.busy.discard(host)
        turn_back = host in self.reverting
        self.reverting.discard(host)
        if what == "park":
            self.conductor.parked(host, self.now)
            if self.fates[host].fault == "fails_parked":
                heapq.heappush(self.heap, (self.now + self.fates[host].change, next(self.ticket), host, "fail_parked"))
        elif what == "fail":
            self.conductor.failing(host, "check web", self.now, outage=self.fates[host].fault == "outage")
            turn_back = True
        else:
            self.conductor.ended(host, State(what), self.now)
            turn_back = False
        if turn_back:
            self.later(self.fates[host].restore, host, self.after_restore(host))

    def invariants(self, orders) -> None:
        states = self.conductor.states()
        busy = [host for host, state in states.items() if state in IN_CHANGE]
        in_change = Counter(self.wave_of[host] for host in busy if host not in self.by_itself)
        for wave, count in in_change.items():
            assert count <= self.limit[wave], f"{count} hosts of wave {wave} in change, {self.limit[wave]} allowed"
        self.domains_have_room(busy, states)
        if orders.admit:
            assert not self.halted_before_tick, "admitted after the halt"
            assert self.conductor.halt is None
            (wave,) = {self.wave_of[host] for host in orders.admit}
            for host, number in self.wave_of.items():
                if number < wave and host not in self.by_itself:
                    assert states[host] in {*OUTCOMES, State.PARKED}, f"{host} of an earlier wave is {states[host]}"
                if number > wave:
                    assert states[host] is State.WAITING
        for ring in self.plan.rings:
            name, unreachable = ring.ring.name, sum(states[host] is State.UNREACHABLE for host in ring.hosts)
            if self.conductor.failures[name] > allowed(ring.ring.max_failures, len(ring.hosts)) or unreachable > allowed(ring.ring.max_unreachable, 0):
                assert self.conductor.halt is not None

    def domains_have_room(self, busy: list[str], states: dict[str, State]) -> None:
        """Of every ring with a rule, and after every order by that rule; and nobody stays away for whom there is room."""
        crowd = Counter(domain for host in busy for domain in self.domains.get(host, {}).items())
        own = Counter((self.ring_of[host].name, domain) for host in busy if host not in self.by_itself for domain in self.domains.get(host, {}).items())
        most = {(ring.ring.name, rule.by): rule.max for ring in self.plan.rings for rule in ring.ring.spread}
        for (ring, (by, value)), count in own.items():
            assert count <= most.get((ring, by), count), f"{count} hosts of {by} {value} of ring {ring} in change"
        for host in self.ordered:
            for rule in self.ring_of[host].spread:
                assert crowd[rule.by, self.domains[host][rule.by]] <= rule.max, f"{host} was let into a full {rule.by}"
        if self.conductor.current and self.conductor.current[2] is Wave.FILLING and self.conductor.halt is None:
            wave = self.conductor.wave_hosts
            if sum(1 for host in busy if host in wave) < self.limit[self.wave_of[wave[0]]]:
                for host in wave:
                    fits = all(crowd[rule.by, self.domains[host][rule.by]] < rule.max for rule in self.ring_of[host].spread)
                    assert states[host] is not State.WAITING or not fits, f"{host} waits although it fits"


def fleet(sizes: dict[str, int], **options) -> Plan:
    """A plan of rings of the given sizes; options hold for every ring."""
    options.setdefault("serial", (1, "50%", "100%"))
    return Plan(
        RELEASE,
        tuple(
            RingPlan(
                Ring(name, f"rollout_{name}", **options),
                waves([f"{name}-{number}" for number in range(size)], options["serial"]),
            )
            for name, size in sizes.items()
            if size
        ),
    )


def simulate(plan: Plan, faults: dict[str, str] | None = None, **kwargs) -> Simulation:
    fates = {host: Fate(fault=(faults or {}).get(host, "none")) for host in plan.hosts}
    simulation = Simulation(plan, fates, **kwargs)
    simulation.run()
    return simulation


def outcomes(simulation: Simulation) -> dict[str, str]:
    return {host: str(state) for host, state in simulation.conductor.states().items()}
