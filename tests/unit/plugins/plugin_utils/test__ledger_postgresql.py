# Copyright: onprem.rollout contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""What only a database does; what every ledger does is in test__ledgers.py."""

from __future__ import annotations

import itertools
import select
import socket
import sys
import threading
import time
from contextlib import closing, suppress
from pathlib import Path

import pytest

from ansible_collections.onprem.rollout.plugins.plugin_utils import _ledger_postgresql
from ansible_collections.onprem.rollout.plugins.plugin_utils._ledger import Event, LedgerError
from ansible_collections.onprem.rollout.plugins.plugin_utils._ledger_postgresql import LedgerPostgresql, without_password

sys.path.insert(0, str(Path(__file__).parents[3]))
from postgresql import PASSWORD, running_server

NUMBERS = itertools.count()
HOLD, RESUME, ABORT = (Event(kind, "shop-2.0", {}) for kind in ("hold", "resume", "abort"))


@pytest.fixture(scope="module")
def server():
    with running_server() as running:
        yield running


@pytest.fixture
def database(server):
    name = f"ledger{next(NUMBERS)}"
    server.sql(f"create database {name}")
    return name


@pytest.fixture
def ledger(server, database):
    return open_(server.place(database))


def open_(place):
    return LedgerPostgresql(place, "ada", lambda: 1700000000.0)


def kinds(ledger):
    return [entry.kind for entry in ledger.entries()]


def append(ledger, *events, timeout=30):
    """As a journal does: until it is written."""
    deadline = time.monotonic() + timeout
    while True:
        try:
            return ledger.append(list(events))
        except LedgerError:
            assert time.monotonic() < deadline
            time.sleep(0.02)


def refused(ledger, *events):
    """The message of an append that fails, and how long that took."""
    began = time.monotonic()
    with pytest.raises(LedgerError) as error:
        ledger.append(list(events))
    assert PASSWORD not in str(error.value)
    return str(error.value), time.monotonic() - began


class Proxy:
    """Stands between a client and the server, and fails once when a transaction is committed: before the server hears of it, or after."""

    def __init__(self, port):
        self.fault = ""
        self._port = port
        self._listener = socket.create_server(("127.0.0.1", 0))
        self.port = self._listener.getsockname()[1]
        threading.Thread(target=self._serve, daemon=True).start()

    def close(self):
        self._listener.close()

    def _serve(self):
        with suppress(OSError):
            while True:
                client, _address = self._listener.accept()
                threading.Thread(target=self._carry, args=(client,), daemon=True).start()

    def _carry(self, client):
        with client, socket.create_connection(("127.0.0.1", self._port)) as server, suppress(OSError):
            while True:
                for source in select.select([client, server], [], [])[0]:
                    data = source.recv(65536)
                    fault, self.fault = (self.fault, "") if b"commit\0" in data else ("", self.fault)
                    if not data or fault == "cut before":
                        return
                    (server if source is client else client).sendall(data)
                    if fault == "cut after":
                        assert server.recv(65536).startswith(b"C")
                        return
                    if fault == "silence":
                        client.recv(1)  # the client's end
                        return


@pytest.fixture
def proxy(server):
    with closing(Proxy(server.port)) as between:
        yield between


def test_a_database_that_stops_is_an_error_at_once_and_the_chain_goes_on_after_it(server, ledger):
    ledger.append([HOLD])
    list(ledger.news())
    server.stop()
    try:
        said, took = refused(ledger, RESUME)
        again, _took = refused(ledger, RESUME)
        with pytest.raises(LedgerError, match="cannot be read"):
            list(ledger.news())
    finally:
        server.start()
    assert said.startswith(f"the ledger {ledger.name} cannot be written: ")
    assert "Connection refused" in again
    assert took < 1
    append(ledger, RESUME)
    assert [entry.kind for entry in list(ledger.news())] == ["resume"]
    assert kinds(ledger) == ["hold", "resume"]


