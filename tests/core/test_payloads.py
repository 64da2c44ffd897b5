# Copyright: onprem.rollout contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Payloads and hooks as people write them: own rescues, handlers, errors that core ends a whole run for."""

from __future__ import annotations

import json
import os
import signal
import time

import pytest
import yaml

TOGETHER = [{"name": "standard", "serial": ["100%"]}]
HOOKS = {"rollout_drain": "marks_drain", "rollout_rejoin": "marks_rejoin"}


def play(fleet, **keywords) -> str:
    role = {"ansible.builtin.import_role": {"name": "onprem.rollout.upgrade"}}
    path = fleet.root / "own.yml"
    path.write_text(yaml.safe_dump([{"hosts": "all", "gather_facts": False, "tasks": [role], **keywords}]))
    return str(path)


def marks(fleet, host: str) -> list[str]:
    path = fleet.root / "hosts" / host / "traffic"
    return [line.split()[0] for line in path.read_text().splitlines()] if path.exists() else []


def begin_and_interrupt(fleet, **variables) -> None:
    """Ctrl-C while the payload of every host hangs."""
    process = fleet.start(rollout_payload="hangs", **variables)
    deadline = time.monotonic() + 60
    while time.monotonic() < deadline and not all((fleet.root / "hosts" / host / "hanging").exists() for host in fleet.hosts):
        time.sleep(0.05)
    os.killpg(process.pid, signal.SIGINT)
    fleet.finish(process)


@pytest.mark.parametrize("ending", ["", "end_host"])
def test_a_rescue_of_the_payload_cannot_talk_a_reverted_host_into_a_commit(fleet, ending):
    hosts = fleet(standard=2)
    bad = "standard1" if not ending else "nobody"
    result = hosts.run(rollout_rings=TOGETHER, rollout_payload="own_rescue", bad_host=bad, ending=ending)
    assert (result.rc, set(result.states.values())) == (2, {"restored"}), result.out
    assert all(hosts.is_as_before(host) for host in hosts.hosts)


@pytest.mark.parametrize("handler_fails", [False, True])
@pytest.mark.parametrize("strategy", ["onprem.rollout.staged", "ansible.builtin.linear"])
def test_handlers_of_a_failed_payload_do_not_undo_the_restore(fleet, strategy, handler_fails):
    hosts = fleet(standard=1)
    variables = {"rollout_rings": TOGETHER, "rollout_payload": "notifies_and_fails", "handler_fails": handler_fails}
    result = hosts.run(play(hosts, strategy=strategy), "--force-handlers", **variables)
    assert hosts.is_as_before("standard0"), result.out
    assert hosts.record("standard0")["transaction"]["phase"] == "restored"


@pytest.mark.parametrize("how", ["pauses", "throttle", "notify", "module", "syntax"])
def test_an_error_that_ends_the_run_does_not_leave_hosts_half_done(fleet, how):
    hosts = fleet(early=1, standard=1)
    result = hosts.run(rollout_rings=[{"name": "early", "on_failure": "hold"}, *TOGETHER], rollout_payload="aborts", how=how, **HOOKS)
    assert result.rc == 2, result.out
    assert result.states == {"early0": "restored", "standard0": "held"}, result.out
    assert all(hosts.is_as_before(host) for host in hosts.hosts)
    assert marks(hosts, "early0")[-1] == "rejoined"


def test_an_error_that_ends_the_run_leaves_alone_who_waits_for_a_worker(fleet):
    hosts = fleet(standard=4)
    slow = [{"name": "slow", "type": "command", "argv": ["sleep", "0.5"], "deadline": 5}]
    environment = {"ANSIBLE_FORKS": "2"}
    hostvars = {"standard2": {"rollout_checks": slow}}  # in its begin when the payload of another one ends the run
    result = hosts.finish(hosts.start(env=environment, rollout_rings=TOGETHER, rollout_payload="aborts", how="syntax", hostvars=hostvars))
    assert (result.rc, set(result.states.values())) == (2, {"held", "restored"}), result.out
    assert all(hosts.is_as_before(host) for host in hosts.hosts)
    assert "INCONSISTENT" not in result.out
    assert "Keep the host" not in result.out, "its payload's own rescue must not run"
    for host, state in result.states.items():
        assert hosts.untouched(host) if state == "held" else hosts.is_as_before(host)
    assert hosts.run(rollout_rings=TOGETHER).rc == 0


