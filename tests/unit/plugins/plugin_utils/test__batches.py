# Copyright: onprem.rollout contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

from __future__ import annotations

from collections import Counter

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from ansible_collections.onprem.rollout.plugins.plugin_utils import _batches
from ansible_collections.onprem.rollout.plugins.plugin_utils._plan import Plan, RingPlan, waves
from ansible_collections.onprem.rollout.plugins.plugin_utils._policy import Release, Ring, Spread


def plan(*rings, domains=None, **policy):
    """Rings as (hosts, serial) with the same policy."""
    planned = tuple(
        RingPlan(Ring(f"ring{index}", "", serial, **policy), waves([f"r{index}h{number}" for number in range(hosts)], serial))
        for index, (hosts, serial) in enumerate(rings)
    )
    return Plan(Release("shop", "2.0", ()), planned, domains=domains or {})


def test_a_batch_is_a_wave():
    found = plan((3, (1, "100%")), (2, (1,)))
    assert _batches.batches(found, found.hosts) == [["r0h0"], ["r0h1", "r0h2"], ["r1h0"], ["r1h1"]]


def test_concurrency_cuts_a_wave():
    found = plan((5, ("100%",)), concurrency=2)
    assert _batches.batches(found, found.hosts) == [["r0h0", "r0h1"], ["r0h2", "r0h3"], ["r0h4"]]


def test_spread_cuts_a_wave_and_who_fits_goes_before_who_does_not():
    racks = {f"r0h{number}": (("rack", "a" if number < 2 else "b"),) for number in range(4)}
    found = plan((4, ("100%",)), domains=racks, spread=(Spread("rack", 1),))
    assert _batches.batches(found, found.hosts) == [["r0h0", "r0h2"], ["r0h1", "r0h3"]]


def test_who_does_not_wait_is_in_no_batch_and_a_wave_of_nobody_is_none():
    found = plan((4, (2,)))
    assert _batches.batches(found, {"r0h3"}) == [["r0h3"]]
    assert _batches.batches(found, set()) == []


@settings(max_examples=100, deadline=None)
@given(
    st.lists(st.tuples(st.integers(1, 9), st.sampled_from([(1,), (1, 3), ("50%",), ("100%",), (2, "100%")])), min_size=1, max_size=3),
    st.sampled_from([None, 1, 2, 3]),
    st.sampled_from(["host", "wave", "ring", "rollout"]),
    st.integers(1, 3),
    st.randoms(use_true_random=False),
)
def test_whatever_the_plan_all_of_it_is_done_once_and_never_too_much_at_once(rings, concurrency, scope, most, random):
    hosts = plan(*rings).hosts
    racks = {host: (("rack", str(random.randint(0, 2))),) for host in hosts}
    found = plan(*rings, domains=racks, concurrency=concurrency, commit=scope, spread=(Spread("rack", most),), soak=600.0, progress_deadline=1.0)
    waiting = {host for host in hosts if random.random() < 0.8}
    batches = _batches.batches(found, waiting)
    wave_of = {host: number for number, wave in enumerate(wave for ring in found.rings for wave in ring.waves) for host in wave}
    assert Counter(host for batch in batches for host in batch) == Counter(waiting)
    for batch in batches:
        assert len({wave_of[host] for host in batch}) == 1
        assert len(batch) <= (concurrency or len(batch))
        assert max(Counter(racks[host] for host in batch).values()) <= most
    order = [wave_of[batch[0]] for batch in batches]
    assert order == sorted(order)


def test_half_done_hosts_are_settled_as_many_at_a_time_as_may_be_in_change():
    found = plan((5, (2,)), (1, (1,)))
    half_done = ["r0h0", "r0h1", "r0h4", "r1h0", "held0", "held1"]
    assert _batches.settling(found, half_done) == [["r0h0", "r0h1", "r1h0", "held0"], ["r0h4", "held1"]]


@pytest.mark.parametrize(
    "policy, said, unsaid",
    [
        ({"commit": "host"}, ["verbs are heard"], ["sliding", "as a whole", "soak", "progress"]),
        ({}, ["no wave goes back as a whole"], ["sliding"]),
        ({"concurrency": 1}, ["no sliding window"], ["soak"]),
        ({"soak": 60.0, "progress_deadline": 60.0}, ["each batch soaks for itself", "progress_deadline is not watched"], ["sliding"]),
    ],
)
def test_only_what_this_plan_lacks_is_said(policy, said, unsaid):
    lines = "\n".join(_batches.lacks(plan((4, ("100%",)), **policy)))
    assert [word for word in said if word not in lines] == []
    assert [word for word in unsaid if word in lines] == []
