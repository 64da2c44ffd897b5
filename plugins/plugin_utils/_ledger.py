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
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime, timezone
from typing import Any, NamedTuple, Protocol

SCHEMA = 1
ENCODER = json.JSONEncoder(sort_keys=True, separators=(",", ":"), ensure_ascii=True)
KINDS = {
    "started": "a run of upgrade began, with the plan's digest",
    "wave": "a wave began, soaks, or was judged",
    "host": "a host has its outcome",
    "gate": "a gate gave its verdict",
    "outage": "an outage began, with its reason, or is over",
    "halted": "nobody new is let in any more",
    "finished": "a run of upgrade ended",
    "approve": "somebody approved a plan",
    "hold": "somebody stopped the rollout between hosts",
    "resume": "somebody let a held rollout go on",
    "abort": "somebody ended the rollout, and said what becomes of hosts that are not committed",
    "promote": "somebody ended the soak at work",
    "unlock": "somebody took a host or the rollout from a run",
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


@dataclass(frozen=True, slots=True)
class Entry:
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


class Lease(Protocol):
    """The right of one run to work on a rollout; it ends with the run's process, however that ends. All but held may raise LedgerError."""

    @property
    def held(self) -> bool:
        """Whether this run has it, as far as is known without asking."""

    def take(self) -> bool:
        """Whether this run has it now."""

    def taken(self) -> bool:
        """Whether any run has it."""

    def release(self) -> None: ...


class Ledger(Protocol):
    """Where the lines are. All may raise LedgerError, and those that read BrokenChain too. append() writes all of its events or none."""

    name: str

    def append(self, events: Sequence[Event]) -> Head: ...
    def entries(self) -> Iterator[Entry]: ...
    def news(self) -> list[Entry]: ...
    def lease(self, rollout: str) -> Lease: ...


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


def follow(before: Head, line: str) -> Entry:
    """The event of a line that must come after C(before)."""
    number = before.number + 1
    try:
        event = json.loads(line)
        found = event["schema"], event["n"], event["prev"], event["kind"], event["rollout"], event["who"], event["data"]
        at = seconds(event["at"])
    except (ValueError, KeyError, TypeError) as error:
        raise BrokenChain(number, f"is no event: {line[:60]!r}") from error
    schema, told, previous, kind, rollout, who, data = found
    if schema != SCHEMA:
        raise BrokenChain(number, f"has schema {schema}, and this collection reads {SCHEMA}; use the version of onprem.rollout that wrote it, or a newer one")
    if told != number:
        raise BrokenChain(number, f"says that it is line {told}: lines were taken away or put in before it")
    if previous != before.sha256:
        raise BrokenChain(number, f"does not follow from line {before.number}, which was changed after it was written")
    return Entry(head_of(before, line), kind, rollout, who, at, data)


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
