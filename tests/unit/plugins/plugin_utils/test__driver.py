# Copyright: onprem.rollout contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""The driver over a recording stage that walks hosts through the role's tasks as core would.

What core itself does is not imitated here beyond that; tests/core runs the same stories on every ansible-core.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field

import pytest

from ansible_collections.onprem.rollout.plugins.plugin_utils._conductor import Conductor
from ansible_collections.onprem.rollout.plugins.plugin_utils._driver import Driver
from ansible_collections.onprem.rollout.plugins.plugin_utils._plan import Plan, RingPlan, waves
from ansible_collections.onprem.rollout.plugins.plugin_utils._policy import Release, Ring, Spread
from ansible_collections.onprem.rollout.plugins.plugin_utils._stage import Place, Settings, WorkerDied

NEW = "digest of the new release"
FORWARD = ["settle", "begin", "payload", "health", "commit"]
SETTLING = ["put back", "bring back"]  # only of hosts that are half done
BACK = ["restore"]
DEFAULTS = {
    "put back": {"settled": "restored", "record": {"installed": {"digest": "old"}, "transaction": {"phase": "restored"}}},
    "bring back": {"drained": False},
    "begin": {"outcome": "begun"},
    "commit": {"outcome": "committed"},
    "restore": {"outcome": "restored"},
    "asked": {"checks": [{"name": "web", "type": "http", "level": "required", "ok": True}]},
}
VERBS = {"payload": "", "put back": "settle", "bring back": "traffic"}
PLACES = {"settle": Place.READING, "begin": Place.BEGIN, "commit": Place.COMMIT, "restore": Place.RESCUE}


@dataclass
class FakeReport:
    kind: str
    host: str
    verb: str
    data: dict
    task: str
    payload: str = ""
    asked: bool = False


@dataclass
class Stage:
    """Every host stands at an index of FORWARD, or of BACK once it failed. Records what the driver did to it."""

    width: int = 4
    at: dict[str, tuple[str, int]] = field(default_factory=dict)
    seen: dict[str, tuple[str, int]] = field(default_factory=dict)
    running: dict[str, str] = field(default_factory=dict)
    calls: list[tuple] = field(default_factory=list)
    blameless: dict[str, bool] = field(default_factory=dict)
    dead: bool = False
    half_done: tuple[str, ...] = ()
    before: dict[str, tuple[str, int]] = field(default_factory=dict)
    can_ask: bool = True

    def task(self, host: str) -> str | None:
        lane, index = self.at[host]
        forward = [FORWARD[0], *(SETTLING if host in self.half_done else []), *FORWARD[1:]]
        tasks = forward if lane == "forward" else BACK
        return tasks[index] if lane != "over" and index < len(tasks) else None

    def busy(self, host: str) -> bool:
        return host in self.running

    def place(self, host: str) -> Place:
        task = self.task(host)
        if task is None:
            return Place.OVER
        self.seen[host] = self.at[host]
        if task not in BACK:
            self.before[host] = self.at[host]
        return PLACES.get(task, Place.WORKING)

    def turn_back(self, host: str, why: str, blameless: bool) -> bool:
        """From the place where it was last seen, or else from where it stands: in a transaction past its begin."""
        self.calls.append(("turn_back", host))
        self.blameless[host] = blameless
        first = len(SETTLING) + 2 if host in self.half_done else 2
        turned = any(lane == "back" or (lane == "forward" and index >= first) for lane, index in (self.seen.get(host, ("over", 0)), self.at[host]))
        self.at[host] = ("back" if turned else "over", 0)
        return turned

    def again(self, host: str) -> None:
        self.calls.append(("again", host))
        self.at[host] = self.seen[host]

    def withdraw(self, host: str) -> None:
        self.calls.append(("withdraw", host))
        self.at[host] = ("over", 0)

    def leave_out(self, host: str) -> None:
        self.withdraw(host)

    def prove_again(self, host: str) -> bool:
        if len(self.running) >= self.width:
            return False
        self.calls.append(("prove_again", host))
        self.running[host] = "health"
        return True

    def ask(self, host: str) -> bool:
        if len(self.running) >= self.width:
            return False
        self.calls.append(("ask", host))
        self.running[host] = "asked"
        return True

    def undo_failure(self, host: str) -> Place:
        self.calls.append(("undo_failure", host))
        self.at[host] = self.before[host]
        return self.place(host)

    def restrict(self, hosts) -> None:
        self.calls.append(("restrict", tuple(hosts)))

    def await_result(self) -> None:
        self.calls.append(("await_result",))

    def dead_worker(self) -> bool:
        return self.dead

    def terminated(self) -> bool:
        return False


@dataclass
class Play:
    """Runs the driver against a stage: answers maps (host, task) to what happens instead of a success."""

    hosts: int = 4
    answers: dict = field(default_factory=dict)
    ring: dict = field(default_factory=dict)
    max_unhealthy: int | str | None = None
    held: dict = field(default_factory=dict)
    look_only: bool = False
    retry_failed: frozenset = frozenset()
    half_done: tuple[str, ...] = ()
    renew_interval: float = 600.0
    max_wait: float = 1800.0
    delays: dict = field(default_factory=dict)
    aborts: Callable[[Play], bool] | None = None
    domains: dict = field(default_factory=dict)
    now: float = 0.0
    ran: list[tuple[str, str]] = field(default_factory=list)

    def __post_init__(self) -> None:
        names = [f"h{number}" for number in range(self.hosts)]
        ring = Ring("all", "all", **{"serial": (1, "100%"), **self.ring})
        plan = Plan(Release("shop", "2.0", ()), (RingPlan(ring, waves(names, ring.serial)),), self.held, self.domains, max_unhealthy=self.max_unhealthy)
        self.stage = Stage(at=dict.fromkeys([*names, *self.held], ("forward", 0)), half_done=self.half_done)
        for host in self.half_done:
            self.answers.setdefault((host, "settle"), ("ok", {"abandoned": "t1", "drained": True, **record("old", "changing")}))
        self.told = []
        self.driver = Driver(
            Conductor(plan),
            self.stage,
            NEW,
            self.told.append,
            Settings(60, 5, self.retry_failed, self.renew_interval, max_wait=self.max_wait),
            self.look_only,
            lambda: self.now,
            self.sleep,
        )

    def sleep(self, seconds: float) -> None:
        self.now += seconds

    def run(self) -> Play:
        for _pass in range(10_000):
            for host, task in list(self.stage.running.items()):
                if self.delays.get((host, task), 0) > 0:
                    self.delays[(host, task)] -= 1
                else:
                    self.answer(host, task)
            if self.aborts and self.aborts(self):
                self.aborts = None
                self.stage.running.clear()
                self.driver.abort("the run failed: a worker died")
            left = self.driver.hosts_left()
            idle = [host for host in left if host not in self.stage.running]
            if not any(self.stage.task(host) for host in idle) and not self.stage.running:
                return self
            for host in idle[: self.stage.width]:
                task = self.stage.task(host)
                if task:
                    lane, index = self.stage.at[host]
                    self.stage.at[host] = (lane, index + 1)
                    self.stage.running[host] = task
                    self.ran.append((host, task))
        raise AssertionError("the play does not end")

    def answer(self, host: str, task: str) -> None:
        del self.stage.running[host]
        self.now += 1
        answer = self.answers.get((host, task))
        if isinstance(answer, list):
            answer = answer.pop(0) if answer else None
        kind, data = answer or ("ok", DEFAULTS.get(task, {}))
        if task == "asked":
            self.driver.report(FakeReport(kind, host, "health", data, task, asked=True))
            return
        if kind == "failed" and self.stage.at[host][0] == "forward" and task not in ("settle", *SETTLING):
            self.stage.at[host] = ("back", 0)
        elif kind in ("failed", "end_play"):
            self.stage.at[host] = ("over", 0)
        if kind != "end_play":
            self.driver.report(FakeReport(kind, host, VERBS.get(task, task), data, task))

    def outcomes(self) -> dict[str, str]:
        return {host: str(state) for host, state in self.driver.conductor.states().items()}


