# Copyright: onprem.rollout contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""The ledger in a file of JSON lines, for controllers that share a disk or none.

Every line is on disk before append() returns. Writers take turns by a lock on the file, so a verb from another terminal and the
rollout at work never mix. A line that a crash cut off has no end: the next writer takes it away and says so in a line of its own.
"""

from __future__ import annotations

import fcntl
import json
import os
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager

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
    head_of,
    line_of,
    replay,
)

BLOCK = 64 * 1024


class LedgerFile:
    """who: for people to read. clock: seconds since 1970."""

    def __init__(self, path: str, who: str, clock: Callable[[], float]) -> None:
        self.name = path
        self._who = who
        self._clock = clock
        self._seen = 0  # bytes of the file that news() has told of
        self._head = START  # of the last line before them

    def append(self, events: Sequence[Event]) -> Head:
        """Write the events to the disk, all at once; LedgerError when that cannot be, and then the file has none of them."""
        try:
            with self._locked() as fd:
                head, end = self._last(fd)
                torn = os.pread(fd, BLOCK, end)
                if torn:
                    os.ftruncate(fd, end)
                    lost = {"lost": torn.decode("utf-8", "backslashreplace")}
                    events = [Event("repaired", events[0].rollout if events else "", lost), *events]
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
        try:
            with open(self.name, encoding="utf-8", newline="\n") as source:
                yield from replay(line[:-1] for line in source if line.endswith("\n"))
        except FileNotFoundError:
            return
        except UnicodeDecodeError as error:
            raise BrokenChain(0, f"or another one is not text: {error.reason}") from error
        except OSError as error:
            raise LedgerError(f"the ledger {self.name} cannot be read: {error.strerror}") from error

    def news(self) -> list[Entry]:
        """What was written since this was asked before, by whomever; at first all of it."""
        found: list[Entry] = []
        try:
            with open(self.name, "rb") as source:
                if source.seek(0, os.SEEK_END) < self._seen:
                    raise BrokenChain(self._head.number, "is gone: the ledger is shorter than it was")
                source.seek(self._seen)
                for line in source:
                    if not line.endswith(b"\n"):
                        break
                    entry = follow(self._head, line[:-1].decode("utf-8", "backslashreplace"))
                    found.append(entry)
                    self._head, self._seen = entry.head, self._seen + len(line)
        except FileNotFoundError:
            if self._seen:
                raise BrokenChain(self._head.number, "is gone: the ledger was removed") from None
        except OSError as error:
            raise LedgerError(f"the ledger {self.name} cannot be read: {error.strerror}") from error
        return found

    def lease(self, rollout: str) -> LeaseFile:
        return LeaseFile(os.path.realpath(self.name), rollout)  # whatever name the ledger is given by

    @contextmanager
    def _locked(self) -> Iterator[int]:
        directory = os.path.dirname(self.name) or "."
        fresh = not os.path.exists(self.name)
        os.makedirs(directory, 0o700, exist_ok=True)
        fd = os.open(self.name, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
        try:
            fcntl.flock(fd, fcntl.LOCK_EX)
            if fresh:
                fsync_dir(directory)
            yield fd
        finally:
            os.close(fd)

    def _last(self, fd: int) -> tuple[Head, int]:
        """The head, and where the next line begins: after the last line that has an end."""
        size = os.fstat(fd).st_size
        start, tail = size, b""
        while start and tail.count(b"\n") < 2:
            start = max(0, start - BLOCK)
            tail = os.pread(fd, size - start, start)
        complete = tail[: tail.rfind(b"\n") + 1]
        end = start + len(complete)
        if not complete:
            return START, 0
        line = complete[:-1].rpartition(b"\n")[2].decode("utf-8", "backslashreplace")
        return self._head_of_last(line), end

    def _head_of_last(self, line: str) -> Head:
        try:
            number = int(json.loads(line)["n"])
        except (ValueError, KeyError, TypeError) as error:
            raise LedgerError(f"the last line of the ledger {self.name} is no event; look at it with the verb audit") from error
        return head_of(Head(number - 1, ""), line)


def _write(fd: int, end: int, content: bytes) -> None:
    try:
        written = 0
        while written < len(content):
            written += os.pwrite(fd, content[written:], end + written)
        os.fsync(fd)
    except OSError:
        os.ftruncate(fd, end)
        raise
