# Copyright: onprem.rollout contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

from __future__ import annotations

import pytest
from ansible.utils.helpers import pct_to_int
from hypothesis import given
from hypothesis import strategies as st

from ansible_collections.onprem.rollout.plugins.plugin_utils._plan import (
    Member,
    as_data,
    blast_radius,
    make_plan,
    rotate,
    wave_size,
    waves,
)
from ansible_collections.onprem.rollout.plugins.plugin_utils._policy import DEFAULT_RINGS, Release, Ring

RELEASE = Release("shop", "2.0", ())


@given(st.integers(1, 100), st.integers(1, 5000))
def test_percentages_round_as_core_rounds_serial(percent, hosts):
    assert wave_size(f"{percent}%", hosts) == pct_to_int(f"{percent}%", hosts)


@given(st.integers(0, 300), st.lists(st.one_of(st.integers(1, 40), st.integers(1, 100).map("{}%".format)), min_size=1, max_size=4))
def test_waves_are_cut_as_core_cuts_serial(number, serial):
    hosts = [f"h{index}" for index in range(number)]
    cut = waves(hosts, serial)
    assert [host for wave in cut for host in wave] == hosts
    sizes = [pct_to_int(item, number) if isinstance(item, str) else item for item in serial] if number else []
    for index, wave in enumerate(cut[:-1]):
        assert len(wave) == sizes[min(index, len(sizes) - 1)]


def test_the_canary_rotates_by_release_and_the_order_is_always_the_same():
    hosts = [f"h{index}" for index in range(10)]
    first = {rotate(hosts, Release("shop", f"{version}", ()))[0] for version in range(40)}
    assert len(first) > 5
    assert rotate(reversed(hosts), RELEASE) == rotate(hosts, RELEASE)
    assert sorted(rotate(hosts, RELEASE)) == hosts


def plan_of(*members, rings=DEFAULT_RINGS, default="standard", declared=True):
    return make_plan(RELEASE, rings, members, default, declared)


def test_unmarked_hosts_go_to_the_default_ring():
    plan, problems = plan_of(Member("a", ("early",)), Member("b"), declared=False)
    assert problems == []
    assert {ring.ring.name: ring.hosts for ring in plan.rings} == {"early": ("a",), "standard": ("b",)}


def test_a_held_host_takes_no_part_and_its_reason_is_kept():
    plan, _problems = plan_of(Member("a", ("early",)), Member("b", (), "audit until Friday"), declared=False)
    assert (plan.hosts, plan.held) == (("a",), {"b": "audit until Friday"})


BAD = [
    ("a host in two rings", [Member("a", ("early", "critical"))], {"declared": False}, ["host a"], "early and critical"),
    ("an unknown ring", [Member("a", ("night",))], {"declared": False}, ["host a, rollout_ring"], "no such ring"),
    ("a ring nobody is in", [Member("a", ("early",)), Member("b")], {}, ["ring critical"], "nobody is in this ring"),
    ("no such default ring", [Member("a")], {"default": "night", "declared": False}, ["rollout_default_ring"], "a and 0 more"),
    ("no hosts", [], {}, ["hosts"], "--limit"),
]


@pytest.mark.parametrize("name, members, options, where, says", BAD, ids=[case[0] for case in BAD])
def test_bad_membership(name, members, options, where, says):
    _plan, problems = plan_of(*members, **options)
    assert [problem.where for problem in problems] == where
    assert says in str(problems[0])


def test_the_data_tells_waves_and_blast_radius():
    rings = (Ring("all", "all", (1, "50%")),)
    plan, _problems = plan_of(*(Member(f"h{index}", ("all",)) for index in range(8)), rings=rings)
    data = as_data(plan)
    assert [len(wave) for wave in data["rings"][0]["waves"]] == [1, 4, 3]
    assert data["blast_radius"] == blast_radius(plan) == 4
