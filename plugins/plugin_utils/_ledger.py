# Copyright: onprem.rollout contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""The ledger's lines: an append-only chain of decisions. Pure: no disk, no clock, no Ansible.

An event is one line of JSON that names the SHA-256 of the line before it, so nobody can change, remove or insert a line
without changing every head after it. A head is the number and the SHA-256 of a line; hosts keep the one of the time they
were changed at, and that makes a ledger that was edited or lost provable from the hosts.

    head = START
    line = line_of(head, Event("halted", "shop-2.0", {...}), who="ada on ctl1, pid 7", at=1700000000.0)
    head = head_of(head, line)
    for event in replay(lines): ...        # BrokenChain says where a ledger is not what was written
"""

from __future__ import annotations

import hashlib
import json
import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from datetime import datetime, timezone
from typing import Any, NamedTuple, Protocol

SCHEMA = 1
ENCODER = json.JSONEncoder(sort_keys=True, separators=(",", ":"), ensure_ascii=True)
DECODER = json.JSONDecoder()
# As ENCODER writes it, which escapes the quotes of people, so that theirs are no key.
TAIL = re.compile(r'"kind":"(\w+)","n":(\d+),"prev":"([0-9a-f]{64})","rollout":"[^"\\]*(?:\\.[^"\\]*)*","schema":1,"who":"')
KINDS = {
    "started": "a run of upgrade began, with the plan's digest",
    "wave": "a wave began, soaks, or was judged",
    "host": "a host has its outcome",
    "gate": "a gate gave its verdict",
    "outage": "an outage began, with its reason, or is over",
    "waived": "a host may go below its floor, by a waiver",
    "halted": "nobody new is let in any more",
    "finished": "a run of upgrade ended",
    "approve": "somebody approved a plan",
    "hold": "somebody stopped the rollout between hosts",
    "resume": "somebody let a held rollout go on",
    "abort": "somebody ended the rollout, and said what becomes of hosts that are not committed",
    "promote": "somebody ended the soak at work",
    "superseded": "a run of another version of the release took the rollout's place, or waits to",
    "unlock": "somebody took a host or the rollout from a run",
    "recover": "somebody had a host settled: what it was found in and what is done, and then how it ended",
    "repaired": "a line that was cut off by a crash was taken away; what it held is here",
}


class Head(NamedTuple):
    """The last line: its number, from 1 on, and the SHA-256 of its bytes in hex."""

    number: int
    sha256: str


START = Head(0, "0" * 64)


class Event(NamedTuple):
    """What is to be written: one of KINDS, the name and version of the release, such as shop-2.0, and more."""

    kind: str
    rollout: str
    data: Mapping[str, Any]


class Entry(NamedTuple):
    """One event. at is in seconds since 1970, who is for people to read."""

    head: Head
    kind: str
    rollout: str
    who: str
    at: float
    data: Mapping[str, Any]


class LedgerError(Exception):
    """The ledger cannot be read or written now; what was decided is kept and written when it can be."""


class BrokenChain(Exception):
    """A line is not what was written; number says which."""

    def __init__(self, number: int, why: str) -> None:
        super().__init__(f"line {number} {why}")
        self.number = number
        self.why = why


class Lease(Protocol):
    """The right of one run to roll a release out, whatever version of it; it ends with the run's process, however that ends.

    All but held may raise LedgerError. tied_to: what it is lost with, for people.
    """

    tied_to: str

    @property
    def held(self) -> bool:
        """Whether this run has it, as far as is known without asking."""

    def take(self) -> bool:
        """Whether this run has it now."""

    def taken(self) -> bool:
        """Whether any run has it."""

    def release(self) -> None: ...


class Ledger(Protocol):
    """Where the lines are. All may raise LedgerError, and those that read BrokenChain too, after what was read before that line.

    append() writes all of its events or none; newest_first() gives what entries() does from its end, the chain checked as far as it is read;
    news() gives what was written since it gave all there was, at first everything. Of events of the kind C(bare) it gives head and kind alone, and
    newest_first() nothing: they are only proven.
    lease(): of a run that listens all the while, so that one that asks nothing hangs, or of one that does not.
    """

    name: str

    def exists(self) -> bool: ...
    def append(self, events: Sequence[Event]) -> Head: ...
    def entries(self) -> Iterator[Entry]: ...
    def newest_first(self, bare: str = "") -> Iterator[Entry]: ...
    def news(self, bare: str = "") -> Iterator[Entry]: ...
    def lease(self, release: str, listens: bool = True) -> Lease: ...


def line_of(before: Head, event: Event, who: str, at: float) -> str:
    """The line that comes after C(before), without its end of line."""
    if event.kind not in KINDS:
        raise ValueError(f"{event.kind!r} is no kind of event; one of {', '.join(KINDS)}")
    chain = {"at": stamp(at), "n": before.number + 1, "prev": before.sha256, "schema": SCHEMA, "who": who}
    return ENCODER.encode({**event._asdict(), **chain})


def head_of(before: Head, line: str) -> Head:
    return Head(before.number + 1, hashlib.sha256(line.encode()).hexdigest())


def replay(lines: Iterable[str], before: Head = START) -> Iterator[Entry]:
    """Every event, the chain checked on the way; L(BrokenChain) at the first line that does not follow from the one before."""
    for line in lines:
        entry = follow(before, line)
        yield entry
        before = entry.head


def follow(before: Head, line: str, bare: str = "") -> Entry:
    """The event of a line that must come after C(before). bare: a kind whose events are only proven; of them it gives head and kind alone."""
    number = before.number + 1
    entry, previous = (_bare(line, bare) if bare else None) or _read(line, number)
    if entry.head.number != number:
        raise BrokenChain(number, f"says that it is line {entry.head.number}: lines were taken away or put in before it")
    if previous != before.sha256:
        raise BrokenChain(number, f"does not follow from line {before.number}, which was changed after it was written")
    return entry


def follow_back(lines: Iterable[str], bare: str = "") -> Iterator[Entry]:
    """The events of lines that come the newest first; L(BrokenChain) at the first one that is not what the line after it follows from.

    bare: a kind whose events are only proven, and left out. The run at work wrote thousands of them, and a verb waits for this.
    """
    after, wanted = 0, ""
    for line in lines:
        known = TAIL.match(line, line.rfind('"kind":"')) if bare else None
        entry = None
        if known and known[1] == bare:
            number, sha256, previous = int(known[2]), hashlib.sha256(line.encode()).hexdigest(), known[3]
        else:
            entry, previous = _read(line, after - 1)
            number, sha256 = entry.head
        if after and (sha256 != wanted or number != after - 1):
            raise BrokenChain(after, f"does not follow from line {after - 1}, which was changed after it was written")
        if entry:
            yield entry
        after, wanted = number, previous


def _bare(line: str, kind: str) -> tuple[Entry, str] | None:
    """What L(_read) gives, in a third of its time, but without all that does not belong to the chain; None for a line of another kind."""
    known = TAIL.match(line, line.rfind('"kind":"'))
    if not known or known[1] != kind:
        return None
    return Entry(Head(int(known[2]), hashlib.sha256(line.encode()).hexdigest()), kind, "", "", 0.0, {}), known[3]


def last_head(name: str, line: str, number: int = 0) -> Head:
    """The head of the last line of a ledger, to write after it. number: what it must be, if that is known."""
    try:
        head = _read(line, number)[0].head
    except BrokenChain as error:
        raise LedgerError(f"the last line of the ledger {name} {error.why}; look at it with the verb audit") from error
    if number and head.number != number:
        raise LedgerError(f"the last line of the ledger {name} says that it is line {head.number} and is line {number}; look at it with the verb audit")
    return head


def _read(line: str, number: int) -> tuple[Entry, str]:
    """The event of a line, and the SHA-256 that it follows. number: which line it is, for people."""
    try:
        event, end = DECODER.raw_decode(line)
        if end != len(line):
            raise ValueError(f"more comes after {end} characters")
        if event["schema"] == SCHEMA:
            head = Head(int(event["n"]), hashlib.sha256(line.encode()).hexdigest())
            return Entry(head, event["kind"], event["rollout"], event["who"], seconds(event["at"]), event["data"]), event["prev"]
    except (ValueError, KeyError, TypeError) as error:
        raise BrokenChain(number, f"is no event: {line[:60]!r}") from error
    found = f"has schema {event['schema']}, and this collection reads {SCHEMA}"
    raise BrokenChain(number, f"{found}; use the version of onprem.rollout that wrote it, or a newer one")


def repair_of(repaired: Entry) -> str:
    """What the event says, for people."""
    return f"the ledger's line {repaired.head.number}: a crash cut off the line that stood there, which was taken away; this one holds what was left of it"


def stamp(at: float) -> str:
    """Seconds since 1970 as UTC for people and programs alike, to the millisecond."""
    return datetime.fromtimestamp(at, timezone.utc).isoformat(timespec="milliseconds").replace("+00:00", "Z")


def seconds(text: str) -> float:
    """The inverse of L(stamp)."""
    return datetime.fromisoformat(text.replace("Z", "+00:00")).timestamp()


def anchor_problem(anchor: Head, heads: Mapping[int, str]) -> str:
    """What a host's anchor proves against a ledger whose heads are given by number; nothing when they agree."""
    if anchor.number not in heads:
        return f"was changed at line {anchor.number}, which the ledger does not have: its end is lost"
    return "" if heads[anchor.number] == anchor.sha256 else f"was changed at another line {anchor.number} than the ledger has: the ledger was written anew"
