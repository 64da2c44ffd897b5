# Copyright: onprem.rollout contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""The ledger in PostgreSQL, for controllers that share it: the lines of the file, one a row.

Writers take turns by a lock of the database. Nothing here waits for longer than C(LIMIT) seconds, so that a database that is
gone does not stop the run that wants to write to it; after a failure the connection is made anew by the next call.
"""

from __future__ import annotations

import os
import socket
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from threading import Timer
from typing import TYPE_CHECKING, Any, NamedTuple
from urllib.parse import unquote
from weakref import WeakSet

from ansible.module_utils.basic import missing_required_lib

from ansible_collections.onprem.rollout.plugins.plugin_utils._lease_postgresql import LeasePostgresql
from ansible_collections.onprem.rollout.plugins.plugin_utils._ledger import (
    START,
    BrokenChain,
    Entry,
    Event,
    Head,
    LedgerError,
    follow,
    follow_back,
    head_of,
    last_head,
    line_of,
)

if TYPE_CHECKING:
    from psycopg import Connection

LIMIT = 4.0  # seconds that anything may take
QUICK = 0.5  # what fails within so many seconds may be tried again at once; after that, for so many
REST = 2.0  # times as long as it was waited in vain, nothing is tried
PAGE = 5000  # lines that are read at once
PAGE_BACK = 200  # of the newest, which are often all that is wanted
LAYOUT = 1  # of the tables; the lines have a schema of their own
SECRET = ("password", "sslpassword")
DEFAULTS = {
    "fallback_application_name": "onprem.rollout",
    "client_encoding": "utf8",
    "keepalives_idle": "2",
    "keepalives_interval": "1",
    "keepalives_count": "2",
    "tcp_user_timeout": "4000",
}
# Milliseconds are below LIMIT, so that it is the database that says why. A transaction whose client is gone gives its turn away.
TURN = """
begin isolation level read committed read write;
set local synchronous_commit = on;
set local lock_timeout = 3000;
set local statement_timeout = 3500;
set local idle_in_transaction_session_timeout = 5000;
select pg_advisory_xact_lock(x'6f6e7072656d726f'::bigint)
"""
SCHEMA_EXISTS = "select to_regnamespace('onprem_rollout_ledger') is not null"
LAYOUT_EXISTS = "select to_regclass('onprem_rollout_ledger.layout') is not null"
WHICH_LAYOUT = "select max(version) from onprem_rollout_ledger.layout"
LAST = "select number, line from onprem_rollout_ledger.lines order by number desc limit 1"
FROM = "select number, line from onprem_rollout_ledger.lines where number >= %s order by number limit %s"
BACK = "select number, line from onprem_rollout_ledger.lines where number < %s order by number desc limit %s"
NO_LIMIT = 2**63 - 1
WRITE = """
insert into onprem_rollout_ledger.lines (number, line)
select %s + place, line from unnest(string_to_array(%s, E'\\n')) with ordinality as written (line, place)
"""
CREATE_SCHEMA = "create schema onprem_rollout_ledger"
CREATE = """
create table onprem_rollout_ledger.layout (version integer not null);
insert into onprem_rollout_ledger.layout values (1);
create table onprem_rollout_ledger.lines (number bigint primary key, line text not null);
create view onprem_rollout_ledger.events as
  select number, (line::json->>'at')::timestamptz as at, line::json->>'kind' as kind, line::json->>'rollout' as rollout,
         line::json->>'who' as who, line::json->'data' as data
  from onprem_rollout_ledger.lines;
create function onprem_rollout_ledger.refuse() returns trigger language plpgsql as
  $$ begin raise exception 'lines of the ledger are never changed or taken away'; end $$;
create trigger append_only before update or delete or truncate on onprem_rollout_ledger.lines
  for each statement execute function onprem_rollout_ledger.refuse()
