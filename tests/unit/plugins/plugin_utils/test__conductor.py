# Copyright: onprem.rollout contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""The conductor driven by a simulated fleet: its invariants are checked after every single step."""

from __future__ import annotations

import sys
import time
from collections import Counter
from dataclasses import replace
from random import Random

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from ansible_collections.onprem.rollout.plugins.plugin_utils._conductor import Conductor
from ansible_collections.onprem.rollout.plugins.plugin_utils._plan import Plan, RingPlan, waves
from ansible_collections.onprem.rollout.plugins.plugin_utils._policy import Ring, Spread
from ansible_collections.onprem.rollout.plugins.plugin_utils._states import OUTCOMES, TRANSITIONS, Halt, State
from ansible_collections.onprem.rollout.tests.unit.plugins.plugin_utils.simulation import RELEASE, Fate, Simulation, fleet, outcomes, simulate

CASES = [
    ("good release", {}, {}, {"committed": 8}, None),
    ("canary fails", {}, {"early-0": "fails"}, {"restored": 1, "held": 7}, Halt.FAILURES),
    ("second wave fails: the parked host of its wave goes back too", {}, {"standard-1": "fails"},
     {"committed": 3, "restored": 2, "held": 3}, Halt.FAILURES),
    ("budget of one", {"max_failures": 1}, {"standard-1": "fails"}, {"committed": 7, "restored": 1}, None),
    ("half of a wave of one host is nobody", {"max_failures": 9, "max_wave_failures": "50%", "serial": (1,)}, {"standard-1": "fails"},
     {"committed": 3, "restored": 1, "held": 4}, Halt.FAILURES),
    ("a percentage of a small ring is rounded down to nobody", {"max_failures": "49%", "serial": ("100%",)}, {"early-1": "fails"},
     {"restored": 2, "held": 6}, Halt.FAILURES),
    ("as many as the limit are not more", {"max_failures": "50%", "serial": ("100%",)}, {"early-1": "fails"}, {"committed": 7, "restored": 1}, None),
    ("who is refused, dark before or there already is no failure, and one of the hosts of the percentage", {"max_failures": "25%", "serial": ("100%",)},
     {"standard-0": "sick", "standard-1": "dark_before", "standard-2": "ran_already", "standard-3": "fails"},
     {"committed": 4, "refused": 1, "unreachable": 1, "skipped": 1, "restored": 1}, None),
    ("a budget does not cover a restore that failed", {"max_failures": 9}, {"standard-0": "restore_fails"},
     {"committed": 2, "restore_failed": 1, "held": 5}, Halt.RESTORE_FAILED),
    ("sick host in a wave with others", {"serial": ("100%",)}, {"early-0": "sick"}, {"committed": 7, "refused": 1}, None),
    ("a refused canary proves nothing", {}, {"early-0": "sick"}, {"refused": 1, "held": 7}, Halt.UNPROVEN),
    ("dark before the change", {"serial": ("100%",)}, {"standard-3": "dark_before"}, {"committed": 7, "unreachable": 1}, None),
    ("lost in change", {}, {"early-1": "lost"}, {"committed": 1, "lost": 1, "held": 6}, Halt.FAILURES),
    ("ran it already", {}, dict.fromkeys(["early-0", "early-1"], "ran_already"), {"committed": 6, "skipped": 2}, None),
    ("a canary that fails its second look proves nothing", {"max_failures": 1}, {"early-0": "fails_at_commit"},
     {"restored": 1, "held": 7}, Halt.UNPROVEN),
    ("ring scope reverts earlier waves", {"commit": "ring"}, {"standard-3": "fails"},
     {"committed": 2, "restored": 4, "held": 2}, Halt.FAILURES),
    ("rollout scope reverts everything", {"commit": "rollout"}, {"critical-1": "fails"}, {"restored": 8}, Halt.FAILURES),
    ("host scope keeps what was committed", {"commit": "host", "serial": ("100%",), "concurrency": 1},
     {"standard-2": "fails"}, {"committed": 4, "restored": 1, "held": 3}, Halt.FAILURES),
    ("restore_host commits the healthy of the wave", {"on_failure": "restore_host", "serial": ("100%",)},
     {"standard-1": "fails"}, {"committed": 5, "restored": 1, "held": 2}, Halt.FAILURES),
    ("hold leaves the healthy uncommitted", {"on_failure": "hold", "serial": ("100%",)},
     {"standard-1": "fails"}, {"committed": 2, "restored": 1, "held": 5}, Halt.FAILURES),
    ("an outage commits the healthy of earlier waves", {"commit": "ring"}, {"standard-3": "outage"},
     {"committed": 5, "restored": 1, "held": 2}, Halt.OUTAGE),
    ("an outage commits the healthy of earlier rings", {"commit": "rollout", "serial": ("100%",)}, {"critical-0": "outage", "critical-1": "outage"},
     {"committed": 6, "restored": 2}, Halt.OUTAGE),
    ("restore_host commits the healthy of earlier waves", {"commit": "rollout", "on_failure": "restore_host"}, {"early-1": "fails"},
     {"committed": 1, "restored": 1, "held": 6}, Halt.FAILURES),
]  # fmt: skip


