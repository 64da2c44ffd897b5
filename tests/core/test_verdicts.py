# Copyright: onprem.rollout contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""What a host remembers of a release, and what only an operator may decide."""

from __future__ import annotations

import os
import shutil
import signal
import time

import pytest
import yaml

TOGETHER = [{"name": "standard", "serial": ["100%"]}]
ROLE = {"ansible.builtin.import_role": {"name": "onprem.rollout.upgrade"}}


def play(fleet, **keywords) -> str:
    path = fleet.root / "own.yml"
    path.write_text(yaml.safe_dump([{"hosts": "all", "gather_facts": False, "tasks": [ROLE], **keywords}]))
    return str(path)


def failed(fleet, host: str) -> list[tuple[str, int]]:
    return [(item["release"]["version"], item["times"]) for item in fleet.record(host).get("failed") or []]


def test_a_release_that_failed_is_not_tried_again_until_it_changes_or_is_forced(fleet):
    hosts = fleet(early=1, standard=1)
    first = hosts.run(broken=["early0"])
    assert (first.rc, failed(hosts, "early0")) == (2, [("2.0", 1)])
    assert "with a new build as the release: ansible-playbook" in first.out
    record = hosts.record("early0")
    again = hosts.run()
    assert (again.rc, again.states) == (2, {"early0": "refused", "standard0": "held"}), again.out
    assert "rollout_retry_failed: true" in again.out[again.out.index("ROLLOUT HALTED") :]
    assert (hosts.record("early0"), hosts.is_as_before("early0")) == (record, True)
    changed = hosts.run(rollout_release={"name": "shop", "version": "2.1", "artifacts": []})
    assert (changed.rc, set(changed.states.values())) == (0, {"committed"}), changed.out
    assert failed(hosts, "early0") == [("2.0", 1)]
    mended = hosts.run("onprem.rollout.upgrade", "-e", "rollout_retry_failed=true", "-e", "rollout_replan=true")  # 2.1 superseded it
    assert (mended.rc, failed(hosts, "early0")) == (0, []), mended.out


def test_plan_and_status_name_the_release_that_failed_and_each_failure_counts(fleet):
    hosts = fleet(early=1, standard=1)
    assert hosts.run(broken=["early0"]).rc == 2
    plan = hosts.run("onprem.rollout.plan")
    assert "early0 (refused: this release failed here once" in plan.out
    assert "rollout_retry_failed: true" in plan.out
    status = hosts.run("onprem.rollout.status").out
    assert "failed here, not tried again: shop 2.0" in status, status
    forced = hosts.run(rollout_retry_failed=True, broken=["early0"])
    assert (forced.rc, failed(hosts, "early0")) == (2, [("2.0", 2)]), forced.out


@pytest.mark.parametrize(
    "variables, blamed",
    [
        ({"rollout_drain": "rejoin_fails"}, False),
        ({"rollout_rejoin": "rejoin_fails"}, False),
        ({"rollout_drain": "marks_drain", "raising": ["standard0"]}, True),
        ({"rollout_payload": "ends", "ending": "end_host"}, True),
        ({"rollout_payload": "aborts", "how": "pauses"}, False),
    ],
    ids=["drain fails", "rejoin fails", "payload fails after its drain", "payload ends the play", "the run fails"],
)
def test_only_what_the_release_did_is_a_verdict_on_it(fleet, variables, blamed):
    hosts = fleet(standard=1)
    result = hosts.run(**variables)
    assert (result.rc, result.states) == (2, {"standard0": "restored"}), result.out
    assert bool(failed(hosts, "standard0")) is blamed


def test_the_role_alone_remembers_and_refuses_too(fleet):
    hosts = fleet(standard=2)
    linear = play(hosts, strategy="ansible.builtin.linear")
    hosts.run(linear, broken=["standard0"])
    assert [failed(hosts, host) for host in hosts.hosts] == [[("2.0", 1)], []]
    again = hosts.run(linear)
    assert "failed on this host before" in " ".join(again.out.split())
    assert hosts.is_as_before("standard0")
    assert "standard1: runs shop 2.0 already, nothing to do" in again.out


