# Copyright: onprem.rollout contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Plays of batches, simulated: what a host reports is what its tasks would, and core runs every batch that is let in."""

from __future__ import annotations

from dataclasses import dataclass, field
from types import SimpleNamespace

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from ansible_collections.onprem.rollout.plugins.plugin_utils._batches import for_batches
from ansible_collections.onprem.rollout.plugins.plugin_utils._conductor import Conductor
from ansible_collections.onprem.rollout.plugins.plugin_utils._ledger import Entry, Head
from ansible_collections.onprem.rollout.plugins.plugin_utils._lockstep import Lockstep
from ansible_collections.onprem.rollout.plugins.plugin_utils._plan import Plan, RingPlan, waves
from ansible_collections.onprem.rollout.plugins.plugin_utils._policy import Release, Ring
from ansible_collections.onprem.rollout.plugins.plugin_utils._stage import Settings
from ansible_collections.onprem.rollout.plugins.plugin_utils._standing import Standing
from ansible_collections.onprem.rollout.plugins.plugin_utils._states import OUTCOMES, Halt, State

LOOK = {"record": {}, "abandoned": None, "drained": False, "unfit": ""}
HALF_DONE = {**LOOK, "abandoned": "t1", "record": {"transaction": {"phase": "changing"}}}
BEGUN = ("ok", "begin", {"outcome": "begun"})
BACK = ("ok", "", {"ansible_facts": {"__upgrade_failure": {"msg": "it broke"}}})
COMMITTED = ("ok", "commit", {"outcome": "committed"})
BROKE = ("failed", "", {"msg": "it broke"})
DARK = ("unreachable", "", {"msg": "no route"})
RESTORED = ("ok", "restore", {"outcome": "restored"})
FATES = {
    "fine": [BEGUN, COMMITTED],
    "there": [("ok", "begin", {"outcome": "skipped"})],
    "fails": [BEGUN, BROKE, BACK, RESTORED],
    "outage": [BEGUN, ("failed", "archive", {"reason": "fetch", "msg": "no depot"}), BACK, RESTORED],
    "sick": [("failed", "begin", {"refused": True, "msg": "sick already"}), ("ok", "restore", {"outcome": "untouched"})],
    "spoilt": [BEGUN, BROKE, BACK, ("failed", "restore", {"outcome": "restore_failed", "msg": "no"})],
    "dark_before": [DARK],
    "dark": [BEGUN, DARK],
    "dark_in_restore": [BEGUN, BROKE, BACK, DARK],
    "ends": [BEGUN],
    "stays": [BEGUN, BROKE, BACK, ("ok", "restore", {"outcome": "held", "irreversible": "migrates"})],
}
ENDS_AS = {
    "fine": State.COMMITTED, "there": State.SKIPPED, "fails": State.RESTORED, "outage": State.RESTORED, "sick": State.REFUSED,
    "spoilt": State.RESTORE_FAILED, "dark_before": State.UNREACHABLE, "dark": State.LOST, "dark_in_restore": State.LOST, "ends": State.LOST,
    "stays": State.HELD,
}  # fmt: skip


