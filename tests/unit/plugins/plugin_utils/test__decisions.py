# Copyright: onprem.rollout contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Operators and gates against a real conductor and a real ledger file; the hosts are simulated."""

from __future__ import annotations

import os
from dataclasses import dataclass, field

import pytest

from ansible_collections.onprem.rollout.plugins.plugin_utils._conductor import Conductor
from ansible_collections.onprem.rollout.plugins.plugin_utils._decisions import Decisions
from ansible_collections.onprem.rollout.plugins.plugin_utils._gate import Answer, Verdict
from ansible_collections.onprem.rollout.plugins.plugin_utils._gate_command import Pending
from ansible_collections.onprem.rollout.plugins.plugin_utils._journal import Journal
from ansible_collections.onprem.rollout.plugins.plugin_utils._ledger import Event
from ansible_collections.onprem.rollout.plugins.plugin_utils._ledger_file import LedgerFile
from ansible_collections.onprem.rollout.plugins.plugin_utils._plan import Plan, RingPlan
from ansible_collections.onprem.rollout.plugins.plugin_utils._policy import Release, Ring
from ansible_collections.onprem.rollout.plugins.plugin_utils._states import Halt, State

PASS, HOLD, FAIL = (Answer(verdict, f"it says {verdict}") for verdict in (Verdict.PASS, Verdict.HOLD, Verdict.FAIL))


@dataclass
class Says:
    """A gate that is told what to say, and remembers what it was asked."""

    answer: Answer
    name: str = "board"
    asked: list = field(default_factory=list)
    closed: bool = False

    def ask(self, situation):
        self.asked.append(situation)
        return self.answer

    def close(self):
        self.closed = True


class World:
    def __init__(self, place, waves, gates=(), max_wait=30.0, **policy):
        self.place, self.now, self.told = place, 1000.0, []
        ring = Ring("standard", "standard", **policy)
        self.conductor = Conductor(Plan(Release("shop", "2.0", ()), (RingPlan(ring, waves),)))
        journal = Journal(LedgerFile(str(place), "ada", self.clock), "shop", "2.0", self.clock)
        journal.open()
        self.decisions = Decisions(
            self.conductor, journal, self.tell, max_wait, self.clock, self.clock, {"standard": gates} if gates else {}, "p1", "ada"
        )  # fmt: skip
        self.tell_journal = journal.hear

    def clock(self):
        return self.now

    def tell(self, event):
        self.told.append(event.detail)
        self.tell_journal(event)

    def decide(self, kind, **data):
        LedgerFile(str(self.place), "bob", self.clock).append([Event(kind, "shop-2.0", data)])

    def step(self, seconds=1.0):
        """Passes of the driver until nothing is to be done at once. Hosts that are let in park, those that commit are committed, ..."""
        self.now += seconds
        while (orders := self.turn()).wake_at == self.now:
            self.settle(orders)
        self.settle(orders)

    def turn(self):
        self.decisions.attend()
        return self.conductor.tick(self.now)

    def settle(self, orders):
        for host in orders.admit:
            self.conductor.parked(host, self.now)
        for host in orders.commit:
            self.conductor.ended(host, State.COMMITTED, self.now)
        for host in orders.revert:
            self.conductor.ended(host, State.RESTORED, self.now)
        while self.conductor.events:
            self.tell(self.conductor.events.popleft())

    def steps(self, number=12):
        for _step in range(number):
            self.step()

    def states(self):
        return {host: str(state) for host, state in self.conductor.states().items()}


@pytest.fixture
def world(tmp_path):
    return lambda *waves, **options: World(tmp_path / "ledger.jsonl", waves, **options)


def test_a_hold_lets_nobody_new_in_and_a_resume_does(world):
    found = world(("a",), ("b",))
    found.step()
    found.decide("hold", why="a sale")
    found.steps()
    assert found.states() == {"a": "committed", "b": "waiting"}
    assert "nobody new is let in: held by bob: a sale" in found.told
    found.decide("resume")
    found.steps()
    assert found.states() == {"a": "committed", "b": "committed"}


