# Copyright: onprem.rollout contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

from __future__ import annotations

from dataclasses import replace

import pytest

from ansible_collections.onprem.rollout.plugins.plugin_utils import _story
from ansible_collections.onprem.rollout.plugins.plugin_utils._commands import Commands
from ansible_collections.onprem.rollout.plugins.plugin_utils._conductor import Conductor
from ansible_collections.onprem.rollout.plugins.plugin_utils._hostrun import HostRun
from ansible_collections.onprem.rollout.plugins.plugin_utils._plan import Plan, RingPlan
from ansible_collections.onprem.rollout.plugins.plugin_utils._policy import Release, Ring, Spread
from ansible_collections.onprem.rollout.plugins.plugin_utils._states import Halt, State

PLAN = Plan(Release("shop", "2.0", ()), (RingPlan(Ring("early", "all", (1, 2)), (("a",), ("b", "c"))),), {"d": "audit"})


def run(**known):
    return HostRun(**known)


def runs(**known):
    return {host: known.get(host, run()) for host in "abcd"}


@pytest.mark.parametrize(
    "text, shown",
    [("plain", "plain"), ("two\nlines\t", "two lines"), ("\x1b[31mred", "\\x1b[31mred"), ("\u202eevil", "\\x202eevil"), ("ä ö", "ä ö"), (None, "None")],
)
def test_hostile_text_is_made_visible(text, shown):
    assert _story.clean(text) == shown


def test_long_text_is_cut():
    assert len(_story.clean("x" * 1000)) == 400


@pytest.mark.parametrize("seconds, shown", [(0.5, "0.5 s"), (89, "89 s"), (150, "2 min 30 s"), (7260, "2 h 1 min")])
def test_span(seconds, shown):
    assert _story.span(seconds) == shown


@pytest.mark.parametrize("number, shown", [(0, "0 B"), (1023, "1023 B"), (1536, "1.5 KiB"), (5 * 1024**3, "5.0 GiB")])
def test_size(number, shown):
    assert _story.size(number) == shown


def test_the_plan_is_shown_with_times_from_the_records():
    record = {"installed": {"name": "shop", "version": "1.0"}, "history": [{"outcome": "committed", "seconds": 20.0}]}
    facts = {"estimate": {"files": 3, "bytes": 2048}, "free_bytes": 1 << 30}
    states = dict.fromkeys("abc", State.WAITING) | {"d": State.HELD}
    text = "\n".join(_story.plan_lines(PLAN, runs(a=run(record=record, facts=facts)), states))
    for part in ("at most 2 hosts (67 %)", "wave 1/2: a (shop 1.0)", "held by you: d: audit", "2.0 KiB", "1.0 GiB on a",
                 "about 40 s", "to do: 3 hosts"):  # fmt: skip
        assert part in text


def test_the_digest_comes_with_the_command_that_needs_it():
    assert _story.digest_line(PLAN, "9f", Commands()) == "plan: 9f"
    gated = replace(PLAN, gates=({"type": "approval"},))
    assert _story.digest_line(gated, "9f", Commands()) == "plan: 9f; to approve it: ansible-playbook onprem.rollout.approve -e rollout_plan=9f"


def test_the_plan_shows_who_takes_what():
    plan = Plan(PLAN.release, PLAN.rings, takes={"shop-arm64.tar.gz (arch arm64)": ("a", "b"), "shop.tar.gz (the release as it is)": ("c",)})
    lines = _story.plan_lines(plan, runs(), dict.fromkeys("abc", State.WAITING))
    assert "2 hosts take shop-arm64.tar.gz (arch arm64): a, b" in lines
    assert "1 host takes shop.tar.gz (the release as it is): c" in lines


