# Copyright: onprem.rollout contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

from __future__ import annotations

import pytest

from ansible_collections.onprem.rollout.plugins.plugin_utils._budget import Budget, allowed
from ansible_collections.onprem.rollout.plugins.plugin_utils._causes import Cause
from ansible_collections.onprem.rollout.plugins.plugin_utils._plan import Plan, RingPlan
from ansible_collections.onprem.rollout.plugins.plugin_utils._policy import Release, Ring, limit, limit_by_cause

BEFORE, LOGIN, AFTER = Cause

LIMITS = [(0, 25, 0), (3, 25, 3), ("10%", 25, 2), ("10%", 9, 0), ("0%", 9, 0), ("100%", 9, 9), (None, 9, float("inf"))]


@pytest.mark.parametrize("given, hosts, most", LIMITS)
def test_allowed(given, hosts, most):
    assert allowed(given, hosts) == most


@pytest.mark.parametrize("raw", [-1, "ten", "101%", "-1%", True, 1.5, [1], "²"])
def test_what_is_no_limit(raw):
    problems = []
    limit(raw, "rollout_max_failures", problems)
    assert [problem.where for problem in problems] == ["rollout_max_failures"]


@pytest.mark.parametrize("raw", [0, 7, "7", "7%", None])
def test_what_is_a_limit(raw):
    problems = []
    assert (limit(raw, "rollout_max_failures", problems), problems) == (int(raw) if raw == "7" else raw, [])


def budget(rollout=None, unreachable=None, **policy):
    ring = RingPlan(Ring("early", "early", **{"max_failures": "100%", **policy}), (("a", "b"), ("c", "d")))
    other = RingPlan(Ring("late", "late", max_failures="100%"), (("e", "f", "g", "h", "i", "j"),))
    return Budget(Plan(Release("shop", "2.0", ()), (ring, other), max_failures=rollout, max_unreachable=unreachable)), ring, other


def test_a_wave_a_ring_and_the_rollout_each_have_their_own():
    found, ring, _other = budget(max_wave_failures=1)
    assert [found.failed(ring, 1), found.failed(ring, 2), found.failed(ring, 1)] == ["", "", "wave 1 of early: 2 > 1"]
    found, ring, _other = budget(max_failures="50%")
    assert [found.failed(ring, wave) for wave in (1, 1, 2)] == ["", "", "ring early: 3 > 2"]
    found, ring, other = budget(rollout="10%")
    assert [found.failed(ring, 1), found.failed(other, 1)] == ["", "the rollout: 2 > 1"]


def test_hosts_that_cannot_be_reached_have_a_budget_of_their_own():
    found, ring, other = budget(max_unreachable=0)
    assert [found.unreachable(other, BEFORE), found.unreachable(ring, BEFORE)] == ["", "ring early: 1 > 0"]
    found, ring, other = budget(unreachable=1)
    assert [found.unreachable(other, BEFORE), found.failed(ring, 1), found.unreachable(ring, LOGIN)] == ["", "", "the rollout: 2 > 1"]


def test_one_limit_is_for_all_whose_change_had_not_begun():
    found, ring, _other = budget(max_unreachable=1)
    assert [found.unreachable(ring, cause) for cause in (AFTER, AFTER, LOGIN, BEFORE)] == ["", "", "", "ring early: 2 > 1"]


def test_each_cause_has_its_own_limit():
    found, ring, other = budget(max_unreachable={"before": 1, "login": 0}, unreachable={"after": "10%"})
    assert [found.unreachable(ring, cause) for cause in (BEFORE, LOGIN, BEFORE)] == [
        "",
        "ring early, login refused: 1 > 0",
        "ring early, unreachable before their change: 2 > 1",
    ]
    elsewhere = [found.unreachable(other, cause) for cause in (LOGIN, BEFORE, AFTER, AFTER)]
    assert elsewhere == ["", "", "", "the rollout, unreachable after their change began: 2 > 1"]


@pytest.mark.parametrize("raw, where", [({}, ""), ({"during": 1}, ""), ({"login": -1}, ".login"), ({"after": "200%"}, ".after"), ([1], "")])
def test_what_is_no_limit_by_cause(raw, where):
    problems = []
    limit_by_cause(raw, "max_unreachable", problems)
    assert [problem.where for problem in problems] == [f"max_unreachable{where}"]


@pytest.mark.parametrize("raw", [None, 0, "7%", {"before": 2, "login": "0%"}, {"after": None}])
def test_what_is_a_limit_by_cause(raw):
    problems = []
    assert (limit_by_cause(raw, "max_unreachable", problems), problems) == (raw, [])
