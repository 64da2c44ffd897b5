# Copyright: onprem.rollout contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

from __future__ import annotations

import pytest

from ansible_collections.onprem.rollout.plugins.action.settle import is_held
from ansible_collections.onprem.rollout.plugins.plugin_utils import _ended

ELSEWHERE = {"holder": {"run": "ctl2/b/1/7/99/m#web1"}, "lease_until": 100}


@pytest.fixture
def ended():
    yield _ended.drop
    _ended.drop(frozenset())


@pytest.mark.parametrize(
    "runs, now, held",
    [(set(), 99.0, True), (set(), 100.0, False), ({"ctl2/b/1/7/99/m"}, 0.0, False), ({"ctl2/b/1/7/98/m"}, 0.0, True)],
    ids=["it may live", "its lease has ended", "it said that it ended", "another one did"],
)
def test_a_run_elsewhere_holds_a_host_until_its_lease_ends_or_it_said_that_it_ended(ended, runs, now, held):
    ended(runs)
    assert is_held(ELSEWHERE, now, "ctl1/b/1/8/1/m#web1") is held
