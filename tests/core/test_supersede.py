# Copyright: onprem.rollout contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""A new version that is submitted while another one is rolled out takes its place, on the same ledger; and what guards against an accident."""

from __future__ import annotations

import getpass
import os
import signal
import socket
import sys
import time
from pathlib import Path

import pytest
from conftest import eventually

from ansible_collections.onprem.rollout.plugins.plugin_utils._ledgers import open_ledger

sys.path.insert(0, str(Path(__file__).parents[1]))
from postgresql import running_server

HERE = f"of {getpass.getuser()} on {socket.gethostname()}, pid "
SOAKS = [{"name": "standard", "serial": [1], "soak": 600}]


@pytest.fixture(params=["file", "postgresql"])
def place(request, tmp_path):
    """A ledger of each kind."""
    if request.param == "file":
        yield str(tmp_path / ".local" / "state" / "onprem-rollout" / "ledger.jsonl")
        return
    with running_server() as server:
        server.sql("create database shop")
        yield server.place("shop")


def release(version):
    return {"name": "shop", "version": version, "artifacts": []}


def events(place):
    return list(open_ledger(place, "a test").entries())


def said(place, kind, rollout="shop-2.0"):
    return [entry.data for entry in events(place) if (entry.kind, entry.rollout) == (kind, rollout)]


def wave(place, state, rollout="shop-2.0"):
    return any(event["state"].startswith(state) for event in said(place, "wave", rollout))


def flat(result):
    return " ".join(result.out.split())


def start(hosts, version, place, *arguments, json="result.json", **variables):
    """A run beside others, with a result of its own."""
    aside = ["-e", f"rollout_json={hosts.root}/{json}", *arguments]
    return hosts.start("onprem.rollout.upgrade", *aside, rollout_release=release(version), rollout_ledger=place, **variables)


def test_a_new_version_takes_the_place_of_the_one_that_is_rolled_out(fleet, place):
    hosts = fleet(standard=2)
    older = start(hosts, "2.0", place, json="older.json", rollout_rings=SOAKS)
    eventually(lambda: wave(place, "soaks"), older)
    touched = [host for host in hosts.hosts if not hosts.untouched(host)]
    newer = start(hosts, "2.1", place)
    eventually(lambda: said(place, "superseded"), older)
    told = time.monotonic()
    eventually(lambda: said(place, "halted"), older)
    assert time.monotonic() - told < 2
    first, second = hosts.finish(older), hosts.finish(newer)
    assert (first.rc, len(touched)) == (2, 1), first.out
    assert "ROLLOUT SUPERSEDED: shop 2.0: by shop-2.1 at 20" in flat(first), first.out
    assert "-e rollout_replan=true exit code: 2" in flat(first), first.out
    assert f"  restored: {touched[0]}" in first.out
    assert (second.rc, set(second.states.values())) == (0, {"committed"}), second.out
    assert f"shop-2.0 is rolled out by another run, {HERE}{older.pid}, since 20" in flat(second)
    assert "this run waits for that, 1800 s at most" in flat(second)
    assert "shop-2.1 has its turn after" in flat(second)
    assert {hosts.version(host) for host in hosts.hosts} == {"2.1"}
    kinds = [(entry.kind, entry.rollout) for entry in events(place)]
    assert kinds.index(("finished", "shop-2.0")) < kinds.index(("started", "shop-2.1")), kinds
    assert [event["why"] for event in said(place, "finished")] == ["superseded"]
    status = hosts.run("onprem.rollout.status", rollout_release=release("2.0"), rollout_ledger=place)
    assert (status.rc, status.data["reason"]["kind"]) == (0, "superseded"), status.out
    assert "rollout shop-2.0: superseded: superseded by shop-2.1 at 20" in status.out
    again = hosts.run(rollout_release=release("2.0"), rollout_ledger=place)
    assert (again.rc, "shop-2.0 was superseded by shop-2.1 at 20" in flat(again)) == (1, True), again.out
    assert {hosts.version(host) for host in hosts.hosts} == {"2.1"}
    meant = hosts.run("onprem.rollout.upgrade", "-e", "rollout_replan=true", rollout_release=release("2.0"), rollout_ledger=place)
    assert (meant.rc, {hosts.version(host) for host in hosts.hosts}) == (0, {"2.0"}), meant.out


@pytest.fixture
def ledger_file(tmp_path):
    return str(tmp_path / "ledger.jsonl")


def test_one_that_does_not_end_is_waited_for_so_long_and_one_that_is_killed_is_settled_first(fleet, ledger_file):
    hosts = fleet(standard=1)
    older = start(hosts, "2.0", ledger_file, json="older.json", rollout_payload="hangs")
    eventually((hosts.root / "hosts" / "standard0" / "hanging").exists, older)
    apart = hosts.finish(start(hosts, "2.1", f"{hosts.root}/apart.jsonl"))
    assert (apart.rc, apart.states) == (2, {"standard0": "refused"}), apart.out
    assert f"This host is held by rollout shop-2.0 {HERE}{older.pid}" in flat(apart), "a newer version gets no host past the ledger"
    bounded = hosts.finish(start(hosts, "2.1", ledger_file, "-e", "rollout_supersede_wait=1"))
    assert bounded.rc == 1, bounded.out
    assert all(text in flat(bounded) for text in ("it was told at 20", "has not ended within 1 s (rollout_supersede_wait)", "No host was touched")), bounded.out
    assert said(ledger_file, "started", "shop-2.1") == []
    os.killpg(older.pid, signal.SIGKILL)
    older.wait()
    newer = hosts.finish(start(hosts, "2.1", ledger_file))
    assert (newer.rc, newer.states) == (0, {"standard0": "committed"}), newer.out
    assert "standard0: was left half done by an earlier run, now restored" in newer.out


def test_the_engine_linear_hears_it_at_its_next_batch_and_a_hold_goes_over(fleet, ledger_file):
    hosts = fleet(standard=2)
    linear = ["-e", "rollout_engine=linear"]
    older = start(hosts, "2.0", ledger_file, *linear, json="older.json", rollout_payload="naps", nap=6, rollout_rings=[{"name": "standard", "serial": [1]}])
    eventually(lambda: wave(ledger_file, "filling"), older)
    held = hosts.run("onprem.rollout.hold", "-e", '{"rollout_why": "a sale"}', rollout_ledger=ledger_file)
    newer = start(hosts, "2.1", ledger_file, "-e", "rollout_max_wait=0")
    first, second = hosts.finish(older), hosts.finish(newer)
    assert (held.rc, first.rc) == (0, 2), first.out
    assert "ROLLOUT SUPERSEDED: shop 2.0: by shop-2.1 at 20" in flat(first), first.out
    assert [event["state"] for event in said(ledger_file, "host")].count("committed") <= 1, "nobody new was let in"
    assert (second.rc, set(second.states.values())) == (0, {"held"}), second.out
    assert "ROLLOUT WAITS: shop 2.1: held by" in flat(second), second.out
    assert "shop-2.0 was held by" in flat(second), second.out
    lower = hosts.finish(start(hosts, "2.0.5", ledger_file))
    assert (lower.rc, "shop-2.0.5 would supersede shop-2.1, which is in progress and no older version" in flat(lower)) == (1, True), lower.out
