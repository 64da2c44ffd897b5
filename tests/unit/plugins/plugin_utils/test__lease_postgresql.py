# Copyright: onprem.rollout contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""The lease as a lock of a real server's session."""

from __future__ import annotations

import itertools
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from ansible_collections.onprem.rollout.plugins.plugin_utils._lease_postgresql import HUNG
from ansible_collections.onprem.rollout.plugins.plugin_utils._ledger import Event, LedgerError
from ansible_collections.onprem.rollout.plugins.plugin_utils._ledger_postgresql import LedgerPostgresql

sys.path.insert(0, str(Path(__file__).parents[3]))
from postgresql import running_server

NUMBERS = itertools.count()


@pytest.fixture(scope="module")
def server():
    with running_server() as running:
        yield running


@pytest.fixture
def place(server):
    name = f"lease{next(NUMBERS)}"
    server.sql(f"create database {name}")
    return server.place(name)


def ledger_at(place):
    return LedgerPostgresql(place, "ada", lambda: 1700000000.0)


def lease_at(place, rollout="shop-2.0"):
    return ledger_at(place).lease(rollout)


def eventually(condition):
    deadline = time.monotonic() + 30
    while not condition():
        assert time.monotonic() < deadline
        time.sleep(0.02)


def cut(server):
    """End every session but the one that does it."""
    server.sql("select pg_terminate_backend(pid) from pg_stat_activity where pid <> pg_backend_pid() and backend_type = 'client backend'")


def test_one_session_has_it_and_others_see_that(server, place):
    first, second = lease_at(place), lease_at(place)
    assert (first.held, first.taken(), first.take(), first.take(), first.held) == (False, False, True, True, True)
    assert (second.taken(), second.take(), second.held) == (True, False, False)
    assert lease_at(place, "shop-2.1").take()
    first.release()
    assert (first.held, second.taken(), second.take(), first.take()) == (False, False, True, False)


def test_a_lease_in_another_database_of_the_server_is_another_one(server, place):
    server.sql("create database elsewhere")
    first, second = lease_at(place), lease_at(server.place("elsewhere"))
    assert (first.take(), second.taken(), second.take()) == (True, False, True)


def test_names_whose_numbers_are_negative_are_found_too(place):
    for number in range(8):
        lease, other = lease_at(place, f"shop-{number}"), lease_at(place, f"shop-{number}")
        assert (lease.take(), other.taken(), other.take()) == (True, True, False), number


def test_it_is_lost_with_its_session_and_taken_again_on_the_next_one(server, place):
    ledger = ledger_at(place)
    lease = ledger.lease("shop-2.0")
    assert lease.take()
    cut(server)
    with pytest.raises(LedgerError):
        list(ledger.news())
    assert not lease.held
    assert (lease.take(), lease.held) == (True, True)


def test_whoever_is_faster_has_it_until_that_gives_it_back(server, place):
    ledger, other = ledger_at(place), lease_at(place)
    lease = ledger.lease("shop-2.0")
    assert lease.take()
    cut(server)
    eventually(other.take)
    with pytest.raises(LedgerError):
        ledger.append([Event("hold", "shop-2.0", {})])
    ledger.append([Event("hold", "shop-2.0", {})])
    assert (lease.held, lease.take(), lease.held) == (False, False, False), "the ledger has a session again, without the lease"
    other.release()
    assert lease.take()


CODE = """if True:
    import os, sys
    from ansible_collections.onprem.rollout.plugins.plugin_utils._ledger_postgresql import LedgerPostgresql
    ledger = LedgerPostgresql(sys.argv[1], "bob", lambda: 0.0)
    lease = ledger.lease("shop-2.0")
    lease.take()
    if not os.fork():
        os.read(0, 1)
        os._exit(0)
    print(lease.held and ledger.lease("shop-2.0").taken(), flush=True)
    os.read(0, 1)
"""


def test_it_is_free_at_once_when_its_process_is_killed_though_a_worker_lives_on(place):
    process = subprocess.Popen(
        [sys.executable, "-c", CODE, place], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, start_new_session=True
    )  # fmt: skip
    try:
        assert process.stdout.readline() == "True\n"
        lease = lease_at(place)
        assert not lease.take()
        os.kill(process.pid, signal.SIGKILL)
        process.wait()
        began = time.monotonic()
        eventually(lease.take)
        assert time.monotonic() - began < 2
        os.killpg(process.pid, 0)  # the worker is there
    finally:
        os.killpg(process.pid, signal.SIGKILL)
        process.communicate()


def test_the_server_ends_a_session_that_hangs_or_whose_machine_is_gone(place):
    ledger = ledger_at(place)
    assert ledger.lease("shop-2.0").take()
    shown = [ledger._connection.execute(f"show {name}").fetchone()[0] for name in ("idle_session_timeout", "tcp_keepalives_idle", "tcp_keepalives_interval")]
    assert shown == [f"{HUNG // 60}min", "5", "5"]


def test_a_run_that_does_not_listen_all_the_while_is_not_taken_for_one_that_hangs(server, place):
    server.sql("alter role postgres set idle_session_timeout = '200ms'")
    try:
        ledger, watched = ledger_at(place), ledger_at(place)
        lease, other = ledger.lease("shop", listens=False), watched.lease("other")
        assert (lease.take(), other.take()) == (True, True)
        watched._connection.execute("set idle_session_timeout = '200ms'")
        eventually(lambda: not lease_at(place, "other").taken())
        assert lease_at(place, "shop").taken()
        assert (lease.take(), ledger._connection.execute("show idle_session_timeout").fetchone()[0]) == (True, "0")
    finally:
        server.sql("alter role postgres reset idle_session_timeout")


def test_a_user_who_may_read_the_ledger_sees_whether_it_is_taken(server, place):
    lease = lease_at(place)
    assert lease.take()
    server.sql("create role auditor login password 's3cret/p@ss'")
    database = place.rpartition("/")[2]
    assert lease_at(server.place(database, user="auditor")).taken()


def test_a_database_that_is_away_is_an_error(server):
    with pytest.raises(LedgerError, match="does not exist"):
        lease_at(server.place("nowhere")).take()