def test_an_inconsistent_host_is_told_first_and_waits_for_an_operator(fleet):
    hosts = fleet(early=1, standard=1)
    kept = shutil.copy2(hosts.app("early0") / "version", hosts.root / "backup")
    hosts.variables = {"rollout_drain": "marks_drain", "rollout_rejoin": "marks_rejoin"}
    traffic = hosts.root / "hosts" / "early0" / "traffic"
    spoilt = hosts.run(rollout_payload="spoils_restore")
    assert spoilt.states == {"early0": "restore_failed", "standard0": "held"}, spoilt.out
    last = spoilt.out[: spoilt.out.index("ROLLOUT HALTED")].rstrip().splitlines()
    assert last[-3].startswith("!! INCONSISTENT: early0: ")
    assert "onprem.rollout.recover -i " in last[-1]
    assert last[-1].endswith(" --limit early0 -e rollout_force_restore=true")
    assert "out of traffic: early0: an operator decides about it" in spoilt.out
    assert ("rejoined" in traffic.read_text(), hosts.record("early0")["drained"]) == (False, True)
    for verb, head in (("status", "status: "), ("plan", "shop 2.0: ")):
        shown = hosts.run(f"onprem.rollout.{verb}").out
        assert shown.index("!! INCONSISTENT: early0") < shown.index("; it is out of traffic") < shown.index(head)
    before = hosts.record("early0")
    assert hosts.run(rollout_retry_failed=True).states["early0"] == "refused"
    asked = hosts.run("onprem.rollout.recover")
    assert asked.rc == 2
    assert "rollout_force_restore: true" in " ".join(asked.out.split())
    assert hosts.record("early0") == before
    shutil.copy2(kept, hosts.app("early0") / "version")
    forced = hosts.run("onprem.rollout.recover", "--limit", "early0,standard0", "-e", "rollout_force_restore=true")
    assert hosts.record("early0")["transaction"]["phase"] == "restored", forced.out
    assert (traffic.read_text().split()[-2], hosts.record("early0")["drained"]) == ("rejoined", False)
    assert forced.rc == 2, "standard0 was named"
    assert "standard0 waits for no operator: its record names no transaction" in " ".join(forced.out.split())
    assert hosts.untouched("standard0")


FOREVER = {"rollout_irreversible": "migrates the database to schema 7"}


@pytest.mark.parametrize("where", ["hosts", "release"])
def test_what_cannot_be_undone_is_bad_input_until_it_is_accepted(fleet, where):
    hosts = fleet(early=1, standard=2)
    release = {"name": "shop", "version": "2.0", "artifacts": [], "irreversible": FOREVER["rollout_irreversible"]}
    given = {"hostvars": {"standard0": FOREVER, "standard1": FOREVER}} if where == "hosts" else {"rollout_release": release}
    names = "standard0, standard1" if where == "hosts" else "early0, standard0, standard1"
    for verb in ("plan", "upgrade"):
        refused = hosts.run(f"onprem.rollout.{verb}", **given)
        text = " ".join(refused.out.split())
        assert refused.rc == 1, refused.out
        for part in (f"host {names}, rollout_irreversible", "schema 7", "rollout_accept_irreversible: true"):
            assert part in text
    assert all(hosts.untouched(host) for host in hosts.hosts)
    accepted = hosts.run("onprem.rollout.upgrade", "-e", "rollout_accept_irreversible=true", **given)
    assert (accepted.rc, set(accepted.states.values())) == (0, {"committed"}), accepted.out
    assert hosts.record("standard0")["transaction"]["irreversible"] == FOREVER["rollout_irreversible"]


ACCEPTED = {**FOREVER, "rollout_accept_irreversible": True}
HOOKS = {"rollout_drain": "marks_drain", "rollout_rejoin": "marks_rejoin"}
NOT_ALL = {"rollout_rings": TOGETHER, "hostvars": {"standard0": ACCEPTED, "standard1": ACCEPTED}}