@pytest.mark.parametrize("name, options, faults, expected, halt", CASES, ids=[case[0] for case in CASES])
def test_outcomes(name, options, faults, expected, halt):
    simulation = simulate(fleet({"early": 2, "standard": 4, "critical": 2}, **options), faults)
    assert Counter(outcomes(simulation).values()) == expected
    assert simulation.conductor.halt is halt


def test_soak_is_waited_for_before_the_commit():
    simulation = simulate(fleet({"early": 1}, soak=30.0))
    moments = {what: at for at, what, _host in simulation.log}
    assert moments["commit"] - moments["admit"] == pytest.approx(31.0)


def test_a_wave_that_ran_the_release_already_does_not_soak_again():
    plan = fleet({"early": 1}, soak=30.0)
    assert simulate(plan, {"early-0": "ran_already"}).now < 30


@pytest.mark.parametrize("owed, admitted", [({}, (0, 10)), ({"early": 20.0}, (20, 30)), ({"early": 900.0}, (30, 40)), ({"standard": 900.0}, (0, 10))])
def test_what_an_earlier_run_left_of_a_soak_is_served_before_the_next_ring(owed, admitted):
    """Never more than the ring's soak, whatever the clock of the earlier run said, and once."""
    plan = fleet({"early": 2, "standard": 1}, soak=30.0, commit="host")
    simulation = Simulation(plan, {host: Fate(fault="ran_already" if host.startswith("early") else "none") for host in plan.hosts})
    simulation.conductor.owed = owed
    simulation.run()
    (began,) = [at for at, what, host in simulation.log if (what, host) == ("admit", "standard-0")]
    assert admitted[0] <= began < admitted[1]


@pytest.mark.parametrize("decided", [lambda it: it.give_way(1.0), lambda it: it.stop(False, 1.0), lambda it: it.unfit(1.0), lambda it: it.abort("why", 1.0)])
def test_a_rollout_whose_hosts_are_all_held_ends_whatever_is_decided(decided):
    conductor = Conductor(Plan(RELEASE, (), held={"early-0": "audit"}))
    decided(conductor)
    conductor.tick(1.0)
    assert (conductor.finished, conductor.halt, conductor.states()) == (True, None, {"early-0": State.HELD})


def test_held_hosts_take_no_part():
    plan = Plan(RELEASE, fleet({"early": 2}).rings, {"db1": "audit"})
    simulation = simulate(plan)
    assert simulation.conductor.state("db1") is State.HELD


def test_every_state_can_end_and_outcomes_are_final_but_for_a_lost_host():
    reached = set()
    frontier = {State.WAITING}
    while frontier:
        state = frontier.pop()
        reached.add(state)
        frontier |= TRANSITIONS.get(state, frozenset()) - reached
    assert reached == set(State)
    assert set(TRANSITIONS) & set(OUTCOMES) == {State.LOST}
    assert TRANSITIONS[State.LOST] <= set(OUTCOMES) - {State.LOST}


@pytest.mark.parametrize("before, then", [("waiting", "committed"), ("waiting", "restored"), ("changing", "committed"), ("changing", "restored")])
def test_forbidden_transitions_are_errors(before, then):
    conductor = Conductor(fleet({"early": 1}))
    if before == "changing":
        conductor.tick(0.0)
    with pytest.raises(ValueError, match=f"early-0 is {before}: it cannot become {then}"):
        conductor.ended("early-0", State(then), 1.0)


FAULTS = ["none"] * 12 + [
    "fails", "fails_at_commit", "fails_parked", "sick", "dark_before", "lost", "restore_fails", "ran_already", "outage",
]  # fmt: skip
SECONDS = st.floats(min_value=0.0, max_value=50.0)