def record(digest: str, phase: str | None = None) -> dict:
    return {"record": {"installed": {"name": "shop", "version": "x", "digest": digest}, "transaction": {"phase": phase}}}


DARK = ("unreachable", {"msg": "No route to host"})
REFUSED = ("failed", {"refused": True, "msg": "sick already"})
BROKEN = ("failed", {"msg": "check web: saw 500, expected 200"})
STORIES = [
    ("all well", {}, {"h0": "committed", "h1": "committed", "h2": "committed", "h3": "committed"}, "ok"),
    ("runs it already", {("h2", "settle"): ("ok", record(NEW, "committed"))}, {"h2": "skipped", "h1": "committed"}, "ok"),
    ("half done is not done", {("h2", "settle"): ("ok", record(NEW, "changing"))}, {"h2": "committed"}, "ok"),
    ("dark before the start", {("h2", "settle"): DARK}, {"h2": "unreachable", "h3": "committed"}, "unreachable"),
    ("dark when its turn comes", {("h2", "begin"): DARK}, {"h2": "unreachable", "h3": "committed"}, "unreachable"),
    ("inconsistent", {("h2", "settle"): BROKEN}, {"h2": "refused", "h3": "committed"}, "failed"),
    ("refused", {("h2", "begin"): REFUSED, ("h2", "restore"): ("ok", {"outcome": "untouched"})}, {"h2": "refused", "h3": "committed"},
     "failed"),
    ("begin says it runs already", {("h2", "begin"): ("ok", {"outcome": "skipped"}), ("h2", "commit"): ("ok", {})}, {"h2": "skipped", "h3": "committed"}, "ok"),
    ("canary fails", {("h0", "health"): BROKEN}, {"h0": "restored", "h1": "held", "h2": "held", "h3": "held"}, "halted"),
    ("payload fails in the second wave", {("h1", "payload"): BROKEN},
     {"h0": "committed", "h1": "restored", "h2": "restored", "h3": "restored"}, "halted"),
    ("second look before the commit fails", {("h2", "commit"): BROKEN}, {"h0": "committed", "h2": "restored"}, "halted"),
    ("restore fails", {("h0", "health"): BROKEN, ("h0", "restore"): ("failed", {"outcome": "restore_failed", "msg": "still 500"})},
     {"h0": "restore_failed", "h1": "held"}, "halted"),
    ("dark in the payload, back at once", {("h0", "payload"): DARK}, {"h0": "restored", "h1": "held"}, "halted"),
    ("dark in the payload, back after three tries", {("h0", "payload"): DARK, ("h0", "restore"): [DARK, DARK]},
     {"h0": "restored", "h1": "held"}, "halted"),
    ("dark for good", {("h0", "payload"): DARK, ("h0", "restore"): DARK}, {"h0": "lost", "h1": "held"}, "halted"),
    ("dark at the commit that had been done", {("h0", "commit"): DARK, ("h0", "restore"): ("ok", {"outcome": "committed"})},
     {"h0": "committed", "h1": "held"}, "halted"),
    ("the restore gives no answer once", {("h0", "health"): BROKEN, ("h0", "restore"): [("failed", {"timedout": {"period": 9}})]},
     {"h0": "restored", "h1": "held"}, "halted"),
    ("the restore is killed once", {("h0", "health"): BROKEN, ("h0", "restore"): [("failed", {"module_stdout": "", "rc": 137})]},
     {"h0": "restored", "h1": "held"}, "halted"),
    ("the restore ends with an exception", {("h0", "health"): BROKEN, ("h0", "restore"): [("failed", {"module_stdout": "", "rc": 1})]},
     {"h0": "restore_failed", "h1": "held"}, "halted"),
    ("the payload ends the play", {("h0", "payload"): ("end_play", {})}, {"h0": "restored", "h1": "held"}, "halted"),
]  # fmt: skip


@pytest.mark.parametrize("name, answers, expected, wanted", STORIES, ids=[story[0] for story in STORIES])
def test_stories(name, answers, expected, wanted):
    play = Play(answers={key: list(value) if isinstance(value, list) else value for key, value in answers.items()}).run()
    assert {host: play.outcomes()[host] for host in expected} == expected
    assert play.driver.wanted == wanted


def test_no_host_is_changed_before_every_host_was_asked():
    play = Play(hosts=9).run()
    first_change = next(index for index, (_host, task) in enumerate(play.ran) if task == "begin")
    assert {host for host, task in play.ran[:first_change] if task == "settle"} == {f"h{number}" for number in range(9)}


def test_asking_is_no_wider_than_core_has_workers():
    play = Play(hosts=50)
    play.stage.width = 7
    assert len(play.driver.hosts_left()) == 7


def test_nobody_commits_before_the_whole_wave_is_parked():
    play = Play(hosts=5, ring={"serial": ("100%",), "concurrency": 2}).run()
    tasks = [task for _host, task in play.ran]
    assert tasks.index("commit") > max(index for index, task in enumerate(tasks) if task == "health")


def test_a_parked_host_that_is_reverted_never_commits():
    play = Play(ring={"serial": ("100%",)}, answers={("h3", "health"): [BROKEN]}, delays={("h3", "payload"): 5}).run()
    assert set(play.outcomes().values()) == {"restored"}
    assert "commit" not in {task for _host, task in play.ran}