"""


class Batch(NamedTuple):
    """What was written without an answer whether it is there."""

    before: Head
    lines: list[str]
    events: list[Event]


class LedgerPostgresql:
    """place: postgresql://... who: for people to read. clock: seconds since 1970. name has no password in it."""

    def __init__(self, place: str, who: str, clock: Callable[[], float]) -> None:
        self.name = without_password(place)
        self._place = place
        self._who = who
        self._clock = clock
        self._head = START  # of the last line that news() told of
        self._connection: Connection | None = None
        self._made = False  # whether the tables are there
        self._unsure: list[Batch] = []
        self._trouble, self._rests_until = "", float("-inf")
        OPEN.add(self)

    def exists(self) -> bool:
        with self._at_work("read") as connection:
            return _exists(connection)

    def append(self, events: Sequence[Event]) -> Head:
        """Write the events, all or none; L(LedgerError) when that cannot be.

        When only the answer was lost they may be there all the same: then the next append() that begins with these events finds them.
        """
        with self._at_work("written") as connection:
            connection.execute(TURN)
            if not self._made:
                self._create(connection)
            left = list(events)
            answered = []
            for batch in self._unsure:
                if left[: len(batch.events)] != batch.events or not _has(connection, batch):
                    break
                left = left[len(batch.events) :]
                answered.append(batch)
            before = head = self._last(connection)
            lines = []
            for event in left:
                lines.append(line_of(head, event, self._who, self._clock()))
                head = head_of(head, lines[-1])
            if lines:
                connection.execute(WRITE, (before.number, "\n".join(lines)))
            self._unsure = [*answered, Batch(before, lines, left)]
            connection.execute("commit")
            self._unsure = []
            return head

    def entries(self) -> Iterator[Entry]:
        """Every event from the first on, the chain checked; no event where there are no tables yet."""
        return self._after(START)

    def newest_first(self, bare: str = "") -> Iterator[Entry]:
        """The same from the last on, the chain checked on the way."""
        return follow_back(self._lines_back(), bare)

    def news(self, bare: str = "") -> Iterator[Entry]:
        """What was written since this was read to its end before, by whomever; at first all of it."""
        for entry in self._after(self._head, bare):
            self._head = entry.head
            yield entry

    def _lines_back(self) -> Iterator[str]:
        before, page = NO_LIMIT, PAGE_BACK
        while before > 1:
            with self._at_work("read") as connection:
                self._made = self._made or _exists(connection)
                rows = connection.execute(BACK, (before, page)).fetchall() if self._made else []
            yield from (line for _number, line in rows)
            before, page = rows[-1][0] if rows else 0, PAGE

    def lease(self, release: str, listens: bool = True) -> LeasePostgresql:
        return LeasePostgresql(release, self._at_work, lambda: self._connection, listens)

    def _after(self, head: Head, bare: str = "") -> Iterator[Entry]:
        """A page at a time, so that nobody keeps a transaction open, however slowly this is read."""
        while True:
            rows = self._page(head)
            for number, line in rows:
                if number != head.number + 1:
                    raise BrokenChain(head.number + 1, f"is gone: line {number} comes after line {head.number}")
                entry = follow(head, line, bare)
                yield entry
                head = entry.head
            if len(rows) < PAGE:
                return

    def _page(self, head: Head) -> list[tuple[int, str]]:
        """The rows after C(head), which must be there still."""
        with self._at_work("read") as connection:
            self._made = self._made or _exists(connection)
            rows = connection.execute(FROM, (head.number, PAGE + bool(head.number))).fetchall() if self._made else []
        if not head.number:
            return rows
        if not rows or rows[0][0] != head.number:
            raise BrokenChain(head.number, f"is gone: the ledger was {'shortened' if self._made else 'removed'}")
        if head_of(Head(head.number - 1, ""), rows[0][1]) != head:
            raise BrokenChain(head.number, "was changed after it was read")
        return rows[1:]

    def _last(self, connection: Connection) -> Head:
        row = connection.execute(LAST).fetchone()
        if row is None:
            return START
        number, line = row
        return last_head(self.name, line, number)

    def _create(self, connection: Connection) -> None:
        """The tables, where there are none: another writer may have made them meanwhile."""
        if not _exists(connection):
            if not _is(connection, SCHEMA_EXISTS):
                connection.execute(CREATE_SCHEMA)
            connection.execute(CREATE)
        self._made = True

    @contextmanager
    def _at_work(self, done: str) -> Iterator[Connection]:
        """A connection for one piece of work. Whatever goes wrong, it is dropped, and what it had begun with it."""
        psycopg = _library()
        began = time.monotonic()
        if began < self._rests_until:
            raise LedgerError(self._trouble)
        limit = None
        try:
            connection = self._connection = self._connection or self._connect()
            with Limit(connection) as limit:
                yield connection
        except psycopg.Error as error:
            spent = time.monotonic() - began
            why = f"no answer for {LIMIT:.0f} s" if limit and limit.passed else self._reason(error)
            unsure = "; what was sent last may be there" if self._unsure else ""
            self._trouble = f"the ledger {self.name} cannot be {done}: {why}{unsure}"
            self._rests_until = began + (1 + REST) * spent if spent > QUICK else began
            self._drop()
            raise LedgerError(self._trouble) from None  # whose text may have the password in it
        except BaseException:
            self._drop()
            raise

    def _connect(self) -> Connection:
        psycopg = _library()
        given = psycopg.conninfo.conninfo_to_dict(self._place)
        hosts = str(given.get("host") or "").count(",") + 1
        defaults: dict[str, Any] = {**DEFAULTS, "connect_timeout": str(max(2, int(LIMIT) // hosts))}
        connection: Connection = psycopg.connect(**{**defaults, **given}, autocommit=True, prepare_threshold=None)
        return connection

    def _drop(self) -> None:
        if self._connection is not None:
            self._connection.close()
        self._connection, self._made = None, False

    def leave(self) -> None:
        """In a worker that was forked: the session is the parent's, and ends with that, not with the last of its workers."""
        if self._connection is not None and not self._connection.closed:
            nowhere = os.open(os.devnull, os.O_RDWR | os.O_CLOEXEC)
            os.dup2(nowhere, self._connection.fileno(), inheritable=False)
            os.close(nowhere)
        self._connection = None

    def _reason(self, error: Any) -> str:
        """What the database or libpq says, in one line, without the password: libpq shows what it cannot read."""
        said = " ".join((error.diag.message_primary or str(error)).split()).replace(self._place, self.name)
        for secret in _secrets(self._place):
            said = said.replace(secret, "***")
        return said


def _leave_sessions() -> None:
    for ledger in OPEN:
        ledger.leave()


OPEN: WeakSet[LedgerPostgresql] = WeakSet()
os.register_at_fork(after_in_child=_leave_sessions)


class Limit:
    """Cuts the connection when the work takes longer than C(LIMIT): libpq would wait for as long as the server's host is up."""

    def __init__(self, connection: Connection) -> None:
        self.passed = False
        self._socket = socket.socket(fileno=os.dup(connection.fileno()))
        self._timer = Timer(LIMIT, self._cut)
        self._timer.daemon = True

    def __enter__(self) -> Limit:
        self._timer.start()
        return self

    def __exit__(self, *_error: object) -> None:
        self._timer.cancel()
        self._timer.join()
        self._socket.close()

    def _cut(self) -> None:
        self.passed = True
        try:
            self._socket.shutdown(socket.SHUT_RDWR)
        except OSError:
            return  # it is cut already


def without_password(place: str) -> str:
    """The same place for people to read."""
    scheme, between, rest = place.partition("://")
    if at_in_path(place):
        return f"{scheme}{between}..."
    authority, slash, path = rest.partition("/")
    login, at, hosts = authority.rpartition("@")
    rest, question, query = f"{login.partition(':')[0]}{at}{hosts}{slash}{path}".partition("?")
    kept = "&".join(item for item in query.split("&") if not _is_secret(item))
    return f"{scheme}{between}{rest}{question if kept else ''}{kept}"


def at_in_path(place: str) -> bool:
    """Whether an C(@) stands where libpq does not look for the login: behind a C(/) that is part of a password."""
    authority, _slash, path = place.partition("://")[2].partition("/")
    return "@" not in authority and "@" in path.partition("?")[0]


def _secrets(place: str) -> list[str]:
    authority, _slash, path = place.partition("://")[2].partition("/")
    found = [authority.rpartition("@")[0].partition(":")[2]]
    if at_in_path(place):
        found += f"{authority}/{path}".rpartition("@")[0].partition(":")[2].split("/")
    found += [item.partition("=")[2] for item in f"{authority}/{path}".partition("?")[2].split("&") if _is_secret(item)]
    return sorted({form for secret in found if secret for form in (secret, unquote(secret))}, key=len, reverse=True)


def _is_secret(item: str) -> bool:
    return unquote(item.partition("=")[0]) in SECRET


def _is(connection: Connection, question: str) -> bool:
    row = connection.execute(question).fetchone()
    return bool(row and row[0])


def _exists(connection: Connection) -> bool:
    """Whether the tables are there; L(LedgerError) when a newer version of this collection made them."""
    if not _is(connection, LAYOUT_EXISTS):
        return False
    row = connection.execute(WHICH_LAYOUT).fetchone()
    if row and row[0] and row[0] > LAYOUT:
        raise LedgerError(
            f"the tables in the schema onprem_rollout_ledger have layout {row[0]}, and this collection knows {LAYOUT};"
            " use the version of onprem.rollout that made them, or a newer one"
        )
    return True


def _has(connection: Connection, batch: Batch) -> bool:
    rows = connection.execute(FROM, (batch.before.number + 1, len(batch.lines))).fetchall()
    return [line for _number, line in rows] == batch.lines


def _library() -> Any:
    try:
        import psycopg
    except ImportError as error:
        why = missing_required_lib("psycopg", "for a rollout_ledger in PostgreSQL", "https://www.psycopg.org/psycopg3/docs/basic/install.html")
        raise LedgerError(f"{why}: {error}") from error
    return psycopg