def test_what_cannot_be_undone_is_held_and_not_restored(fleet):
    hosts = fleet(standard=3)
    result = hosts.run(broken=["standard0"], **NOT_ALL, **HOOKS)
    assert (result.rc, result.states) == (2, {"standard0": "held", "standard1": "held", "standard2": "restored"}), result.out
    assert {hosts.record(host)["transaction"]["phase"] for host in ("standard0", "standard1")} == {"held"}
    assert (hosts.version("standard0"), hosts.version("standard1")) == ("broken", "2.0")
    assert (failed(hosts, "standard0"), failed(hosts, "standard1")) == ([("2.0", 1)], [])
    traffic = {host: (hosts.root / "hosts" / host / "traffic").read_text().split()[-3] for host in hosts.hosts}
    assert traffic["standard1"] != traffic["standard0"], "the healthy one is back in traffic, the sick one is not"
    last = result.out[result.out.index("!! HELD: standard0: its change cannot be undone (migrates the database to schema 7)") :]
    assert "rollout_force_commit=true" in last


def test_an_operator_decides_about_what_is_held_and_nobody_else(fleet):
    hosts = fleet(standard=3)
    assert hosts.run(broken=["standard0"], **NOT_ALL).rc == 2
    records = {host: hosts.record(host) for host in hosts.hosts}
    again = hosts.run(**NOT_ALL)
    assert {again.states[host] for host in ("standard0", "standard1")} == {"refused"}, again.out
    assert {host: hosts.record(host) for host in ("standard0", "standard1")} == {host: records[host] for host in ("standard0", "standard1")}
    assert "HELD on shop 2.0" in hosts.run("onprem.rollout.status").out

    sick = hosts.run("onprem.rollout.recover", "--limit", "standard0", "-e", "rollout_force_commit=true")
    assert (sick.rc, hosts.record("standard0")["transaction"]["phase"]) == (2, "held"), sick.out
    well = hosts.run("onprem.rollout.recover", "--limit", "standard1", "-e", "rollout_force_commit=true")
    assert (well.rc, hosts.record("standard1")["installed"]["version"]) == (0, "2.0"), well.out
    forced = hosts.run("onprem.rollout.recover", "-e", "rollout_force_restore=true")
    assert (forced.rc, hosts.is_as_before("standard0")) == (0, True), forced.out


def test_the_next_run_holds_what_a_dead_run_left_and_cannot_be_undone(fleet):
    hosts = fleet(standard=1)
    process = hosts.start(rollout_payload="hangs", **ACCEPTED)
    deadline = time.monotonic() + 60
    while not (hosts.root / "hosts" / "standard0" / "hanging").exists() and time.monotonic() < deadline:
        time.sleep(0.05)
    os.killpg(process.pid, signal.SIGINT)
    hosts.finish(process)
    again = hosts.run(**ACCEPTED)
    assert again.rc == 2, again.out
    assert "cannot be undone (migrates the database to schema 7): held" in " ".join(again.out.split())
    assert (hosts.record("standard0")["transaction"]["phase"], hosts.version("standard0")) == ("held", "2.0")


def test_a_candidate_reaches_only_hosts_that_opted_in(fleet):
    hosts = fleet(early=2, standard=1)
    given = {
        "rollout_release": {"name": "shop", "version": "2.0", "artifacts": [], "candidate": True},
        "hostvars": {"early1": {"rollout_early_access": True}},
    }
    plan = hosts.run("onprem.rollout.plan", **given)
    assert "candidate: not opted in: 2 hosts: early0, standard0" in plan.out, plan.out
    result = hosts.run(**given)
    assert (result.rc, result.states) == (0, {"early1": "committed", "early0": "held", "standard0": "held"}), result.out
    assert hosts.untouched("early0")
    assert hosts.untouched("standard0")
