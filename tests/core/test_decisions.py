# Copyright: onprem.rollout contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""What operators decide from another terminal while a rollout runs, or before it does; and the ledger that remembers it."""

from __future__ import annotations

import os
import signal
import time

import pytest
from conftest import eventually

from ansible_collections.onprem.rollout.plugins.plugin_utils._lease_file import LeaseFile
from ansible_collections.onprem.rollout.plugins.plugin_utils._ledger import Event
from ansible_collections.onprem.rollout.plugins.plugin_utils._ledger_file import LedgerFile

ONE_BY_ONE = [{"name": "standard", "serial": [1]}]


def said(hosts, kind):
    return [entry.data for entry in hosts.ledger() if entry.kind == kind]


def wave(hosts, number, state):
    return any(event["wave"] == number and event["state"].startswith(state) for event in said(hosts, "wave"))


def test_a_hold_from_another_terminal_stops_between_hosts_and_a_resume_goes_on(fleet):
    hosts = fleet(standard=3)
    go = hosts.root / "go"
    process = hosts.start(rollout_payload="naps", nap=0, awaits=[str(go)], rollout_rings=ONE_BY_ONE)
    eventually(lambda: wave(hosts, 1, "filling"), process)
    held = hosts.run("onprem.rollout.hold", "-e", '{"rollout_why": "a sale"}')
    assert held.rc == 0, held.out
    again = hosts.run("onprem.rollout.hold")
    assert (again.rc, "is held already, since" in again.out, "changed=0" in again.out) == (0, True, True), again.out
    go.touch()
    eventually(lambda: wave(hosts, 2, "filling"), process)
    assert len(said(hosts, "host")) == 1
    resumed = hosts.run("onprem.rollout.resume")
    result = hosts.finish(process)
    assert (resumed.rc, result.rc, set(result.states.values())) == (0, 0, {"committed"}), result.out
    assert "nobody new is let in: held by" in result.out
    assert ": a sale" in result.out
    assert [event["how"] for event in said(hosts, "finished")] == ["ok"]
    kinds = [entry.kind for entry in hosts.ledger()]
    assert kinds.index("hold") < kinds.index("resume") < [index for index, kind in enumerate(kinds) if kind == "host"][1]


def test_a_rollout_that_is_held_waits_and_ends_well_and_the_next_run_goes_on(fleet):
    hosts = fleet(standard=2)
    hosts.has_a_ledger()
    held = hosts.run("onprem.rollout.hold", "-e", '{"rollout_why": "an audit"}')
    assert (held.rc, ": an audit (no run of it yet)" in held.out) == (0, True), held.out
    result = hosts.run(rollout_max_wait=0)
    assert (result.rc, set(result.states.values())) == (0, {"held"}), result.out
    assert "ROLLOUT WAITS: shop 2.0: held by" in result.out
    assert all(hosts.untouched(host) for host in hosts.hosts)
    assert [event["how"] for event in said(hosts, "finished")] == ["waiting"]
    assert hosts.run("onprem.rollout.resume").rc == 0
    assert hosts.run().rc == 0
    assert {hosts.version(host) for host in hosts.hosts} == {"2.0"}


@pytest.mark.parametrize("then, states, rc", [("restore", {"restored", "held"}, 2), ("keep", {"committed", "held"}, 2)])
def test_an_abort_restores_or_keeps_what_is_not_committed(fleet, then, states, rc):
    hosts = fleet(standard=2)
    process = hosts.start(rollout_rings=[{"name": "standard", "serial": [1], "soak": 600}])
    eventually(lambda: wave(hosts, 1, "soaks"), process)
    assert hosts.run("onprem.rollout.abort", "-e", f"rollout_then={then}").rc == 0
    result = hosts.finish(process)
    assert (result.rc, set(result.states.values())) == (rc, states), result.out
    assert "an operator aborted it" in result.out
    changed = [host for host, state in result.states.items() if state != "held"]
    assert [hosts.is_as_before(host) for host in changed] == [then == "restore"]


