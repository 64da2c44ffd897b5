# Copyright: onprem.rollout contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Of the strategy itself only what a play cannot show: tests/core runs it."""

from __future__ import annotations

from types import SimpleNamespace

import pytest
from ansible.plugins.strategy.host_pinned import StrategyModule as HostPinned

from ansible_collections.onprem.rollout.plugins.strategy.staged import StrategyModule


@pytest.mark.parametrize("name, times", [("refresh_inventory", 1), ("flush_handlers", 0), ("noop", 0)])
def test_hosts_are_recognised_only_after_a_refresh(monkeypatch, name, times):
    """Every host has some of these tasks, and to recognise them costs as much as there are hosts."""
    monkeypatch.setattr(HostPinned, "_execute_meta", lambda *arguments: ["answer"])
    recognised = []
    strategy = StrategyModule.__new__(StrategyModule)
    strategy._core = SimpleNamespace(recognise_hosts=lambda: recognised.append(name))
    task = SimpleNamespace(args={"_raw_params": name})
    assert strategy._execute_meta(task, None, None, None) == ["answer"]
    assert len(recognised) == times
