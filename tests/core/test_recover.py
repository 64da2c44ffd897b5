# Copyright: onprem.rollout contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""The verb recover: what a dead run left half done is settled, nothing more is changed, and what is left open is named."""

from __future__ import annotations

import json
import os
import shutil
import signal

import pytest
from conftest import eventually
from test_half_done import SSH, leave_half_done, phase

TOGETHER = [{"name": "standard", "serial": ["100%"]}]


def recover(hosts, *arguments, **variables):
    """As an operator who has the inventory and no release file."""
    del hosts.defaults["rollout_release"]
    try:
        return hosts.run("onprem.rollout.recover", *arguments, **variables)
    finally:
        hosts.defaults["rollout_release"] = {"name": "shop", "version": "2.0", "artifacts": []}


def said(hosts):
    return [entry.data for entry in hosts.ledger() if entry.kind == "recover"]


def test_half_done_hosts_are_settled_with_an_empty_controller_and_nobody_else_is_changed(fleet):
    hosts = fleet(early=1, standard=2)
    assert hosts.run("onprem.rollout.upgrade", "--limit", "standard0").rc == 0
    host = leave_half_done(hosts)
    shutil.rmtree(hosts.root / ".local")
    records = {other: hosts.record(other) for other in hosts.hosts if other != host}
    looked = recover(hosts, "--check")
    assert (looked.rc, looked.data["hosts"][host]["state"], phase(hosts, host)) == (0, "restored", "changing"), looked.out
    assert f"would be restored: {host}: was changing to 2.0, left by" in looked.out
    assert not hosts.ledger()
    done = recover(hosts, "-e", '{"rollout_why": "its controller burnt down"}')
    assert done.rc == 0, done.out
    assert done.states == {host: "restored", **dict.fromkeys(records, "nothing_to_do")}
    assert (phase(hosts, host), hosts.is_as_before(host)) == ("restored", True)
    assert {other: hosts.record(other) for other in records} == records
    assert f"RECOVER: 1 host settled\n  restored: {host}: was changing to 2.0, left by" in done.out
    decided, ended = said(hosts)
    assert (decided["host"], decided["phase"], decided["then"], decided["why"]) == (host, "changing", "restore", "its controller burnt down")
    assert (ended["host"], ended["outcome"]) == (host, "restored")
    before = hosts.record(host)
    again = recover(hosts)
    assert (again.rc, "nothing to do: no host is half done" in again.out, "changed=0" in again.out) == (0, True, True), again.out
    assert (hosts.record(host), len(said(hosts))) == (before, 2)


def test_a_limit_settles_only_who_is_named(fleet):
    hosts = fleet(standard=2)
    process = hosts.start(rollout_payload="naps", nap=600, rollout_rings=TOGETHER)
    eventually(lambda: all((hosts.root / "hosts" / host / "napping").exists() for host in hosts.hosts), process)
    os.killpg(process.pid, signal.SIGKILL)
    hosts.finish(process)
    assert recover(hosts, "--limit", "standard1").rc == 0
    assert [phase(hosts, host) for host in hosts.hosts] == ["changing", "restored"]
    both = recover(hosts, hostvars={"standard0": {"rollout_hold": "audit"}})
    assert (both.rc, both.states) == (0, {"standard0": "restored", "standard1": "nothing_to_do"}), both.out


def test_hosts_go_back_no_more_at_once_than_may_be_in_change(fleet):
    """All of a wave may be half done: parked, they serve."""
    hosts = fleet(standard=3)
    rings = [{"name": "standard", "serial": ["100%"], "concurrency": 1, "soak": 600}]
    process = hosts.start(rollout_rings=rings)
    eventually(lambda: all(phase(hosts, host) == "awaiting_commit" for host in hosts.hosts), process)
    os.killpg(process.pid, signal.SIGKILL)
    hosts.finish(process)
    log = hosts.root / "log"
    restart = ["sh", "-c", f"echo in >> {log}; sleep 0.5; echo out >> {log}"]
    for host in hosts.hosts:
        record = hosts.record(host)
        record["transaction"]["options"]["restart"] = restart
        (hosts.root / "hosts" / host / "state" / "record.json").write_text(json.dumps(record))
    done = recover(hosts, rollout_rings=rings)
    assert (done.rc, set(done.states.values())) == (0, {"restored"}), done.out
    assert log.read_text().split() == ["in", "out"] * 3


