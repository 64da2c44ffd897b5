# Copyright: onprem.rollout contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ansible_collections.onprem.rollout.plugins.plugin_utils import _gates
from ansible_collections.onprem.rollout.plugins.plugin_utils._gate import Answer, Verdict
from ansible_collections.onprem.rollout.plugins.plugin_utils._gate_command import Pending
from ansible_collections.onprem.rollout.plugins.plugin_utils._gates import Watch, judge, parse

PASS, FAIL, HOLD, ERROR = Verdict.PASS, Verdict.FAIL, Verdict.HOLD, Verdict.ERROR
NIGHTS = {"type": "window", "rrule": "FREQ=DAILY;BYHOUR=22", "duration": "4h"}
TRUE = {"type": "command", "argv": ["true"]}


def test_every_type_of_gate_is_in_the_table():
    assert sorted(_gates.TYPES) == ["approval", "command", "window"]


GOOD = [
    (None, []),
    ([], []),
    ([{"type": "approval"}, NIGHTS, TRUE], ["approval", "window", "command"]),
    ([{"type": "approval", "name": "board"}, {"type": "approval"}], ["board", "approval"]),
]


@pytest.mark.parametrize("raw, names", GOOD)
def test_a_list_of_gates(raw, names):
    gates, problems = parse(raw, "rollout_gates")
    assert ([gate.name for gate in gates], problems) == (names, [])


BAD = [
    ({}, ["rollout_gates"]),
    (["approval"], ["rollout_gates[0]"]),
    ([{}], ["rollout_gates[0].type"]),
    ([{"type": "soak"}], ["rollout_gates[0].type"]),
    ([{"type": ["approval"]}], ["rollout_gates[0].type"]),
    ([{"type": "approval"}, {"type": "approval"}], ["rollout_gates[1].name"]),
    ([{"type": "approval", "name": "command"}, TRUE], ["rollout_gates[1].name"]),
    (
        [{"type": "approval", "count": 0, "age": 1}, {"type": "window"}, {"type": "command"}],
        ["rollout_gates[0].age", "rollout_gates[0].count", "rollout_gates[1]", "rollout_gates[2].argv"],
    ),
]


@pytest.mark.parametrize("raw, places", BAD)
def test_all_problems_are_found_at_once(raw, places):
    _found, problems = parse(raw, "rollout_gates")
    assert [problem.where for problem in problems] == places


def test_a_problem_says_value_place_and_remedy():
    _found, problems = parse([{"type": "aproval"}, TRUE, TRUE], "rollout_gates")
    assert [str(problem) for problem in problems] == [
        "rollout_gates[0].type: 'aproval': no such gate; allowed: approval, command, window",
        "rollout_gates[2].name: 'command': is used twice; give every gate its own name",
    ]


JUDGED = [
    ([], Answer(PASS, "there is no gate")),
    ([Answer(PASS, "a", 9.0), Answer(PASS, "b", 5.0)], Answer(PASS, "a; b", 5.0)),
    ([Answer(PASS, "a"), Answer(HOLD, "b"), Answer(HOLD, "c")], Answer(HOLD, "b; c")),
    ([Answer(HOLD, "b", 7.0), Answer(HOLD, "c", 6.0), Answer(HOLD, "d")], Answer(HOLD, "b; c; d", 6.0)),
    ([Answer(HOLD, "same"), Answer(HOLD, "same")], Answer(HOLD, "same")),
    ([Answer(HOLD, "b", 7.0), Answer(ERROR, "c"), Answer(PASS, "a")], Answer(ERROR, "c", 7.0)),
    ([Answer(ERROR, "c"), Answer(FAIL, "d"), Answer(HOLD, "b", 7.0), Answer(FAIL, "e")], Answer(FAIL, "d; e")),
]


@pytest.mark.parametrize("answers, judged", JUDGED)
def test_all_gates_as_one(answers, judged):
    assert judge(answers) == judged


ANSWERS = st.lists(st.builds(Answer, st.sampled_from(Verdict), st.text(max_size=3), st.none() | st.floats(0, 100)), min_size=1, max_size=5)


@given(ANSWERS, st.randoms())
def test_the_order_of_gates_decides_nothing_and_only_passes_pass(answers, random):
    judged = judge(answers)
    assert (judged.verdict is PASS) is all(answer.verdict is PASS for answer in answers)
    random.shuffle(answers)
    again = judge(answers)
    assert (again.verdict, again.until) == (judged.verdict, judged.until)


