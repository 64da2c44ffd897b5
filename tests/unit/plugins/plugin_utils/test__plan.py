# Copyright: onprem.rollout contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

from __future__ import annotations

from dataclasses import replace

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
    spread_notes,
    wave_size,
    waves,
    without_soaks,
)
from ansible_collections.onprem.rollout.plugins.plugin_utils._policy import DEFAULT_RINGS, Release, Ring, Spread

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


RACK = Ring("all", "all", concurrency=3, spread=(Spread("rack", 1),))


def test_hosts_that_say_nothing_of_their_domain_are_named_but_for_those_that_take_no_part():
    members = [Member("a", domains=(("rack", "1"),)), Member("b"), Member("c", hold="audit"), *(Member(f"d{number}") for number in range(9))]
    _plan, problems = plan_of(*members, rings=(RACK,), default="all", declared=False)
    (problem,) = problems
    assert problem.where == "host b, d0, d1, d2, d3, d4, d5, d6 and 2 more, rack"
    assert "the ring all is spread by it" in str(problem)


def test_each_ring_needs_only_the_domains_of_its_own_rules():
    rings = (RACK, Ring("free", "free"))
    placed = (("rack", "1"),)
    plan, problems = plan_of(Member("a", ("all",), domains=placed), Member("b", ("free",)), Member("c", ("free",), domains=placed), rings=rings)
    assert problems == []
    assert plan.domains == {"a": (("rack", "1"),), "c": (("rack", "1"),)}


@pytest.mark.parametrize("racks, concurrency, noted", [(1, 3, True), (2, 3, True), (3, 3, False), (1, None, False), (1, 1, False)])
def test_a_concurrency_that_is_never_reached_is_said(racks, concurrency, noted):
    ring = replace(RACK, concurrency=concurrency)
    plan, problems = plan_of(*(Member(f"h{number}", domains=(("rack", str(number % racks)),)) for number in range(6)), rings=(ring,), default="all")
    assert problems == []
    assert bool(spread_notes(plan)) == noted
    if noted:
        assert spread_notes(plan)[0] == f"ring all: spread (at most 1 of a rack) lets only {racks} of its hosts change at once where concurrency lets 3"


def test_the_data_tells_the_rules_of_spread():
    plan, _problems = plan_of(Member("a", domains=(("rack", "1"),)), rings=(RACK,), default="all")
    assert as_data(plan)["rings"][0]["spread"] == [{"by": "rack", "max": 1}]


def test_the_data_tells_who_takes_what():
    members = [Member("a", takes="x"), Member("b", takes="y"), Member("c", takes="x"), Member("d", hold="audit", takes="x")]
    plan, _problems = plan_of(*members, declared=False)
    assert as_data(plan)["tailored"] == {"x": ["a", "c"], "y": ["b"]}


def test_the_data_tells_waves_and_blast_radius():
    rings = (Ring("all", "all", (1, "50%")),)
    plan, _problems = plan_of(*(Member(f"h{index}", ("all",)) for index in range(8)), rings=rings)
    data = as_data(plan)
    assert [len(wave) for wave in data["rings"][0]["waves"]] == [1, 4, 3]
    assert data["blast_radius"] == blast_radius(plan) == 4


def test_a_plan_without_soaks_is_the_same_but_for_them():
    plan, _problems = plan_of(Member("a"), Member("b"), rings=(Ring("all", "all", (1, "100%"), soak=3600.0),), default="all")
    data = as_data(without_soaks(plan))
    assert data["rings"][0].pop("soak") == 0
    expected = as_data(plan)
    del expected["rings"][0]["soak"]
    assert data == expected
