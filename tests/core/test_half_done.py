# Copyright: onprem.rollout contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Runs that end too early, and what the next run does about the hosts that they left."""

from __future__ import annotations

import os
import signal
import subprocess
import time
from pathlib import Path

TOGETHER = [{"name": "standard", "serial": ["100%"]}]


def eventually(condition, process: subprocess.Popen, timeout: float = 60) -> None:
    deadline = time.monotonic() + timeout
    while not condition():
        assert time.monotonic() < deadline
        assert process.poll() is None
        time.sleep(0.02)


def children(pid: int) -> list[int]:
    return [int(child) for child in Path(f"/proc/{pid}/task/{pid}/children").read_text().split()]


def phase(hosts, host: str) -> str | None:
    return (hosts.record(host).get("transaction") or {}).get("phase")


def test_a_killed_worker_stops_the_rollout_and_everybody_in_change_goes_back(fleet):
    hosts = fleet(standard=2)
    process = hosts.start(rollout_payload="naps", nap=2, rollout_rings=TOGETHER)
    eventually(lambda: all((hosts.root / "hosts" / host / "napping").exists() for host in hosts.hosts), process)
    os.kill(children(process.pid)[-1], signal.SIGKILL)
    result = hosts.finish(process)
    assert (result.rc, set(result.states.values())) == (2, {"restored"}), result.out
    assert all(hosts.is_as_before(host) for host in hosts.hosts)
    assert "ROLLOUT HALTED" in result.out
    assert "Traceback" not in result.out
