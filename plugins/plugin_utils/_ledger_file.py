# Copyright: onprem.rollout contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""The ledger in a file of JSON lines, for controllers that share a disk or none.

Every line is on disk before append() returns. Writers take turns by a lock on the file, so a verb from another terminal and the
rollout at work never mix; readers ask the same lock how far the lines reach. Nobody waits for it longer than C(LIMIT) seconds.
A line that a crash cut off has no end: the next writer takes it away and says so in a line of its own.
"""

from __future__ import annotations

import fcntl
import os
import shlex
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import IO

from ansible_collections.onprem.rollout.plugins.module_utils._store import fsync_dir
from ansible_collections.onprem.rollout.plugins.plugin_utils._lease_file import LeaseFile
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

BLOCK = 64 * 1024
LIMIT = 4.0  # seconds that it is waited for the lock
REST = 8.0  # after that, so that a run that cannot have it still has time for its hosts


class LedgerFile:
    """who: for people to read. clock: seconds since 1970."""

    def __init__(self, path: str, who: str, clock: Callable[[], float]) -> None:
        self.name = path
        self._who = who
        self._clock = clock
        self._seen = 0  # bytes of the file that news() has told of
        self._head = START  # of the last line before them
        self._rests_until = float("-inf")

    def exists(self) -> bool:
        try:
            return bool(os.stat(self.name))
        except (FileNotFoundError, NotADirectoryError):
            return False
        except OSError as error:
            raise LedgerError(f"the ledger {self.name} cannot be read: {error.strerror}") from error

    def append(self, events: Sequence[Event]) -> Head:
        """Write the events to the disk, all at once; LedgerError when that cannot be, and then the file has none of them."""
        try:
            with self._locked() as fd:
                end = _end_of_lines(fd)
                last = next(_lines_back(fd, end), None)
                head = START if last is None else last_head(self.name, last)
                torn = os.pread(fd, BLOCK, end)
                if torn:
                    os.ftruncate(fd, end)
                    events = [Event("repaired", events[0].rollout if events else "", {"lost": _text(torn)}), *events]
                lines = []
                for event in events:
                    lines.append(line_of(head, event, self._who, self._clock()))
                    head = head_of(head, lines[-1])
                _write(fd, end, "".join(line + "\n" for line in lines).encode())
                return head
        except OSError as error:
            raise LedgerError(f"the ledger {self.name} cannot be written: {error.strerror}") from error

    def entries(self) -> Iterator[Entry]:
        """Every event from the first on, the chain checked; no event of a file that is not there."""
        return (entry for entry, _end in self._after(START, 0))

    def newest_first(self, bare: str = "") -> Iterator[Entry]:
        """The same from the last on, the chain checked on the way."""
        with self._opened() as source:
            if source:
                yield from follow_back(_lines_back(source.fileno(), self._reach(source.fileno())), bare)

    def news(self, bare: str = "") -> Iterator[Entry]:
        """What was written since this was read to its end before, by whomever; at first all of it."""
        for entry, end in self._after(self._head, self._seen, bare):
            self._head, self._seen = entry.head, end
            yield entry

    def _after(self, head: Head, start: int, bare: str = "") -> Iterator[tuple[Entry, int]]:
        """Each event after the C(head), which is before byte C(start), with where its line ends."""
        with self._opened() as source:
            reach = self._reach(source.fileno()) if source else 0
            if reach < start:
                raise BrokenChain(head.number, f"is gone: the ledger {'is shorter than it was' if source else 'was removed'}")
            if not source or reach == start:
                return
            source.seek(start)
            for line in source:
                start += len(line)
                entry = follow(head, _text(line[:-1]), bare)
                yield entry, start
                if start >= reach:
                    return
                head = entry.head

    @contextmanager
    def _opened(self) -> Iterator[IO[bytes] | None]:
        """The file to be read; None where there is none."""
        try:
            with open(self.name, "rb") as source:
                yield source
        except FileNotFoundError:
            yield None
        except OSError as error:
            raise LedgerError(f"the ledger {self.name} cannot be read: {error.strerror}") from error

    def _reach(self, fd: int) -> int:
        """How far the lines reach that nobody takes back: a writer that fails takes back what it wrote."""
        self._lock(fd, fcntl.LOCK_SH)
        try:
            return _end_of_lines(fd)
        finally:
            fcntl.flock(fd, fcntl.LOCK_UN)

    def lease(self, release: str, listens: bool = True) -> LeaseFile:
        return LeaseFile(os.path.realpath(self.name), release)  # whatever name the ledger is given by

    @contextmanager
    def _locked(self) -> Iterator[int]:
        directory = os.path.dirname(self.name) or "."
        os.makedirs(directory, 0o700, exist_ok=True)
        while True:
            fresh = not os.path.exists(self.name)
            fd = os.open(self.name, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
            try:
                self._lock(fd, fcntl.LOCK_EX)
                if self._is_replaced(fd):
                    continue
                if fresh:
                    fsync_dir(directory)
                yield fd
                return
            finally:
                os.close(fd)

    def _is_replaced(self, fd: int) -> bool:
        """Whether another file has the ledger's name by now: what is written to this one is lost."""
        try:
            return not os.path.samestat(os.fstat(fd), os.stat(self.name))
        except FileNotFoundError:
            return True

    def _lock(self, fd: int, kind: int) -> None:
        began = time.monotonic()
        while True:
            try:
                fcntl.flock(fd, kind | fcntl.LOCK_NB)
                return
            except BlockingIOError:
                now = time.monotonic()
            if now - began >= LIMIT or now < self._rests_until:
                self._rests_until = max(self._rests_until, now + REST if now - began >= LIMIT else 0.0)
                raise LedgerError(
                    f"the ledger {self.name} is locked by another process for more than {LIMIT:.0f} s;"
                    f" look for it with: fuser -v {shlex.quote(self.name)}, and wait for it or end it"
                )
            time.sleep(0.005)


def _text(line: bytes) -> str:
    return line.decode("utf-8", "backslashreplace")


def _end_of_lines(fd: int) -> int:
    """Where the next line begins: after the last line that has an end."""
    position = os.fstat(fd).st_size
    while position:
        start = max(0, position - BLOCK)
        newline = os.pread(fd, position - start, start).rfind(b"\n")
        if newline >= 0:
            return start + newline + 1
        position = start
    return 0


def _lines_back(fd: int, end: int) -> Iterator[str]:
    """The lines before byte C(end), where one ends, the last one first."""
    position, rest = max(0, end - 1), b""
    while position:
        start = max(0, position - BLOCK)
        first, *lines = (os.pread(fd, position - start, start) + rest).split(b"\n")
        yield from map(_text, reversed(lines))
        position, rest = start, first
    if end:
        yield _text(rest)


def _write(fd: int, end: int, content: bytes) -> None:
    try:
        written = 0
        while written < len(content):
            written += os.pwrite(fd, content[written:], end + written)
        os.fsync(fd)
    except OSError:
        os.ftruncate(fd, end)
        raise