@dataclass
class World:
    waves: tuple
    fates: dict = field(default_factory=dict)
    looks: dict = field(default_factory=dict)
    held: dict = field(default_factory=dict)
    policy: dict = field(default_factory=dict)
    attend: object = None
    soak: float = 0.0

    def __post_init__(self):
        self.now, self.told, self.started, self.standing = 0.0, [], [], Standing("shop-2.0")
        ring = Ring("standard", "", **self.policy)
        plan = for_batches(Plan(Release("shop", "2.0", ()), (RingPlan(ring, self.waves),), held=self.held))
        self.conductor = Conductor(plan)
        self.steps = Lockstep(
            self.conductor, "d2", self.told.append, Settings(300.0), attend=self.attend and (lambda: self.attend(self)),
            soaks={"standard": self.soak}, standing=lambda: self.standing, clock=lambda: self.now, sleep=self.sleep,
        )  # fmt: skip

    def sleep(self, seconds):
        self.now += seconds
        assert self.now < 10_000, "nobody lets anybody in"

    def report(self, host, kind, verb, data):
        self.now += 0.1
        self.steps.report(SimpleNamespace(host=host, kind=kind, task="a task", verb=verb, payload="", data=data))

    def ask(self):
        for host in self.steps.runs:
            kind, data = self.looks.get(host, ("ok", LOOK))
            self.report(host, kind, "settle", data)
        return self.steps.settling()

    def play(self):
        for batch in self.ask():
            self.steps.settle(batch)
            for host in batch:
                self.report(host, "ok", "settle", {**LOOK, "settled": "restored", "record": {"transaction": {"phase": "restored"}}})
        for batch in self.steps.batches():
            if not self.steps.let_in(batch):
                break
            self.started.append(batch)
            self.run(batch)
            if all(self.fates.get(host) in ("dark", "dark_before") for host in batch):
                break  # as core does when nobody of a batch is left
        self.steps.finish()
        return self

    def run(self, batch):
        """All hosts stand before their commit before one of them commits, and whoever failed is put back after that."""
        left = {host: list(FATES[self.fates.get(host, "fine")]) for host in batch}
        for host, tasks in left.items():
            while tasks and tasks[0] is not COMMITTED and tasks[0] is not BACK:
                self.report(host, *tasks.pop(0))
        withheld = ""
        if any(tasks[:1] == [COMMITTED] for tasks in left.values()):
            withheld, ended = self.steps.soak(), self.now
            assert (self.steps.soak(), self.now) == ("", ended), "they have soaked"
        for host, tasks in left.items():
            for task in [("failed", "commit", {"msg": withheld}), BACK, RESTORED] if withheld and tasks[:1] == [COMMITTED] else tasks:
                self.report(host, *task)

    @property
    def states(self):
        return self.conductor.states()


def test_a_good_release_goes_through_all_batches():
    world = World((("a",), ("b", "c"))).play()
    assert (set(world.states.values()), world.steps.wanted) == ({State.COMMITTED}, "ok")
    assert world.started == [["a"], ["b", "c"]]


@pytest.mark.parametrize("fate", [fate for fate in FATES if fate != "fine"])
def test_how_a_host_ends(fate):
    world = World((("a", "b"),), {"a": fate}, policy={"max_failures": 9}).play()
    assert world.states == {"a": ENDS_AS[fate], "b": State.COMMITTED}
    assert world.steps.wanted == {"there": "ok", "dark_before": "unreachable"}.get(fate, "halted" if fate in ("outage", "spoilt") else "failed")


def test_a_budget_that_is_exceeded_lets_nobody_in_and_who_is_committed_stays():
    world = World((("a", "b"), ("c",)), {"b": "fails"}).play()
    assert world.states == {"a": State.COMMITTED, "b": State.RESTORED, "c": State.HELD}
    assert (world.conductor.halt, world.started) == (Halt.FAILURES, [["a", "b"]])
    assert world.steps.speakers(["a", "b", "c"]) == ["b"]
    assert [event.host for event in world.told if event.kind == "failing"] == ["b"]


def test_a_budget_is_counted_over_all_batches():
    world = World((("a",), ("b",), ("c",), ("d",)), dict.fromkeys("abcd", "fails"), policy={"max_failures": 1}).play()
    assert world.conductor.halt is Halt.UNPROVEN
    world = World((("a", "x"), ("b", "y"), ("c",)), dict.fromkeys("abc", "fails"), policy={"max_failures": 1}).play()
    assert (world.conductor.halt, world.states["c"]) == (Halt.FAILURES, State.HELD)


def test_a_batch_of_which_nobody_is_left_ends_the_rollout_though_the_budget_would_not():
    world = World((("a", "x"), ("b",), ("c",)), {"b": "dark"}, policy={"max_failures": 5}).play()
    assert (world.states["b"], world.states["c"], world.steps.wanted) == (State.LOST, State.HELD, "halted")
    assert world.steps.speakers(["b", "a", "c"]) == ["a"]
    assert "revert timer" in world.steps.runs["b"].why


def test_hosts_that_take_no_part_are_in_no_batch():
    there = {"installed": {"digest": "d2"}}
    looks = {"a": ("ok", {**LOOK, "record": there}), "b": ("unreachable", {"msg": "no route"}), "c": ("failed", {"msg": "its record cannot be read"})}
    world = World((("a", "b", "c", "d"),), looks=looks).play()
    assert world.started == [["d"]]
    assert world.states == {"a": State.SKIPPED, "b": State.UNREACHABLE, "c": State.REFUSED, "d": State.COMMITTED}