@pytest.mark.parametrize("fault", ["cut before", "cut after", "silence"])
def test_what_was_sent_without_an_answer_is_there_once(monkeypatch, server, database, proxy, fault):
    monkeypatch.setattr(_ledger_postgresql, "LIMIT", 1.0)
    ledger = open_(server.place(database, port=proxy.port))
    ledger.append([HOLD])
    proxy.fault = fault
    said, took = refused(ledger, RESUME, ABORT)
    assert said.endswith("; what was sent last may be there")
    assert ("no answer for 1 s" in said, took < 2) == (fault == "silence", True)
    open_(server.place(database)).append([Event("promote", "shop-2.0", {})])
    append(ledger, RESUME, ABORT, HOLD)
    one_by_one = ["promote", "resume", "abort"] if fault == "cut before" else ["resume", "abort", "promote"]
    assert kinds(ledger) == ["hold", *one_by_one, "hold"]
    append(ledger, RESUME, ABORT)
    assert kinds(ledger)[5:] == ["resume", "abort"], "they are said again, not asked for again"


def test_answers_that_are_lost_one_after_the_other_are_each_made_up_for(server, database, proxy):
    ledger = open_(server.place(database, port=proxy.port))
    for fault, events in (("cut after", [HOLD]), ("cut after", [HOLD, RESUME]), ("cut before", [HOLD, RESUME, ABORT])):
        proxy.fault = fault
        refused(ledger, *events)
    append(ledger, HOLD, RESUME, ABORT, HOLD)
    assert kinds(ledger) == ["hold", "resume", "abort", "hold"]


def test_a_server_that_does_not_answer_is_waited_for_seldom_and_not_for_long(monkeypatch):
    monkeypatch.setattr(_ledger_postgresql, "LIMIT", 2.0)
    with socket.create_server(("127.0.0.1", 0)) as dead:
        ledger = open_(f"postgresql://ada:{PASSWORD.replace('/', '%2F').replace('@', '%40')}@127.0.0.1:{dead.getsockname()[1]}/shop")
        said, took = refused(ledger, HOLD)
        assert 1 < took < 4
        again, took = refused(ledger, HOLD)
        assert (again, took < 0.1) == (said, True)


def test_a_writer_that_hangs_with_its_turn_is_not_waited_for_for_ever(monkeypatch, server, database, ledger):
    monkeypatch.setattr(_ledger_postgresql, "TURN", _ledger_postgresql.TURN.replace("lock_timeout = 3000", "lock_timeout = 200"))
    ledger.append([HOLD])
    hanging = open_(server.place(database))
    list(hanging.news())
    hanging._connection.execute(_ledger_postgresql.TURN)
    said, took = refused(ledger, RESUME)
    assert ("canceling statement due to lock timeout" in said, took < 2) == (True, True)
    hanging._drop()
    append(ledger, RESUME)


def test_the_tables_are_read_a_page_at_a_time(monkeypatch, ledger):
    monkeypatch.setattr(_ledger_postgresql, "PAGE", 3)
    for count in (2, 1, 3, 5):
        ledger.append([HOLD] * count)
        assert len(list(ledger.news())) == count
        assert list(ledger.news()) == []
    assert len(kinds(ledger)) == 11


def test_tables_of_a_newer_version_are_left_alone(server, database, ledger):
    ledger.append([HOLD])
    server.sql("update onprem_rollout_ledger.layout set version = 2", database)
    newer = open_(server.place(database))
    assert "have layout 2, and this collection knows 1; use the version of onprem.rollout that made them" in refused(newer, RESUME)[0]
    with pytest.raises(LedgerError, match="have layout 2"):
        list(newer.news())
    assert server.sql("select count(*) from onprem_rollout_ledger.lines", database) == "1\n"


def test_who_may_only_read_cannot_write_and_who_may_insert_can(server, database, ledger):
    ledger.append([HOLD])
    server.sql(
        f"create role reader login password '{PASSWORD}'; create role writer login password '{PASSWORD}';"
        "grant usage on schema onprem_rollout_ledger to reader, writer; grant select on all tables in schema onprem_rollout_ledger to reader, writer;"
        "grant insert on onprem_rollout_ledger.lines to writer",
        database,
    )
    server.sql("create database closed")
    reader = open_(server.place(database, user="reader"))
    assert kinds(reader) == ["hold"]
    assert refused(reader, RESUME)[0] == f"the ledger {reader.name} cannot be written: permission denied for table lines"
    open_(server.place(database, user="writer")).append([RESUME])
    assert kinds(reader) == ["hold", "resume"]
    assert "permission denied for database closed" in refused(open_(server.place("closed", user="writer")), HOLD)[0]


