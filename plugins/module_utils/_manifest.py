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
import stat
from typing import Any, Callable, Dict, Iterator, List, Optional, Tuple

from ._errors import RolloutError
from ._store import show
from ._tree import write

UNSURE = b"-"
BUFFER = 1024 * 1024
AT_ONCE = 500  # lines
ENCODER = json.JSONEncoder(sort_keys=True, separators=(",", ":"))
MARK = b"%x %x %x %x %x"
MARKED = b"%s%s\t" + MARK + b"\t"  # how the line of a file begins: its directory with a slash, its name, its mark
PLAIN = b'%s\t%s\t{"gid":%d,"mode":%d,"mtime_ns":%d,"sha256":"%s","size":%d,"type":"file","uid":%d%s}\n'
Entry = Dict[str, Any]
Devices = Dict[int, int]
AS_THEY_ARE: Devices = {}


def mark_of(status: os.stat_result, devices: Devices = AS_THEY_ARE) -> bytes:
    """Device, inode, size, mtime and ctime: whoever changes content or attributes of a file changes its ctime.

    devices: those that stand for another one.
    """
    return MARK % (devices.get(status.st_dev, status.st_dev), status.st_ino, status.st_size, status.st_mtime_ns, status.st_ctime_ns)


def same_mark(before: os.stat_result, after: os.stat_result) -> bool:
    """Whether both have the same mark."""
    return bool(
        before.st_ctime_ns == after.st_ctime_ns
        and before.st_mtime_ns == after.st_mtime_ns
        and before.st_size == after.st_size
        and before.st_ino == after.st_ino
        and before.st_dev == after.st_dev
    )


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
    """An entry as JSON."""
    return ENCODER.encode(entry).encode("ascii")


class Writer:
    """Writes the lines to a file that must not be there yet in this form, and knows their SHA-256."""

    def __init__(self, place: str) -> None:
        self._out = os.open(place, os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_NOFOLLOW, 0o600)
        self._sha = hashlib.sha256()
        self._lines: List[bytes] = []
        self._xattrs: Tuple[Dict[str, str], bytes] = ({}, b"")

    def add(self, path: bytes, mark: bytes, entry: Entry) -> None:
        self.add_line(b"%s\t%s\t%s\n" % (escape(path), mark, encode(entry)))

    def add_plain(self, path: bytes, mark: bytes, status: os.stat_result, sha: str, xattrs: Dict[str, str]) -> None:
        """The line of a file without flags, holes and other names. Most are, and the encoder takes longer than reading one."""
        if xattrs != self._xattrs[0]:  # mostly a file has those of the one before it, as with SELinux
            self._xattrs = xattrs, b',"xattrs":' + encode(xattrs) if xattrs else b""
        mode, size, mtime_ns = stat.S_IMODE(status.st_mode), status.st_size, status.st_mtime_ns
        self.add_line(PLAIN % (escape(path), mark, status.st_gid, mode, mtime_ns, sha.encode("ascii"), size, status.st_uid, self._xattrs[1]))

    def add_line(self, line: bytes) -> None:
        self._lines.append(line)
        if len(self._lines) == AT_ONCE:
            self._write()

    def _write(self) -> None:
        block = b"".join(self._lines)
        self._lines.clear()
        self._sha.update(block)
        write(self._out, block)

    def finish(self) -> str:
        """All is on disk; the SHA-256 of the lines in hex."""
        self._write()
        os.fsync(self._out)
        self.abandon()
        return self._sha.hexdigest()

    def abandon(self) -> None:
        if self._out >= 0:
            os.close(self._out)
        self._out = -1


class Cursor:
    """One line at a time, which is empty after the last. It is taken apart only when its path, mark or entry is asked for."""

    def __init__(self, place: Optional[str]) -> None:
        self._place = place
        self._source = open(place, "rb", BUFFER) if place else None
        self.next_line: Callable[[], bytes] = self._source.readline if self._source else bytes
        self.advance()

    def advance(self) -> None:
        self.stand(self.next_line())

    def stand(self, line: bytes) -> None:
        """Where to stand, after next_line() was called by itself."""
        self.line = line
        self._fields: Optional[List[bytes]] = None

    def seek(self, path: bytes) -> None:
        """Go on to the first line that is not before C(path)."""
        if not self.line or self.path == path:
            return
        key = order(path)
        while self.path is not None and order(self.path) < key:
            self.advance()

    def _taken_apart(self) -> List[bytes]:
        if self._fields is None:
            path, tab, rest = self.line.partition(b"\t")
            mark, also_tab, encoded = rest.partition(b"\t")
            if not (tab and also_tab):
                place = show(self._place or "")
                raise RolloutError("{0} has a line that is no entry: {1!r}. Nothing was put back.".format(place, self.line[:80]), "snapshot")
            self._fields = [unescape(path), mark, encoded]
        return self._fields

    @property
    def path(self) -> Optional[bytes]:
        """None after the last line."""
        return self._taken_apart()[0] if self.line else None

    @property
    def mark(self) -> bytes:
        return self._taken_apart()[1]

    @property
    def entry(self) -> Entry:
        entry: Entry = json.loads(self._taken_apart()[2].decode("ascii"))
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