def test_a_promotion_ends_the_soak(fleet):
    hosts = fleet(standard=1)
    process = hosts.start(rollout_rings=[{"name": "standard", "soak": 600}])
    eventually(lambda: wave(hosts, 1, "soaks"), process)
    looked = hosts.run("onprem.rollout.promote", "--check")
    assert (looked.rc, "CHECK MODE: nothing is decided" in looked.out, said(hosts, "promote")) == (0, True, []), looked.out
    assert hosts.run("onprem.rollout.promote").rc == 0
    result = hosts.finish(process)
    assert (result.rc, set(result.states.values())) == (0, {"committed"}), result.out


def test_a_soak_that_a_killed_run_left_is_served_by_the_next_although_its_hosts_are_done(fleet):
    hosts = fleet(early=1, standard=1)
    rings = [{"name": "early", "soak": 600, "commit": "host"}, {"name": "standard"}]
    process = hosts.start(rollout_rings=rings)
    eventually(lambda: wave(hosts, 1, "soaks"), process)
    os.killpg(process.pid, signal.SIGKILL)
    hosts.finish(process)
    assert hosts.record("early0")["transaction"]["phase"] == "committed"
    process = hosts.start(rollout_rings=rings)
    eventually(lambda: sum(entry.kind == "wave" and entry.data["state"].startswith("soaks 5") for entry in hosts.ledger()), process)
    assert hosts.untouched("standard0")
    assert hosts.run("onprem.rollout.promote").rc == 0
    result = hosts.finish(process)
    assert (result.rc, result.states) == (0, {"early0": "skipped", "standard0": "committed"}), result.out


def test_every_host_proves_the_ledger_of_its_change(fleet):
    hosts = fleet(standard=2)
    assert hosts.run(rollout_rings=ONE_BY_ONE).rc == 0
    heads = {entry.head.number: entry.head.sha256 for entry in hosts.ledger()}
    anchors = [hosts.record(host)["transaction"]["anchor"] for host in hosts.hosts]
    assert [heads[anchor["number"]] for anchor in anchors] == [anchor["sha256"] for anchor in anchors]
    assert len({anchor["number"] for anchor in anchors}) == 2


def test_a_commit_and_a_restore_prove_what_was_decided_since_the_host_began(fleet):
    hosts = fleet(early=1, standard=1)
    result = hosts.run(rollout_rings=[{"name": "early", "soak": 1}, {"name": "standard"}], broken=["standard0"])
    assert result.states == {"early0": "committed", "standard0": "restored"}, result.out
    ledger = hosts.ledger()
    anchors = {host: hosts.record(host)["transaction"]["anchor"] for host in hosts.hosts}
    assert all(ledger[anchor["number"] - 1].head.sha256 == anchor["sha256"] for anchor in anchors.values())
    (soaks,) = [entry.head.number for entry in ledger if entry.kind == "wave" and entry.data["state"].startswith("soaks")]
    (halted,) = [entry.head.number for entry in ledger if entry.kind == "halted"]
    assert (anchors["early0"]["number"] >= soaks, anchors["standard0"]["number"] >= halted) == (True, True)
    hosts.ledger_file.write_text("".join(hosts.ledger_file.read_text().splitlines(keepends=True)[: halted - 1]))
    audited = hosts.run("onprem.rollout.audit")
    assert (audited.rc, "its end is lost" in audited.out, "early0 was changed" in audited.out) == (2, True, False), audited.out


def test_nobody_is_touched_by_a_rollout_that_no_ledger_remembers(fleet):
    hosts = fleet(standard=1)
    (hosts.root / "file").write_text("")
    result = hosts.run(rollout_ledger=f"{hosts.root}/file/ledger.jsonl")
    assert (result.rc, hosts.untouched("standard0")) == (1, True), result.out
    assert "Not a directory" in result.out or "File exists" in result.out


def test_a_ledger_that_is_not_there_is_made_by_nobody_but_the_upgrade(fleet):
    hosts = fleet(standard=1)
    held = hosts.run("onprem.rollout.hold")
    assert (held.rc, "there is no such ledger" in " ".join(held.out.split()), hosts.ledger_file.exists()) == (2, True, False), held.out
    status = hosts.run("onprem.rollout.status")
    assert (status.rc, status.data["reason"]["kind"]) == (0, "not_started"), status.out
    mistyped = hosts.run("onprem.rollout.status", "-e", f"rollout_ledger={hosts.root}/legder.jsonl")
    assert (mistyped.rc, "legder.jsonl: there is no such ledger" in " ".join(mistyped.out.split())) == (1, True), mistyped.out


