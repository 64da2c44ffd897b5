# Copyright: onprem.rollout contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

from __future__ import annotations

import pytest

from ansible_collections.onprem.rollout.plugins.plugin_utils._ledger import START, Entry
from ansible_collections.onprem.rollout.plugins.plugin_utils._standing import Standing
from ansible_collections.onprem.rollout.plugins.plugin_utils._verbs import approval_problems, approved, refusal

NOW = 1_800_000_000.0  # 2027-01-15T08:00:00Z
OLD, NEW, OTHER = ("a" * 64, "b" * 64, "c" * 64)


def event(kind, **data):
    return Entry(START, kind, "shop-2.0", "ada on ctl1, pid 7", 0.0, data)


def standing(*events):
    found = Standing("shop-2.0")
    for each in events:
        found.hear(each)
    return found


RUNS = (event("started", plan=OLD), event("started", plan=NEW))
APPROVALS = [
    (RUNS, "", "", []),
    (RUNS, OLD, "", []),
    (RUNS, NEW, "2027-01-15T09:00:01+01:00", []),
    (RUNS, OTHER, "", [f"no run of shop-2.0 had this plan; that of its newest run is {NEW}"]),
    (RUNS, NEW[:12], "", ["is no digest of a plan"]),
    ((), OTHER, "", []),
    ((), "", "", ["shop-2.0 had no run yet"]),
    (RUNS, "", "2027-01-15T09:00:00+01:00", ["is past, it is 2027-01-15T08:00:00.000Z now"]),
    (RUNS, "", "2027-02-01", ["does not say in which zone"]),
    (RUNS, "", "next week", ["is no ISO 8601 time"]),
    (RUNS, "4711", "next week", ["is no digest of a plan", "is no ISO 8601 time"]),
]


@pytest.mark.parametrize("events, plan, expires, whys", APPROVALS, ids=[f"{plan[:5]} {expires} {len(events)}" for events, plan, expires, _whys in APPROVALS])
def test_everything_that_is_wrong_with_an_approval_is_said_at_once(events, plan, expires, whys):
    problems = approval_problems({"plan": plan, "expires": expires}, standing(*events), NOW)
    assert len(problems) == len(whys)
    for problem, why in zip(problems, whys, strict=True):
        assert why in str(problem)


SOAKS = event("wave", ring="early", wave=1, state="soaks 60 s")
REFUSED = [
    ("abort", (), "shop-2.0 had no run yet, so there is nothing to abort"),
    ("promote", (event("hold"),), "shop-2.0 had no run yet, so there is nothing to promote"),
    ("abort", (event("started"), event("finished", how="ok")), "the last run of shop-2.0 ended at 1970-01-01T00:00:00.000Z, so there is nothing to abort"),
    ("abort", (event("started"),), ""),
    ("promote", (event("started"),), "no wave of shop-2.0 soaks now, so there is nothing to promote"),
    ("promote", (event("started"), event("wave", ring="early", wave=1, state="soaks 60 s")), ""),
    ("promote", (event("started"), SOAKS, event("wave", ring="early", wave=1, state="judged")), "no wave of shop-2.0 soaks now"),
    ("abort", (event("started"), event("abort", then="keep", why="a sale")), "shop-2.0 is aborted with rollout_then=keep since 1970-01-01"),
    ("hold", (), ""),
    ("resume", (), ""),
]


@pytest.mark.parametrize("verb, events, why", REFUSED, ids=[f"{verb} {len(events)}" for verb, events, _why in REFUSED])
def test_what_has_no_run_at_work_is_not_aborted_or_promoted(verb, events, why):
    found = refusal(verb, standing(*events), lambda run: False)
    assert (found.startswith(why), bool(found)) == (True, bool(why))


def test_a_run_that_died_is_not_aborted():
    died = refusal("abort", standing(event("started", run="ctl1/b/n/7/99")), lambda run: run["run"] == "ctl1/b/n/7/99")
    assert died.startswith("the run of ada on ctl1, pid 7 ended without a word, so there is nothing to abort")


SIGNED = event("approve", plan=NEW, by="eve", expires=None, signature="x")
PLAIN = event("approve", plan=NEW, by="eve", expires="2027-01-15T09:00:00+00:00")
AGAIN = [
    ("the same", PLAIN, {"expires": "2027-01-15T09:00:00+00:00"}, True),
    ("without an end", PLAIN, {}, False),
    ("signed", PLAIN, {"expires": "2027-01-15T09:00:00+00:00", "key": "/k"}, False),
    ("signed again", SIGNED, {"key": "/k"}, True),
    ("unsigned after signed", SIGNED, {}, False),
    ("another plan", SIGNED, {"key": "/k", "plan": OLD}, False),
    ("of another", SIGNED._replace(data={**SIGNED.data, "by": "bob"}), {"key": "/k"}, False),
    ("ended since", PLAIN._replace(data={**PLAIN.data, "expires": "2027-01-15T07:00:00+00:00"}), {"expires": "2027-01-15T07:00:00+00:00"}, False),
]


@pytest.mark.parametrize("there, given, already", [case[1:] for case in AGAIN], ids=[case[0] for case in AGAIN])
def test_what_is_approved_is_not_approved_again(there, given, already):
    options = {"plan": "", "expires": "", "key": "", **given}
    assert approved(options, standing(*RUNS, there), "eve", NOW).startswith("is approved already, since") is already
