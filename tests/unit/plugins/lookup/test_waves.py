# Copyright: onprem.rollout contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Of the lookup only what no play can show: tests/core/test_linear.py runs it."""

from __future__ import annotations

import pytest

from ansible_collections.onprem.rollout.plugins.lookup.waves import LookupModule


@pytest.mark.parametrize("term", ["settle", "settle_sizes", "change", "change_sizes", "go", "speakers", "failed", "why", "summary"])
def test_without_an_engine_at_work_nobody_takes_part(term):
    assert LookupModule().run([term], {"inventory_hostname": "a"}) == []
