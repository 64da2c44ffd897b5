# Copyright: onprem.rollout contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

from __future__ import annotations

import json

import pytest

from ansible_collections.onprem.rollout.plugins.plugin_utils._causes import Cause
from ansible_collections.onprem.rollout.plugins.plugin_utils._hostrun import HostRun
from ansible_collections.onprem.rollout.plugins.plugin_utils._ledger import START, Entry, Event, line_of, replay
from ansible_collections.onprem.rollout.plugins.plugin_utils._plan import Plan, RingPlan
from ansible_collections.onprem.rollout.plugins.plugin_utils._policy import Release, Ring
from ansible_collections.onprem.rollout.plugins.plugin_utils._reasons import Reason
from ansible_collections.onprem.rollout.plugins.plugin_utils._replan import inputs_of
from ansible_collections.onprem.rollout.plugins.plugin_utils._standing import Standing
from ansible_collections.onprem.rollout.plugins.plugin_utils._status import _host_status, first_lines, reason_data, status_data, status_lines, wanted

RAN = Plan(Release("shop", "2.0", ()), (RingPlan(Ring("early", "all", (1, 2)), (("a",), ("b", "c"))),))
NOW = Plan(Release("", "", ()), (RingPlan(Ring("early", "all"), (("c", "e", "a", "b"),)), RingPlan(Ring("late", "late"), (("f",),))), {"d": "audit"})
BAD = HostRun(record={"transaction": {"phase": "inconsistent", "reason": "disk full"}})


def runs(**known):
    return {host: known.get(host, HostRun(heard=True)) for host in "abcdef"}


def standing(*events):
    found = Standing("shop-2.0")
    inputs = json.loads(json.dumps(inputs_of(RAN, "digest")))
    for kind, data in (("started", {"plan": "p1", "inputs": inputs}), *events):
        found.hear(Entry(START, kind, "shop-2.0", "ada on ctl1, pid 7", 0.0, data))
    return found


def wave(number, state):
    return "wave", {"ring": "early", "wave": number, "state": state}


def test_hosts_are_listed_by_the_waves_of_the_newest_run_the_worst_first():
    lines = status_lines(NOW, standing(wave(1, "filling"), wave(1, "judged"), wave(2, "filling")), runs(c=BAD), lambda holder: False)
    assert lines[0] == "!! INCONSISTENT: c: disk full"
    assert lines[2].endswith("--limit c -e rollout_force_restore=true")
    assert [line.partition(": runs")[0] for line in lines[3:]] == [
        "status: INCONSISTENT hosts need an operator",
        "ring early, wave 1/2: passed; 1 host",
        "  a",
        "ring early, wave 2/2: filling; 2 hosts",
        "  c",
        "  b",
        "ring early, in no wave of the newest run: 1 host",
        "  e",
        "ring late, in no wave of the newest run: 1 host",
        "  f",
        "held by you: d: audit",
    ]


def test_hosts_that_could_not_be_asked_are_counted_by_cause():
    away = HostRun(dark="unreachable in 'Ask': no route", cause=Cause.BEFORE)
    refuses = HostRun(dark="login refused in 'Ask': Permission denied (publickey).", cause=Cause.LOGIN)
    lines = status_lines(NOW, Standing(""), runs(a=away, b=refuses, c=away), lambda holder: False)
    assert lines[:2] == ["status: some hosts could not be asked", "  by cause: unreachable before their change: 2, login refused: 1"]
    assert "  b: could not be asked: login refused in 'Ask': Permission denied (publickey)." in lines


def test_without_a_ledger_hosts_are_listed_by_the_rings_of_the_inventory():
    lines = status_lines(NOW, Standing(""), runs(), lambda holder: False)
    assert [line.partition(": runs")[0] for line in lines[:6]] == ["status: some hosts take no part", "ring early: 4 hosts", "  c", "  e", "  a", "  b"]


def test_a_wave_that_was_judged_after_a_halt_was_stopped():
    found = standing(wave(1, "filling"), ("halted", {"ring": "early", "wave": 1, "why": "failures"}), wave(1, "judged"))
    assert [(each["wave"], each["state"]) for each in status_data(found)["waves"]] == [(1, "stopped"), (2, "not begun")]


def test_a_wave_at_work_when_its_run_ended_was_stopped():
    found = standing(wave(1, "filling"), wave(1, "judged"), wave(2, "filling"), ("finished", {"how": "halted"}))
    assert [each["state"] for each in status_data(found)["waves"]] == ["passed", "stopped"]


