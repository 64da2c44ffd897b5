# Copyright: onprem.rollout contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Whole rollouts on the ansible-core that runs pytest: what users see, asked of the hosts' files and records."""

from __future__ import annotations

import getpass
import json
import os
import re
import signal
import socket
import time
from pathlib import Path

import pytest

RINGS = [
    {"name": "early", "serial": [1, "100%"]},
    {"name": "standard", "serial": ["50%"], "concurrency": 2},
]


def runs(pid: int) -> bool:
    """The process exists and is more than an entry that nobody has reaped."""
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] not in "ZX"
    except OSError:
        return False


def test_a_good_release_reaches_everybody_and_a_second_run_touches_nobody(fleet):
    hosts = fleet(early=1, standard=2)
    first = hosts.run(rollout_rings=RINGS, rollout_payload="copies")
    assert first.rc == 0, first.out
    assert first.states == dict.fromkeys(hosts.hosts, "committed")
    assert first.data["halted"] is None
    assert {hosts.version(host) for host in hosts.hosts} == {"2.0"}
    for host in hosts.hosts:
        record = hosts.record(host)
        assert record["installed"]["version"] == "2.0"
        assert record["transaction"]["phase"] == "committed"
        assert record["last_known_good"] == record["transaction"]["snapshot"]
    records = {host: hosts.record(host) for host in hosts.hosts}
    again = hosts.run(rollout_rings=RINGS)
    assert (again.rc, set(again.states.values())) == (0, {"skipped"}), again.out
    assert "ROLLOUT DONE: shop 2.0: nothing to do, every host runs it already" in again.out
    assert {host: hosts.record(host) for host in hosts.hosts} == records


def test_a_bad_release_stops_at_the_canary(fleet):
    hosts = fleet(early=2, standard=4)
    result = hosts.run(rollout_rings=RINGS, broken=hosts.hosts)
    assert result.rc == 2, result.out
    (canary,) = [host for host, state in result.states.items() if state == "restored"]
    assert canary.startswith("early")
    assert hosts.is_as_before(canary)
    assert hosts.record(canary)["transaction"]["phase"] == "restored"
    held = [host for host, state in result.states.items() if state == "held"]
    assert len(held) == 5
    assert all(hosts.untouched(host) for host in held)
    assert "failed=0" in "".join(line for line in result.out.splitlines() if line.startswith(held[0]))
    last = result.out[result.out.index("ROLLOUT HALTED") :]
    for needed in (canary, "version", "restored", "proven by", "held: 5 hosts", "ansible-playbook", "exit code: 2"):
        assert needed in last, f"{needed!r} is not in the last lines:\n{last}"


def test_a_payload_that_raises_in_a_later_wave_reverts_that_wave_alone(fleet):
    hosts = fleet(early=1, standard=4)
    result = hosts.run(rollout_rings=RINGS, raising=["standard0", "standard1", "standard2", "standard3"])
    assert result.rc == 2, result.out
    assert result.states["early0"] == "committed"
    assert hosts.version("early0") == "2.0"
    restored = [host for host, state in result.states.items() if state == "restored"]
    assert restored
    assert all(hosts.is_as_before(host) for host in restored)
    assert all(hosts.is_as_before(host) for host in hosts.hosts if host != "early0")


def test_healthy_parked_hosts_of_a_failed_wave_are_reverted(fleet):
    hosts = fleet(standard=4)
    rings = [{"name": "standard", "serial": ["100%"]}]
    result = hosts.run(rollout_rings=rings, broken=["standard3"])
    assert (result.rc, set(result.states.values())) == (2, {"restored"}), result.out
    assert all(hosts.is_as_before(host) for host in hosts.hosts)
    blamed = {host: [item["release"]["version"] for item in hosts.record(host).get("failed") or []] for host in hosts.hosts}
    assert blamed == {"standard0": [], "standard1": [], "standard2": [], "standard3": ["2.0"]}


def test_the_budget_lets_a_wave_go_on(fleet):
    hosts = fleet(standard=4)
    rings = [{"name": "standard", "serial": ["100%"], "max_failures": 1}]
    result = hosts.run(rollout_rings=rings, broken=["standard3"])
    assert result.rc == 2, result.out
    assert sorted(result.states.values()) == ["committed", "committed", "committed", "restored"]


def test_nobody_new_is_let_in_while_a_failed_host_is_still_in_its_rescue(fleet):
    hosts = fleet(standard=6)
    rings = [{"name": "standard", "serial": ["100%"], "concurrency": 1}]
    result = hosts.run(rollout_rings=rings, broken=hosts.hosts, rollout_restart=["sleep", "1"])
    assert result.rc == 2
    assert sorted(result.states.values()) == ["held"] * 5 + ["restored"], result.out


@pytest.mark.parametrize("policy, healthy", [("restore_host", "committed"), ("hold", "held")])
def test_on_failure(fleet, policy, healthy):
    hosts = fleet(standard=3)
    rings = [{"name": "standard", "serial": ["100%"], "on_failure": policy}]
    result = hosts.run(rollout_rings=rings, broken=["standard1"])
    assert result.rc == 2
    assert result.states == {"standard0": healthy, "standard1": "restored", "standard2": healthy}, result.out
    assert hosts.version("standard0") == "2.0"