def test_one_that_cannot_keep_a_snapshot_keeps_everybody_out():
    world = World((("a",), ("b",)), looks={"b": ("ok", {**LOOK, "unfit": "too little disk"})}).play()
    assert (world.started, world.conductor.halt, world.states) == ([], Halt.UNFIT, {"a": State.HELD, "b": State.REFUSED})


def test_half_done_hosts_are_settled_before_anybody_is_changed():
    looks = dict.fromkeys(("a", "b", "h"), ("ok", HALF_DONE))
    world = World((("a", "b"), ("c",)), looks=looks, held={"h": "audit"}).play()
    assert world.states == {"a": State.COMMITTED, "b": State.COMMITTED, "c": State.COMMITTED, "h": State.HELD}
    assert world.steps.wanted == "ok"
    assert [event.host for event in world.told if event.kind == "settled"] == ["a", "b", "h"]


def test_a_half_done_host_that_gives_no_answer_stops_the_rollout():
    world = World((("a",), ("b",)), looks={"a": ("ok", HALF_DONE)})
    (batch,) = world.ask()
    world.steps.settle(batch)
    world.report("a", "unreachable", "settle", {"msg": "no route"})
    assert world.steps.batches() == []
    world.steps.finish()
    assert (world.states, world.conductor.halt) == ({"a": State.LOST, "b": State.HELD}, Halt.LOST)


def test_a_batch_waits_while_it_may_not_begin():
    def attend(world):
        world.conductor.paused = "held" if 5 < world.now < 60 else ""

    world = World((("a",), ("b",)), attend=attend, soak=10.0).play()
    assert (set(world.states.values()), 69 < world.now < 75) == ({State.COMMITTED}, True), "a soak goes on meanwhile"


def test_each_batch_soaks_before_it_commits():
    world = World((("a", "b"), ("c",)), {"b": "fails"}, soak=100.0, policy={"max_failures": 1, "soak": 100.0}).play()
    assert (world.states["b"], 200 < world.now < 210) == (State.RESTORED, True)
    assert [(event.wave, event.detail) for event in world.told if event.kind == "soak"] == [(1, "100"), (2, "100")]


def test_a_batch_of_which_nobody_is_to_commit_does_not_soak():
    world = World((("a",), ("b", "c")), {"a": "there", "b": "fails", "c": "sick"}, soak=100.0, policy={"max_failures": 9}).play()
    assert world.now < 10


@pytest.mark.parametrize(
    "kind, data, states, seconds",
    [
        ("promote", {}, {"a": State.COMMITTED, "b": State.COMMITTED}, 220),  # the soak at work, and no other
        ("abort", {"then": "restore"}, {"a": State.RESTORED, "b": State.HELD}, 60),
        ("abort", {"then": "keep"}, {"a": State.COMMITTED, "b": State.HELD}, 60),
        ("hold", {}, {"a": State.COMMITTED, "b": State.HELD}, 260),
        ("superseded", {}, {"a": State.RESTORED, "b": State.HELD}, 60),
    ],
    ids=["promote", "abort and restore", "abort and keep", "hold", "superseded"],
)
def test_what_operators_decide_is_heard_in_a_soak(kind, data, states, seconds):
    def attend(world):
        if world.now > 50 and not world.heard:
            world.heard = True
            world.standing.hear(Entry(Head(1, "0" * 64), kind, "shop-2.0", "ada", 0.0, data))
            if kind == "abort":
                world.conductor.stop(data["then"] == "keep", world.now)
            elif kind == "superseded":
                world.conductor.stop(False, world.now, Halt.SUPERSEDED)
        world.conductor.paused = "held" if world.standing.hold else ""
        if world.now > 250:
            world.conductor.give_way(world.now)

    world = World((("a",), ("b",)), attend=attend, soak=150.0)
    world.heard = False
    world.play()
    assert world.states == states
    assert seconds - 25 < world.now < seconds


def test_who_waits_too_long_ends_well_and_nobody_is_touched():
    world = World((("a",),), attend=lambda world: world.conductor.give_way(world.now)).play()
    assert (world.started, world.states, world.steps.wanted) == ([], {"a": State.HELD}, "waiting")


