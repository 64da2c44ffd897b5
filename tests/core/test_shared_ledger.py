# Copyright: onprem.rollout contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""A ledger that several controllers share: PostgreSQL, which a rollout outlives."""

from __future__ import annotations

import getpass
import os
import signal
import socket
import sys
import time
from pathlib import Path

import pytest

from ansible_collections.onprem.rollout.plugins.plugin_utils._ledger import Event
from ansible_collections.onprem.rollout.plugins.plugin_utils._ledgers import open_ledger

sys.path.insert(0, str(Path(__file__).parents[1]))
from conftest import eventually
from postgresql import PASSWORD, running_server


@pytest.fixture(scope="module")
def server():
    with running_server() as running:
        yield running


@pytest.fixture
def place(server):
    server.sql("drop database if exists shop with (force)")
    server.sql("create database shop")
    return server.place("shop")


def said(place, kind):
    return [entry.data for entry in open_ledger(place, "a test").entries() if entry.kind == kind]


ONE_BY_ONE = [{"name": "standard", "serial": [1]}]


def naps(hosts):
    """One host after the other, whose payload goes on when the test says so."""
    return {"rollout_payload": "naps", "nap": 0, "awaits": [str(hosts.root / "go")], "rollout_rings": ONE_BY_ONE}


def secretless(result):
    return all(form not in result.out for form in (PASSWORD, "s3cret"))


def test_a_database_that_stops_in_mid_run_stops_the_rollout_between_hosts_and_loses_nothing(fleet, server, place):
    hosts = fleet(standard=2)
    process = hosts.start(**naps(hosts), rollout_ledger=place)
    eventually(lambda: any(wave["state"] == "filling" for wave in said(place, "wave")), process)
    server.stop()
    (hosts.root / "go").touch()
    try:
        eventually(lambda: any(hosts.record(host).get("transaction", {}).get("phase") == "committed" for host in hosts.hosts), process)
        touched = [host for host in hosts.hosts if not hosts.untouched(host)]
        deadline = time.monotonic() + 1.5  # in which the next host would have been let in
        while time.monotonic() < deadline:
            assert [host for host in hosts.hosts if not hosts.untouched(host)] == touched
            time.sleep(0.1)
    finally:
        server.start()
    result = hosts.finish(process)
    assert (result.rc, set(result.states.values()), len(touched)) == (0, {"committed"}, 1), result.out
    assert "nobody new is let in: the ledger postgresql://postgres@127.0.0.1:" in result.out
    assert "goes on" in result.out
    assert secretless(result), result.out
    assert sorted(event["host"] for event in said(place, "host")) == sorted(hosts.hosts)
    assert [event["how"] for event in said(place, "finished")] == ["ok"]
    audited = hosts.run("onprem.rollout.audit", rollout_ledger=place)
    assert (audited.rc, "the chain is whole; 2 hosts agree" in audited.out) == (0, True), audited.out


def test_a_decision_on_another_controller_is_heard(fleet, place):
    hosts = fleet(standard=2)
    process = hosts.start(**naps(hosts), rollout_ledger=place, rollout_max_wait=0)
    eventually(lambda: any(wave["state"] == "filling" for wave in said(place, "wave")), process)
    held = hosts.run("onprem.rollout.hold", "-vvv", "-e", f"rollout_ledger={place}")
    (hosts.root / "go").touch()
    result = hosts.finish(process)
    assert (held.rc, result.rc, set(result.states.values())) == (0, 0, {"committed", "held"}), result.out
    assert (secretless(held), secretless(result)) == (True, True), held.out + result.out


def test_a_run_is_seen_and_what_it_left_is_settled_by_whoever_has_the_ledger(fleet, place):
    hosts = fleet(standard=1)
    process = hosts.start(rollout_payload="naps", nap=600, rollout_ledger=place)
    eventually((hosts.root / "hosts" / "standard0" / "napping").exists, process)
    seen = hosts.run("onprem.rollout.status", rollout_ledger=place)
    assert (seen.rc, seen.data["reason"]["kind"]) == (0, "running"), seen.out
    os.killpg(process.pid, signal.SIGKILL)
    hosts.finish(process)
    done = hosts.run("onprem.rollout.recover", rollout_ledger=place)
    assert (done.rc, done.states) == (0, {"standard0": "restored"}), done.out
    decided, ended = said(place, "recover")
    assert (decided["then"], ended["outcome"]) == ("restore", "restored")
    kinds = {entry.head.sha256: entry.kind for entry in open_ledger(place, "a test").entries()}
    assert kinds[hosts.record("standard0")["transaction"]["anchor"]["sha256"]] == "recover"
    after = hosts.run("onprem.rollout.audit", rollout_ledger=place)
    assert after.data["reason"]["kind"] == "died", after.out
    assert "recover settled hosts of it at" in after.out
    assert "the chain is whole; 1 hosts agree" in after.out


