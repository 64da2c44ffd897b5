# Copyright: onprem.rollout contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Outage or bad release? What the answers of other hosts add up to."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ansible_collections.onprem.rollout.plugins.plugin_utils._crosscheck import FRESH, PROVEN, UNTOUCHED, CrossCheck, Sick, sick_of
from ansible_collections.onprem.rollout.plugins.plugin_utils._states import State

WEB, DB = Sick(0, "web", "http"), Sick(1, "db", "tcp")


def results(web: bool = True, db: bool = True) -> list[dict]:
    return [
        {"name": "web", "type": "http", "level": "required", "ok": web},
        {"name": "db", "type": "tcp", "level": "required", "ok": db},
    ]


def asked(states: dict[str, State], answers: dict, now: float = 0.0) -> CrossCheck:
    check = CrossCheck()
    round_ = check.open(states, now)
    for host in round_.hosts:
        round_.heard(host, answers.get(host))
    return check


def test_only_required_checks_make_a_host_sick():
    advisory = {"name": "queue", "type": "http", "level": "advisory", "ok": False}
    assert sick_of([advisory, *results(web=False)]) == (Sick(1, "web", "http"),)


W, C, K, P = State.WAITING, State.COMMITTED, State.SKIPPED, State.PARKED
VERDICTS = [
    ("untouched is down too", {"a": W}, {"a": results(web=False)}, (WEB,), "check web fails on a too, which this release has not touched"),
    ("untouched is well", {"a": W}, {"a": results()}, (WEB,), ""),
    ("untouched is well, proven is not", {"a": W, "b": C}, {"a": results(), "b": results(web=False)}, (WEB,), ""),
    ("both are down", {"a": W, "b": K}, {"a": results(web=False), "b": results(web=False)}, (WEB,),
     "check web fails on a too, which this release has not touched, and on b, proven before"),
    ("untouched is down, proven is not", {"a": W, "b": C}, {"a": results(web=False), "b": results()}, (WEB,),
     "check web fails on a too, which this release has not touched, but not on b, proven before"),
    ("one of two untouched is well", {"a": W, "b": W}, {"a": results(web=False), "b": results()}, (WEB,), ""),
    ("one of two untouched gives no answer", {"a": W, "b": W}, {"a": results(web=False)}, (WEB,),
     "check web fails on a too, which this release has not touched"),
    ("nobody is untouched", {"b": C}, {"b": results(web=False)}, (WEB,),
     "check web fails on b too, proven before, and no host is left that this release has not touched"),
    ("nobody untouched answers", {"a": W, "b": C}, {"b": results(web=False)}, (WEB,),
     "check web fails on b too, proven before, and no host is left that this release has not touched"),
    ("a parked host proves nothing", {"b": P}, {"b": results(web=False)}, (WEB,), ""),
    ("nobody answers", {"a": W, "b": C}, {}, (WEB,), ""),
    ("another check is down there", {"a": W}, {"a": results(db=False)}, (WEB,), ""),
    ("only one of two is down there", {"a": W}, {"a": results(web=False)}, (WEB, DB), ""),
    ("both checks are down there", {"a": W}, {"a": results(False, False)}, (WEB, DB),
     "checks web and db fail on a too, which this release has not touched"),
    ("named by where it looks", {"a": W}, {"a": results(web=False)}, (Sick(0, "http http://h1/", "http"),),
     "check http http://h1/ fails on a too, which this release has not touched"),
    ("no such check there", {"a": W}, {"a": results(web=False)}, (Sick(0, "queue", "tcp"),), ""),
]  # fmt: skip


@pytest.mark.parametrize("name, states, answers, sick, why", VERDICTS, ids=[case[0] for case in VERDICTS])
def test_verdicts(name, states, answers, sick, why):
    assert asked(states, answers).verdict(sick, 0.0, 0.0) == why


