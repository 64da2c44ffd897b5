# Copyright: onprem.rollout contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Gates before waves: approvals signed with SSH keys, maintenance windows, programs."""

from __future__ import annotations

import subprocess
import time

TWO = [{"name": "early"}, {"name": "standard", "gates": [{"type": "approval", "name": "board", "not_launcher": False}]}]


def said(hosts, kind):
    return [event for event in hosts.ledger() if event.kind == kind]


def verdicts(hosts):
    return [(event.data["ring"], event.data["verdict"]) for event in said(hosts, "gate")]


def test_a_rollout_waits_for_its_approval_and_the_next_run_goes_on(fleet):
    hosts = fleet(early=1, standard=1)
    planned = hosts.run("onprem.rollout.plan", rollout_rings=TWO).data["plan"]["digest"]
    first = hosts.run(rollout_rings=TWO, rollout_max_wait=0)
    assert (first.rc, first.states) == (0, {"early0": "committed", "standard0": "held"}), first.out
    assert "ROLLOUT WAITS: shop 2.0: waits for 1 approval of plan" in first.out
    assert "ansible-playbook onprem.rollout.approve" in first.out
    status = hosts.run("onprem.rollout.status", rollout_rings=TWO)
    assert "rollout shop-2.0: waiting: the last run waited until" in status.out
    assert (status.data["plan"]["digest"], planned in status.out) == (planned, True)
    mistyped = hosts.run("onprem.rollout.approve", "-e", "rollout_plan=4711", "-e", "rollout_expires=2020-01-01", rollout_rings=TWO)
    assert (mistyped.rc, "rollout_plan: '4711': is no digest" in mistyped.out, "rollout_expires: '2020-01-01': does not say" in mistyped.out) == (2, True, True)
    assert hosts.run("onprem.rollout.approve", "-e", "rollout_why=seen", "-e", f"rollout_plan={planned}", rollout_rings=TWO).rc == 0
    second = hosts.run(rollout_rings=TWO, rollout_max_wait=0)
    assert (second.rc, second.states) == (0, {"early0": "skipped", "standard0": "committed"}), second.out
    assert verdicts(hosts) == [("standard", "hold"), ("standard", "pass")]


def test_an_approval_is_for_one_plan_and_signed_by_whom_the_policy_knows(fleet):
    hosts = fleet(standard=1)
    for name in ("ada", "eve"):
        subprocess.run(["ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-C", name, "-f", str(hosts.root / name)], check=True)
    signers = hosts.root / "allowed_signers"
    signers.write_text(f"ada {(hosts.root / 'ada.pub').read_text()}")
    gate = {"type": "approval", "not_launcher": True, "allowed_signers": str(signers)}
    policy = {"rollout_gates": [gate], "rollout_max_wait": 0}
    assert hosts.run(**policy).rc == 0
    for user, key in (("ada", "eve"), ("root", "ada")):
        assert hosts.run("onprem.rollout.approve", "-e", f"awx_user_name={user}", "-e", f"rollout_key={hosts.root}/{key}", **policy).rc == 0
    result = hosts.run(**policy)
    assert (result.rc, hosts.untouched("standard0")) == (0, True), result.out
    assert "was signed with a key that allowed_signers does not have for that name" in " ".join(result.out.split())
    assert hosts.run("onprem.rollout.approve", "-e", "awx_user_name=ada", "-e", f"rollout_key={hosts.root}/ada", **policy).rc == 0
    other = hosts.run("onprem.rollout.upgrade", "-e", "rollout_replan=true", rollout_rings=[{"name": "standard", "max_failures": 1}], **policy)
    assert (other.rc, hosts.untouched("standard0")) == (0, True), other.out
    assert "is for plan" in other.out
    result = hosts.run("onprem.rollout.upgrade", "-e", "rollout_replan=true", **policy)
    assert (result.rc, hosts.version("standard0")) == (0, "2.0"), result.out


def test_who_launched_the_run_that_waits_does_not_approve_it_for_the_one_that_somebody_else_goes_on_with(fleet):
    hosts = fleet(standard=1)
    policy = {"rollout_gates": [{"type": "approval"}], "rollout_max_wait": 0}
    for playbook, user in (("upgrade", "ada"), ("approve", "ada"), ("upgrade", "cron")):
        result = hosts.run(f"onprem.rollout.{playbook}", "-e", f"awx_user_name={user}", **policy)
        assert (result.rc, hosts.untouched("standard0")) == (0, True), result.out
    assert "is by the launcher of an earlier run of it" in " ".join(result.out.split())
    assert hosts.run("onprem.rollout.approve", "-e", "awx_user_name=bob", **policy).rc == 0
    result = hosts.run("onprem.rollout.upgrade", "-e", "awx_user_name=cron", **policy)
    assert (result.rc, hosts.version("standard0")) == (0, "2.0"), result.out


def test_a_program_says_no(fleet):
    hosts = fleet(early=1, standard=1)
    program = ["sh", "-c", 'test "$ONPREM_ROLLOUT_RING" = early || { echo not today; exit 1; }']
    result = hosts.run(rollout_gates=[{"type": "command", "argv": program}])
    assert (result.rc, result.states) == (2, {"early0": "committed", "standard0": "held"}), result.out
    assert "not today" in result.out
    assert "ROLLOUT HALTED: shop 2.0: a gate says that it may not go on" in result.out


def test_a_schedule_without_a_future_window_is_refused(fleet):
    hosts = fleet(standard=1)
    past = {"type": "window", "rrule": "FREQ=DAILY;UNTIL=20240601T000000", "duration": "1h"}
    result = hosts.run(rollout_gates=[past])
    assert (result.rc, hosts.untouched("standard0")) == (1, True), result.out
    assert "rollout_gates[0]" in result.out


def test_a_window_that_is_open_lets_the_wave_in(fleet):
    hosts = fleet(standard=1)
    result = hosts.run(rollout_gates=[{"type": "window", "rrule": "FREQ=DAILY", "duration": "24h"}])
    assert (result.rc, hosts.version("standard0")) == (0, "2.0"), result.out


def test_status_of_a_run_elsewhere_names_its_gate(fleet):
    hosts = fleet(early=1, standard=1)
    process = hosts.start(rollout_rings=TWO)
    deadline = time.monotonic() + 60
    while not said(hosts, "gate"):
        assert time.monotonic() < deadline
        assert process.poll() is None
        time.sleep(0.02)
    status = hosts.run("onprem.rollout.status", rollout_rings=TWO)
    assert (status.rc, status.data["reason"]["kind"], status.data["run"]["at_work"]) == (0, "gate", True), status.out
    assert "rollout shop-2.0: gate: standard wave 1 waits since " in status.out
    assert [(wave["ring"], wave["state"], wave["hosts"]) for wave in status.data["waves"]] == [
        ("early", "passed", ["early0"]),
        ("standard", "not begun", ["standard0"]),
    ]
    assert hosts.run("onprem.rollout.approve", rollout_rings=TWO).rc == 0
    assert hosts.finish(process).rc == 0