def test_a_ledger_that_was_edited_is_not_gone_on_with(fleet):
    hosts = fleet(standard=1)
    hosts.has_a_ledger()
    assert hosts.run("onprem.rollout.hold").rc == 0
    assert hosts.run("onprem.rollout.resume").rc == 0
    path = hosts.ledger_file
    path.write_text(path.read_text().replace('"why":""', '"why":"no reason"', 1))
    result = hosts.run()
    assert (result.rc, hosts.untouched("standard0")) == (1, True), result.out
    assert "line 2 does not follow from line 1, which was changed after it was written" in " ".join(result.out.split())


def test_status_says_why_nothing_happens_and_audit_that_the_ledger_is_right(fleet):
    hosts = fleet(standard=1)
    assert hosts.run().rc == 0
    hosts.run("onprem.rollout.hold", "-e", '{"rollout_why": "an audit"}')
    aborted = hosts.run("onprem.rollout.abort")
    assert (aborted.rc, "so there is nothing to abort" in " ".join(aborted.out.split())) == (2, True), aborted.out
    status = hosts.run("onprem.rollout.status")
    assert "rollout shop-2.0: held: held since" in status.out
    assert status.data["reason"]["kind"] == "held"
    audited = hosts.run("onprem.rollout.audit")
    assert (audited.rc, "the chain is whole; 1 hosts agree" in audited.out) == (0, True), audited.out
    path = hosts.ledger_file
    path.write_text(path.read_text().splitlines(keepends=True)[0])
    audited = hosts.run("onprem.rollout.audit")
    assert audited.rc == 2, audited.out
    line = hosts.record("standard0")["transaction"]["anchor"]["number"]
    assert f"standard0 was changed at line {line}, which the ledger does not have: its end is lost" in audited.out


def test_status_tells_a_run_elsewhere_from_one_that_died_while_it_was_held(fleet):
    hosts = fleet(standard=1)
    process = hosts.start(rollout_payload="naps", nap=600)
    eventually((hosts.root / "hosts" / "standard0" / "napping").exists, process)
    assert hosts.run("onprem.rollout.hold", "-e", '{"rollout_why": "a sale"}').rc == 0
    (hosts.root / "other.jsonl").touch()
    elsewhere = ("onprem.rollout.status", "-e", f"rollout_ledger={hosts.root}/other.jsonl")
    seen = hosts.run(*elsewhere)
    assert (seen.rc, seen.data["reason"]["kind"]) == (0, "elsewhere"), seen.out
    assert f"pid {process.pid} has 1 host (standard0) in change" in seen.out
    os.killpg(process.pid, signal.SIGKILL)
    hosts.finish(process)
    died = hosts.run("onprem.rollout.status")
    assert (died.rc, died.data["reason"]["kind"], [each["kind"] for each in died.data["reason"]["also"]]) == (2, "died", ["held"]), died.out
    lines = died.out[died.out.index("rollout shop-2.0: died: the run of") :].splitlines()
    assert [line.split(":")[0] for line in lines[1:5]] == [
        "  also held", "  to settle what is half done, and go no further", "  to end the hold", "  to go on, with its release (-e @...)",
    ]  # fmt: skip
    assert hosts.run(*elsewhere).data["reason"]["kind"] == "died", "by the hosts"


def test_a_run_that_died_on_another_controller_is_neither_aborted_nor_promoted(fleet):
    """Nobody sees its process from here; but nobody has the rollout."""
    hosts = fleet(standard=1)
    run = Event("started", "shop-2.0", {"plan": "p1", "run": "elsewhere/boot/namespace/7/99", "since": 1, "inputs": {}})
    LedgerFile(str(hosts.ledger_file), "eve on elsewhere, pid 7", time.time).append([run])
    for verb in ("abort", "promote"):
        refused = hosts.run(f"onprem.rollout.{verb}")
        said = f"the run of eve on elsewhere, pid 7 ended without a word, so there is nothing to {verb}"
        assert (refused.rc, said in " ".join(refused.out.split()), len(hosts.ledger())) == (2, True, 1), refused.out
    lease = LeaseFile(str(hosts.ledger_file), "shop-2.0")
    assert lease.take(), "as that run would, if it lived"
    assert hosts.run("onprem.rollout.abort").rc == 0
    lease.release()
    assert [entry.kind for entry in hosts.ledger()] == ["started", "abort"]