def test_a_run_that_may_not_go_on_ends_after_its_wait_and_not_before(world):
    found = world(("a",), max_wait=30.0)
    found.decide("hold")
    found.step()
    for _second in range(29):
        found.step()
    assert not found.conductor.finished
    found.steps(3)
    assert (found.conductor.finished, found.conductor.halt, found.states()) == (True, Halt.WAITING, {"a": "held"})


def test_a_soak_goes_on_while_the_rollout_is_held_and_is_no_wait(world):
    found = world(("a",), ("b",), soak=100.0, max_wait=30.0)
    found.step()
    found.decide("hold")
    found.steps(95)
    assert not found.conductor.finished
    found.steps(12)
    assert found.states()["a"] == "committed"
    found.steps(40)
    assert (found.conductor.halt, found.states()) == (Halt.WAITING, {"a": "committed", "b": "held"})


@pytest.mark.parametrize("then, state", [("restore", "restored"), ("keep", "committed")])
def test_an_abort_ends_the_rollout_and_its_soak(world, then, state):
    found = world(("a", "b"), ("c",), soak=1000.0)
    found.step()
    found.decide("abort", then=then, why="a bug")
    found.steps(6)
    assert (found.conductor.finished, found.conductor.halt) == (True, Halt.STOPPED)
    assert found.states() == {"a": state, "b": state, "c": "held"}
    assert "abort by bob: a bug" in found.told


def test_a_promotion_ends_one_soak(world):
    found = world(("a",), ("b",), soak=1000.0)
    found.steps(2)
    found.decide("promote")
    found.steps(6)
    assert found.states() == {"a": "committed", "b": "parked"}


def test_a_gate_is_asked_for_every_wave_before_its_first_host(world):
    gate = Says(HOLD)
    found = world(("a",), ("b", "c"), gates=[gate], max_wait=1000.0)
    found.steps(5)
    assert found.states() == {"a": "waiting", "b": "waiting", "c": "waiting"}
    assert {(asked.plan, asked.ring, asked.wave, asked.hosts, asked.launcher) for asked in gate.asked} == {("p1", "standard", 1, ("a",), "ada")}
    gate.answer = PASS
    found.steps(6)
    assert set(found.states().values()) == {"committed"}
    assert {asked.wave for asked in gate.asked} == {1, 2}
    assert [told for told in found.told if "it says" in told] == ["hold: it says hold", "pass: it says pass", "pass: it says pass"]


def test_a_gate_that_fails_halts_and_one_that_holds_waits(world):
    found = world(("a",), gates=[Says(FAIL)])
    found.steps(3)
    assert (found.conductor.halt, found.states()) == (Halt.GATE, {"a": "held"})


def test_a_gate_that_holds_ends_the_run_as_waiting(world):
    found = world(("a",), gates=[Says(HOLD)], max_wait=0.0)
    found.steps(3)
    assert (found.conductor.halt, found.conductor.paused) == (Halt.WAITING, "it says hold")


@pytest.mark.parametrize("says, end", [(PASS, "committed"), (HOLD, "held")])
def test_the_wait_is_not_counted_before_a_slow_gate_has_answered_once(world, says, end):
    gate = Says(Pending(Verdict.HOLD, "is asked"))
    found = world(("a",), gates=[gate], max_wait=5.0)
    found.steps(50)
    assert (found.conductor.halt, found.states()) == (None, {"a": "waiting"})
    gate.answer = says
    found.steps(4)
    gate.answer = Pending(Verdict.HOLD, "is asked again")
    found.steps(20)
    assert (found.conductor.finished, found.states()) == (True, {"a": end})


