# Copyright: onprem.rollout contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Two rollouts at once: one run of a rollout at a time, one rollout on a host at a time, and operators who take hosts away."""

from __future__ import annotations

import getpass
import os
import signal
import socket
import time

HERE = f"of {getpass.getuser()} on {socket.gethostname()}, pid "


def eventually(condition, process, timeout=60):
    deadline = time.monotonic() + timeout
    while not condition():
        assert time.monotonic() < deadline
        assert process.poll() is None
        time.sleep(0.02)


def flat(result):
    return " ".join(result.out.split())


def hanging(fleet, env=None, **variables):
    """A run whose payload hangs on its only host."""
    hosts = fleet(standard=1)
    process = hosts.start(rollout_payload="hangs", env=env, **variables)
    eventually((hosts.root / "hosts" / "standard0" / "hanging").exists, process)
    return hosts, process


def test_a_second_run_is_refused_by_name_until_the_first_is_killed(fleet):
    hosts, first = hanging(fleet, env={"JOB_ID": "4711"})
    second = hosts.run(rollout_payload="writes")
    assert second.rc == 1, second.out
    assert f"shop-2.0 is rolled out by another run, {HERE}{first.pid}, job 4711, since 20" in flat(second)
    assert "No host was touched" in flat(second)
    assert [entry.kind for entry in hosts.ledger()].count("started") == 1
    assert hosts.run("onprem.rollout.status").data["reason"]["kind"] == "running"
    os.kill(first.pid, signal.SIGKILL)  # its worker lives on
    first.wait()
    again = hosts.run(rollout_payload="writes")
    assert (again.rc, again.states) == (0, {"standard0": "committed"}), again.out
