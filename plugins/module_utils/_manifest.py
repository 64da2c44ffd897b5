# Copyright: onprem.rollout contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""The entries of a snapshot: one line for each path, read and written from front to back, so that a million need no memory.

    path TAB mark TAB entry

Parents come before what is in them, and the names in a directory in the order of their bytes. The mark is what the kernel says
of a thing that nobody has changed; the entry is JSON and is only decoded where the mark has changed.
"""

import hashlib
import json
import os
from typing import Any, Dict, Iterator, List, Optional

from ._errors import RolloutError
from ._store import show

UNSURE = b"-"
BUFFER = 1024 * 1024
AT_ONCE = 500  # lines
ENCODER = json.JSONEncoder(sort_keys=True, separators=(",", ":"))
PLAIN = b'{"gid":%d,"mode":%d,"mtime_ns":%d,"sha256":"%s","size":%d,"type":"file","uid":%d}'
PLAIN_KEYS = 7
Entry = Dict[str, Any]


def mark_of(status: os.stat_result) -> bytes:
    """Device, inode, size, mtime and ctime: whoever changes content or attributes of a file changes its ctime."""
    return b"%x %x %x %x %x" % (status.st_dev, status.st_ino, status.st_size, status.st_mtime_ns, status.st_ctime_ns)


def order(path: bytes) -> bytes:
    """The key by which paths are sorted: a directory's content directly after it."""
    return path.replace(b"/", b"\0")


def escape(path: bytes) -> bytes:
    """A path without the two bytes that separate lines and fields."""
    if b"\\" in path or b"\n" in path or b"\t" in path:
        return path.replace(b"\\", b"\\\\").replace(b"\n", b"\\n").replace(b"\t", b"\\t")
    return path


def unescape(text: bytes) -> bytes:
    """The inverse of escape()."""
    if b"\\" not in text:
        return text
    parts = text.split(b"\\\\")
    return b"\\".join(part.replace(b"\\n", b"\n").replace(b"\\t", b"\t") for part in parts)


def encode(entry: Entry) -> bytes:
    """An entry as JSON. Most are plain files, for which an encoder would take longer than reading them."""
    if "sha256" in entry and len(entry) == PLAIN_KEYS:
        sha = entry["sha256"].encode("ascii")
        return PLAIN % (entry["gid"], entry["mode"], entry["mtime_ns"], sha, entry["size"], entry["uid"])
    return ENCODER.encode(entry).encode("ascii")


class Writer:
    """Writes the lines to a file that must not be there yet in this form, and knows their SHA-256."""

    def __init__(self, place: str) -> None:
        fd = os.open(place, os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_NOFOLLOW, 0o600)
        self._out = os.fdopen(fd, "wb", BUFFER)
        self._sha = hashlib.sha256()
        self._lines: List[bytes] = []
        self.count = 0

    def add(self, path: bytes, mark: bytes, entry: Entry) -> None:
        self.add_line(b"%s\t%s\t%s\n" % (escape(path), mark, encode(entry)))

    def add_line(self, line: bytes) -> None:
        self._lines.append(line)
        self.count += 1
        if len(self._lines) == AT_ONCE:
            self._write()

    def _write(self) -> None:
        block = b"".join(self._lines)
        self._lines.clear()
        self._sha.update(block)
        self._out.write(block)

    def finish(self) -> str:
        """All is on disk; the SHA-256 of the lines in hex."""
        self._write()
        self._out.flush()
        os.fsync(self._out.fileno())
        self._out.close()
        return self._sha.hexdigest()

    def abandon(self) -> None:
        self._out.close()


class Cursor:
    """One line at a time: path, mark and line of where it stands; path is None after the last."""

    def __init__(self, place: Optional[str]) -> None:
        self._place = place
        self._source = open(place, "rb", BUFFER) if place else None
        self._encoded = b""
        self.path: Optional[bytes] = None
        self.mark = self.line = b""
        self.advance()

    def advance(self) -> None:
        line = self._source.readline() if self._source else b""
        if not line:
            self.path = None
            self.close()
            return
        try:
            path, self.mark, self._encoded = line.split(b"\t", 2)
        except ValueError:
            raise RolloutError("{0} has a line that is no entry: {1!r}. Nothing was put back.".format(show(self._place or ""), line[:80]), "snapshot") from None
        self.path = unescape(path)
        self.line = line

    def seek(self, path: bytes) -> None:
        """Go on to the first line that is not before C(path)."""
        if self.path is None or self.path == path:
            return
        key = order(path)
        while self.path is not None and order(self.path) < key:
            self.advance()

    @property
    def entry(self) -> Entry:
        entry: Entry = json.loads(self._encoded.decode("ascii"))
        return entry

    def close(self) -> None:
        if self._source:
            self._source.close()
            self._source = None


def entries(place: str) -> Iterator[Any]:
    """Every (path, entry) of a file of entries."""
    cursor = Cursor(place)
    try:
        while cursor.path is not None:
            yield cursor.path, cursor.entry
            cursor.advance()
    finally:
        cursor.close()


def digest_of(place: str) -> str:
    """The SHA-256 of a file of entries, in hex."""
    sha = hashlib.sha256()
    with open(place, "rb", 0) as source:
        for block in iter(lambda: source.read(BUFFER), b""):
            sha.update(block)
    return sha.hexdigest()