def test_the_plan_shows_where_hosts_may_not_change_together_and_how_long_that_takes():
    ring = Ring("early", "all", (3,), spread=(Spread("rack", 1), Spread("site", 2)))
    domains = dict.fromkeys("abc", (("rack", "r1"), ("site", "x")))
    record = {"history": [{"outcome": "committed", "seconds": 20.0}]}
    plan = Plan(PLAN.release, (RingPlan(ring, (("a", "b", "c"),)),), domains=domains)
    text = "\n".join(_story.plan_lines(plan, runs(a=run(record=record)), dict.fromkeys("abc", State.WAITING)))
    assert "at most 1 of a rack at once, at most 2 of a site at once" in text
    assert "about 60 s" in text
    assert _story.fork_lines(plan, 1) == []


@pytest.mark.parametrize("forks, lines", [(1, 1), (2, 0), (50, 0)])
def test_forks_that_are_fewer_than_the_policy_lets(forks, lines):
    assert len(_story.fork_lines(PLAN, forks)) == lines


PLANNED = [
    ({}, State.WAITING, "to do: 3 hosts to upgrade"),
    ({"transaction": {"phase": "changing"}}, State.WAITING, "to do: 3 hosts to upgrade, 1 host to settle first"),
    ({"drained": True}, State.WAITING, "1 host to settle first"),
    ({}, State.REFUSED, "to do: 2 hosts to upgrade"),
]


@pytest.mark.parametrize("record, state, says", PLANNED, ids=[case[2] for case in PLANNED])
def test_the_plan_says_what_comes_first(record, state, says):
    states = dict.fromkeys("abc", State.WAITING) | {"a": state, "d": State.HELD}
    assert says in _story.plan_lines(PLAN, runs(a=run(record=record)), states)[-1]


def test_the_plan_says_why_there_is_nothing_to_do():
    def last(plan, states, **known):
        return _story.plan_lines(plan, runs(**known), states)[-1]

    assert last(PLAN, dict.fromkeys("abc", State.SKIPPED) | {"d": State.HELD}) == "nothing to do: every host that takes part runs shop 2.0"
    dark = {host: run(dark="no route") for host in "abc"}
    assert last(PLAN, dict.fromkeys("abc", State.UNREACHABLE), **dark) == "to do: 3 hosts could not be reached"
    assert last(PLAN, dict.fromkeys("abc", State.REFUSED)) == "to do: 3 hosts would be refused, see above: a, b, c"
    assert last(Plan(PLAN.release, (), {"d": "audit"}), {"d": State.HELD}) == "nothing to do: you hold every host (1)"


def test_the_verdict_names_host_check_restore_and_the_command():
    conductor = Conductor(PLAN)
    conductor.tick(0)
    conductor.failing("a", "web: saw 500", 1)
    conductor.tick(1)
    conductor.ended("a", State.RESTORED, 2)
    conductor.tick(2)
    known = run(why="web: saw 500", facts={"files": {"replaced": 2, "removed": 1}, "seconds": 0.5, "checks": [{"name": "web", "ok": True}]})
    commands = Commands(["/bin/ansible-playbook", "onprem.rollout.upgrade", "-i", "x"], ["onprem.rollout.upgrade"])
    text = "\n".join(_story.verdict_lines(conductor, runs(a=known), commands, 2))
    for part in ("ROLLOUT HALTED: shop 2.0: failures > max_failures", "restored: a: web: saw 500; 3 paths put back in 0.5 s, proven by web",
                 "held: 3 hosts: b, c, d", "to go on, with the cause mended: ansible-playbook onprem.rollout.upgrade -i x",
                 "onprem.rollout.status -i x", "exit code: 2"):  # fmt: skip
        assert part in text


HELD = {"transaction": {"phase": "held", "irreversible": "schema 7", "reason": "web: 500"}}
OUT = [
    ({}, "out of traffic: a: the next upgrade brings it back first"),
    ({"stranded": True}, "out of traffic: a: an earlier run left it so, and no rejoin role is set (rollout_rejoin)"),
    ({"record": HELD}, "out of traffic: a: an operator decides"),
    ({"record": {"transaction": {"phase": "inconsistent", "reason": "disk full"}}}, "out of traffic: a: an operator decides about it, see above, and recover"),
]


