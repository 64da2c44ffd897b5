# Copyright: onprem.rollout contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""What a run of upgrade writes to the ledger and hears from it, and that it is the only run of its rollout.

Nothing that was decided is forgotten while the ledger cannot be written.
"""

from __future__ import annotations

import time
from collections import deque
from collections.abc import Callable
from contextlib import suppress
from typing import Any

from ansible_collections.onprem.rollout.plugins.plugin_utils import _holder
from ansible_collections.onprem.rollout.plugins.plugin_utils._ledger import START, BrokenChain, Entry, Event, Head, Ledger, LedgerError, stamp
from ansible_collections.onprem.rollout.plugins.plugin_utils._orders import Event as Decided
from ansible_collections.onprem.rollout.plugins.plugin_utils._standing import Standing

RETRY = 2.0
GATHER = 1.0  # outcomes of hosts, which happened already, are written together
LISTEN = 0.5
PATIENCE = 3.0  # for a run that has the rollout, and is about to say so, or that it has ended
POLL = 0.1
STAY = 60.0


class Taken(LedgerError):
    """Another run has the rollout; the message says who, where, since when, and what to do."""


class Journal:
    """clock: any clock in seconds that never runs backwards.

    head: of the last event that is written.
    """

    def __init__(self, ledger: Ledger, rollout: str, clock: Callable[[], float], sleep: Callable[[float], None] = time.sleep) -> None:
        self.standing = Standing(rollout)
        self.head: Head = START
        self._unwritten = self._unheard = self._untaken = ""
        self._ledger = ledger
        self._lease = ledger.lease(rollout)
        self._clock = clock
        self._sleep = sleep
        self._pending: deque[Event] = deque()
        self._write_at = self._listen_at = self._gather_until = self._stay_until = float("-inf")

    def open(self) -> None:
        """Take the rollout and read what the ledger holds; Taken, LedgerError or BrokenChain where it must not begin."""
        give_up_at, tries = self._clock() + PATIENCE, 0
        while True:
            taken, tries = self._lease.take(), tries + 1
            for entry in self._ledger.news(bare="host"):
                self.standing.hear(entry)
                self.head = entry.head
            if taken:
                break
            known = self.standing.at_work and self.standing.run and not _holder.is_gone(self.standing.run.data)
            if (known and tries > 1) or self._clock() >= give_up_at:  # once may be somebody who only looked
                raise Taken(f"{self.standing.rollout} {self._by()}; wait for it, look at it with onprem.rollout.status, or end it with onprem.rollout.abort")
            self._sleep(POLL)
        self._listen_at, self._stay_until = self._clock() + LISTEN, self._clock() + STAY

    def close(self) -> None:
        """The rollout is free for another run."""
        with suppress(LedgerError):  # then it ends with this process
            self._lease.release()

    def _by(self) -> str:
        """That another run has the rollout, for people."""
        run = self.standing.run if self.standing.at_work else None
        return f"is rolled out by another run, of {run.who}, since {stamp(run.at)}" if run else "is rolled out by another run, which has not said yet who it is"

    @property
    def trouble(self) -> str:
        """Why the ledger cannot be read or written now; nothing when it can. That the one can be does not mean that the other can."""
        return self._unheard or self._unwritten or self._untaken

    def note(self, kind: str, **data: Any) -> None:
        """Something was decided. It is written by the next flush()."""
        self._pending.append(Event(kind, self.standing.rollout, data))

    def hear(self, event: Decided, cause: str = "") -> None:
        """What the conductor tells; most of it is what hosts do, which they record themselves. cause: why its host could not be reached."""
        place = {"ring": event.ring, "wave": event.wave}
        if event.kind in ("wave", "soak"):
            self.note("wave", **place, state=event.detail if event.kind == "wave" else f"soaks {event.detail} s")
        elif event.kind == "ended":
            self.note("host", **place, host=event.host, state=str(event.state), why=event.detail, **({"cause": cause} if cause else {}))
        elif event.kind == "gate":
            verdict, _colon, why = event.detail.partition(": ")
            self.note("gate", **place, verdict=verdict, why=why)
        elif event.kind == "outage":
            self.note("outage", host=event.host, why=event.detail)
        elif event.kind == "halted":
            self.note("halted", **place, why=event.detail)

    def flush(self, at_once: bool = False) -> bool:
        """Write what was noted; False while that cannot be. After a failure the next try is C(RETRY) seconds away, unless C(at_once)."""
        self._stay()
        if not self._pending:
            return True
        if not at_once and self._clock() < self._gather_until and all(event.kind == "host" for event in self._pending):
            return True
        if self._unwritten and not at_once and self._clock() < self._write_at:
            return False
        try:
            self.head = self._ledger.append(list(self._pending))
        except LedgerError as error:
            self._unwritten, self._write_at = str(error), self._clock() + RETRY
            return False
        self._pending.clear()
        self._unwritten = ""
        self._gather_until = self._clock() + GATHER
        return True

    def flush_within(self, seconds: float) -> bool:
        """The same at once, and again for so many seconds: it is the last chance."""
        end = self._clock() + seconds
        while not self.flush(at_once=True):
            if self._clock() >= end:
                return False
            self._sleep(min(LISTEN, seconds))
        return True

    def listen(self) -> list[Entry]:
        """The events of this rollout that others wrote since, as soon as C(LISTEN) seconds after the last look."""
        if self._clock() < self._listen_at:
            return []
        self._listen_at, self._stay_until = self._clock() + LISTEN, self._clock() + STAY
        heard: list[Entry] = []
        self._unheard = ""
        try:
            for entry in self._ledger.news(bare="host"):
                self.standing.hear(entry)
                heard += [entry] if entry.rollout == self.standing.rollout else []
        except (LedgerError, BrokenChain) as error:
            self._unheard = str(error)
        if not self._lease.held and not self._unheard:
            self._keep()
        return heard

    def _stay(self) -> None:
        """Say that the run is there also while it does not listen, as long as hosts are asked."""
        if self._clock() >= self._stay_until:
            self._stay_until = self._clock() + STAY
            self._keep()

    def _keep(self) -> None:
        """Take the rollout again, which may have been lost, as with the connection to a database."""
        try:
            self._untaken = "" if self._lease.take() else f"{self.standing.rollout} {self._by()}"
        except LedgerError as error:
            self._untaken = str(error)