@st.composite
def rollouts(draw) -> tuple[Plan, dict[str, Fate]]:
    rings = []
    for index in range(draw(st.integers(1, 3))):
        sizes = st.one_of(st.integers(1, 6), st.integers(1, 100).map(lambda percent: f"{percent}%"))
        serial = tuple(draw(st.lists(sizes, min_size=1, max_size=3)))
        ring = Ring(
            f"ring{index}",
            "all",
            serial,
            concurrency=draw(st.one_of(st.none(), st.integers(1, 5))),
            max_failures=draw(st.one_of(st.integers(0, 3), st.just("30%"))),
            max_wave_failures=draw(st.one_of(st.none(), st.integers(0, 2))),
            max_unreachable=draw(st.one_of(st.none(), st.integers(0, 2))),
            soak=draw(st.sampled_from([0.0, 0.0, 5.0, 60.0])),
            commit=draw(st.sampled_from(["host", "wave", "ring", "rollout"])),
            on_failure=draw(st.sampled_from(["restore_wave", "restore_host", "hold"])),
            spread=tuple(Spread(by, draw(st.integers(1, 3))) for by in draw(st.sets(st.sampled_from(["rack", "site", "pair"])))),
        )
        hosts = [f"h{index}-{number}" for number in range(draw(st.integers(1, 12)))]
        rings.append(RingPlan(ring, waves(hosts, serial)))
    hosts = [host for ring in rings for host in ring.hosts]
    chance = Random(draw(st.integers(0, 10_000)))  # a draw for each domain of each host takes longer than the rollouts
    domains = {host: (("rack", chance.choice("abcd")), ("site", chance.choice("xy")), ("pair", chance.choice("0123456"))) for host in hosts}
    plan = Plan(RELEASE, tuple(rings), domains=domains)
    fates = {host: Fate(draw(SECONDS), draw(SECONDS), draw(SECONDS), draw(st.sampled_from(FAULTS))) for host in plan.hosts}
    return plan, fates


@given(rollouts())
@settings(max_examples=400)
def test_invariants_hold_for_every_rollout(rollout):
    plan, fates = rollout
    simulation = Simulation(plan, fates)
    states = simulation.run()
    assert set(states) == set(plan.hosts)
    assert all(state in OUTCOMES for state in states.values())
    touched = [host for _at, what, host in simulation.log if what == "admit"]
    assert len(touched) == len(set(touched))
    for host, state in states.items():
        if state in (State.COMMITTED, State.RESTORED, State.RESTORE_FAILED, State.LOST):
            assert host in touched
    if simulation.conductor.halt is None:
        assert State.HELD not in states.values()


def test_one_of_a_pair_at_a_time_and_the_next_in_line_goes_instead():
    plan = replace(fleet({"db": 4}, serial=(4,), concurrency=2, spread=(Spread("pair", 1),)),
                   domains={f"db-{number}": (("pair", "left" if number < 2 else "right"),) for number in range(4)})  # fmt: skip
    simulation = simulate(plan)
    assert [(at, host) for at, what, host in simulation.log if what == "admit"] == [(0.0, "db-0"), (0.0, "db-2"), (1.0, "db-1"), (1.0, "db-3")]
    assert [(round(at, 1), host) for at, what, host in simulation.log if what == "commit"] == [(2.0, "db-0"), (2.0, "db-2"), (2.1, "db-1"), (2.1, "db-3")]


def test_a_reverted_wave_goes_back_one_of_a_pair_at_a_time():
    plan = replace(fleet({"db": 5}, serial=(5,), spread=(Spread("pair", 1),)),
                   domains={f"db-{number}": (("pair", "left" if number < 4 else "right"),) for number in range(5)})  # fmt: skip
    simulation = simulate(plan, {"db-3": "fails"})
    assert [(at, host) for at, what, host in simulation.log if what == "revert"] == [(4.0, "db-4"), (5.0, "db-0"), (6.0, "db-1"), (7.0, "db-2")]


def test_a_host_that_goes_back_by_itself_keeps_its_domain_full_for_later_waves():
    """It is of another wave, and still nobody of its rack changes before it is through."""
    rings = fleet({"web": 4}, serial=(2,), concurrency=1, commit="rollout", max_failures=1, spread=(Spread("rack", 1),)).rings
    conductor = Conductor(Plan(RELEASE, rings, domains={f"web-{number}": (("rack", rack),) for number, rack in enumerate("abca")}))
    for host in ("web-0", "web-1", "web-2"):
        assert conductor.tick(0.0).admit == [host]
        if host == "web-2":
            conductor.failing("web-0", "its renewal failed", 0.0)
        conductor.parked(host, 0.0)
    assert conductor.tick(1.0).admit == []
    conductor.ended("web-0", State.RESTORED, 2.0)
    assert conductor.tick(2.0).admit == ["web-3"]