def test_held_hosts_are_asked_and_no_more():
    play = Play(held={"db1": "audit", "db2": "repair"}, answers={("db2", "settle"): DARK}).run()
    assert [task for host, task in play.ran if host.startswith("db")] == ["settle", "settle"]
    assert play.driver.wanted == "ok"


def test_a_held_host_that_is_half_done_is_put_back_and_not_let_in():
    play = Play(held={"db1": "audit"}, half_done=("db1",)).run()
    assert [task for host, task in play.ran if host == "db1"] == ["settle", "put back", "bring back"]
    assert (play.outcomes()["db1"], play.driver.wanted) == ("held", "ok")


@pytest.mark.parametrize("spread, together", [((), True), ((Spread("pair", 1),), False), ((Spread("pair", 2),), True)])
def test_two_half_done_hosts_of_a_pair_are_settled_one_after_the_other(spread, together):
    domains = dict.fromkeys(("h0", "h1"), (("pair", "db"),))
    play = Play(half_done=("h0", "h1"), ring={"spread": spread, "serial": ("100%",)}, domains={**domains, "h2": (("pair", "x"),), "h3": (("pair", "y"),)}).run()
    settling = [host for host, task in play.ran if task in SETTLING]
    assert settling == (["h0", "h1", "h0", "h1"] if together else ["h0", "h0", "h1", "h1"])
    assert set(play.outcomes().values()) == {"committed"}


def test_a_held_host_that_cannot_be_put_back_is_not_passed_over():
    play = Play(held={"db1": "audit"}, half_done=("db1",), answers={("db1", "put back"): BROKEN}).run()
    assert (play.outcomes()["db1"], play.driver.wanted) == ("held", "failed")
    assert play.driver.runs["db1"].unsettled == BROKEN[1]["msg"]


LOCKED = ("failed", {"reason": "locked", "msg": "The lock is held"})
SETTLED = [
    ("at once", [], {"h0": "committed", "h2": "committed"}, "ok"),
    ("dark twice", [DARK, DARK], {"h0": "committed", "h2": "committed"}, "ok"),
    ("its lock is busy", [LOCKED, LOCKED], {"h0": "committed", "h2": "committed"}, "ok"),
    ("dark for good", DARK, {"h0": "held", "h2": "lost"}, "halted"),
    ("its restore fails", BROKEN, {"h0": "held", "h2": "restore_failed"}, "halted"),
]


@pytest.mark.parametrize("name, answer, expected, wanted", SETTLED, ids=[story[0] for story in SETTLED])
def test_a_half_done_host_has_as_long_to_answer_as_one_in_change(name, answer, expected, wanted):
    play = Play(half_done=("h2",), answers={("h2", "put back"): list(answer) if isinstance(answer, list) else answer}).run()
    assert {host: play.outcomes()[host] for host in expected} == expected
    assert play.driver.wanted == wanted


def test_a_host_that_goes_dark_before_its_rejoin_is_waited_for_and_named():
    play = Play(hosts=1, half_done=("h0",), answers={("h0", "bring back"): BROKEN}).run()
    assert play.outcomes() == {"h0": "refused"}
    assert play.driver.runs["h0"].drained
    play = Play(hosts=1, half_done=("h0",), answers={("h0", "bring back"): [DARK]}).run()
    assert play.outcomes() == {"h0": "committed"}
    assert not play.driver.runs["h0"].drained


def test_a_host_reverted_before_its_begin_is_held_and_never_turned():
    play = Play(hosts=4, ring={"serial": ("100%",)}, answers={("h0", "health"): BROKEN})
    play.stage.width = 1
    play.run()
    assert play.outcomes() == {"h0": "restored", "h1": "held", "h2": "held", "h3": "held"}
    assert [host for host, task in play.ran if task == "restore"] == ["h0"]
    assert "turn_back" not in {call[0] for call in play.stage.calls}


def test_the_wave_is_what_an_end_play_can_reach():
    play = Play().run()
    assert [call for call in play.stage.calls if call[0] == "restrict"] == [("restrict", ("h0",)), ("restrict", ("h1", "h2", "h3"))]


def test_a_dark_host_is_looked_for_without_stopping_the_others():
    answers = {("h1", "payload"): DARK, ("h1", "restore"): [DARK]}
    play = Play(ring={"serial": ("100%",), "max_failures": 1}, answers=answers).run()
    assert play.outcomes() == {"h0": "committed", "h1": "restored", "h2": "committed", "h3": "committed"}
    assert ("again", "h1") in play.stage.calls


def test_a_host_that_went_dark_in_its_payload_says_so_even_if_its_wave_is_to_be_reverted():
    answers = {("h0", "payload"): BROKEN, ("h1", "payload"): DARK}
    play = Play(hosts=2, ring={"serial": ("100%",)}, answers=answers, delays={("h1", "payload"): 5}).run()
    assert play.outcomes() == {"h0": "restored", "h1": "restored"}
    assert play.driver.runs["h1"].why == "unreachable in 'payload': No route to host"


TWO_WAVES = {"serial": (2, "100%"), "max_failures": "100%", "soak": 100.0}


def lost(times: int, then: tuple | None = None, **more) -> Play:
    """h1 goes dark in its payload, and stays so for longer than it is waited for; the others soak, in two waves."""
    return Play(ring=TWO_WAVES, answers={("h1", "payload"): DARK, ("h1", "restore"): [DARK] * times + [then]}, **more).run()


def ends(play: Play, host: str) -> list[str]:
    return [str(event.state) for event in play.told if event.kind == "ended" and event.host == host]


def test_a_lost_host_that_comes_back_while_the_run_goes_on_gets_its_restore():
    play = lost(14)
    assert play.outcomes() == {"h0": "committed", "h1": "restored", "h2": "committed", "h3": "committed"}
    assert ends(play, "h1") == ["lost", "restored"]
    assert play.driver.runs["h1"].why == "unreachable in 'payload': No route to host; did not come back within 60 s, but later"
    assert (play.driver.conductor.failures, play.driver.wanted) == ({"all": 1}, "failed")


def test_the_run_does_not_stay_for_a_lost_host():
    play = lost(10_000)
    assert (play.outcomes()["h1"], ends(play, "h1")) == ("lost", ["lost"])
    assert play.now < lost(14).now + 20


def test_a_lost_host_whose_restore_fails_when_it_comes_back_halts_the_rollout():
    failed = ("failed", {"outcome": "restore_failed", "msg": "still 500"})
    play = lost(14, failed)
    assert (play.outcomes()["h1"], play.driver.conductor.halt.value) == ("restore_failed", "restore_failed")