def test_a_batch_that_was_not_planned_is_not_begun():
    world = World((("a", "b"),))
    world.ask()
    assert world.steps.batches() == [["a", "b"]]
    assert not world.steps.let_in(["a"])
    world.steps.finish()
    assert (set(world.states.values()), world.conductor.halt) == ({State.HELD}, Halt.ABORTED)


@settings(max_examples=150, deadline=None)
@given(
    st.lists(st.sampled_from(sorted(FATES)), min_size=1, max_size=12),
    st.sampled_from([(1,), (2, "100%"), ("50%",), ("100%",)]),
    st.sampled_from([None, 1, 2]),
    st.sampled_from([0, 1, 3, 99]),
)
def test_whatever_happens_batches_are_as_planned_and_everybody_ends_once(fates, serial, concurrency, budget):
    hosts = [f"h{index:02}" for index in range(len(fates))]
    policy = {"concurrency": concurrency, "max_failures": budget}
    world = World(waves(hosts, serial), dict(zip(hosts, fates, strict=True)), policy=policy).play()
    assert world.conductor.finished
    assert set(world.states.values()) <= set(OUTCOMES)
    started = [host for batch in world.started for host in batch]
    assert len(set(started)) == len(started)
    for host, fate in zip(hosts, fates, strict=True):
        assert world.states[host] is (ENDS_AS[fate] if host in started else State.HELD)
    assert world.conductor.halt is not Halt.ABORTED or all(fate.startswith("dark") for fate in (world.fates[host] for host in world.started[-1]))
    failed = {State.RESTORED, State.RESTORE_FAILED, State.LOST}
    before_last = [host for batch in world.started[:-1] for host in batch]
    outages = sum(1 for host in before_last if world.fates[host] == "outage")
    assert outages == 0
    assert sum(1 for host in before_last if world.states[host] in failed) <= budget


def test_who_failed_before_this_run_and_was_never_heard_speaks_for_nobody():
    world = World((("a", "b"),), policy={"max_failures": 9})
    world.report("b", "ok", "settle", LOOK)
    world.steps.settling()
    assert world.steps.batches() == [["b"]]
    world.steps.finish()
    assert (world.states, world.steps.speakers(["a", "b"])) == ({"a": State.REFUSED, "b": State.HELD}, ["b"])


def test_an_abort_in_mid_batch_lets_nobody_in_and_takes_no_commit_back():
    world = World((("a",), ("b",)))
    world.ask()
    first, _second = world.steps.batches()
    assert world.steps.let_in(first)
    world.report("a", *BEGUN)
    world.steps.abort("it is not understood")
    world.report("a", *COMMITTED)
    assert not world.steps.let_in(["b"])
    world.steps.finish()
    assert (world.states, world.conductor.halt) == ({"a": State.COMMITTED, "b": State.HELD}, Halt.ABORTED)


@pytest.mark.parametrize("when", ["before its commit", "while it soaks"])
def test_after_an_error_of_the_run_nobody_commits_and_who_is_healthy_goes_back(when):
    world = World((("a", "b"), ("c",)), soak=30.0, attend=lambda world: when == "while it soaks" and world.now > 20 and world.steps.abort("it broke"))
    world.ask()
    assert world.steps.let_in(world.steps.batches()[0])
    world.report("a", *BEGUN)
    world.report("b", *BEGUN)
    if when == "before its commit":
        world.steps.abort("it broke")
    assert (world.steps.soak(), world.steps.before_commit()) == ("this run of ansible-playbook failed: it broke", ["a", "b"])
    assert world.now < 30
    for host in "ab":
        for task in (("failed", "commit", {"msg": "withheld"}), BACK, RESTORED):
            world.report(host, *task)
    world.steps.finish()
    assert (world.states, world.conductor.halt) == ({"a": State.RESTORED, "b": State.RESTORED, "c": State.HELD}, Halt.ABORTED)


@pytest.mark.parametrize("fate", ["fails", "dark"])
def test_a_failure_counts_at_once_and_not_at_the_end_of_its_batch(fate):
    world = World((("a", "b"), ("c",)))
    world.ask()
    assert world.steps.let_in(world.steps.batches()[0])
    for task in FATES[fate]:
        assert world.conductor.halt is None
        world.report("a", *task)
        if task in (BACK, DARK):
            break
    assert (world.conductor.halt, [event.kind for event in world.told][-2:]) == (Halt.FAILURES, ["failing", "halted"])