@pytest.mark.parametrize("known, says", OUT)
def test_who_brings_a_host_back_into_traffic(known, says):
    lines = _story.verdict_lines(Conductor(PLAN), runs(a=run(drained=True, **known)), Commands(), 2)
    assert [line for line in lines if line.startswith(f"  {says}")]


@pytest.mark.parametrize("record", [HELD, {"transaction": {"phase": "inconsistent", "reason": "web: 500"}}])
def test_the_alarm_says_whether_users_are_sent_to_the_host(record):
    for drained in (False, True):
        lines = _story.alarm_lines(runs(a=run(record={**record, "drained": drained})), Commands())
        assert lines[0].endswith("web: 500; it is out of traffic" if drained else "web: 500")


def test_where_the_release_failed_the_same_command_does_not_go_on():
    conductor = Conductor(PLAN)
    conductor.tick(0)
    conductor.failing("a", "web: saw 500", 1)
    conductor.tick(1)
    conductor.ended("a", State.RESTORED, 2)
    conductor.tick(2)
    commands = Commands(["/bin/ansible-playbook", "onprem.rollout.upgrade"], ["onprem.rollout.upgrade"])
    lines = _story.verdict_lines(conductor, runs(a=run(blamed=True)), commands, 2)
    same = "ansible-playbook onprem.rollout.upgrade"
    assert lines[-3:-1] == [
        f"  to go on, with a new build as the release: {same}",
        f"  or with the same one, where it failed too: {same} -e rollout_retry_failed=true",
    ]


def test_an_interrupted_rollout_says_what_it_leaves_behind():
    conductor = Conductor(Plan(PLAN.release, (RingPlan(Ring("early", "all", (3,), max_failures=2), (("a", "b", "c"),)),), {"d": "audit"}))
    conductor.tick(0)
    conductor.failing("a", "web: saw 500", 1)
    conductor.parked("b", 1)
    text = "\n".join(_story.verdict_lines(conductor, runs(a=run(begun=True, why="web: saw 500")), Commands(), 99))
    for part in ("ROLLOUT INTERRUPTED", "still being put back, settled by the next upgrade: a: web: saw 500",
                 "in change, settled by the next upgrade: 2 hosts: b, c", "exit code: 99"):  # fmt: skip
        assert part in text


def test_the_verdict_of_what_was_superseded_says_by_what_and_how_to_go_on_all_the_same():
    conductor = Conductor(PLAN)
    conductor.tick(0)
    conductor.stop(False, 1, Halt.SUPERSEDED)
    conductor.tick(1)
    conductor.ended("a", State.RESTORED, 2)
    conductor.tick(2)
    commands = Commands(["/bin/ansible-playbook", "onprem.rollout.upgrade"], ["onprem.rollout.upgrade"])
    lines = _story.verdict_lines(conductor, runs(a=run(reverted=True)), commands, 2, "by shop-2.1 at noon, of ada")
    assert lines[0] == "ROLLOUT SUPERSEDED: shop 2.0: by shop-2.1 at noon, of ada; what was not committed went back, committed hosts stay"
    assert "  to go on, all the same, which supersedes the other version: ansible-playbook onprem.rollout.upgrade -e rollout_replan=true" in lines


def test_the_verdict_tells_who_runs_the_new_release_uncommitted_from_who_was_never_started():
    rings = (RingPlan(Ring("early", "all", (2,), on_failure="hold"), (("a", "b"),)), RingPlan(Ring("standard", "all", (1,)), (("c",),)))
    conductor = Conductor(Plan(PLAN.release, rings, {"d": "audit"}))
    conductor.tick(0)
    conductor.parked("a", 1)
    conductor.failing("b", "web: saw 500", 1)
    conductor.ended("b", State.RESTORED, 2)
    conductor.tick(2)
    known = runs(a=run(begun=True), b=run(begun=True, outcome=State.RESTORED, why="web: saw 500"))
    lines = _story.verdict_lines(conductor, known, Commands(), 2)
    assert "  uncommitted, put back by its revert timer or the next upgrade: 1 host: a" in lines
    assert "  held: 2 hosts: c, d" in lines