@pytest.mark.parametrize(
    "statement", ["update onprem_rollout_ledger.lines set line = ''", "delete from onprem_rollout_ledger.lines", "truncate onprem_rollout_ledger.lines"]
)
def test_the_database_itself_refuses_to_change_lines(server, database, ledger, statement):
    ledger.append([HOLD])
    with pytest.raises(AssertionError, match="lines of the ledger are never changed or taken away"):
        server.sql(statement, database)


def test_people_read_events_as_columns(server, database, ledger):
    ledger.append([Event("hold", "shop-2.0", {"why": "a sale"})])
    said = server.sql("set timezone = 'UTC'; select number, at, kind, rollout, who, data->>'why' from onprem_rollout_ledger.events", database)
    assert said == "1|2023-11-14 22:13:20+00|hold|shop-2.0|ada|a sale\n"


def test_the_password_is_taken_from_where_libpq_looks(monkeypatch, tmp_path, server, database):
    place = f"postgresql://postgres@127.0.0.1:{server.port}/{database}"
    monkeypatch.setenv("PGPASSFILE", str(tmp_path / "pgpass"))
    assert "no password supplied" in refused(open_(place), HOLD)[0]
    (tmp_path / "pgpass").write_text(f"127.0.0.1:*:*:postgres:{PASSWORD}\n")
    (tmp_path / "pgpass").chmod(0o600)
    open_(place).append([HOLD])
    (tmp_path / "pgpass").unlink()
    monkeypatch.setenv("PGPASSWORD", PASSWORD)
    open_(place).append([HOLD])
    assert kinds(open_(server.local(database))) == ["hold", "hold"]


def test_no_message_has_a_password_in_it(server, database):
    wrong = server.place(database, password="wr0ng")
    assert "wr0ng" not in refused(open_(wrong), HOLD)[0]
    for place in (
        "postgresql://ada:wr0ng@[db/shop",
        "postgresql://ada:wr0ng/x@db/shop",
        "postgresql://127.0.0.1:1/shop?password=wr0ng",
        "postgresql://127.0.0.1:1/shop?password=wr0ng&colour=red",
        "postgresql://ada:wr0%ng@db",
    ):
        assert "wr0" not in refused(open_(place), HOLD)[0], place


@pytest.mark.parametrize("place, name", [
    ("postgresql://ada:s3cret@db:5433,db2/shop?sslmode=require", "postgresql://ada@db:5433,db2/shop?sslmode=require"),
    ("postgres://ada@db", "postgres://ada@db"),
    ("postgresql://ada:s3c@ret@db/shop", "postgresql://ada@db/shop"),
    ("postgresql://ada:s3cret?x@db/shop", "postgresql://ada@db/shop"),
    ("postgresql://db/shop?password=s3cret", "postgresql://db/shop"),
    ("postgresql://db/shop?user=a&p%61ssword=s3cret&sslpassword=s3cret&options=-cx%3D1", "postgresql://db/shop?user=a&options=-cx%3D1"),
    ("postgresql://ada:s3/cret@db/shop", "postgresql://..."),
    ("postgresql:///shop?host=/run/postgresql", "postgresql:///shop?host=/run/postgresql"),
])  # fmt: skip
def test_the_name_of_a_ledger_has_no_password_in_it(place, name):
    assert without_password(place) == name


def test_who_has_no_psycopg_is_told_what_to_install(monkeypatch):
    monkeypatch.setitem(sys.modules, "psycopg", None)
    with pytest.raises(LedgerError, match=r"Failed to import the required Python library \(psycopg\).*for a rollout_ledger in PostgreSQL"):
        list(open_("postgresql://db/shop").news())
