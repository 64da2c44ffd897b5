# Copyright: onprem.rollout contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""The lease of a release in PostgreSQL: an advisory lock of the session that reads and writes the ledger.

When that session ends the lease is lost, and is taken again on the next one, unless another run was faster. The server ends it when the
process is gone, C(DEAD) seconds after the machine or the network is, and, of a run that listens all the while, after C(HUNG) seconds without a
question, where it can (from 14 on).
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable
from contextlib import AbstractContextManager
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from psycopg import Connection

DEAD = 15
HUNG = 600
SPACE = 0x6F6E7072  # of advisory locks, ours
WATCH = f"""
set tcp_keepalives_idle = {DEAD - 10}; set tcp_keepalives_interval = 5; set tcp_keepalives_count = 2;
select set_config(name, '{{}}s', false) from pg_settings where name = 'idle_session_timeout'
"""
TAKE = "select pg_try_advisory_lock(%s, %s)"
GIVE = "select pg_advisory_unlock(%s, %s)"
TAKEN = """
select exists (
  select from pg_locks join pg_database on pg_database.oid = pg_locks.database
  where locktype = 'advisory' and granted and datname = current_database() and (classid::bigint, objid::bigint, objsubid) = (%s, %s, 2)
)
"""


class LeasePostgresql:
    """at_work: a connection for one piece of work, which LedgerError ends; session: the connection as it is now, if there is one.

    listens: whether the run asks now and then while it has the lease, so that one that asks nothing hangs.
    """

    tied_to = "its session"

    def __init__(
        self,
        release: str,
        at_work: Callable[[str], AbstractContextManager[Connection[Any]]],
        session: Callable[[], Connection[Any] | None],
        listens: bool = True,
    ) -> None:
        number = int.from_bytes(hashlib.sha256(release.encode()).digest()[:4], "big")
        self._watch = WATCH.format(HUNG if listens else 0)
        self._lock = (SPACE, number - 2**32 if number >= 2**31 else number)
        self._row = (SPACE, number)
        self._at_work = at_work
        self._session = session
        self._on: Connection[Any] | None = None

    @property
    def held(self) -> bool:
        return self._on is not None and self._on is self._session()

    def take(self) -> bool:
        with self._at_work("locked") as connection:
            if self._on is connection:
                connection.execute("select 1")  # or the session would be taken for one that hangs
            else:
                self._on = None
                connection.execute(self._watch)
                if _says(connection, TAKE, self._lock):
                    self._on = connection
        return self._on is not None

    def taken(self) -> bool:
        with self._at_work("read") as connection:
            return _says(connection, TAKEN, self._row)

    def release(self) -> None:
        if self.held:
            with self._at_work("unlocked") as connection:
                connection.execute(GIVE, self._lock)
        self._on = None


def _says(connection: Connection[Any], question: str, values: tuple[int, int]) -> bool:
    row = connection.execute(question, values).fetchone()
    return bool(row and row[0])