def test_a_run_that_is_aborted_while_it_looks_for_a_lost_host_leaves_it_to_the_next():
    def is_looked_for(play: Play) -> bool:
        if ends(play, "h1"):
            play.delays.setdefault(("h1", "restore"), 3)
        return bool(ends(play, "h1")) and play.stage.running.get("h1") == "restore"

    play = lost(10_000, aborts=is_looked_for)
    assert (play.outcomes()["h1"], play.driver.conductor.halt.value) == ("lost", "aborted")


def test_a_lost_host_says_in_the_end_how_long_it_was_waited_for():
    play = Play(hosts=1, answers={("h0", "payload"): DARK, ("h0", "restore"): DARK}).run()
    assert play.driver.runs["h0"].why.endswith("No route to host; did not come back within 60 s")


LOGIN = ("unreachable", {"msg": "Failed to connect to the host via ssh: root@h2: Permission denied (publickey)."})
CAUSES = [
    ("before", {("h2", "settle"): DARK}, {"before": 0}, "ring all, unreachable before their change: 1 > 0", "unreachable"),
    ("login", {("h2", "settle"): LOGIN}, {"login": 0}, "ring all, login refused: 1 > 0", "unreachable"),
    ("login", {("h2", "begin"): LOGIN}, {"login": 0}, "ring all, login refused: 1 > 0", "unreachable"),
    ("after", {("h2", "payload"): DARK}, {"after": 0}, "ring all, unreachable after their change began: 1 > 0", "dark"),
    ("after", {("h2", "payload"): LOGIN}, {"after": 0}, "ring all, unreachable after their change began: 1 > 0", "dark"),
    ("after", {("h2", "health"): BROKEN, ("h2", "restore"): [DARK]}, {"after": 0}, "ring all, unreachable after their change began: 1 > 0", "dark"),
    ("login", {("h2", "settle"): LOGIN}, {"before": 0, "after": 0}, "", None),
    ("after", {("h2", "payload"): DARK}, {"before": 0, "login": 0}, "", None),
    ("after", {("h2", "payload"): DARK}, 0, "", None),
]  # fmt: skip


@pytest.mark.parametrize("cause, answers, limit, exceeded, halt", CAUSES)
def test_hosts_that_cannot_be_reached_are_counted_by_cause(cause, answers, limit, exceeded, halt):
    play = Play(ring={"max_failures": "100%", "max_unreachable": limit}, answers=answers).run()
    assert str(play.driver.runs["h2"].cause) == cause
    assert (play.driver.conductor.exceeded, getattr(play.driver.conductor.halt, "value", None)) == (exceeded, halt)


def test_look_only_asks_even_held_hosts_and_changes_nothing():
    play = Play(held={"db1": "audit"}, look_only=True).run()
    assert {task for _host, task in play.ran} == {"settle"}
    assert ("db1", "settle") in play.ran
    assert play.driver.wanted == "changes"


@pytest.mark.parametrize("settled, held, outcome", [("old", False, "committed"), (NEW, False, "skipped"), ("old", True, "held")])
def test_a_host_that_nothing_brings_back_into_traffic_is_no_success(settled, held, outcome):
    host = "db1" if held else "h0"
    answers = {
        (host, "settle"): ("ok", {"drained": True, **record(settled, "restored")}),
        (host, "put back"): ("skipped", {}),
        (host, "bring back"): ("skipped", {}),
    }
    play = Play(hosts=1, held={"db1": "audit"} if held else {}, answers=answers, half_done=(host,)).run()
    assert (play.outcomes()[host], play.driver.wanted) == (outcome, "failed")
    assert (play.driver.runs[host].drained, play.driver.runs[host].stranded) == (True, True)


SAME = ("ok", record(NEW, "committed"))
LOOKS = [
    ("all run it", SAME, "ok"),
    ("to be settled", ("ok", record(NEW, "changing")), "changes"),
    ("out of traffic", ("ok", {"record": {"drained": True, "installed": {"digest": NEW}}}), "changes"),
    ("refused", BROKEN, "changes"),
    ("could not be reached", DARK, "ok"),  # core's own exit code says so
]


@pytest.mark.parametrize("held", [False, True])
@pytest.mark.parametrize("answer, wanted", [case[1:] for case in LOOKS], ids=[case[0] for case in LOOKS])
def test_a_plan_is_done_only_when_nothing_is_left_to_do(answer, wanted, held):
    answers = {("h0", "settle"): SAME, ("db1" if held else "h1", "settle"): answer}
    play = Play(hosts=1 if held else 2, held={"db1": "audit"}, answers=answers, look_only=True).run()
    assert play.driver.wanted == ("ok" if held and answer is BROKEN else wanted)


def test_a_dead_worker_ends_the_run():
    play = Play()
    play.stage.dead = True
    with pytest.raises(WorkerDied):
        play.driver.hosts_left()


def failed(digest: str) -> dict:
    found = record("digest of another release", "restored")
    found["record"]["failed"] = [{"release": {"digest": digest}, "reason": "answered 500", "at": "2025-01-31", "times": 2}]
    return found


@pytest.mark.parametrize("digest, retry, outcome", [(NEW, False, "refused"), (NEW, True, "committed"), ("another", False, "committed")])
def test_a_release_that_failed_on_a_host_is_not_tried_there_again(digest, retry, outcome):
    play = Play(answers={("h2", "settle"): ("ok", failed(digest))}, retry_failed=frozenset({"h2"} if retry else ())).run()
    assert play.outcomes() == {"h0": "committed", "h1": "committed", "h2": outcome, "h3": "committed"}
    if outcome == "refused":
        assert ("h2", "begin") not in play.ran
        assert "failed here 2 times (2025-01-31)" in play.driver.runs["h2"].why


@pytest.mark.parametrize(
    "answers, blameless",
    [
        ({("h0", "payload"): ("end_play", {})}, {"h0": False}),
        ({("h0", "payload"): DARK}, {"h0": True}),
        ({("h0", "health"): BROKEN}, {"h1": True}),
    ],
    ids=["ended the play", "went dark", "its wave is reverted"],
)
def test_who_is_turned_back_is_blamed_only_for_what_the_release_did(answers, blameless):
    play = Play(hosts=2, ring={"serial": ("100%",)}, answers=answers).run()
    assert {host: play.stage.blameless[host] for host in blameless} == blameless


def test_a_host_that_fails_while_its_wave_is_reverted_keeps_its_own_failure():
    answers = {("h0", "payload"): BROKEN, ("h1", "payload"): BROKEN}
    play = Play(hosts=2, ring={"serial": ("100%",)}, answers=answers, delays={("h1", "payload"): 3}).run()
    assert play.outcomes() == {"h0": "restored", "h1": "restored"}
    assert "h1" not in play.stage.blameless