def test_an_include_whose_file_is_missing_is_the_reason_of_its_failure(fleet):
    hosts = fleet(standard=1)
    result = hosts.run(rollout_payload="aborts", how="missing")
    assert (result.rc, result.states) == (2, {"standard0": "restored"}), result.out
    assert "missing.yml" in result.data["hosts"]["standard0"]["why"]
    assert "kept no result" in hosts.record("standard0")["transaction"]["reason"]


def test_an_unreachable_helper_that_the_payload_ignores_is_ignored(fleet):
    hosts = fleet(standard=1)
    result = hosts.run(rollout_payload="ignores_unreachable")
    assert (result.rc, result.states) == (0, {"standard0": "committed"}), result.out


@pytest.mark.parametrize("keyword", ["ignore_errors", "ignore_unreachable"])
def test_errors_cannot_be_ignored_from_outside(fleet, keyword):
    hosts = fleet(standard=1)
    refused = hosts.run(play(hosts, strategy="onprem.rollout.staged", **{keyword: True}), broken=hosts.hosts)
    assert refused.rc == 1, refused.out
    assert keyword in refused.out
    assert hosts.untouched("standard0")
    result = hosts.run(play(hosts, strategy="ansible.builtin.linear", **{keyword: True}), broken=hosts.hosts)
    assert hosts.is_as_before("standard0"), result.out


def test_handlers_of_hooks_run_with_their_hook(fleet):
    hosts = fleet(standard=1)
    result = hosts.run(rollout_drain="drain_notifies", rollout_rejoin="rejoin_notifies")
    assert result.rc == 0, result.out
    order = (hosts.root / "hosts" / "standard0" / "order").read_text().splitlines()
    assert order == ["drain reloaded, 1.0, changing", "rejoin reloaded, 2.0, awaiting_commit"]


@pytest.mark.parametrize("slow", ["drain", "rejoin", "payload"])
def test_a_handler_that_hangs_is_ended_as_its_hook_would_be(fleet, slow):
    """Handlers of an included role inherit the time limit of the block around the include, on every core."""
    hosts = fleet(standard=1)
    hooks = {"rollout_drain": "drain_notifies", "rollout_rejoin": "rejoin_notifies"}
    result = hosts.run(rollout_payload="notifies", **hooks, slow_handler=slow, rollout_payload_timeout=8)
    assert (result.rc, result.states) == (2, {"standard0": "restored"}), result.out
    assert hosts.is_as_before("standard0")
    assert "8 second(s)" in result.out or "time frame (8)" in result.out


def test_a_rejoin_that_fails_is_named_in_the_verdict(fleet):
    hosts = fleet(standard=1)
    result = hosts.run(broken=hosts.hosts, rollout_drain="marks_drain", rollout_rejoin="rejoin_fails")
    assert (result.rc, result.states) == (2, {"standard0": "restored"}), result.out
    assert "the load balancer does not answer" in result.out[result.out.index("ROLLOUT HALTED") :]


def test_hosts_that_an_earlier_run_left_drained_rejoin_although_their_wave_never_comes(fleet):
    hosts = fleet(standard=2)
    begin_and_interrupt(hosts, rollout_rings=TOGETHER, **HOOKS)
    assert [marks(hosts, host) for host in hosts.hosts] == [["drained"]] * 2
    one_by_one = [{"name": "standard", "serial": [1], "concurrency": 1}]
    result = hosts.run(rollout_rings=one_by_one, rollout_replan=True, broken=hosts.hosts, **HOOKS)
    assert sorted(result.states.values()) == ["held", "restored"], result.out
    for host in hosts.hosts:
        assert marks(hosts, host)[-1] == "rejoined"
        assert hosts.is_as_before(host)


