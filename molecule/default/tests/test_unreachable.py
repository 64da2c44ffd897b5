# Copyright: onprem.rollout contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Hosts that cannot be reached before their change, and why, over real sshd."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
from fleet import Host
from releases import GOOD
from shop import Shop

RINGS = [{"name": "standard", "serial": ["100%"]}]
REFUSES = "/etc/ssh/sshd_config.d/refuses.conf"


@pytest.fixture
def refuses(shop: Shop) -> Iterator[Host]:
    """A host whose sshd lets nobody in."""
    host = shop.fleet["web4"]
    host.run(f"echo 'DenyUsers root' > {REFUSES} && systemctl reload ssh")
    yield host
    host.run(f"rm {REFUSES} && systemctl reload ssh")


def test_a_refused_login_is_told_from_a_host_that_is_away_and_has_a_budget_of_its_own(shop: Shop, refuses: Host) -> None:
    shop.fleet["web5"].partition()
    result = shop.upgrade(GOOD, rings=RINGS, limit="rollout_standard", rollout_max_unreachable={"before": 1, "login": 0})
    assert result.rc == 2, str(result)
    assert result.states == {"web3": "held", "web4": "unreachable", "web5": "unreachable"}, str(result)
    assert {host: item["cause"] for host, item in result.data["hosts"].items()} == {"web3": "", "web4": "login", "web5": "before"}
    assert result.data["unreachable"] == {"before": 1, "login": 1, "after": 0}
    assert "(the rollout, login refused: 1 > 0)" in result.last_words, result.last_words
    assert "unreachable: web4: login refused in " in result.last_words, result.last_words
    assert "by cause: unreachable before their change: 1, login refused: 1" in result.last_words, result.last_words
    status = shop.upgrade(GOOD, verb="status", limit="rollout_standard", rings=RINGS)
    assert "web4: could not be asked: login refused in" in status.stdout, str(status)

    result = shop.upgrade(GOOD, rings=RINGS, limit="rollout_standard", rollout_max_unreachable={"before": 1, "login": 1})
    assert (result.rc, result.states["web3"]) == (4, "committed"), str(result)
