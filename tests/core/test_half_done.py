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

from conftest import eventually

TOGETHER = [{"name": "standard", "serial": ["100%"]}]


def children(pid: int) -> list[int]:
    return [int(child) for child in Path(f"/proc/{pid}/task/{pid}/children").read_text().split()]


def phase(hosts, host: str) -> str | None:
    return (hosts.record(host).get("transaction") or {}).get("phase")


def test_a_killed_worker_stops_the_rollout_and_everybody_in_change_goes_back(fleet):
    hosts = fleet(standard=2)
    waits = f"touch {{{{ root }}}}/napping; until test -e {hosts.root}/hosts/standard0/napping; do sleep 0.05; done; sleep 1"
    slow = {"name": "slow", "type": "command", "argv": ["sh", "-c", waits], "deadline": 1, "timeout": 30}
    in_its_begin = {"standard1": {"rollout_checks": [slow]}}
    process = hosts.start(rollout_payload="naps", nap=4, rollout_rings=TOGETHER, hostvars=in_its_begin)
    eventually(lambda: all((hosts.root / "hosts" / host / "napping").exists() for host in hosts.hosts), process)
    assert phase(hosts, "standard1") != "changing"
    os.kill(children(process.pid)[-1], signal.SIGKILL)
    result = hosts.finish(process)
    assert (result.rc, set(result.states.values())) == (2, {"restored"}), result.out
    assert all(hosts.is_as_before(host) for host in hosts.hosts)
    assert "ROLLOUT HALTED" in result.out
    assert "Traceback" not in result.out


def test_a_killed_worker_leaves_no_answer_of_who_only_looks(fleet):
    hosts = fleet(early=1)
    slow = hosts.root / "slow_python"
    slow.write_text(f"#!/bin/sh\ntouch {hosts.root}/asked\nsleep 3\n")
    slow.chmod(0o755)
    process = hosts.start("onprem.rollout.status", ansible_python_interpreter=str(slow))
    eventually((hosts.root / "asked").exists, process)
    os.kill(children(process.pid)[-1], signal.SIGKILL)
    result = hosts.finish(process)
    assert result.rc == 1, result.out
    assert "the hosts could not be asked: a worker process" in " ".join(result.out.split())
    assert "status:" not in result.out


def test_a_reader_of_the_output_that_goes_away_takes_nobody_with_it(fleet):
    hosts = fleet(standard=2)
    process = hosts.start(rollout_payload="naps", nap=2, rollout_rings=TOGETHER)
    eventually(lambda: all((hosts.root / "hosts" / host / "napping").exists() for host in hosts.hosts), process)
    process.stdout.close()
    assert process.wait(60) == 0
    assert {hosts.record(host)["transaction"]["phase"] for host in hosts.hosts} == {"committed"}


def leave_half_done(hosts, *arguments: str, **variables) -> str:
    """Kill the controller in mid-payload; returns the host that it leaves half done."""
    process = hosts.start("onprem.rollout.upgrade", *arguments, rollout_payload="naps", nap=600, **variables)
    eventually(lambda: any((hosts.root / "hosts" / host / "napping").exists() for host in hosts.hosts), process)
    os.killpg(process.pid, signal.SIGKILL)
    hosts.finish(process)
    (host,) = [host for host in hosts.hosts if phase(hosts, host) == "changing"]
    return host


def test_a_killed_controller_leaves_hosts_that_are_put_back_even_if_they_are_held_meanwhile(fleet):
    hosts = fleet(early=1, standard=1)
    host = leave_half_done(hosts)
    plan = hosts.run("onprem.rollout.plan")
    assert "left in phase changing: the next upgrade restores it first" in plan.out
    assert "1 host to settle first" in plan.out
    status = hosts.run("onprem.rollout.status")
    assert "which has ended: the next upgrade restores it first" in status.out
    result = hosts.run(hostvars={host: {"rollout_hold": "audit"}})
    assert (result.rc, result.states) == (0, {"early0": "held", "standard0": "committed"}), result.out
    assert "early0: was left half done by an earlier run, now restored" in result.out
    assert hosts.is_as_before(host)
    assert phase(hosts, host) == "restored"


SSH = {
    "ansible_connection": "{{ 'ssh' if (root ~ '/dark') is exists else 'local' }}",
    "ansible_host": "127.0.0.1",
    "ansible_port": 1,
    "ansible_ssh_common_args": "-oConnectTimeout=2",
}


def test_a_host_that_goes_dark_while_it_is_settled_is_waited_for_and_then_stops_the_rollout(fleet):
    hosts = fleet(early=1, standard=1)
    host = leave_half_done(hosts, **SSH)
    result = hosts.run(rollout_drain="goes_dark", rollout_reconnect_timeout=6, **SSH)
    assert (result.rc, result.states) == (2, {"early0": "lost", "standard0": "held"}), result.out
    assert "did not come back within 6 s" in result.out
    (hosts.root / "hosts" / host / "dark").unlink()
    again = hosts.run(**SSH)
    assert (again.rc, set(again.states.values())) == (0, {"committed"}), again.out