@pytest.mark.parametrize("sick, budget, order", [("web-1", 1, "commit"), ("web-0", 0, "revert")])
def test_whoever_waits_for_a_host_of_another_wave_is_not_forgotten(sick, budget, order):
    """Commits come from the oldest wave on and reverts from the newest, and neither passes over a wave whose domain is full."""
    rings = fleet({"web": 3}, serial=(1,), commit="rollout", max_failures=budget, spread=(Spread("rack", 1),)).rings
    conductor = Conductor(Plan(RELEASE, rings, domains={f"web-{number}": (("rack", rack),) for number, rack in enumerate("aab")}))
    for host in ("web-0", "web-1", "web-2"):
        assert conductor.tick(0.0).admit == [host]
        conductor.parked(host, 0.0)
    conductor.failing(sick, "its renewal failed", 0.0)
    other = {"web-0": "web-1", "web-1": "web-0"}[sick]
    done = State.RESTORED if order == "revert" else State.COMMITTED
    ordered = getattr(conductor.tick(1.0), order)
    assert ordered == (["web-2"] if order == "revert" else [])
    for host in ordered:
        conductor.ended(host, done, 2.0)
    assert getattr(conductor.tick(2.0), order) == []
    conductor.ended(sick, State.RESTORED, 3.0)
    assert getattr(conductor.tick(3.0), order) == [other]
    conductor.ended(other, done, 4.0)
    conductor.tick(4.0)
    assert conductor.finished or order == "commit"


