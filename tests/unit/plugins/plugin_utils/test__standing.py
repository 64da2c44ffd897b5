# Copyright: onprem.rollout contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

from __future__ import annotations

import pytest

from ansible_collections.onprem.rollout.plugins.plugin_utils._ledger import START, Entry
from ansible_collections.onprem.rollout.plugins.plugin_utils._standing import Reason, Standing, reason, settled, standing_of


def event(kind, rollout="shop-2.0", at=0.0, **data):
    return Entry(START, kind, rollout, "ada on ctl1, pid 7", at, data)


def standing(*events):
    found = Standing("shop-2.0")
    for each in events:
        found.hear(each)
    return found


STARTED = event("started", plan="p1", run="ctl1/b/n/7/99")
WAVE = event("wave", ring="early", wave=1, state="filling")
REASONS = [
    ((), Reason.NOT_STARTED, "no run of it is in the ledger"),
    ((STARTED,), Reason.RUNNING, "the hosts are asked, by ada"),
    ((STARTED, WAVE), Reason.RUNNING, "early wave 1, by ada on ctl1, pid 7"),
    ((STARTED, event("wave", ring="early", wave=1, state="soaks 600 s")), Reason.SOAKING, "early wave 1 soaks 600 s since 1970-01-01T00:00:00.000Z"),
    ((STARTED, event("wave", ring="early", wave=1, state="soaks 600 s"), event("wave", ring="early", wave=1, state="soaking")), Reason.SOAKING, "soaks 600 s"),
    ((STARTED, event("hold", why="a sale")), Reason.HELD, "held since 1970-01-01T00:00:00.000Z by ada on ctl1, pid 7: a sale"),
    ((STARTED, event("hold"), event("resume")), Reason.RUNNING, "the hosts are asked"),
    ((STARTED, WAVE, event("outage", why="check web fails on h3 too")), Reason.OUTAGE, "an outage since 1970-01-01T00:00:00.000Z: check web fails on h3 too"),
    ((STARTED, WAVE, event("outage", why="check web fails on h3 too"), event("outage", why="")), Reason.RUNNING, "early wave 1"),
    ((STARTED, event("finished", how="ok")), Reason.DONE, "every host that takes part has it"),
    ((STARTED, event("finished", how="waiting", paused="no approval")), Reason.WAITING, "the last run waited until 1970-01-01T00:00:00.000Z: no approval"),
    ((STARTED, event("finished", how="halted", why="failures")), Reason.HALTED, "the last run was halted at 1970-01-01T00:00:00.000Z: failures"),
    ((STARTED, event("finished", how="interrupted")), Reason.HALTED, "the last run was interrupted at 1970-01-01T00:00:00.000Z"),
    ((STARTED, event("finished", how="failed")), Reason.NOT_EVERYWHERE, "some hosts are left"),
    ((STARTED, event("finished", how="ok"), STARTED), Reason.RUNNING, "the hosts are asked"),
]


@pytest.mark.parametrize("events, kind, text", REASONS, ids=[f"{kind} {len(events)}" for events, kind, _text in REASONS])
def test_the_reason(events, kind, text):
    found, said = reason(standing(*events), lambda run: False)
    assert found is kind
    assert text in said


def test_a_run_whose_process_is_gone_died():
    gone = []
    assert reason(standing(STARTED, WAVE), lambda run: gone.append(run["run"]) is None)[0] is Reason.DIED
    assert gone == ["ctl1/b/n/7/99"]


NOTHING = [
    ("hold", (), ""),
    ("hold", (event("hold", why="a sale"),), "is held already, by ada on ctl1, pid 7: a sale"),
    ("resume", (), "is not held"),
    ("resume", (event("hold"),), ""),
    ("abort", (), "has no run at work"),
    ("abort", (STARTED,), ""),
    ("abort", (STARTED, event("abort")), "is aborted already, by ada on ctl1, pid 7"),
    ("promote", (STARTED, event("finished", how="ok")), "has no run at work"),
    ("approve", (), ""),
]


@pytest.mark.parametrize("verb, events, why", NOTHING, ids=[f"{verb} {why}" for verb, _events, why in NOTHING])
def test_a_verb_that_has_nothing_to_do_says_why(verb, events, why):
    assert settled(verb, standing(*events)) == why


def test_an_abort_is_for_one_run():
    assert standing(STARTED, event("abort"), event("finished", how="halted"), STARTED).abort is None


def test_events_of_others_are_not_heard():
    assert standing(event("hold", "other-1.0")).hold is None
    found = standing_of([event("started", "a-1"), event("started", "b-1"), event("hold", "a-1")])
    assert (found.rollout, found.hold) == ("b-1", None)
    assert standing_of([event("started", "a-1"), event("hold", "a-1")], "a-1").hold
    assert standing_of([]) is None
