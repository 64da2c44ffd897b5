# Copyright: onprem.rollout contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Health while a wave soaks, in an outage, and of the whole fleet."""

from __future__ import annotations

import time


def eventually(condition, process, timeout=60):
    deadline = time.monotonic() + timeout
    while not condition():
        assert time.monotonic() < deadline
        assert process.poll() is None
        time.sleep(0.02)


def phase(hosts, host):
    return (hosts.record(host).get("transaction") or {}).get("phase")


def test_a_service_that_dies_in_mid_soak_sends_its_wave_back_and_the_check_is_named(fleet):
    hosts = fleet(standard=2)
    process = hosts.start(rollout_rings=[{"name": "standard", "serial": ["100%"], "soak": 600, "soak_interval": 1}])
    eventually(lambda: all(phase(hosts, host) == "awaiting_commit" for host in hosts.hosts), process)
    (hosts.app("standard1") / "version").write_text("died\n")
    result = hosts.finish(process)
    assert (result.rc, set(result.states.values())) == (2, {"restored"}), result.out
    assert "FAILED: while it was parked, check version: rc 1" in result.out
    assert "restored: standard1: while it was parked, check version" in result.out
    assert all(hosts.is_as_before(host) for host in hosts.hosts)