def test_hosts_that_are_held_sick_or_already_there(fleet):
    hosts = fleet(early=1, standard=4)
    (hosts.app("standard1") / "version").write_text("sick\n")
    rings = [{"name": "early"}, {"name": "standard", "serial": ["100%"]}]
    result = hosts.run(rollout_rings=rings, hostvars={"standard2": {"rollout_hold": "audit until Friday"}})
    assert result.rc == 2, result.out
    assert result.states == {"early0": "committed", "standard0": "committed", "standard1": "refused", "standard2": "held", "standard3": "committed"}
    assert hosts.untouched("standard2")
    assert (hosts.app("standard1") / "version").read_text() == "sick\n"


def test_soak_and_ring_scope(fleet):
    hosts = fleet(early=2, standard=1)
    rings = [{"name": "early", "serial": [1], "soak": 1.5, "commit": "ring"}, {"name": "standard"}]
    began = time.monotonic()
    result = hosts.run(rollout_rings=rings)
    assert (result.rc, set(result.states.values())) == (0, {"committed"}), result.out
    assert time.monotonic() - began > 3.0
    assert result.out.count("soaks for 1.5 s") == 2


def test_drain_and_rejoin_around_a_good_change_and_a_restore(fleet):
    hosts = fleet(standard=2)
    rings = [{"name": "standard", "serial": [1]}]
    good, bad = hosts.in_line("standard")
    result = hosts.run(rollout_rings=rings, broken=[bad], rollout_drain="marks_drain", rollout_rejoin="marks_rejoin")
    assert result.states == {good: "committed", bad: "restored"}, result.out
    for host, expected in ((good, ["drained", "rejoined"]), (bad, ["drained", "drained", "rejoined"])):
        traffic = (hosts.root / "hosts" / host / "traffic").read_text()
        assert [line.split()[0] for line in traffic.splitlines()] == expected


def test_a_drain_that_hangs_is_ended_and_keeps_nobody_from_going_back(fleet):
    hosts = fleet(standard=1)
    result = hosts.run(rollout_drain="naps", nap=20, rollout_payload_timeout=2)
    assert (result.rc, result.states) == (2, {"standard0": "restored"}), result.out
    assert hosts.is_as_before("standard0")


def test_check_mode_changes_nothing_and_says_so(fleet):
    hosts = fleet(early=1, standard=1)
    result = hosts.run("onprem.rollout.upgrade", "--check", "--diff", rollout_payload="copies")
    assert result.rc == 0, result.out
    assert "CHECK MODE" in result.out
    assert all(hosts.untouched(host) for host in hosts.hosts)


def test_plan_shows_everything_and_changes_nothing(fleet):
    hosts = fleet(early=1, standard=4)
    plan = hosts.run("onprem.rollout.plan", rollout_rings=RINGS, hostvars={"standard2": {"rollout_hold": True}})
    assert plan.rc == 2, plan.out
    shown = ("wave 1/3", "concurrency 2", "failures > 0", "held by you: standard2", "snapshot: up to", "least room", "at most 1 host (25 %)")
    for needed in (*shown, "4 hosts to upgrade"):
        assert needed in plan.out, f"{needed!r} is not in the plan:\n{plan.out}"
    assert all(hosts.untouched(host) for host in hosts.hosts)
    assert plan.data["plan"]["blast_radius"] == 1
    assert "failed=1" not in plan.out


def test_status_tells_what_hosts_run_and_what_was_restored(fleet):
    hosts = fleet(early=1, standard=2)
    assert hosts.run(broken=hosts.hosts).rc == 2
    status = hosts.run("onprem.rollout.status")
    assert (status.rc, status.data["reason"]["kind"]) == (2, "halted"), status.out
    assert "shop 2.0 was restored" in status.out
    assert status.out.count("an unknown version (no rollout yet)") == 3


def test_the_plan_is_what_the_upgrade_does(fleet):
    hosts = fleet(early=1, standard=2)
    planned = hosts.run("onprem.rollout.plan", rollout_rings=RINGS).data["plan"]
    assert [host for wave in planned["rings"][1]["waves"] for host in wave] == hosts.in_line("standard")
    result = hosts.run(rollout_rings=RINGS)
    assert result.data["plan"] == planned
    waves = re.findall(r"wave \d/\d: ([a-z0-9, ]+)$", result.out, re.MULTILINE)
    assert [wave.split(", ") for wave in waves if "passed" not in wave] == [wave for ring in planned["rings"] for wave in ring["waves"]]
    again = hosts.run("onprem.rollout.plan", rollout_rings=RINGS)
    assert (again.rc, "nothing to do" in again.out, "failed=1" in again.out) == (0, True, False), again.out