def test_a_host_whose_lock_is_busy_while_it_is_settled_is_settled_when_it_is_free(fleet):
    hosts = fleet(early=1, standard=1)
    host = leave_half_done(hosts)
    holder = subprocess.Popen(["flock", str(hosts.root / "hosts" / host / "state" / "lock"), "sleep", "12"])
    result = hosts.run()
    holder.wait()
    assert (result.rc, set(result.states.values())) == (0, {"committed"}), result.out


def test_a_host_that_is_still_out_of_traffic_is_brought_back_by_the_next_run(fleet):
    hosts = fleet(standard=1)
    traffic = hosts.root / "hosts" / "standard0" / "traffic"
    hooks = {"rollout_drain": "marks_drain", "rollout_rejoin": "slow_rejoin"}
    (hosts.root / "hosts" / "standard0" / "slow").touch()
    process = hosts.start(broken=hosts.hosts, **hooks)
    eventually((hosts.root / "hosts" / "standard0" / "rejoining").exists, process)
    os.killpg(process.pid, signal.SIGKILL)
    hosts.finish(process)
    assert (phase(hosts, "standard0"), hosts.record("standard0")["drained"]) == ("restored", True)
    (hosts.root / "hosts" / "standard0" / "slow").unlink()
    assert "may be out of traffic" in hosts.run("onprem.rollout.status", **hooks).out
    result = hosts.run(hostvars={"standard0": {"rollout_hold": "audit"}}, **hooks)
    assert result.rc == 0, result.out
    assert traffic.read_text().splitlines()[-1].startswith("rejoined")
    assert not hosts.record("standard0")["drained"]
    done = hosts.run(rollout_retry_failed=True, **hooks)
    assert (done.rc, done.states) == (0, {"standard0": "committed"}), done.out
    assert "drained" not in hosts.record("standard0")


def test_a_host_that_goes_dark_between_its_restore_and_its_rejoin_is_waited_for(fleet):
    hosts = fleet(standard=1)
    dark = hosts.root / "hosts" / "standard0" / "dark"
    restart = ["touch", "{{ root }}/dark"]
    process = hosts.start(broken=hosts.hosts, rollout_drain="marks_drain", rollout_rejoin="marks_rejoin", rollout_restart=restart, **SSH)
    eventually(lambda: phase(hosts, "standard0") == "restored", process)
    dark.unlink()
    result = hosts.finish(process)
    assert (result.rc, result.states) == (2, {"standard0": "restored"}), result.out
    assert (hosts.root / "hosts" / "standard0" / "traffic").read_text().splitlines()[-1].startswith("rejoined")
    assert not hosts.record("standard0")["drained"]


def test_a_cancelled_job_says_what_it_leaves_as_after_ctrl_c(fleet):
    hosts = fleet(standard=1)
    restart = ["sh", "-c", "touch {{ root }}/restarting; sleep 4"]
    process = hosts.start(broken=hosts.hosts, rollout_restart=restart)
    eventually((hosts.root / "hosts" / "standard0" / "restarting").exists, process)
    os.kill(process.pid, signal.SIGTERM)
    result = hosts.finish(process)
    assert result.rc == 99, result.out
    assert "ROLLOUT INTERRUPTED" in result.out
    assert "still being put back, settled by the next upgrade: standard0" in result.out


def test_parked_hosts_renew_their_leases(fleet):
    """With a soak that is longer than the lease, which must be longer than the time of one payload task."""
    hosts = fleet(standard=2)
    rings = [{"name": "standard", "serial": ["100%"], "soak": 10}]
    process = hosts.start(rollout_rings=rings, rollout_lease=8, rollout_payload_timeout=7, rollout_retry_wait=1, rollout_retry_for=9)
    eventually(lambda: all(phase(hosts, host) == "awaiting_commit" for host in hosts.hosts), process)
    least = []
    while process.poll() is None:
        leases = [hosts.record(host)["transaction"]["lease_until"] for host in hosts.hosts if phase(hosts, host) != "committed"]
        least.append(min(leases, default=time.time() + 1) - time.time())
        time.sleep(0.05)
    result = hosts.finish(process)
    assert (result.rc, set(result.states.values())) == (0, {"committed"}), result.out
    assert min(least) > 0


def test_a_lost_host_that_comes_back_while_another_wave_soaks_is_restored_by_the_same_run(fleet):
    hosts = fleet(early=1, standard=1)
    rings = [{"name": "both", "max_failures": 1, "max_unreachable": {"after": 1}, "serial": ["100%"], "hosts": "all", "soak": 25}]
    process = hosts.start(rollout_payload="goes_dark", rollout_rings=rings, rollout_reconnect_timeout=1, **SSH)
    eventually(lambda: any(entry.kind == "host" and entry.data["state"] == "lost" for entry in hosts.ledger()), process)
    (hosts.root / "hosts" / "early0" / "dark").unlink()
    result = hosts.finish(process)
    assert (result.rc, result.states) == (2, {"early0": "restored", "standard0": "committed"}), result.out
    assert [entry.data["state"] for entry in hosts.ledger() if entry.kind == "host" and entry.data["host"] == "early0"] == ["lost", "restored"]
    assert "did not come back within 1 s, but later" in result.out
    assert result.data["hosts"]["early0"]["cause"] == "after"
    assert hosts.is_as_before("early0")
