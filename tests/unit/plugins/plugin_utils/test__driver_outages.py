# Copyright: onprem.rollout contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Outages, and the whole fleet's health: who is asked what, and who waits for whom."""

from __future__ import annotations

import pytest

from ansible_collections.onprem.rollout.tests.unit.plugins.plugin_utils.stage_play import (
    BROKEN,
    SAME,
    Play,
)

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