def simulate_large(hosts: int, wave_count: int, commit: str, spread: tuple[Spread, ...] = ()) -> Simulation:
    size = hosts // wave_count
    plan = fleet({"standard": hosts}, serial=(size,), concurrency=max(size // 4, 1), commit=commit, spread=spread)
    if spread:
        pairs = {f"standard-{number}": (("rack", str(number % 20)), ("pair", str(number // 2))) for number in range(hosts)}
        plan = replace(plan, domains=pairs)
    assert plan.wave_count == wave_count
    simulation = Simulation(plan, {host: Fate() for host in plan.hosts}, check=False)
    assert set(simulation.run().values()) == {State.COMMITTED}
    return simulation


@pytest.mark.parametrize("commit, spread", [("wave", ()), ("rollout", (Spread("rack", 1), Spread("pair", 1)))], ids=["wave-anywhere", "rollout-spread"])
def test_a_hundred_thousand_hosts_in_a_thousand_waves(commit, spread, record_property, capsys):
    """The least and the most there is to do. The seconds are shown, not judged; that any cost grows linearly is judged by counting calls below."""
    began = time.process_time()
    simulation = simulate_large(100_000, 1_000, commit, spread)
    seconds = time.process_time() - began
    record_property("seconds", seconds)
    with capsys.disabled():
        print(f" [100 000 hosts, 1 000 waves, commit {commit}, {len(spread)} rules: {seconds:.1f} s]", end="")
    assert len(simulation.log) == 200_000


@pytest.mark.parametrize("spread", [(), (Spread("rack", 1), Spread("pair", 1))], ids=["anywhere", "spread"])
@pytest.mark.parametrize("commit", ["wave", "ring", "rollout"])
def test_the_work_per_host_does_not_grow_with_the_fleet(commit, spread):
    def calls_per_host(hosts: int, wave_count: int) -> float:
        calls = 0

        def count(_frame, _event, _argument):
            nonlocal calls
            calls += 1

        sys.setprofile(count)
        try:
            simulate_large(hosts, wave_count, commit, spread)
        finally:
            sys.setprofile(None)
        return calls / hosts

    assert calls_per_host(4_000, 40) < 1.3 * calls_per_host(400, 4)


@pytest.mark.parametrize("spread", [(Spread("rack", 1),), (Spread("rack", 2), Spread("pair", 1))], ids=["rack", "rack and pair"])
def test_the_work_per_host_does_not_grow_with_the_wave(spread):
    def calls_per_host(hosts: int) -> float:
        calls = 0

        def count(_frame, _event, _argument):
            nonlocal calls
            calls += 1

        plan = fleet({"standard": hosts}, serial=("100%",), concurrency=40, spread=spread)
        plan = replace(plan, domains={host: (("rack", str(number % 30)), ("pair", str(number // 2))) for number, host in enumerate(plan.hosts)})
        simulation = Simulation(plan, {host: Fate() for host in plan.hosts}, check=False)
        sys.setprofile(count)
        try:
            simulation.run()
        finally:
            sys.setprofile(None)
        return calls / hosts

    assert calls_per_host(4_000) < 1.3 * calls_per_host(400)


def test_hosts_that_get_nowhere_for_longer_than_the_deadline_halt_the_rollout():
    conductor = Conductor(fleet({"web": 3}, serial=(3,), concurrency=2, progress_deadline=60.0))
    orders = conductor.tick(0.0)
    assert (len(orders.admit), orders.wake_at) == (2, pytest.approx(60.1))
    conductor.parked(orders.admit[0], 50.0)
    assert len(conductor.tick(50.0).admit) == 1
    assert (conductor.tick(110.0).wake_at, conductor.halt) == (pytest.approx(110.1), None), "not > 60 s yet"
    assert conductor.tick(110.1).admit == []
    assert conductor.halt is Halt.STALLED
    in_change = [host for host, state in conductor.states().items() if state is State.CHANGING]
    assert (len(in_change), sorted(conductor.tick(110.2).revert)) == (2, sorted(in_change))


def test_nothing_goes_on_and_no_deadline_passes_while_it_is_doubted_whether_there_is_an_outage():
    conductor = Conductor(fleet({"web": 3}, serial=(3,), concurrency=2, progress_deadline=60.0))
    first, second = conductor.tick(0.0).admit
    conductor.parked(first, 10.0)
    conductor.doubt = "an outage"
    assert conductor.tick(10.0).admit == []
    conductor.parked(second, 20.0)
    assert (conductor.tick(500.0).admit, conductor.halt) == ([], None)
    conductor.doubt = ""
    (third,) = conductor.tick(500.0).admit
    conductor.parked(third, 510.0)
    conductor.doubt = "an outage"
    assert conductor.tick(510.0).commit == []
    conductor.doubt = ""
    assert conductor.tick(1000.0).commit == [first, second]


@pytest.mark.parametrize("halt", [Halt.UNJUDGED, Halt.UNHEALTHY])
@pytest.mark.parametrize("on_failure", ["restore_wave", "restore_host", "hold"])
def test_what_is_no_verdict_on_the_release_leaves_everybody_as_he_is_whatever_the_ring_says(halt, on_failure):
    conductor = Conductor(fleet({"web": 3}, serial=(3,), concurrency=2, on_failure=on_failure))
    first, second = conductor.tick(0.0).admit
    conductor.parked(first, 1.0)
    conductor.outlasted(halt, "it took too long", 2.0)
    orders = conductor.tick(2.0)
    assert (orders.admit, orders.commit, orders.revert, conductor.finished) == ([], [], [], False)
    conductor.ended(second, State.HELD, 3.0)
    conductor.tick(3.0)
    assert conductor.finished
    assert (set(conductor.states().values()), conductor.failures) == ({State.HELD}, {"web": 0})


@given(rollouts(), st.sampled_from([0, 1, "50%"]))
def test_a_wave_begins_only_after_a_look_at_the_fleet(rollout, limit):
    plan, fates = rollout
    simulation = Simulation(replace(plan, max_unhealthy=limit), fates)
    looks: list[tuple] = []
    tick = simulation.conductor.tick

    def looking(now):
        orders = tick(now)
        while simulation.conductor.look:
            assert not orders.admit
            looks.append((simulation.conductor.current[:2], simulation.conductor.look))
            simulation.conductor.looked()
            orders = tick(now)
        return orders

    simulation.conductor.tick = looking
    simulation.run()
    assert len(looks) == len(set(looks)), "each once"
    begun = {simulation.wave_of[host] for _at, what, host in simulation.log if what == "admit"}
    assert len([look for look in looks if look[1] == "before"]) == len(begun)


def test_the_fleet_is_looked_at_when_a_hold_is_over_and_not_while_it_lasts():
    conductor = Conductor(replace(fleet({"web": 2}, serial=(2,)), max_unhealthy=0))
    conductor.paused = "held by ada"
    assert (conductor.tick(0.0).admit, conductor.look) == ([], "")
    conductor.paused = ""
    assert (conductor.tick(9.0).admit, conductor.look) == ([], "before")
    conductor.looked()
    assert len(conductor.tick(9.0).admit) == 2