# --- when to ask again ---


class Clock:
    def __init__(self, now=1000.0):
        self.now = now

    def __call__(self):
        return self.now


def asked_at(answers, until, start=1000.0, interval=2.0):
    """The moments at which a gate is asked, and the verdicts that its answers count as; the last answer repeats."""
    clock, moments, verdicts = Clock(start), [], []
    watch, remaining = Watch(clock, interval), list(answers)
    while clock.now <= until:
        if watch.due():
            moments.append(clock.now - start)
            verdicts.append(str(watch.heard(remaining.pop(0) if len(remaining) > 1 else remaining[0]).verdict))
        clock.now += 0.25
    return moments, verdicts


BROKEN, HELD, PASSED, UNKNOWN = Answer(ERROR, "no route"), Answer(HOLD, "waits"), Answer(PASS, "fine"), Pending(HOLD, "is asked")
TIMES = [
    ("a hold every interval", [HELD], 1007, [0, 2, 4, 6], ["hold"] * 4),
    ("an until that was is none", [Answer(HOLD, "closed", 1000.0)], 1005, [0, 2, 4], ["hold"] * 3),
    ("an error three times more, and then as a hold", [BROKEN], 1095, [0, 10, 20, 30, 60, 90], ["error"] * 3 + ["hold"] * 3),
    (
        "an error that was none starts anew",
        [BROKEN, BROKEN, HELD, BROKEN],
        1045,
        [0, 10, 20, 22, 32, 42],
        ["error", "error", "hold", "error", "error", "error"],
    ),
    ("a failure is final", [Answer(FAIL, "no")], 1100, [0], ["fail"]),
    ("a pass every 30 s", [PASSED], 1070, [0, 30, 60], ["pass"] * 3),
    ("a pass at its until", [Answer(PASS, "open", 1005.0), HELD], 1008, [0, 5, 7], ["pass", "hold", "hold"]),
    ("who does not know yet soon", [UNKNOWN, UNKNOWN, HELD], 1003, [0, 0.25, 0.5, 2.5], ["hold"] * 4),
]


@pytest.mark.parametrize("answers, until, moments, verdicts", [case[1:] for case in TIMES], ids=[case[0] for case in TIMES])
def test_when_a_gate_is_asked_again(answers, until, moments, verdicts):
    assert asked_at(answers, until) == (moments, verdicts)


def test_never_later_than_its_until():
    assert asked_at([Answer(HOLD, "closed", 1003.0), PASSED], 1030, interval=60.0) == ([0, 3], ["hold", "pass"])


def heard(*answers):
    """A watch that heard these, one second after the other, and its clock."""
    clock = Clock()
    watch = Watch(clock)
    for answer in answers:
        watch.heard(answer)
        clock.now += 1
    return watch, clock


WHILE_UNKNOWN = [
    ([], HOLD, "is not asked yet"),
    ([BROKEN], ERROR, "no route"),
    ([HELD], HOLD, "waits"),
    ([PASSED], PASS, "fine"),
    ([Answer(PASS, "open", 1000.5)], HOLD, "is asked"),
]


@pytest.mark.parametrize("before, verdict, why", WHILE_UNKNOWN)
def test_the_answer_before_counts_until_there_is_another(before, verdict, why):
    watch, _clock = heard(*before, UNKNOWN)
    assert (watch.answer.verdict, watch.answer.why) == (verdict, why)


def test_a_program_that_is_started_again_and_again_is_still_the_same_error():
    watch, _clock = heard(BROKEN, UNKNOWN, BROKEN, UNKNOWN, BROKEN, UNKNOWN, UNKNOWN, BROKEN)
    assert watch.answer == Answer(HOLD, "no route (asked 4 times)")


@pytest.mark.parametrize("jump", [-86400, -0.5, 86400])
def test_a_clock_that_jumps_asks_at_once(jump):
    clock = Clock()
    watch = Watch(clock)
    watch.heard(Answer(HOLD, "closed", 1e6))
    assert not watch.due()
    clock.now += jump
    assert watch.due()
    watch.heard(HELD)
    assert not watch.due()
    clock.now += 2
    assert watch.due()


@pytest.mark.parametrize("answer, due", [(HELD, True), (PASSED, True), (BROKEN, False), (Answer(FAIL, "no"), False)])
def test_who_is_hurried_is_asked_at_once_but_not_about_an_error(answer, due):
    watch, _clock = heard(answer)
    assert not watch.due()
    watch.hurry()
    assert watch.due() is due