def test_hosts_are_settled_no_more_at_once_than_may_be_in_change(fleet):
    hosts = fleet(standard=3)
    begin_and_interrupt(hosts, rollout_rings=TOGETHER)
    log = hosts.root / "restarts"
    restart = ["sh", "-c", f"echo in >> {log}; sleep 0.7; echo out >> {log}"]
    for host in hosts.hosts:  # how to restart is in the record of the transaction that is settled
        path = hosts.root / "hosts" / host / "state" / "record.json"
        record = hosts.record(host)
        record["transaction"]["options"]["restart"] = restart
        path.write_text(json.dumps(record))
    result = hosts.run(rollout_rings=[{"name": "standard", "serial": ["100%"], "concurrency": 1}], rollout_replan=True)
    assert result.rc == 0, result.out
    assert log.read_text().split()[:6] == ["in", "out"] * 3


def test_check_mode_tells_the_truth_of_a_half_done_host(fleet):
    hosts = fleet(standard=1)
    begin_and_interrupt(hosts)
    record = hosts.record("standard0")
    check = hosts.run("onprem.rollout.upgrade", "--check", rollout_payload="copies", **HOOKS)
    assert (check.rc, check.states) == (0, {"standard0": "committed"}), check.out
    assert hosts.record("standard0") == record
    assert hosts.run().rc == 0


def test_two_rollouts_in_one_playbook_do_not_mix_up(fleet):
    hosts = fleet(standard=1)
    role = {"ansible.builtin.import_role": {"name": "onprem.rollout.upgrade"}}
    base = {"hosts": "all", "gather_facts": False, "strategy": "onprem.rollout.staged", "tasks": [role]}
    path = hosts.root / "site.yml"
    first = {"rollout_release": {"name": "shop", "version": "1.5", "artifacts": []}}
    second = {"rollout_release": {"name": "shop", "version": "2.5", "artifacts": []}, "broken": hosts.hosts}
    path.write_text(yaml.safe_dump([{**base, "vars": first}, {**base, "vars": second}]))
    result = hosts.run(str(path), **HOOKS)
    assert result.rc == 2, result.out
    assert hosts.version("standard0") == "1.5"
    assert marks(hosts, "standard0") == ["drained", "rejoined", "drained", "drained", "rejoined"]


def test_one_machine_under_two_names_is_refused_once(fleet):
    hosts = fleet(standard=2)
    same = {"standard1": {"root": str(hosts.root / "hosts" / "standard0")}}
    result = hosts.run(rollout_rings=TOGETHER, hostvars=same)
    assert sorted(result.states.values()) == ["committed", "refused"], result.out


@pytest.mark.parametrize("content", ["{}", "[]", '{"schema": 1}', "null", "no json", '{"schema": 1, "transaction": "x"}'])
def test_a_record_that_is_none_is_refused(fleet, content):
    hosts = fleet(standard=1)
    state = hosts.root / "hosts" / "standard0" / "state"
    state.mkdir(mode=0o700)
    (state / "record.json").write_text(content)
    result = hosts.run()
    assert (result.rc, result.states) == (2, {"standard0": "refused"}), result.out
    assert hosts.is_as_before("standard0")
    assert f"The record {state}/record.json cannot be read: " in result.out


def test_a_host_found_sick_while_its_wave_is_reverted_is_restored_too(fleet):
    hosts = fleet(standard=2)
    first = f"{hosts.root}/hosts/standard0/state/record.json"
    slow = f'grep -q ^1 {{{{ app }}}}/version && exit 0; until grep -q \'"phase":"rest\' {first}; do sleep 0.05; done; exit 1'
    check = {"name": "slow", "type": "command", "argv": ["sh", "-c", slow], "deadline": 1, "timeout": 30}
    result = hosts.run(rollout_rings=TOGETHER, broken=hosts.hosts, hostvars={"standard1": {"rollout_checks": [check]}})
    assert (result.rc, set(result.states.values())) == (2, {"restored"}), result.out
    assert all(hosts.is_as_before(host) for host in hosts.hosts)