def test_a_host_that_waits_for_its_payload_gets_no_task_and_is_not_asked_in_vain():
    play = Play(hosts=1)
    play.now = 10.0
    play.driver.report(FakeReport("failed", "h0", "", {"msg": "not yet"}, "payload"))
    play.driver.report(FakeReport("ok", "h0", "retry", {"wait": 60.0}, "retry"))
    assert play.driver.runs["h0"].why == ""
    assert [event.kind for event in play.told] == ["later"]
    play.run()
    assert play.now > 70
    assert play.outcomes() == {"h0": "committed"}


def test_a_host_that_waits_for_its_payload_is_reverted_with_its_wave_at_once():
    play = Play(hosts=2, ring={"serial": ("100%",)}, answers={("h1", "payload"): BROKEN}, delays={("h0", "payload"): 8, ("h1", "payload"): 3})
    play.driver._reading.give_up()
    play.driver.report(FakeReport("ok", "h0", "begin", {"outcome": "begun"}, "begin"))
    play.driver.report(FakeReport("ok", "h0", "retry", {"wait": 1e6}, "retry"))
    play.stage.at = {"h0": ("forward", 2), "h1": ("forward", 1)}
    play.run()
    assert set(play.outcomes().values()) == {"restored"}
    assert play.now < 1e5


SOAKS = {"serial": ("100%",), "soak": 100.0}


def test_a_parked_host_proves_itself_again_before_its_lease_ends():
    play = Play(hosts=3, ring=SOAKS, renew_interval=30.0).run()
    assert set(play.outcomes().values()) == {"committed"}
    assert sum(1 for call in play.stage.calls if call == ("prove_again", "h1")) in (3, 4)


def test_renewing_waits_for_a_free_worker():
    play = Play(hosts=3, ring=SOAKS, renew_interval=30.0)
    play.stage.width = 1
    play.run()
    assert set(play.outcomes().values()) == {"committed"}
    assert {call[1] for call in play.stage.calls if call[0] == "prove_again"} == {"h0", "h1", "h2"}


@pytest.mark.parametrize("interval, soak, proofs", [(20.0, 100.0, (4, 5)), (0.0, 100.0, (0,)), (60.0, 0.0, (0,)), (60.0, 50.0, (0,))])
def test_hosts_that_soak_are_checked_as_often_as_their_ring_says(interval, soak, proofs):
    play = Play(hosts=3, ring={"serial": ("100%",), "soak": soak, "soak_interval": interval}).run()
    assert set(play.outcomes().values()) == {"committed"}
    for host in ("h0", "h1", "h2"):
        assert sum(1 for call in play.stage.calls if call == ("prove_again", host)) in proofs


def test_a_host_whose_check_takes_longer_than_the_interval_is_not_asked_twice_at_once():
    play = Play(hosts=1, ring={"soak": 50.0, "soak_interval": 0.5})
    proves = play.stage.prove_again
    play.stage.prove_again = lambda host: host not in play.stage.running and proves(host)
    play.run()
    assert play.outcomes() == {"h0": "committed"}


def test_a_check_that_fails_in_the_soak_is_the_failure_of_its_host_and_names_the_check():
    sick = (
        "failed",
        {"checks": [{"name": "web", "level": "required", "ok": False, "seen": "status 500", "expected": "status 200", "seconds": 1.0, "attempts": 2}]},
    )
    play = Play(hosts=3, ring={**SOAKS, "soak_interval": 20.0}, answers={("h1", "health"): [None, None, sick]}).run()
    assert set(play.outcomes().values()) == {"restored"}
    assert play.driver.runs["h1"].why.startswith("while it was parked, check web: status 500, expected status 200")
    assert play.driver.conductor.failures == {"all": 1}
    assert 40 < play.now < 100


@pytest.mark.parametrize("trouble", [BROKEN, DARK])
def test_a_parked_host_that_gets_sick_or_dark_stops_its_wave_at_once(trouble):
    play = Play(hosts=3, ring=SOAKS, renew_interval=30.0, answers={("h1", "health"): [None, trouble]}).run()
    assert set(play.outcomes().values()) == {"restored"}
    assert play.now < 100


@pytest.mark.parametrize(
    "drills, outcome",
    [({}, "refused"), ({"h3": [True]}, "committed"), ({"h3": [True, False]}, "refused"), ({"h0": [True], "h3": [False]}, "committed")],
    ids=["none", "passed", "failed since", "passed on one host"],
)
def test_a_ring_that_requires_a_drill_is_refused_whole_before_anybody_is_touched(drills, outcome):
    answers = {}
    for host, results in drills.items():
        found = record("old", "committed")
        found["record"]["drills"] = [{"release": {"digest": NEW}, "ok": ok} for ok in results]
        answers[host, "settle"] = ("ok", found)
    play = Play(ring={"require_drill": True}, answers=answers).run()
    assert set(play.outcomes().values()) == {outcome}
    if outcome == "refused":
        assert {task for _host, task in play.ran} == {"settle"}
        assert "requires a drill" in play.driver.runs["h0"].why


def test_a_host_that_cannot_keep_a_snapshot_stops_the_rollout_before_its_start():
    unfit = ("ok", {"record": {}, "unfit": "too little disk"})
    play = Play(answers={("h1", "settle"): unfit, ("h3", "settle"): unfit}).run()
    assert play.outcomes() == {"h0": "held", "h1": "refused", "h2": "held", "h3": "refused"}
    assert play.driver.wanted == "halted"
    assert "begin" not in {task for _host, task in play.ran}


def test_a_host_that_needs_no_snapshot_may_be_unfit():
    play = Play(answers={("h1", "settle"): ("ok", {"unfit": "too little disk", **record(NEW, "committed")})}).run()
    assert play.outcomes() == {"h0": "committed", "h1": "skipped", "h2": "committed", "h3": "committed"}


OUTAGE = ("failed", {"reason": "fetch", "msg": "the server answers 503"})


def test_an_outage_of_the_depot_sends_no_healthy_host_back():
    play = Play(ring={"serial": ("100%",), "concurrency": 2}, answers={("h1", "payload"): OUTAGE}, delays={("h0", "payload"): 4})
    VERBS["payload"] = "archive"
    try:
        play.run()
    finally:
        VERBS["payload"] = ""
    assert play.outcomes() == {"h0": "committed", "h1": "restored", "h2": "held", "h3": "held"}
    assert play.driver.wanted == "halted"
    assert "h1" in play.driver.runs
    assert play.driver.conductor.halt.value == "outage"