def test_ctrl_c_leaves_a_record_that_the_next_upgrade_settles_first(fleet):
    hosts = fleet(early=1, standard=1)
    process = hosts.start(rollout_payload="hangs")
    started = hosts.root / "hosts" / "early0" / "hanging"
    deadline = time.monotonic() + 60
    while not started.exists() and time.monotonic() < deadline and process.poll() is None:
        time.sleep(0.05)
    assert started.exists(), hosts.finish(process).out
    os.killpg(process.pid, signal.SIGINT)
    interrupted = hosts.finish(process)
    assert (interrupted.rc, "exit code: 99" in interrupted.out) == (99, True), interrupted.out
    assert "ROLLOUT INTERRUPTED" in interrupted.out
    assert "in change, settled by the next upgrade: 1 host: early0" in interrupted.out
    assert "not started: 1 host: standard0" in interrupted.out
    assert hosts.ledger()[-1].data["how"] == "interrupted"
    assert hosts.record("early0")["transaction"]["phase"] == "changing"
    assert hosts.version("early0") == "2.0"
    result = hosts.run()
    assert result.rc == 0, result.out
    assert re.search(r"early0: was left half done by an earlier run, now restored", result.out)
    assert set(result.states.values()) == {"committed"}
    outcomes = [item["outcome"] for item in hosts.record("early0")["history"]]
    assert outcomes == ["restored", "committed"]


def test_a_payload_past_its_deadline_is_killed_and_restored(fleet):
    hosts = fleet(standard=1)
    result = hosts.run(rollout_payload="hangs", rollout_payload_timeout=2)
    assert (result.rc, result.states) == (2, {"standard0": "restored"}), result.out
    assert hosts.is_as_before("standard0")
    pid = int((hosts.root / "hosts" / "standard0" / "hanging").read_text())
    assert not runs(pid)


def test_a_host_without_systemd_restores_itself_when_its_controller_is_killed_in_the_payload(fleet):
    hosts = fleet(standard=1)
    process = hosts.start(rollout_payload="hangs", rollout_revert_after=3, rollout_payload_timeout=3)
    started = hosts.root / "hosts" / "standard0" / "hanging"
    eventually(lambda: started.exists() or process.poll() is not None)
    os.killpg(process.pid, signal.SIGKILL)
    hosts.finish(process)
    assert hosts.record("standard0")["transaction"]["phase"] == "changing"
    eventually(lambda: hosts.record("standard0")["transaction"]["phase"] == "restored")
    assert hosts.is_as_before("standard0")
    assert not runs(int(started.read_text()))
    transaction = hosts.record("standard0")["transaction"]
    assert transaction["reverted_by"] == "timer"
    assert transaction["reason"].startswith("revert timer: nobody committed within")
    result = hosts.run()
    assert (result.rc, result.states) == (0, {"standard0": "committed"}), result.out


def eventually(seen, timeout=60):
    deadline = time.monotonic() + timeout
    while not seen():
        assert time.monotonic() < deadline
        time.sleep(0.05)


def test_a_host_held_by_a_living_run_is_refused_by_name_even_past_its_lease(fleet):
    """Where the ledger does not tell, because the two do not share one."""
    hosts = fleet(standard=1)
    alone = {"rollout_ledger": f"{hosts.root}/alone.jsonl"}
    process = hosts.start(rollout_payload="hangs")
    started = hosts.root / "hosts" / "standard0" / "hanging"
    deadline = time.monotonic() + 60
    while not started.exists() and time.monotonic() < deadline and process.poll() is None:
        time.sleep(0.05)
    second = hosts.run(**alone)
    assert second.rc != 0
    assert second.states == {"standard0": "refused"}
    assert f"held by rollout shop-2.0 of {getpass.getuser()} on {socket.gethostname()}, pid {process.pid}" in second.out
    assert "have ledgers of their own" in second.out
    record = hosts.record("standard0")
    record["transaction"]["lease_until"] = 1
    (hosts.root / "hosts" / "standard0" / "state" / "record.json").write_text(json.dumps(record))
    assert hosts.run(**alone).states == {"standard0": "refused"}
    os.killpg(process.pid, signal.SIGINT)
    hosts.finish(process)


@pytest.mark.parametrize("forks", [2, 4])
def test_concurrency_is_a_sliding_window_and_no_barrier(fleet, forks):
    """Two at once and never more, and one that takes until all others are through keeps none of them waiting, however many workers there are."""
    hosts = fleet(standard=4)
    rings = [{"name": "standard", "serial": ["100%"], "concurrency": 2}]
    first, *others = hosts.in_line("standard")
    hostvars = {first: {"awaits": [str(hosts.root / "hosts" / host / "ended") for host in others]}}
    hostvars[others[0]] = {"awaits": [str(hosts.root / "hosts" / first / "began")]}
    result = hosts.run(rollout_payload="naps", nap=0.1, hostvars=hostvars, rollout_rings=rings, env={"ANSIBLE_FORKS": str(forks)})
    assert (result.rc, set(result.states.values())) == (0, {"committed"}), result.out
    spans = {host: [float((hosts.root / "hosts" / host / name).read_text()) for name in ("began", "ended")] for host in hosts.hosts}
    assert max(sum(1 for began, ended in spans.values() if began <= moment < ended) for moment, _ended in spans.values()) == 2