def test_a_gate_that_closes_in_mid_wave_lets_nobody_else_in(world):
    gate = Says(PASS)
    found = world(("a", "b"), gates=[gate], concurrency=1, max_wait=1000.0)
    found.now += 1
    assert [found.turn().admit, found.turn().admit] == [[], ["a"]]
    gate.answer = HOLD
    found.now += 40  # a pass is believed for 30 s
    found.conductor.parked("a", found.now)
    found.steps(3)
    assert found.states() == {"a": "parked", "b": "waiting"}
    gate.answer = PASS
    found.steps(4)
    assert set(found.states().values()) == {"committed"}


def test_a_gate_that_fails_in_mid_wave_sends_nobody_back(world):
    gate = Says(PASS)
    found = world(("a", "b"), gates=[gate], concurrency=1, max_wait=20.0)
    found.now += 1
    assert [found.turn().admit, found.turn().admit] == [[], ["a"]]
    gate.answer = FAIL
    found.now += 40
    found.conductor.parked("a", found.now)
    found.steps(30)
    assert (found.conductor.halt, found.states()) == (Halt.WAITING, {"a": "committed", "b": "held"})
    assert found.conductor.paused == "it says fail", "that is what it waited for, also when the healthy hosts have committed"


def test_a_gate_that_is_broken_lets_nobody_in(world):
    gate = Says(PASS)
    gate.ask = lambda situation: 1 / 0
    found = world(("a",), gates=[gate], max_wait=1000.0)
    found.steps(60)
    assert found.states() == {"a": "waiting"}
    assert "the gate board itself failed: ZeroDivisionError" in found.conductor.paused


def test_waves_of_which_nobody_waits_need_no_gate(world):
    gate = Says(FAIL)
    found = world(("a",), gates=[gate])
    found.conductor.ended("a", State.SKIPPED, found.now)
    found.steps(3)
    assert (found.conductor.halt, gate.asked) == (None, [])


def test_gates_are_closed_at_the_end(world):
    gate = Says(HOLD)
    found = world(("a",), gates=[gate])
    found.decisions.close()
    assert gate.closed


def test_a_ledger_that_cannot_be_written_lets_nobody_in_until_it_can(world):
    found = world(("a",), ("b",), max_wait=1000.0)
    found.place.mkdir()
    found.steps(10)
    assert found.states() == {"a": "waiting", "b": "waiting"}
    assert "Is a directory" in found.conductor.paused
    found.place.rmdir()
    found.steps(8)
    assert set(found.states().values()) == {"committed"}
    kinds = [entry.kind for entry in LedgerFile(str(found.place), "", found.clock).entries()]
    assert kinds.count("host") == 2, "nothing was forgotten"


def test_nobody_is_let_in_before_the_ledger_has_the_wave(world):
    found = world(("a",), max_wait=1000.0)
    found.now += 1
    found.settle(found.turn())
    assert found.told == ["filling"]
    found.place.mkdir()
    found.steps(10)
    assert found.states() == {"a": "waiting"}
    found.place.rmdir()
    found.steps(8)
    assert found.states() == {"a": "committed"}
    assert next(LedgerFile(str(found.place), "", found.clock).entries()).data["state"] == "filling"


def test_while_hosts_are_asked_verbs_are_heard_and_nothing_waits_for_gates_or_time(world):
    gate = Says(HOLD)
    found = world(("a",), gates=[gate], max_wait=0.0)
    found.decide("hold", why="a sale")
    for _second in range(5):
        found.now += 1
        found.decisions.attend(False)
    assert (found.conductor.paused, gate.asked, found.conductor.halt) == ("held by bob: a sale", [], None)
    found.decide("abort")
    found.now += 1
    found.decisions.attend(False)
    assert found.conductor.halt is Halt.STOPPED


NEWER = {"name": "shop", "version": "2.1"}