def test_verbs_given_twice_decide_once_and_wrong_input_decides_nothing(fleet):
    hosts = fleet(standard=1)
    nobody = hosts.run("onprem.rollout.hold", "-e", f"rollout_ledger={hosts.root}/empty.jsonl")
    assert (nobody.rc, "there is no such ledger" in " ".join(nobody.out.split())) == (2, True), nobody.out
    run = Event("started", "shop-2.0", {"plan": "a" * 64, "since": 1, "inputs": {}})
    LedgerFile(str(hosts.ledger_file), "eve on ctl1, pid 7", time.time).append([run])
    lease = LeaseFile(str(hosts.ledger_file), "shop-2.0")
    assert lease.take()
    why = ("-e", '{"rollout_why": "a sale"}')
    for verb, words, again in (
        ("promote", (), "no wave of shop-2.0 soaks now"),
        ("hold", why, "shop-2.0 is held already, since"),
        ("approve", why, "shop-2.0 is approved already, since"),
        ("abort", why, "shop-2.0 is aborted already, since"),
        ("abort", ("-e", "rollout_then=keep"), "keep comes too late"),
        ("abort", ("-e", "rollout_then=perhaps"), "perhaps"),
    ):
        outs = [" ".join(hosts.run(f"onprem.rollout.{verb}", *words).out.split()) for _time in range(1 if "-e rollout_then" in " ".join(words) else 2)]
        assert again in outs[-1]
        if words == why:
            assert f"shop-2.0: {verb} at 20" in outs[0]
            assert ": a sale" in outs[-1].partition(again)[2]
    lease.release()
    assert [entry.kind for entry in hosts.ledger()] == ["started", "hold", "approve", "abort"]


def test_a_rollout_that_is_another_one_than_began_does_not_go_on_unasked(fleet):
    hosts = fleet(standard=2)
    hosts.has_a_ledger()
    hosts.run("onprem.rollout.hold")
    assert hosts.run(rollout_max_wait=0).rc == 0
    hosts.run("onprem.rollout.resume")
    changed = {"rollout_rings": [{"name": "standard", "max_failures": 1}]}
    result = hosts.run(**changed)
    assert (result.rc, all(hosts.untouched(host) for host in hosts.hosts)) == (1, True), result.out
    assert "ring standard: max_failures was 0, is 1" in result.out
    assert hosts.run("onprem.rollout.upgrade", "-e", "rollout_replan=true", **changed).rc == 0
    assert hosts.run(rollout_rings=[{"name": "standard", "max_failures": 0}]).rc == 0, "it is at its end: that is a rollout of its own"


def test_a_run_that_waits_ends_well_though_a_host_cannot_be_reached(fleet):
    hosts = fleet(standard=2)
    hosts.has_a_ledger()
    assert hosts.run("onprem.rollout.hold").rc == 0
    away = {"ansible_connection": "ssh", "ansible_host": "127.0.0.1", "ansible_port": 1}
    result = hosts.run(rollout_max_wait=0, hostvars={"standard0": away})
    assert (result.rc, result.states) == (0, {"standard0": "unreachable", "standard1": "held"}), result.out
    assert "ROLLOUT WAITS" in result.out
    assert "unreachable: standard0" in result.out


def test_a_run_of_some_hosts_does_not_speak_for_the_rollout(fleet):
    hosts = fleet(standard=2)
    assert hosts.run("onprem.rollout.upgrade", "--limit", "standard0").rc == 0
    status = hosts.run("onprem.rollout.status")
    assert (status.rc, status.data["reason"]["kind"]) == (0, "not_everywhere"), status.out
    changed = hosts.run(rollout_rings=[{"name": "standard", "max_failures": 1}])
    assert (changed.rc, "max_failures was 0, is 1" in changed.out, "came in" in changed.out) == (1, True, False), changed.out
    assert hosts.run().rc == 0
    assert [event["limited"] for event in said(hosts, "finished")] == [True, False]