def test_a_verdict_on_the_release_outweighs_an_outage():
    play = Play(hosts=3, ring={"serial": ("100%",)}, answers={("h1", "payload"): OUTAGE, ("h0", "health"): BROKEN}, delays={("h0", "health"): 9})
    VERBS["payload"] = "archive"
    try:
        play.run()
    finally:
        VERBS["payload"] = ""
    assert play.outcomes() == {"h0": "restored", "h1": "restored", "h2": "restored"}
    assert play.driver.conductor.halt.value == "failures"


TOGETHER = {"serial": ("100%",)}


def test_an_aborted_run_restores_who_began_and_leaves_alone_who_waits_for_a_worker():
    play = Play(ring=TOGETHER, aborts=lambda play: "payload" in play.stage.running.values(), delays={("h0", "payload"): 9})
    play.stage.width = 1
    play.run()
    assert play.outcomes() == {"h0": "restored", "h1": "held", "h2": "held", "h3": "held"}
    assert [host for host, task in play.ran if task == "restore"] == ["h0"]
    assert not any(run.inconsistent for run in play.driver.runs.values())


@pytest.mark.parametrize("answer, outcome", [({"outcome": "restored"}, "restored"), ({"outcome": "untouched"}, "held")])
def test_a_begin_that_is_cut_off_is_followed_by_a_restore_as_only_the_host_knows_how_far_it_came(answer, outcome):
    play = Play(hosts=1, aborts=lambda play: "begin" in play.stage.running.values(), delays={("h0", "begin"): 9})
    play.answers["h0", "restore"] = [LOCKED, LOCKED, ("ok", answer)]
    play.run()
    assert play.outcomes() == {"h0": outcome}
    assert [task for _host, task in play.ran] == ["settle", "begin", "restore", "restore", "restore"]


def test_a_begin_that_ended_in_the_pass_that_aborts_is_followed_by_a_restore():
    play = Play(hosts=1, aborts=lambda play: play.driver.runs["h0"].begun).run()
    assert (play.outcomes(), play.ran[-1]) == ({"h0": "restored"}, ("h0", "restore"))


def test_only_a_restore_can_say_that_a_restore_failed():
    play = Play(hosts=1, answers={("h0", "health"): BROKEN, ("h0", "restore"): ("end_play", {})}).run()
    assert play.outcomes() == {"h0": "lost"}
    assert not play.driver.runs["h0"].inconsistent


@pytest.mark.parametrize(
    "later, halt",
    [
        ([("archive", OUTAGE)], "outage"),
        ([("container", OUTAGE)], "outage"),
        ([("archive", OUTAGE), ("retry", OUTAGE)], "outage"),
        ([("archive", OUTAGE), ("", ("ok", {})), ("health", BROKEN)], "failures"),
        ([("archive", OUTAGE), ("health", BROKEN)], "failures"),
        ([("", OUTAGE), ("retry", OUTAGE)], "failures"),
    ],
    ids=["fetch", "fetch of an image", "fetch and retry", "rescued", "rescued by nothing", "not our fetch"],
)
def test_an_outage_is_the_failure_that_sends_the_host_back_and_no_earlier_one(later, halt):
    play = Play(hosts=1, delays={("h0", "payload"): 2}, answers={("h0", "payload"): BROKEN})
    reports = [FakeReport(kind, "h0", verb, data, verb or "payload") for verb, (kind, data) in later]
    answer = play.answer

    def payload_of_many_tasks(host, task):
        if task != "payload":
            return answer(host, task)
        del play.stage.running[host]
        play.stage.at[host] = ("back", 0)
        for report in reports:
            play.driver.report(report)

    play.answer = payload_of_many_tasks
    play.run()
    assert play.outcomes() == {"h0": "restored"}
    assert play.driver.conductor.halt.value == halt


UNPROVEN = ("failed", {"outcome": "restore_failed", "msg": "check web: saw 500, expected 200"})
ALARMS = [
    ({("h0", "put back"): UNPROVEN}, "restore_failed", True),
    ({("h0", "put back"): BROKEN}, "restore_failed", False),
    ({("h0", "put back"): ("ok", {"settled": "restored", **record("old", "changing")}), ("h0", "bring back"): BROKEN}, "refused", False),
]


@pytest.mark.parametrize("answers, outcome, alarm", ALARMS, ids=["unproven", "no verdict", "rejoin fails in check mode"])
def test_the_alarm_is_for_what_a_restore_left_unproven(answers, outcome, alarm):
    play = Play(hosts=1, half_done=("h0",), answers=answers).run()
    assert play.outcomes() == {"h0": outcome}
    assert bool(play.driver.runs["h0"].inconsistent) is alarm


CHECK = {"name": "web", "type": "http", "level": "required", "ok": False, "seen": "status 503", "expected": "status 200", "seconds": 1.0, "attempts": 2}
DOWN = ("failed", {"reason": "sick", "checks": [CHECK]})
ALSO_DOWN = ("ignored", {"checks": [CHECK]})
NO_ANSWER = ("ignored", {"msg": "No route to host"})


def asked(play: Play) -> list[str]:
    return [call[1] for call in play.stage.calls if call[0] == "ask"]


def restores(play: Play) -> list[str]:
    return [host for host, task in play.ran if task == "restore"]


def test_a_check_that_fails_on_the_canary_alone_is_the_fault_of_the_release():
    play = Play(answers={("h0", "health"): DOWN}).run()
    assert play.outcomes() == {"h0": "restored", "h1": "held", "h2": "held", "h3": "held"}
    assert asked(play) == ["h1", "h2", "h3"]
    assert not [event for event in play.told if event.kind == "outage"]


def test_hosts_in_an_outage_wait_for_its_end_and_go_on():
    answers = {("h0", "health"): [DOWN, DOWN, None]} | {(host, "asked"): ALSO_DOWN for host in ("h1", "h2", "h3")}
    play = Play(answers=answers).run()
    assert set(play.outcomes().values()) == {"committed"}
    assert (play.driver.wanted, play.driver.conductor.failures, restores(play)) == ("ok", {"all": 0}, [])
    assert [event.detail for event in play.told if event.kind == "outage"] == [
        "check web fails on h1 and h2 and h3 too, which this release has not touched",
        "",
    ]
    assert play.driver.runs["h0"].why == ""


def test_nobody_is_let_in_while_it_is_asked_or_in_an_outage():
    answers = {("h0", "health"): [DOWN, DOWN, None], ("h1", "asked"): [ALSO_DOWN], ("h2", "asked"): [ALSO_DOWN]}
    play = Play(ring={"serial": ("100%",), "concurrency": 1}, answers={**answers, ("h3", "asked"): [ALSO_DOWN]}).run()
    assert play.outcomes()["h0"] == "restored", "the second time the others are well"
    assert {host for host, task in play.ran if task == "begin"} == {"h0"}


