# Copyright: onprem.rollout contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

from __future__ import annotations

import itertools
import re
from pathlib import Path

import pytest

from ansible_collections.onprem.rollout.plugins.plugin_utils._commands import Commands
from ansible_collections.onprem.rollout.plugins.plugin_utils._ledger import START, Entry
from ansible_collections.onprem.rollout.plugins.plugin_utils._reasons import NEEDS_SOMEBODY, Reason, by_hosts, ordered, reasons, way_on
from ansible_collections.onprem.rollout.plugins.plugin_utils._standing import Standing

DOCS = Path(__file__).parents[4] / "docs" / "operating.md"


def event(kind, rollout="shop-2.0", at=0.0, **data):
    return Entry(START, kind, rollout, "ada on ctl1, pid 7", at, data)


def standing(*events):
    found = Standing("shop-2.0")
    for each in events:
        found.hear(each)
    return found


STARTED = event("started", plan="p1", run="ctl1/b/n/7/99")
WAVE = event("wave", ring="early", wave=1, state="filling")
SOAKS = event("wave", ring="early", wave=1, state="soaks 600 s")
HOLD = event("hold", why="a sale")
OUTAGE = event("outage", why="check web fails on h3 too")
HALTS, GIVES_WAY = (event("halted", ring="early", wave=1, why=why) for why in ("failures", "waiting"))
GATE = event("gate", ring="early", wave=1, verdict="hold", why="waits for 1 approval")
NEWER = event("superseded", release={"name": "shop", "version": "2.1"})
REASONS = [
    ((), Reason.NOT_STARTED, "no run of it is in the ledger"),
    ((STARTED,), Reason.RUNNING, "the hosts are asked, by ada"),
    ((STARTED, WAVE), Reason.RUNNING, "early wave 1, by ada on ctl1, pid 7"),
    ((STARTED, event("wave", ring="early", wave=1, state="soaks 600 s")), Reason.SOAKING, "early wave 1 soaks 600 s since 1970-01-01T00:00:00.000Z"),
    ((STARTED, event("wave", ring="early", wave=1, state="soaks 600 s"), event("wave", ring="early", wave=1, state="soaking")), Reason.SOAKING, "soaks 600 s"),
    ((STARTED, GATE), Reason.GATE, "early wave 1 waits since 1970-01-01T00:00:00.000Z: waits for 1 approval"),
    ((STARTED, GATE, event("gate", ring="early", wave=1, verdict="pass", why="approved"), WAVE), Reason.RUNNING, "early wave 1, by ada"),
    ((STARTED, WAVE, GATE), Reason.GATE, "waits for 1 approval"),
    ((STARTED, GATE, event("hold")), Reason.HELD, "held since"),
    (
        (STARTED, WAVE, event("halted", ring="early", wave=1, why="failures")),
        Reason.HALTED,
        "failures in early wave 1; hosts in change go on to their end",
    ),
    ((STARTED, WAVE, event("halted", ring="early", wave=1, why="waiting")), Reason.WAITING, "waiting in early wave 1; hosts in change go on to their end"),
    ((STARTED, GATE, event("finished", how="waiting", paused="no approval")), Reason.WAITING, "no approval"),
    ((STARTED, GATE, STARTED), Reason.RUNNING, "the hosts are asked"),
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
    ((STARTED, WAVE, NEWER), Reason.SUPERSEDED, "superseded by shop-2.1 at 1970-01-01T00:00:00.000Z, of ada on ctl1, pid 7; its run by ada on ctl1"),
    ((STARTED, NEWER, STARTED), Reason.RUNNING, "the hosts are asked"),
]


@pytest.mark.parametrize("events, kind, text", REASONS, ids=[f"{kind} {len(events)}" for events, kind, _text in REASONS])
def test_the_reason(events, kind, text):
    found, said = next(iter(reasons(standing(*events), lambda run: False).items()))
    assert found is kind
    assert text in said


def test_a_run_whose_process_is_gone_died():
    gone = []
    found = reasons(standing(STARTED, WAVE), lambda run: gone.append(run["run"]) is None)
    assert (list(found), gone) == ([Reason.DIED], ["ctl1/b/n/7/99"])
    assert "the run of ada on ctl1, pid 7 ended without a word, last heard of 1970-01-01T00:00:00.000Z, perhaps with hosts half done" in found[Reason.DIED]


