# Copyright: onprem.rollout contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Exit code 21: the payload asks to be run again later."""

from __future__ import annotations

import json
import os
import signal
import time

import pytest
import yaml

ROLE = {"ansible.builtin.import_role": {"name": "onprem.rollout.upgrade"}}
STRATEGIES = ["onprem.rollout.staged", "ansible.builtin.linear"]
LATER = {"rollout_payload": "asks_for_later", "rollout_retry_wait": 1, "rollout_retry_for": 30}
TOGETHER = {"rollout_rings": [{"name": "standard", "serial": ["100%"]}]}


def play(fleet, strategy: str) -> str:
    path = fleet.root / "own.yml"
    path.write_text(yaml.safe_dump([{"hosts": "all", "gather_facts": False, "strategy": strategy, "tasks": [ROLE]}]))
    return str(path)


def tries(fleet, host: str) -> list[float]:
    return [float(line) for line in (fleet.root / "hosts" / host / "tries").read_text().split()]


@pytest.mark.parametrize("strategy", STRATEGIES)
def test_a_payload_that_asks_for_it_is_run_again_after_the_wait(fleet, strategy):
    hosts = fleet(standard=1)
    result = hosts.run(play(hosts, strategy), not_before=2, **LATER)
    assert (result.rc, hosts.record("standard0")["transaction"]["phase"]) == (0, "committed"), result.out
    first, second, third = tries(hosts, "standard0")
    assert second - first >= 1
    assert third - second >= 1
    assert hosts.version("standard0") == "2.0"


@pytest.mark.parametrize("strategy", STRATEGIES)
def test_at_some_time_it_has_failed(fleet, strategy):
    hosts = fleet(standard=1)
    result = hosts.run(play(hosts, strategy), not_before=99, **{**LATER, "rollout_retry_for": 2})
    assert hosts.record("standard0")["transaction"]["phase"] == "restored", result.out
    assert "asked to be run again later (exit 21), for 2 s by now" in hosts.record("standard0")["transaction"]["reason"]
    assert 2 <= len(tries(hosts, "standard0")) <= 3
    assert hosts.is_as_before("standard0")


@pytest.mark.parametrize("strategy", STRATEGIES)
def test_another_failure_is_one_at_once_and_keeps_its_words(fleet, strategy):
    hosts = fleet(standard=1)
    result = hosts.run(play(hosts, strategy), not_before=99, exits_with=22, **LATER)
    assert hosts.record("standard0")["transaction"]["phase"] == "restored", result.out
    assert hosts.record("standard0")["transaction"]["reason"] == "non-zero return code"
    assert (len(tries(hosts, "standard0")), hosts.record("standard0")["failed"][0]["times"]) == (1, 1)


def test_every_failed_item_of_a_loop_may_ask_for_it(fleet):
    hosts = fleet(standard=1)
    result = hosts.run(not_before=2, in_a_loop=True, **LATER)
    assert result.states == {"standard0": "committed"}, result.out
    assert (hosts.root / "hosts" / "standard0" / "tries").read_text().split() == ["a", "b", "a", "b"]


def test_others_go_on_while_one_waits_and_no_fork_waits_with_it(fleet):
    hosts = fleet(standard=3)
    late = {"standard0": {"not_before": 1}, "standard1": {"not_before": 1}}
    process = hosts.start(env={"ANSIBLE_FORKS": "1"}, hostvars=late, **{**LATER, **TOGETHER, "rollout_retry_wait": 10})
    result = hosts.finish(process)
    assert (result.rc, set(result.states.values())) == (0, {"committed"}), result.out
    assert "its payload asks to be run again later (exit 21), in 10 s" in result.out
    first = {host: tries(hosts, host) for host in hosts.hosts}
    assert all(first["standard2"][0] < first[host][1] for host in ("standard0", "standard1"))
    assert max(first["standard0"][0], first["standard1"][0]) < min(first["standard0"][1], first["standard1"][1]), "both waited at the same time"


def test_a_waiting_host_goes_back_at_once_with_its_wave(fleet):
    hosts = fleet(standard=2)
    variables = {**LATER, **TOGETHER, "rollout_retry_wait": 600, "rollout_retry_for": 1800}
    late = {"standard0": {"not_before": 99}, "standard1": {"exits_with": 1, "not_before": 99}}
    began = time.monotonic()
    result = hosts.run(hostvars=late, **variables)
    assert (result.rc, set(result.states.values())) == (2, {"restored"}), result.out
    assert time.monotonic() - began < 60
    assert all(hosts.is_as_before(host) for host in hosts.hosts)


@pytest.mark.parametrize("strategy", STRATEGIES)
def test_the_lease_is_kept_and_the_host_is_settled_when_the_run_is_killed(fleet, strategy):
    hosts = fleet(standard=1)
    process = hosts.start(play(hosts, strategy), not_before=99, **LATER)
    path = hosts.root / "hosts" / "standard0" / "state" / "record.json"
    deadline, leases = time.monotonic() + 60, set()
    while len(leases) < 2 and time.monotonic() < deadline:
        transaction = json.loads(path.read_text())["transaction"] if path.exists() else {}
        leases |= {transaction["lease_until"]} if transaction.get("phase") == "changing" else set()
        time.sleep(0.02)
    os.killpg(process.pid, signal.SIGKILL)
    process.wait()
    assert len(leases) == 2, "the lease was not extended"
    again = hosts.run(**LATER)
    assert again.states == {"standard0": "committed"}, again.out
    assert [item["outcome"] for item in hosts.record("standard0")["history"]] == ["restored", "committed"]


def test_waits_that_cannot_be_are_bad_input(fleet):
    hosts = fleet(standard=1)
    result = hosts.run(rollout_retry_wait=2000, rollout_retry_for=200000)
    text = " ".join(result.out.split())
    assert result.rc == 1
    assert "rollout_retry_wait: 2000: must be shorter than rollout_lease (1800 s)" in text
    assert "rollout_retry_for: 200000: must be at most 40 times rollout_retry_wait (2000 s)" in text
    assert hosts.untouched("standard0")