def test_hosts_of_a_living_run_are_left_alone_and_the_run_is_named(fleet):
    hosts = fleet(standard=2)
    process = hosts.start("onprem.rollout.upgrade", "--limit", "standard0", rollout_payload="naps", nap=600)
    eventually((hosts.root / "hosts" / "standard0" / "napping").exists, process)
    before = hosts.record("standard0")
    asked = recover(hosts)
    assert (asked.rc, asked.states) == (2, {"standard0": "taken", "standard1": "nothing_to_do"}), asked.out
    assert f"on {os.uname().nodename}, pid {process.pid}" in asked.out
    assert (process.poll(), hosts.record("standard0"), said(hosts)) == (None, before, [])
    os.killpg(process.pid, signal.SIGKILL)
    hosts.finish(process)
    done = recover(hosts)
    assert (done.rc, done.states["standard0"]) == (0, "restored"), done.out


def test_a_host_that_needs_an_operator_is_named_with_the_command_that_works(fleet):
    hosts = fleet(early=1, standard=1)
    kept = shutil.copy2(hosts.app("early0") / "version", hosts.root / "backup")
    assert hosts.run(rollout_payload="spoils_restore").states["early0"] == "restore_failed"
    before = hosts.record("early0")
    asked = recover(hosts)
    assert (asked.rc, asked.states["early0"], hosts.record("early0")) == (2, "inconsistent", before), asked.out
    (command,) = [line for line in asked.out.splitlines() if line.startswith("!!   ansible-playbook onprem.rollout.recover")]
    assert command.endswith("--limit early0 -e rollout_force_restore=true")
    shutil.copy2(kept, hosts.app("early0") / "version")
    contradicting = recover(hosts, "-e", "rollout_force_restore=true", "-e", "rollout_force_commit=true")
    assert (contradicting.rc, "contradict each other" in contradicting.out, hosts.record("early0")) == (1, True, before), contradicting.out
    wrong = recover(hosts, "-e", "rollout_force_commit=true")
    assert (wrong.rc, hosts.record("early0")) == (2, before), wrong.out
    forced = recover(hosts, *command.split()[5:])
    assert (forced.rc, forced.states, phase(hosts, "early0")) == (0, {"early0": "restored"}, "restored"), forced.out
    assert said(hosts)[-2]["forced"] is True


@pytest.mark.parametrize("rejoin, rc, state", [("marks_rejoin", 0, "rejoined"), ("", 2, "out_of_traffic")])
def test_a_host_that_is_out_of_traffic_is_brought_back(fleet, rejoin, rc, state):
    hosts = fleet(standard=1)
    (hosts.root / "hosts" / "standard0" / "slow").touch()
    process = hosts.start(broken=hosts.hosts, rollout_drain="marks_drain", rollout_rejoin="slow_rejoin")
    eventually((hosts.root / "hosts" / "standard0" / "rejoining").exists, process)
    os.killpg(process.pid, signal.SIGKILL)
    hosts.finish(process)
    (hosts.root / "hosts" / "standard0" / "slow").unlink()
    done = recover(hosts, rollout_rejoin=rejoin)
    assert (done.rc, done.states) == (rc, {"standard0": state}), done.out
    assert bool(hosts.record("standard0").get("drained")) is (rc != 0)


def test_what_cannot_be_undone_is_left_to_an_operator(fleet):
    hosts = fleet(standard=1)
    leave_half_done(hosts, rollout_irreversible="migrates", rollout_accept_irreversible=True)
    done = recover(hosts)
    assert (done.rc, done.states, phase(hosts, "standard0")) == (2, {"standard0": "held"}, "held"), done.out
    assert "--limit standard0 -e rollout_force_commit=true" in done.out


def test_who_cannot_be_asked_is_said_and_the_others_are_settled(fleet):
    hosts = fleet(early=1, standard=1)
    host = leave_half_done(hosts)
    (hosts.root / "hosts" / "standard0" / "dark").touch()
    done = recover(hosts, **SSH)
    assert (done.rc, done.states) == (4, {host: "restored", "standard0": "unreachable"}), done.out


def test_hosts_are_settled_though_the_ledger_cannot_be_written_but_nothing_is_forced(fleet):
    hosts = fleet(standard=1)
    leave_half_done(hosts, rollout_irreversible="migrates", rollout_accept_irreversible=True)
    (hosts.root / "file").touch()
    nowhere = ("-e", f"rollout_ledger={hosts.root}/file/ledger.jsonl")
    settled = recover(hosts, *nowhere)
    assert (settled.rc, phase(hosts, "standard0"), "NOT IN THE LEDGER" in settled.out) == (2, "held", True), settled.out
    forced = recover(hosts, *nowhere, "-e", "rollout_force_restore=true")
    assert (forced.rc, phase(hosts, "standard0")) == (2, "held"), forced.out
    assert "NOT IN THE LEDGER, so nothing was forced" in forced.out
    assert recover(hosts, "-e", "rollout_force_restore=true").rc == 0
    assert hosts.is_as_before("standard0")