@pytest.mark.parametrize("max_wait", [0.0, 100.0])
def test_an_outage_that_takes_too_long_ends_the_run_and_everything_stays_as_it_is(max_wait):
    answers = {("h1", "health"): DOWN, ("h3", "asked"): ALSO_DOWN, ("h0", "asked"): ALSO_DOWN}
    play = Play(ring={"serial": (1, 2, 1)}, answers=answers, max_wait=max_wait).run()
    assert play.outcomes() == {"h0": "committed", "h1": "held", "h2": "held", "h3": "held"}
    assert (play.driver.wanted, play.driver.conductor.halt.value, restores(play)) == ("halted", "unjudged", [])
    assert (play.driver.conductor.failures, play.driver.runs["h1"].outcome) == ({"all": 0}, None)
    assert "check web fails on h3 too" in play.driver.conductor.exceeded
    assert "and on h0, proven before" in play.driver.conductor.exceeded
    assert max_wait <= play.now < max_wait + 60


@pytest.mark.parametrize("where", ["health", "commit"])
def test_who_fails_before_its_commit_in_an_outage_is_proven_before_it_commits(where):
    """In its soak, or by the last look of the commit itself."""
    answers = {("h0", where): [None, DOWN, None] if where == "health" else [DOWN]} | {(host, "asked"): [ALSO_DOWN] for host in ("h1", "h2", "h3")}
    play = Play(ring={"soak": 25.0, "soak_interval": 10.0}, answers=answers).run()
    assert set(play.outcomes().values()) == {"committed"}
    assert (play.driver.conductor.failures, restores(play)) == ({"all": 0}, [])
    undone = play.stage.calls.index(("undo_failure", "h0"))
    assert ("prove_again", "h0") in play.stage.calls[undone:]


def test_without_an_untouched_host_those_that_were_proven_are_asked():
    answers = {("h3", "health"): DOWN} | {(host, "asked"): ALSO_DOWN for host in ("h0", "h1")}
    play = Play(ring={"serial": (1,)}, answers=answers, max_wait=0.0).run()
    assert play.outcomes() == {"h0": "committed", "h1": "committed", "h2": "committed", "h3": "held"}
    assert asked(play) == ["h0", "h1"]


@pytest.mark.parametrize(
    "answers",
    [{("h1", "asked"): NO_ANSWER, ("h2", "asked"): NO_ANSWER, ("h3", "asked"): NO_ANSWER}, {("h1", "asked"): ALSO_DOWN, ("h2", "asked"): ALSO_DOWN}],
    ids=["nobody answers", "one is well"],
)
def test_who_gives_no_answer_or_is_well_makes_no_outage(answers):
    play = Play(answers={("h0", "health"): DOWN, **answers}).run()
    assert play.outcomes() == {"h0": "restored", "h1": "held", "h2": "held", "h3": "held"}


@pytest.mark.parametrize("hosts, can_ask", [(1, True), (4, False)], ids=["nobody else", "checks that are not said"])
def test_where_nobody_can_be_asked_the_check_counts_at_once(hosts, can_ask):
    play = Play(hosts=hosts, answers={("h0", "health"): DOWN})
    play.stage.can_ask = can_ask
    play.run()
    assert (play.outcomes()["h0"], asked(play)) == ("restored", [])


@pytest.mark.parametrize("keep, outcome", [(False, "restored"), (True, "held")])
def test_an_operator_may_end_the_run_in_an_outage(keep, outcome):
    answers = {("h0", "health"): DOWN} | {(host, "asked"): ALSO_DOWN for host in ("h1", "h2", "h3")}
    play = Play(answers=answers, max_wait=200.0)
    tell = play.driver._outages._tell
    play.driver._outages._tell = lambda event: (tell(event), event.detail and event.kind == "outage" and play.driver.conductor.stop(keep, event.at))
    play.run()
    assert play.outcomes() == {"h0": outcome, "h1": "held", "h2": "held", "h3": "held"}
    assert play.now < 60, "nobody waits for its end"
    assert play.driver.conductor.halt.value == "stopped"


def sick_before(*hosts: str, well: int | None = None) -> dict:
    """These fail their check before their change, so many times; what is asked of them says the same."""
    sick = ("failed", {"refused": True, "reason": "sick", "msg": "sick already", "checks": [CHECK]})
    untouched = {(host, "restore"): ("ok", {"outcome": "untouched"}) for host in hosts}
    return {(host, "begin"): [sick] * (well or 99) for host in hosts} | {(host, "asked"): [ALSO_DOWN] * 3 * (well or 99) for host in hosts} | untouched


BEFORE = [
    ("one of many", {"serial": (1, "100%")}, ("h0",), {"h0": "refused", "h1": "held", "h2": "held", "h3": "held"}, "unproven"),
    ("one of its wave", {"serial": (2, "100%")}, ("h0",), {"h0": "refused", "h1": "committed", "h2": "committed", "h3": "committed"}, None),
    ("all of a wave, and the untouched", {"serial": (2, "100%")}, ("h0", "h1", "h2", "h3"), dict.fromkeys(("h0", "h1", "h2", "h3"), "held"), "unjudged"),
    ("all that were let in together", {"serial": ("100%",)}, ("h0", "h1", "h2", "h3"), dict.fromkeys(("h0", "h1", "h2", "h3"), "held"), "unjudged"),
    ("but not the untouched", {"serial": (2, "100%")}, ("h0", "h1"), {"h0": "refused", "h1": "refused", "h2": "held", "h3": "held"}, "unproven"),
    ("but not the proven", {"serial": (1, "100%")}, ("h1", "h2", "h3"), {"h0": "committed", **dict.fromkeys(("h1", "h2", "h3"), "refused")}, "unproven"),
    ("the last one alone", {"serial": (1,)}, ("h3",), {"h0": "committed", "h1": "committed", "h2": "committed", "h3": "refused"}, "unproven"),
]  # fmt: skip


@pytest.mark.parametrize("name, ring, sick, expected, halt", BEFORE, ids=[case[0] for case in BEFORE])
def test_hosts_that_are_sick_before_their_change_are_refused_or_in_an_outage(name, ring, sick, expected, halt):
    play = Play(ring=ring, answers=sick_before(*sick), max_wait=60.0).run()
    assert play.outcomes() == expected
    assert getattr(play.driver.conductor.halt, "value", None) == halt
    assert play.driver.conductor.failures == {"all": 0}
    assert bool([event for event in play.told if event.kind == "outage"]) == (halt == "unjudged")