BEFORE = [
    ("untouched is down too", {"a": W}, {"a": results(web=False)}, "check web fails on a too, which this release has not touched"),
    ("untouched is well", {"a": W}, {"a": results()}, ""),
    ("proven is well", {"a": W, "b": C}, {"a": results(web=False), "b": results()}, ""),
    ("all are down", {"a": W, "b": C}, {"a": results(web=False), "b": results(web=False)},
     "check web fails on a too, which this release has not touched, and on b, proven before"),
    ("only a proven one is there", {"b": C}, {"b": results(web=False)},
     "check web fails on b too, proven before, and no host is left that this release has not touched"),
    ("nobody answers", {"a": W, "b": C}, {}, ""),
]  # fmt: skip


@pytest.mark.parametrize("name, states, answers, why", BEFORE, ids=[case[0] for case in BEFORE])
def test_verdicts_before_a_change(name, states, answers, why):
    assert asked(states, answers).verdict((WEB,), 0.0, 0.0, before=True) == why


def test_the_first_judge_that_is_well_decides():
    check = CrossCheck()
    check.open({"a": W, "b": W, "c": C}, 1.0).heard("b", results())
    assert check.verdict((WEB,), 1.0, 1.0) == check.verdict((WEB,), 1.0, 1.0, before=True) == ""
    check.open({"a": W, "b": W, "c": C}, 1.0).heard("c", results())
    assert (check.verdict((WEB,), 1.0, 1.0), check.verdict((WEB,), 1.0, 1.0, before=True)) == (None, ""), "of a change only the untouched judge"


def test_hosts_that_were_let_in_together_judge_each_other_and_nobody_himself():
    check = CrossCheck()
    assert check.open({"a": W, "b": State.CHANGING}, 0.0, ["b", "c"]).hosts == ("a",)
    assert check.open({"b": State.CHANGING}, 0.0, ["b"]).hosts == ()
    round_ = check.open({}, 0.0, ["b", "c"])
    round_.heard("b", results(web=False))
    round_.heard("c", results())
    assert check.verdict((WEB,), 0.0, 0.0, "b", before=True) == ""
    assert check.verdict((WEB,), 0.0, 0.0, "c", before=True)


def test_that_others_are_well_counts_only_if_they_were_asked_after_the_failure():
    well = asked({"a": W}, {"a": results()}, now=5.0)
    assert (well.verdict((WEB,), 5.0, 6.0), well.verdict((WEB,), 5.1, 6.0)) == ("", None)


def test_an_outage_is_believed_of_the_next_host_for_a_while_and_not_for_ever():
    down = asked({"a": W}, {"a": results(web=False)}, now=0.0)
    assert down.verdict((WEB,), 1.0, FRESH)
    assert down.verdict((WEB,), 1.0, FRESH + 0.1) is None
    assert down.verdict((DB,), 1.0, 1.0) is None, "of another check nothing is known"


def test_nothing_is_known_before_all_have_answered():
    check = CrossCheck()
    round_ = check.open({"a": W, "b": W}, 0.0)
    round_.heard("a", results(web=False))
    assert (check.asking, check.verdict((WEB,), 0.0, 0.0)) == (True, None)
    round_.heard("b", None)
    assert (check.asking, bool(check.verdict((WEB,), 0.0, 0.0))) == (False, True)


@given(
    st.dictionaries(st.text("abcdefgh", min_size=1, max_size=3), st.sampled_from(list(State)), max_size=12),
    st.data(),
)
def test_a_release_is_never_excused_by_a_host_that_is_well_or_silent_and_few_are_asked(states, data):
    check = CrossCheck()
    answers = {}
    round_ = check.open(states, 0.0)
    for host in round_.hosts:
        answers[host] = data.draw(st.sampled_from([None, results(), results(web=False)]))
        round_.heard(host, answers[host])
    assert len(answers) <= UNTOUCHED + PROVEN
    assert {states[host] for host in answers} <= {State.WAITING, State.COMMITTED, State.SKIPPED}
    untouched = [answer for host, answer in answers.items() if states[host] is State.WAITING and answer]
    judges = untouched or [answer for answer in answers.values() if answer]
    assert bool(check.verdict((WEB,), 0.0, 0.0)) == (bool(judges) and all(not answer[0]["ok"] for answer in judges))