def test_nobody_is_touched_by_a_rollout_that_no_database_remembers(fleet, server, place):
    hosts = fleet(standard=1)
    result = hosts.run("onprem.rollout.upgrade", "-e", f"rollout_ledger={server.place('nowhere')}")
    assert (result.rc, hosts.untouched("standard0")) == (1, True), result.out
    assert 'database "nowhere" does not exist' in " ".join(result.out.split())
    assert secretless(result), result.out


def test_a_second_run_is_refused_by_name_and_one_that_lost_the_rollout_with_its_session_lets_nobody_in(fleet, server, place):
    hosts = fleet(standard=2)
    first = hosts.start(**naps(hosts), rollout_ledger=place)
    eventually(lambda: any(wave["state"] == "filling" for wave in said(place, "wave")), first)
    second = hosts.run(rollout_payload="writes", rollout_rings=ONE_BY_ONE, rollout_ledger=place)
    assert second.rc == 1, second.out
    assert f"shop-2.0 is rolled out by another run, of {getpass.getuser()} on {socket.gethostname()}, pid {first.pid}, since 20" in " ".join(second.out.split())
    faster = open_ledger(place, "bob on ctl2, pid 7")
    list(faster.entries())
    server.sql("select pg_terminate_backend(pid) from pg_locks where locktype = 'advisory' and objsubid = 2")
    eventually(faster.lease("shop").take, first)
    faster.append([Event("started", "shop-2.0", {})])
    (hosts.root / "go").touch()
    eventually(lambda: len(said(place, "host")) == 1, first)
    deadline = time.monotonic() + 1.5  # in which the next host would have been let in
    while time.monotonic() < deadline:
        assert len([host for host in hosts.hosts if not hosts.untouched(host)]) == 1
        time.sleep(0.1)
    server.sql("select pg_terminate_backend(pid) from pg_locks where locktype = 'advisory' and objsubid = 2")
    result = hosts.finish(first)
    assert (result.rc, set(result.states.values())) == (0, {"committed"}), result.out
    assert "nobody new is let in: shop-2.0 is rolled out by another run, of bob on ctl2, pid 7, since 20" in " ".join(result.out.split())


IMPATIENT = """
from ansible.plugins.callback import CallbackBase
from ansible_collections.onprem.rollout.plugins.plugin_utils import _lease_postgresql

_lease_postgresql.HUNG = 1


class CallbackModule(CallbackBase):
    CALLBACK_VERSION, CALLBACK_TYPE, CALLBACK_NAME = 2.0, "aggregate", "impatient"
"""


def test_a_task_of_the_engine_linear_that_takes_longer_than_a_run_may_hang_does_not_lose_the_rollout(fleet, server, place):
    hosts = fleet(standard=1)
    (hosts.root / "callbacks").mkdir()
    (hosts.root / "callbacks" / "impatient.py").write_text(IMPATIENT)
    env = {"ANSIBLE_CALLBACK_PLUGINS": f"{hosts.root}/callbacks"}
    process = hosts.start("onprem.rollout.upgrade", "-e", "rollout_engine=linear", env=env, rollout_payload="naps", nap=6, rollout_ledger=place)
    eventually((hosts.root / "hosts" / "standard0" / "napping").exists, process)
    lease = open_ledger(place, "a test").lease("shop")
    until = time.monotonic() + 4
    while time.monotonic() < until:
        assert lease.taken()
        time.sleep(0.1)
    result = hosts.finish(process)
    assert (result.rc, result.states) == (0, {"standard0": "committed"}), result.out


def test_the_end_of_a_run_that_lost_the_rollout_is_not_the_end_of_the_run_that_has_it(fleet, server, place):
    hosts = fleet(standard=2)
    first = hosts.start(**naps(hosts), rollout_ledger=place, rollout_max_wait=0)
    eventually(lambda: any(wave["state"] == "filling" for wave in said(place, "wave")), first)
    faster = open_ledger(place, "bob on ctl2, pid 7")
    lease = faster.lease("shop", listens=False)
    list(faster.entries())
    server.sql("select pg_terminate_backend(pid) from pg_locks where locktype = 'advisory' and objsubid = 2")
    eventually(lease.take, first)
    faster.append([Event("started", "shop-2.0", {"run": "bobs", "release": {"name": "shop", "version": "2.0"}})])
    (hosts.root / "go").touch()
    result = hosts.finish(first)
    assert (result.rc, said(place, "finished")[0]["how"]) == (0, "waiting"), result.out
    seen = hosts.run("onprem.rollout.status", rollout_ledger=place)
    assert (seen.rc, seen.data["reason"]["kind"]) == (0, "running"), seen.out
    assert lease.held
    aborted = hosts.run("onprem.rollout.abort", "-e", f"rollout_ledger={place}")
    assert (aborted.rc, len(said(place, "abort"))) == (0, 1), aborted.out