def test_rings_come_in_the_order_of_the_rollout_which_the_ledger_does_not_sort():
    rings = tuple(RingPlan(Ring(name, name), ((name,),)) for name in ("early", "critical", "all"))
    event = Event("started", "shop-2.0", {"inputs": inputs_of(Plan(Release("shop", "2.0", ()), rings), "digest")})
    found = Standing("shop-2.0")
    for entry in replay([line_of(START, event, "ada", 0.0)]):
        found.hear(entry)
    assert [each["ring"] for each in status_data(found)["waves"]] == ["early", "critical", "all"]


def test_the_first_line_and_the_data():
    assert first_lines("shop-2.0", {Reason.GATE: "early wave 1 waits"}, "9f") == ["rollout shop-2.0: gate: early wave 1 waits", "plan of its newest run: 9f"]
    assert first_lines("", {Reason.NOT_STARTED: "no run of it is in the ledger"}, "") == ["rollout: not_started: no run of it is in the ledger"]
    both = {Reason.DIED: "the run of ada ended", Reason.HELD: "held by eve"}
    assert first_lines("shop-2.0", both, "")[:3] == [
        "rollout shop-2.0: died: the run of ada ended",
        "  also held: held by eve",
        "  to settle what is half done, and go no further: ansible-playbook onprem.rollout.recover",
    ]
    assert reason_data(both) == {"kind": "died", "value": "the run of ada ended", "also": [{"kind": "held", "value": "held by eve"}]}
    assert reason_data({}) is None
    began = "1970-01-01T00:00:00.000Z"
    assert status_data(standing(wave(1, "soaks 600 s"))) == {
        "rollout": "shop-2.0",
        "run": {"by": "ada on ctl1, pid 7", "since": began, "last": began, "at_work": True},
        "waves": [
            {"ring": "early", "wave": 1, "state": "soaks 600 s", "hosts": ["a"]},
            {"ring": "early", "wave": 2, "state": "not begun", "hosts": ["b", "c"]},
        ],
    }
    assert status_data(Standing("")) == {"rollout": None, "run": None, "waves": []}


@pytest.mark.parametrize("kind", list(Reason))
def test_the_exit_code_says_whether_it_goes_on_without_somebody(kind):
    stopped = kind in (Reason.HALTED, Reason.DIED, Reason.NOT_EVERYWHERE, Reason.LEDGER)
    assert wanted({kind: ""}, standing(), runs()) == ("failed" if stopped else "ok")
    assert wanted({kind: ""}, standing(), runs(a=BAD)) == "failed"


@pytest.mark.parametrize("how, code", [("ok", "ok"), ("failed", "failed")])
def test_a_run_of_some_hosts_that_did_what_it_was_told_is_no_alarm(how, code):
    assert wanted({Reason.NOT_EVERYWHERE: ""}, standing(("finished", {"how": how, "limited": True})), runs()) == code


STATUS = [
    ({}, 0, "runs an unknown version (no rollout yet)"),
    ({"installed": {"name": "shop", "version": "2.0"}, "transaction": {"phase": "committed"}}, 0, "runs shop 2.0"),
    ({"failed": [{"release": {"name": "shop", "version": "2.1"}}]}, 0, "failed here, not tried again: shop 2.1"),
    ({"transaction": {"phase": "held", "irreversible": "schema 7", "reason": "web: 500"}}, 5, "cannot be undone (schema 7) and did not go through: web: 500"),
    ({"transaction": {"phase": "inconsistent", "reason": "disk full"}}, 6, "INCONSISTENT: disk full"),
    ({"transaction": {"phase": "changing", "holder": {"user": "eve", "controller": "ctl", "pid": 7}}}, 3, "held by eve on ctl, pid 7"),
    ({"transaction": {"phase": "restored", "release": {"name": "shop", "version": "2.1"}, "reason": "web: 500"}}, 0, "shop 2.1 was restored: web: 500"),
]


@pytest.mark.parametrize("record, rank, says", STATUS, ids=[case[2] for case in STATUS])
def test_host_status(record, rank, says):
    found, text = _host_status(HostRun(record=record), lambda holder: False)
    assert (found, says in text) == (rank, True)


def test_status_tells_a_dead_holder_from_a_living_one():
    record = {"transaction": {"phase": "changing", "holder": {"user": "eve", "controller": "ctl", "pid": 7}}}
    _rank, text = _host_status(HostRun(record=record), lambda holder: holder["pid"] == 7)
    assert "left half done by eve on ctl, pid 7, which has ended: the next upgrade restores it first" in text
