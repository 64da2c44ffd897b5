# Copyright: onprem.rollout contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

from __future__ import annotations

import pytest

from ansible_collections.onprem.rollout.plugins.plugin_utils._conductor import Conductor
from ansible_collections.onprem.rollout.plugins.plugin_utils._hostrun import HostRun
from ansible_collections.onprem.rollout.plugins.plugin_utils._outcome import wanted
from ansible_collections.onprem.rollout.plugins.plugin_utils._plan import Plan, RingPlan
from ansible_collections.onprem.rollout.plugins.plugin_utils._policy import Release, Ring
from ansible_collections.onprem.rollout.plugins.plugin_utils._states import State


def conductor(*ends, **policy):
    """One that waits for its gate, which does not open; the first hosts ended before their turn."""
    hosts = tuple(f"h{number}" for number in range(4))
    found = Conductor(Plan(Release("shop", "2.0", ()), (RingPlan(Ring("all", "all", **policy), (hosts,)),)))
    found.gated = frozenset({"all"})
    for host, state in zip(hosts, ends, strict=False):
        found.ended(host, state, 0.0)
    found.tick(0.0)
    found.give_way(1.0)
    found.tick(1.0)
    assert found.finished
    return found


WAITS = [
    ((), {}, "waiting"),
    ((State.SKIPPED,), {}, "waiting"),
    ((State.UNREACHABLE,), {}, "waiting"),
    ((State.UNREACHABLE,), {"max_unreachable": 1}, "waiting"),
    ((State.UNREACHABLE,), {"max_unreachable": 0}, "halted"),
    ((State.REFUSED,), {}, "halted"),
    ((State.LOST,), {}, "halted"),
]


@pytest.mark.parametrize("ends, policy, how", WAITS, ids=[f"{ends} {policy}" for ends, policy, _how in WAITS])
def test_a_run_that_merely_waits(ends, policy, how):
    found = conductor(*ends, **policy)
    assert wanted(found, {host: HostRun() for host in found.states()}, False) == how
