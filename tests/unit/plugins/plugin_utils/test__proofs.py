# Copyright: onprem.rollout contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""When parked hosts prove themselves again."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from ansible_collections.onprem.rollout.plugins.plugin_utils._proofs import Proofs


def test_the_longest_unproven_is_due_first_and_once():
    proofs = Proofs()
    proofs.proven("web1", 0.0)
    proofs.proven("web2", 5.0)
    proofs.proven("web1", 10.0)
    assert proofs.due(64.9, 60.0) is None
    assert proofs.due(65.0, 60.0) == "web2"
    proofs.forget("web2")
    assert (proofs.due(69.0, 60.0), proofs.due(70.0, 60.0)) == (None, "web1")


@given(st.lists(st.tuples(st.sampled_from("abcd"), st.integers(1, 9)), max_size=40), st.integers(1, 20))
def test_nobody_who_soaks_stays_unproven_for_longer_than_the_interval(steps, interval):
    proofs, proven, now = Proofs(), {}, 0.0
    for host, seconds in steps:
        now += seconds
        while (due := proofs.due(now, interval)) is not None:
            proofs.proven(due, now)
            proven[due] = now
        assert all(now - moment < interval for moment in proven.values())
        proofs.proven(host, now)
        proven[host] = now
