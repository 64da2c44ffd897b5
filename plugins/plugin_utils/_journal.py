# Copyright: onprem.rollout contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""What a run of upgrade writes to the ledger and hears from it. Nothing that was decided is forgotten while the ledger cannot be written."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable
from typing import Any

from ansible_collections.onprem.rollout.plugins.plugin_utils._ledger import START, BrokenChain, Entry, Event, Head, Ledger, LedgerError
from ansible_collections.onprem.rollout.plugins.plugin_utils._orders import Event as Decided
from ansible_collections.onprem.rollout.plugins.plugin_utils._standing import Standing

RETRY = 2.0
GATHER = 1.0  # outcomes of hosts, which happened already, are written together
LISTEN = 0.5


class Journal:
    """clock: any clock in seconds that never runs backwards.

    head: of the last event that is written.
    """

    def __init__(self, ledger: Ledger, rollout: str, clock: Callable[[], float]) -> None:
        self.standing = Standing(rollout)
        self.head: Head = START
        self._unwritten = self._unheard = ""
        self._ledger = ledger
        self._clock = clock
        self._pending: deque[Event] = deque()
        self._write_at = self._listen_at = self._gather_until = float("-inf")

    def open(self) -> None:
        """Read what the ledger holds; LedgerError or BrokenChain where a rollout must not begin."""
        for entry in self._ledger.news():
            self.standing.hear(entry)
            self.head = entry.head
        self._listen_at = self._clock() + LISTEN

    @property
    def trouble(self) -> str:
        """Why the ledger cannot be read or written now; nothing when it can. That the one can be does not mean that the other can."""
        return self._unheard or self._unwritten

    def note(self, kind: str, **data: Any) -> None:
        """Something was decided. It is written by the next flush()."""
        self._pending.append(Event(kind, self.standing.rollout, data))

    def hear(self, event: Decided) -> None:
        """What the conductor tells; most of it is what hosts do, which they record themselves."""
        place = {"ring": event.ring, "wave": event.wave}
        if event.kind in ("wave", "soak"):
            self.note("wave", **place, state=event.detail if event.kind == "wave" else f"soaks {event.detail} s")
        elif event.kind == "ended":
            self.note("host", **place, host=event.host, state=str(event.state), why=event.detail)
        elif event.kind == "gate":
            verdict, _colon, why = event.detail.partition(": ")
            self.note("gate", **place, verdict=verdict, why=why)
        elif event.kind == "outage":
            self.note("outage", host=event.host, why=event.detail)
        elif event.kind == "halted":
            self.note("halted", **place, why=event.detail)

    def flush(self, at_once: bool = False) -> bool:
        """Write what was noted; False while that cannot be. After a failure the next try is C(RETRY) seconds away, unless C(at_once)."""
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

    def listen(self) -> list[Entry]:
        """The events of this rollout that others wrote since, as soon as C(LISTEN) seconds after the last look."""
        if self._clock() < self._listen_at:
            return []
        self._listen_at = self._clock() + LISTEN
        try:
            heard = self._ledger.news()
        except (LedgerError, BrokenChain) as error:
            self._unheard = str(error)
            return []
        self._unheard = ""
        for entry in heard:
            self.standing.hear(entry)
        return [entry for entry in heard if entry.rollout == self.standing.rollout]