def test_proven_hosts_that_fail_too_make_an_outage_of_what_the_last_host_finds_before_its_change():
    answers = sick_before("h3") | {(host, "asked"): ALSO_DOWN for host in ("h0", "h1")}
    play = Play(ring={"serial": (1,)}, answers=answers, max_wait=0.0).run()
    assert play.outcomes() == {"h0": "committed", "h1": "committed", "h2": "committed", "h3": "held"}
    assert "proven before" in play.driver.conductor.exceeded


@pytest.mark.parametrize("serial", [(2, "100%"), ("100%",)], ids=["the others wait", "all are let in together"])
def test_hosts_that_an_outage_strikes_before_their_change_begin_when_it_is_over(serial):
    play = Play(ring={"serial": serial}, answers=sick_before("h0", "h1", "h2", "h3", well=2), max_wait=600.0).run()
    assert (set(play.outcomes().values()), play.driver.wanted) == ({"committed"}, "ok")
    assert restores(play) == []
    assert {run.why for run in play.driver.runs.values()} == {""}


@pytest.mark.parametrize("keep", [False, True])
def test_who_is_in_an_outage_before_its_change_is_held_when_an_operator_ends_the_run(keep):
    play = Play(answers=sick_before("h0", "h1", "h2", "h3"), max_wait=200.0)
    tell = play.driver._outages._tell
    play.driver._outages._tell = lambda event: (tell(event), event.detail and event.kind == "outage" and play.driver.conductor.stop(keep, event.at))
    play.run()
    assert set(play.outcomes().values()) == {"held"}
    assert (play.now < 60, restores(play)) == (True, [])


def test_who_finds_another_reason_to_be_refused_in_an_outage_is_refused():
    answers = sick_before("h0", "h1", "h2", "h3")
    answers["h0", "begin"][1:] = [("failed", {"refused": True, "reason": "held", "msg": "held by another rollout"})]
    play = Play(answers=answers, max_wait=200.0).run()
    assert play.outcomes() == {"h0": "refused", "h1": "held", "h2": "held", "h3": "held"}


def test_the_first_who_is_well_decides_and_nobody_waits_for_the_slow():
    play = Play(answers=sick_before("h0"), ring={"serial": (2, "100%")}, delays={("h3", "asked"): 500}).run()
    begun = [entry for entry in play.told if entry.kind == "ended" and entry.host == "h0"]
    assert begun[0].at < 500


def test_an_aborted_run_forgets_what_it_asked():
    answers = {("h0", "health"): DOWN}
    play = Play(answers=answers, aborts=lambda play: "asked" in play.stage.running.values(), delays={("h1", "asked"): 99}).run()
    assert play.outcomes() == {"h0": "restored", "h1": "held", "h2": "held", "h3": "held"}
    assert play.driver.conductor.halt.value == "aborted"


def test_the_whole_fleet_is_looked_at_before_and_after_a_wave():
    """What is seen after one wave counts before the next, if that begins at once."""
    play = Play(held={"db1": "audit"}, max_unhealthy=0, ring={"soak": 40.0}).run()
    assert set(play.outcomes().values()) == {"committed", "held"}
    assert asked(play) == ["h0", "h1", "h2", "h3"] * 3
    begins = [play.stage.calls.index(("ask", "h3"))]
    assert begins[0] < play.stage.calls.index(("restrict", ("h1", "h2", "h3")))


def test_without_a_limit_nobody_is_looked_at():
    assert asked(Play().run()) == []


def test_a_rollout_with_nothing_to_do_looks_at_nobody():
    play = Play(hosts=2, max_unhealthy=0, answers={(host, "settle"): SAME for host in ("h0", "h1")}).run()
    assert (play.outcomes(), asked(play)) == ({"h0": "skipped", "h1": "skipped"}, [])


LOOKED = [
    ("sick before the first wave", 0, {"h3": ALSO_DOWN}, {"h0": "held", "h1": "held", "h2": "held", "h3": "held"}),
    ("no answer", 0, {"h3": NO_ANSWER}, {"h0": "held", "h1": "held", "h2": "held", "h3": "held"}),
    ("sick for a while", 0, {"h3": [ALSO_DOWN, ALSO_DOWN]}, dict.fromkeys(("h0", "h1", "h2", "h3"), "committed")),
    ("sick after the first wave", 0, {"h0": [None, *[ALSO_DOWN] * 99]}, {"h0": "committed", "h1": "held", "h2": "held", "h3": "held"}),
    ("sick after the last wave", 0, {"h2": [None, None, *[ALSO_DOWN] * 99]}, dict.fromkeys(("h0", "h1", "h2", "h3"), "committed")),
    ("as many as may be", 1, {"h3": ALSO_DOWN}, dict.fromkeys(("h0", "h1", "h2", "h3"), "committed")),
    ("more than may be", "25%", {"h3": ALSO_DOWN, "h2": NO_ANSWER}, {"h0": "held", "h1": "held", "h2": "held", "h3": "held"}),
]


@pytest.mark.parametrize("name, limit, answers, expected", LOOKED, ids=[case[0] for case in LOOKED])
def test_a_fleet_that_is_not_healthy_holds_the_rollout(name, limit, answers, expected):
    play = Play(answers={(host, "asked"): answer for host, answer in answers.items()}, max_unhealthy=limit, max_wait=100.0).run()
    assert play.outcomes() == expected
    told = [event.detail for event in play.told if event.kind == "gate"]
    for_good = set(expected.values()) != {"committed"} or name == "sick after the last wave"
    assert play.driver.wanted == ("halted" if for_good else "ok")
    assert restores(play) == []
    if for_good:
        assert play.driver.conductor.halt.value == "unhealthy"
        assert play.driver.conductor.exceeded.startswith("unhealthy hosts of the fleet: ")
        assert play.now < 200
    if name == "sick for a while":
        assert told == ["hold: unhealthy hosts of the fleet: 1 > max_unhealthy 0: h3 (web)", "pass: the fleet is healthy again"]


def test_a_wave_that_halts_is_not_looked_at_again():
    play = Play(max_unhealthy=0, answers={("h0", "health"): BROKEN}).run()
    assert (play.driver.conductor.halt.value, asked(play)) == ("failures", ["h0", "h1", "h2", "h3"])


def test_operators_are_heard_while_hosts_are_asked_and_settled():
    play = Play(hosts=2, half_done=("h0",), delays={("h1", "settle"): 2, ("h0", "put back"): 2})
    heard = set()
    play.driver._attend = lambda: heard.update((task, play.driver.asked) for task in play.stage.running.values())
    play.run()
    assert {("settle", False), ("put back", False)} <= heard
