# Copyright: onprem.rollout contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

from __future__ import annotations

import pytest

from ansible_collections.onprem.rollout.plugins.plugin_utils._ledger import START, Entry, Head
from ansible_collections.onprem.rollout.plugins.plugin_utils._reasons import Reason, reasons
from ansible_collections.onprem.rollout.plugins.plugin_utils._standing import Standing, lately, settled, standing_of


def event(kind, rollout="shop-2.0", at=0.0, **data):
    return Entry(START, kind, rollout, "ada on ctl1, pid 7", at, data)


def standing(*events):
    found = Standing("shop-2.0")
    for each in events:
        found.hear(each)
    return found


STARTED = event("started", plan="p1", run="ctl1/b/n/7/99")
WAVE = event("wave", ring="early", wave=1, state="filling")


SOAKS = event("wave", at=100.0, ring="early", wave=2, state="soaks 30.0 s")
BY = "since 1970-01-01T00:00:00.000Z by ada on ctl1, pid 7"
NOTHING = [
    ("hold", (), ""),
    ("hold", (event("hold", why="a sale"),), f"is held already, {BY}: a sale"),
    ("resume", (), "is not held"),
    ("resume", (event("hold"),), ""),
    ("abort", (STARTED,), ""),
    ("abort", (STARTED, event("abort")), f"is aborted already, {BY}"),
    ("abort", (STARTED, event("abort", then="keep")), ""),
    ("abort", (STARTED, event("abort"), event("finished", how="halted")), f"is aborted already, {BY}"),
    ("promote", (STARTED, event("promote")), ""),
    ("promote", (STARTED, SOAKS, event("promote")), f"is promoted already, {BY}"),
    ("promote", (STARTED, SOAKS, event("wave", ring="early", wave=2, state="soaking"), event("promote")), f"is promoted already, {BY}"),
    ("promote", (STARTED, SOAKS, event("promote"), event("wave", ring="early", wave=2, state="committing"), SOAKS), ""),
    ("promote", (STARTED, SOAKS, event("promote"), STARTED), ""),
    ("promote", (STARTED, event("promote"), event("finished", how="ok")), "was promoted at" + BY[5:] + ", and its run has ended"),
    ("approve", (), ""),
]


@pytest.mark.parametrize("verb, events, why", NOTHING, ids=[f"{verb} {why}" for verb, _events, why in NOTHING])
def test_a_verb_that_has_nothing_to_do_says_why(verb, events, why):
    assert settled(verb, standing(*events)) == why


LIMITED = event("started", plan="p2", limited=True)
OK, HALTED = event("finished", how="ok"), event("finished", how="halted")
OF_SOME = "the last run, of some hosts only (--limit),"
RUNS = [
    ("whole", (STARTED, OK), None, Reason.DONE, "every host"),
    ("limited", (LIMITED, OK), "p2", Reason.NOT_EVERYWHERE, f"{OF_SOME} brought them to it at"),
    ("limited, halted", (LIMITED, HALTED), "p2", Reason.HALTED, f"{OF_SOME} was halted at"),
    ("whole killed, limited", (STARTED, LIMITED, OK), "p1", Reason.NOT_EVERYWHERE, OF_SOME),
    ("limited, whole", (LIMITED, OK, STARTED, OK), None, Reason.DONE, "every host"),
    ("limited, whole halted", (LIMITED, OK, STARTED, HALTED), "p1", Reason.HALTED, "the last run was halted"),
    ("whole, limited", (STARTED, OK, LIMITED, OK), None, Reason.DONE, "every host"),
    ("whole, limited halted, limited", (STARTED, OK, LIMITED, HALTED, LIMITED, OK), "p2", Reason.NOT_EVERYWHERE, OF_SOME),
    ("limited at work", (LIMITED,), "p2", Reason.RUNNING, "of some hosts only (--limit)"),
]


@pytest.mark.parametrize("events, unfinished, kind, text", [case[1:] for case in RUNS], ids=[case[0] for case in RUNS])
def test_a_run_of_some_hosts_stands_for_no_others(events, unfinished, kind, text):
    found = standing(*events)
    assert (found.unfinished and found.unfinished.data["plan"]) == unfinished
    why = next(iter(reasons(found, lambda run: False).items()))
    assert (why[0], text in why[1]) == (kind, True)


def test_an_abort_is_for_one_run():
    assert standing(STARTED, event("abort"), event("finished", how="halted"), STARTED).abort is None


def numbered(*events):
    """The newest first, as a ledger gives them, and what was read of it."""
    read = []

    def back():
        for number, each in reversed(list(enumerate(events, 1))):
            read.append(number)
            yield each._replace(head=Head(number, ""))

    return back(), read


OTHER = event("hold", "other-1.0")
LATELY = [
    ("run at work", [event("started", since=1), OTHER, event("started", since=3), WAVE, OTHER], "", [5, 4, 3], None),
    ("held since before", [event("hold"), WAVE, event("started", since=1), OTHER], "", [4, 3, 2, 1], 1),
    ("held since a while", [WAVE, event("hold"), WAVE, event("started", since=2), WAVE], "shop-2.0", [5, 4, 3, 2], 2),
    ("held as it began", [WAVE, event("hold"), event("started", since=2)], "", [3, 2], 2),
    ("never begun", [event("hold"), event("started", "other-1.0", since=1)], "shop-2.0", [2, 1], 1),
]


@pytest.mark.parametrize("events, rollout, numbers, hold", [case[1:] for case in LATELY], ids=[case[0] for case in LATELY])
def test_how_it_stands_is_read_from_the_end_and_no_further_than_it_counts(events, rollout, numbers, hold):
    back, read = numbered(*events)
    found = lately(back, rollout)
    assert (found.rollout, read, found.hold and found.hold.head.number) == ("shop-2.0", numbers, hold)


def test_nothing_lately_is_nothing_at_all():
    assert lately([]) is None
    assert lately([OTHER]) is None
    assert standing(event("hold")._replace(head=Head(7, ""))).since == 7
    assert standing(event("hold"), event("resume")).since == 0


def test_events_of_others_are_not_heard():
    assert standing(event("hold", "other-1.0")).hold is None
    found = standing_of([event("started", "a-1"), event("started", "b-1"), event("hold", "a-1")])
    assert (found.rollout, found.hold) == ("b-1", None)
    assert standing_of([event("started", "a-1"), event("hold", "a-1")], "a-1").hold
    assert standing_of([]) is None


@pytest.mark.parametrize(
    "events, left",
    [
        ((STARTED, SOAKS), {"early": 130.0}),
        ((STARTED, SOAKS, event("wave", ring="early", wave=2, state="soaking"), event("finished", how="interrupted")), {"early": 130.0}),
        ((STARTED, SOAKS, event("wave", ring="early", wave=2, state="committing")), {}),
        ((STARTED, SOAKS, event("started", plan="p1", soaks={"early": 130})), {"early": 130}),
        ((STARTED, SOAKS, event("started", plan="p1", soaks={})), {}),
    ],
    ids=["at work", "interrupted", "through", "a run that goes on with it", "over since"],
)
def test_a_soak_that_was_cut_short_is_owed(events, left):
    assert standing(*events).soaks == left