TOGETHER = [
    ("died, held", (STARTED, WAVE, HOLD), True, [Reason.DIED, Reason.HELD]),
    ("died in an outage, held", (STARTED, WAVE, OUTAGE, HOLD), True, [Reason.DIED, Reason.HELD]),
    ("halts, held", (STARTED, WAVE, HOLD, HALTS), False, [Reason.HALTED, Reason.HELD]),
    ("halts in an outage", (STARTED, WAVE, OUTAGE, HALTS), False, [Reason.HALTED, Reason.OUTAGE]),
    ("outage, held", (STARTED, WAVE, HOLD, OUTAGE), False, [Reason.OUTAGE, Reason.HELD, Reason.RUNNING]),
    ("outage while it soaks", (STARTED, SOAKS, OUTAGE), False, [Reason.OUTAGE, Reason.SOAKING]),
    ("held, gives way", (STARTED, WAVE, HOLD, GIVES_WAY), False, [Reason.HELD, Reason.WAITING]),
    ("held at a gate", (STARTED, GATE, HOLD), False, [Reason.HELD, Reason.GATE]),
    ("held while it soaks", (STARTED, SOAKS, HOLD), False, [Reason.HELD, Reason.SOAKING]),
    ("held, goes on", (STARTED, WAVE, HOLD), False, [Reason.HELD, Reason.RUNNING]),
    ("gate of a wave at work", (STARTED, WAVE, GATE), False, [Reason.GATE]),
    ("held, was halted", (STARTED, HOLD, event("finished", how="halted")), False, [Reason.HALTED, Reason.HELD]),
    ("held, waited", (STARTED, HOLD, event("finished", how="waiting", paused="held")), False, [Reason.HELD, Reason.WAITING]),
    ("held, some are left", (STARTED, HOLD, event("finished", how="failed")), False, [Reason.HELD, Reason.NOT_EVERYWHERE]),
    ("held, done", (STARTED, event("finished", how="ok"), HOLD), False, [Reason.HELD, Reason.DONE]),
    ("superseded, held, halted", (STARTED, HOLD, HALTS, NEWER), False, [Reason.SUPERSEDED]),
    ("superseded, died", (STARTED, WAVE, NEWER), True, [Reason.SUPERSEDED]),
    ("held before it began", (HOLD,), False, [Reason.HELD, Reason.NOT_STARTED]),
]


@pytest.mark.parametrize("events, gone, kinds", [case[1:] for case in TOGETHER], ids=[case[0] for case in TOGETHER])
def test_what_holds_at_the_same_time_is_all_said_and_the_gravest_first(events, gone, kinds):
    assert list(reasons(standing(*events), lambda run: gone)) == kinds


@pytest.mark.parametrize("one, other", list(itertools.combinations(Reason, 2)))
def test_the_order_of_every_pair_is_that_of_the_table_in_the_docs(one, other):
    table = re.findall(r"^\| `(\w+)` \|", DOCS.read_text().partition("## Why nothing happens")[2].partition("\n## ")[0], re.MULTILINE)
    assert table.index(one.value) < table.index(other.value)
    assert list(ordered({other: "", one: ""})) == [one, other]


def test_the_table_marks_who_needs_somebody():
    rows = DOCS.read_text().partition("## Why nothing happens")[2].partition("\n## ")[0]
    assert {Reason(name) for name in re.findall(r"^\| `(\w+)` \|.*\(¹\)", rows, re.MULTILINE)} == NEEDS_SOMEBODY


def test_a_run_that_died_says_that_it_was_recovered_since():
    found = reasons(standing(STARTED, WAVE, event("recover", at=60.0, by="eve")), lambda run: True)
    assert found[Reason.DIED].endswith("last heard of 1970-01-01T00:00:00.000Z; recover settled hosts of it at 1970-01-01T00:01:00.000Z, by eve")


def record(run="ctl2/b/n/8/99#web1", phase="changing", until=1000.0, **more):
    holder = {"run": run, "user": "eve", "controller": "ctl2", "pid": 8}
    return {"transaction": {"phase": phase, "holder": holder, "rollout": "shop-2.0", "lease_until": until, **more}}


BY_HOSTS = [
    ("a run elsewhere", (), record(), Reason.ELSEWHERE, "rollout shop-2.0 of eve on ctl2, pid 8 has 1 host (web1) in change"),
    ("one whose process is gone", (), record("gone#web1"), Reason.DIED, "has 1 host (web1) half done"),
    ("one whose lease has ended", (), record(until=500.0), Reason.DIED, "has 1 host (web1) half done"),
    ("the run that the ledger knows", (STARTED,), record("ctl1/b/n/7/99#web1"), None, ""),
    ("another one that died, while this one is at work", (STARTED,), record("gone#web1"), None, ""),
    ("another one that died, after this one", (STARTED, event("finished", how="ok")), record("gone#web1"), Reason.DIED, "half done"),
    ("nothing in change", (), record(phase="committed"), None, ""),
    ("inconsistent, which has a line of its own", (), record(phase="inconsistent"), None, ""),
    ("taken from its run", (), record(evicted={"by": {}}), None, ""),
    ("no record", (), {}, None, ""),
]


@pytest.mark.parametrize("events, told, kind, text", [case[1:] for case in BY_HOSTS], ids=[case[0] for case in BY_HOSTS])
def test_what_the_hosts_say_that_the_ledger_does_not(events, told, kind, text):
    found = by_hosts({"web1": told}, standing(*events), lambda run: str(run.get("run")).startswith("gone"), 500.0)
    assert list(found) == ([kind] if kind else [])
    assert text in found.get(kind, "")


COMMANDS = Commands(["ansible-playbook", "onprem.rollout.status", "-i", "inv"], ["onprem.rollout.status"])


def test_the_commands_to_go_on():
    def ways(*kinds):
        return [line.partition("onprem.rollout.")[2] for line in way_on(ordered(dict.fromkeys(kinds, "")), COMMANDS)]

    assert ways(Reason.HELD, Reason.DIED) == ["recover -i inv", "resume -i inv", "upgrade -i inv"]
    assert ways(Reason.HELD, Reason.RUNNING) == ["resume -i inv"]
    assert ways(Reason.HALTED, Reason.RUNNING) == []
    assert ways(Reason.WAITING) == ways(Reason.NOT_EVERYWHERE) == ways(Reason.HALTED) == ["upgrade -i inv"]
    assert ways(Reason.LEDGER) == ["audit -i inv"]
    assert ways(Reason.DONE) == []
