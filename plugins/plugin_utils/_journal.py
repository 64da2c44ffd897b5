# Copyright: onprem.rollout contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""What a run of upgrade writes to the ledger and hears from it, and that it is the only run of its release, of whatever version.

Nothing that was decided is forgotten while the ledger cannot be written.
"""

from __future__ import annotations

import math
import os
import time
from collections import deque
from collections.abc import Callable
from contextlib import suppress
from typing import Any

from ansible_collections.onprem.rollout.plugins.plugin_utils import _holder
from ansible_collections.onprem.rollout.plugins.plugin_utils._ledger import START, BrokenChain, Entry, Event, Head, Ledger, LedgerError, stamp
from ansible_collections.onprem.rollout.plugins.plugin_utils._orders import Event as Decided
from ansible_collections.onprem.rollout.plugins.plugin_utils._standing import Standing, by_whom
from ansible_collections.onprem.rollout.plugins.plugin_utils._versions import Versions

RETRY = 2.0
GATHER = 1.0  # outcomes of hosts, which happened already, are written together
LISTEN = 0.5
PATIENCE = 3.0  # for a run that has the rollout, and is about to say so, or that it has ended
POLL = 0.1
STAY = 60.0


class Taken(LedgerError):
    """Another run has the release, or is to have it; the message says who, where, since when, and what to do."""


class Journal:
    """clock: any clock in seconds that never runs backwards.

    head: of the last event that is written. listens: whether it is asked to listen all the while, and not only between batches.
    """

    def __init__(
        self, ledger: Ledger, name: str, version: str, clock: Callable[[], float], sleep: Callable[[float], None] = time.sleep, listens: bool = True
    ) -> None:
        self.versions = Versions(name, version)
        self.standing = self.versions.own
        self.head: Head = START
        self._unwritten = self._unheard = self._untaken = ""
        self._ledger = ledger
        self._lease = ledger.lease(name, listens)
        self._run = _holder.run_of(os.getpid())
        self._clock = clock
        self._sleep = sleep
        self._pending: deque[Event] = deque()
        self._began = 0  # the number of the line that says so
        self._start: dict[str, Any] = {}
        self._write_at = self._listen_at = self._gather_until = self._stay_until = float("-inf")

    def open(self, judge: Callable[[], None] = lambda: None, by: str = "", wait: float = 0.0, tell: Callable[[str], None] = lambda line: None) -> None:
        """Take the release and read what the ledger holds; Taken, LedgerError or BrokenChain where it must not begin.

        judge: raises where the rollout must not go on as it stands; asked before a run of another version is told that it is superseded, by whom. That
        run is waited for so many seconds, and tell hears so.
        """
        began, tries = self._clock(), 0
        told: Entry | None = None
        give_up_at = began + PATIENCE
        self._read()
        superseded = self.standing.superseded
        try:
            while True:
                taken, tries = self._take(), tries + 1
                self._read()
                if self.standing.superseded is not superseded and self.standing.superseded:
                    raise Taken(f"{self.standing.rollout} was superseded {by_whom(self.standing.superseded)}, while it waited for its turn")
                other = None if taken else self._other
                older = other if other is not self.standing else None
                if taken or (older and older.run is not told):
                    judge()
                    self._supersede(by)
                if taken:
                    break
                if older and older.run is not told:
                    told, give_up_at = older.run, self._clock() + wait
                    tell(f"{self._by()}. It is superseded: what it did not commit goes back, and it ends; this run waits for that, {wait:g} s at most")
                if self._clock() >= give_up_at or (other is self.standing and tries > 1):  # once may be somebody who only looked
                    raise Taken(self._refused(older, wait))
                self._sleep(POLL)
        except BaseException:
            self.close()
            raise
        if told:
            tell(f"{self.standing.rollout} has its turn after {self._clock() - began:.0f} s")
        self._listen_at, self._stay_until = self._clock() + LISTEN, self._clock() + STAY

    def _take(self) -> bool:
        """Whether the release is this run's. Where it is free although its run is known to live, that one lost it, and takes it again."""
        if not self._lease.take():
            return False
        other = self._other
        if other and other.run and _holder.is_alive(other.run.data):
            self._lease.release()
            return False
        return True

    def _supersede(self, by: str) -> None:
        if events := self.versions.to_supersede(by):
            self._ledger.append(events)
            self._read()

    def _read(self) -> None:
        for entry in self._ledger.news(bare="host"):
            self.versions.hear(entry)
            self.head = entry.head

    def close(self) -> None:
        """The release is free for another run."""
        with suppress(LedgerError):  # then it ends with this process
            self._lease.release()

    @property
    def _other(self) -> Standing | None:
        """The rollout, of whatever version, of which another run has the release, if that said so."""
        return self.versions.at_work(lambda run: run.get("run") == self._run or _holder.is_gone(run))

    def _by(self) -> str:
        """That another run has the release, for people."""
        other = self._other
        if not other or not other.run:
            return f"{self.standing.rollout} is rolled out by another run, which has not said yet who it is"
        return f"{other.rollout} is rolled out by another run, of {other.run.who}, since {stamp(other.run.at)}"

    def _refused(self, older: Standing | None, wait: float) -> str:
        """Why this run must not begin, and what to do."""
        if not older:
            return f"{self._by()}; wait for it, look at it with onprem.rollout.status, or end it with onprem.rollout.abort"
        since = f" at {stamp(older.superseded.at)}" if older.superseded else ""
        return (
            f"{self._by()}; it was told{since} that {self.standing.rollout} supersedes it, and has not ended within {wait:g} s (rollout_supersede_wait); "
            "it will, once a task of its hosts in change ends: look at it with onprem.rollout.status, or end its process, and run this again"
        )

    @property
    def trouble(self) -> str:
        """Why the ledger cannot be read or written now; nothing when it can. That the one can be does not mean that the other can."""
        return self._unheard or self._unwritten or self._untaken

    def start(self, **data: Any) -> None:
        """The run begins, and every later event names it by the line of this one. LedgerError when that cannot be written."""
        self._start = {"run": self._run, **data}
        self.head = self._ledger.append([Event("started", self.standing.rollout, self._start)])
        self._began = self.head.number

    def note(self, kind: str, **data: Any) -> None:
        """Something was decided. It is written by the next flush()."""
        self._pending.append(Event(kind, self.standing.rollout, {"run": self._began, **data} if self._began else data))

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
        elif event.kind == "waived":
            self.note("waived", host=event.host, waiver=event.detail)
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
                self.versions.hear(entry)
                heard += [entry] if entry.rollout == self.standing.rollout else []
        except (LedgerError, BrokenChain) as error:
            self._unheard = str(error)
        if not self._unheard and (not self._lease.held or self._is_overtaken):
            self._keep()
        return heard

    @property
    def _is_overtaken(self) -> bool:
        """Whether another run of this rollout began after this one."""
        return bool(self._began and self.standing.run and self.standing.run.head.number > self._began)

    def _stay(self) -> None:
        """Say that the run is there also while it does not listen, as long as hosts are asked."""
        if self._clock() >= self._stay_until:
            self._stay_until = self._clock() + STAY
            self._keep()

    def _keep(self) -> None:
        """Take the rollout again, which may have been lost, as with the connection to a database, and say that it is this run's if another one had it."""
        try:
            taken = self._lease.take()
            if taken and self._is_overtaken:
                self.start(**{**self._start, "soaks": {ring: math.ceil(end) for ring, end in self.standing.soaks.items()}})
            self._untaken = "" if taken else f"{self._by()}; this one lost it with {self._lease.tied_to}"
        except LedgerError as error:
            self._untaken = str(error)