@pytest.mark.parametrize(
    "policy, hold, states",
    [
        ({"soak": 1000.0}, False, {"a": "restored", "b": "waiting"}),
        ({"soak": 1000.0}, True, {"a": "restored", "b": "waiting"}),
        ({"soak": 1000.0, "on_failure": "hold", "commit": "host"}, False, {"a": "committed", "b": "waiting"}),
    ],
    ids=["soaks", "is held and soaks", "committed its host"],
)
def test_what_is_superseded_restores_what_is_not_committed_and_ends(world, policy, hold, states):
    found = world(("a",), ("b",), **policy)
    found.steps(3)
    if hold:
        found.decide("hold")
        found.step()
    found.decide("superseded", release=NEWER)
    found.steps(2)
    states = {host: "held" if state == "waiting" else state for host, state in states.items()}
    assert (found.conductor.finished, found.conductor.halt, found.states()) == (True, Halt.SUPERSEDED, states)
    assert any(line.startswith("superseded by shop-2.1 at ") for line in found.told)


def test_what_waits_at_a_gate_or_asks_its_hosts_ends_when_it_is_superseded(world):
    found = world(("a",), gates=[Says(HOLD)])
    found.step()
    found.decide("superseded", release=NEWER)
    found.steps(2)
    assert (found.conductor.halt, found.states()) == (Halt.SUPERSEDED, {"a": "held"})


def test_hosts_are_still_asked_when_the_rollout_is_superseded(world):
    found = world(("a",))
    found.now += 1
    found.decide("superseded", release=NEWER)
    found.decisions.attend(False)
    assert found.conductor.halt is Halt.SUPERSEDED


def test_a_rollout_of_nobody_is_aborted_without_a_word(world):
    found = world()
    found.decide("abort")
    found.now += 1
    found.decisions.attend(False)
    found.steps(2)
    assert (found.conductor.finished, found.conductor.halt) == (True, None)


def test_a_hold_at_a_gate_is_told(world):
    found = world(("a",), gates=[Says(HOLD)], max_wait=1000.0)
    found.steps(2)
    found.decide("hold", why="a sale")
    found.steps(2)
    assert found.told[-1] == "nobody new is let in: held by bob: a sale"
    found.decide("resume")
    found.steps(2)
    assert found.conductor.paused == "it says hold"


def test_a_ledger_that_is_lost_in_mid_run_lets_hosts_in_change_go_on_to_their_end(world):
    found = world(("a",), ("b",), max_wait=1000.0)
    found.step()
    found.place.rename(found.place.with_name("aside"))
    found.place.mkdir()
    found.steps(10)
    assert found.states() == {"a": "committed", "b": "waiting"}


def test_a_disk_that_is_full_in_mid_run_holds_the_rollout_until_there_is_room(world, monkeypatch):
    """The kernel's own full device, behind the real ledger's write."""
    found = world(("a",), ("b",), max_wait=1000.0)
    found.step()
    with open("/dev/full", "wb", buffering=0) as full:
        write = os.pwrite
        monkeypatch.setattr(os, "pwrite", lambda fd, content, offset: full.write(content))
        found.steps(10)
        assert (found.states(), "No space left on device" in found.conductor.paused) == ({"a": "committed", "b": "waiting"}, True)
        monkeypatch.setattr(os, "pwrite", write)
    found.steps(10)
    assert set(found.states().values()) == {"committed"}
    kinds = [entry.kind for entry in LedgerFile(str(found.place), "", found.clock).entries()]
    assert kinds.count("host") == 2, "nothing was forgotten"


@pytest.mark.parametrize("jump", [-86400.0, 86400.0])
def test_a_clock_that_jumps_ends_neither_soaks_nor_waits(world, jump):
    """Soaks and waits are counted by a clock that never jumps; the time of day is for gates and people."""
    found = world(("a",), ("b",), soak=100.0, gates=[Says(PASS)], max_wait=50.0)
    day = [0.0]
    found.decisions._now = lambda: found.now + day[0]
    found.steps(10)
    day[0] = jump
    found.steps(60)
    assert found.states() == {"a": "parked", "b": "waiting"}
    found.steps(40)
    assert found.states()["a"] == "committed"


def test_a_line_that_a_crash_cut_off_is_told_of(world):
    found = world(("a",), ("b",))
    found.step()
    found.decide("repaired", lost="{")
    found.steps()
    assert [line for line in found.told if "a crash cut off the line that stood there" in line]
