# Copyright: onprem.rollout contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""The driver over a recording stage that walks hosts through the role's tasks as core would.

What core itself does is not imitated here beyond that; tests/core runs the same stories on every ansible-core.
"""

from __future__ import annotations

import pytest

from ansible_collections.onprem.rollout.plugins.plugin_utils._policy import Spread
from ansible_collections.onprem.rollout.plugins.plugin_utils._stage import WorkerDied
from ansible_collections.onprem.rollout.tests.unit.plugins.plugin_utils.stage_play import (
    BROKEN,
    DARK,
    NEW,
    REFUSED,
    SAME,
    SETTLING,
    TOGETHER,
    VERBS,
    FakeReport,
    Play,
    record,
)

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
    assert play.driver.runs["h2"].blamed is (outcome == "refused")
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
