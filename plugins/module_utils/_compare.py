# Copyright: onprem.rollout contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""What putting a snapshot back would change. Walks entries and paths side by side; reads only what the kernel says has changed."""

import os
import stat
from typing import Any, Callable, Dict, FrozenSet, Iterator, List, NamedTuple, Optional, Tuple

from . import _attributes
from ._capture import HIDDEN, entry_of, excluder, mount_points
from ._errors import RolloutError
from ._manifest import Cursor, Entry, mark_of
from ._snapshot import Snapshot
from ._store import show, to_bytes, to_text
from ._tree import DIRECTORY, READ, listing, parent_of, pump

KINDS = ("replaced", "created", "removed", "metadata")
METADATA = ("mode", "uid", "gid", "mtime_ns", "xattrs", "flags")
MADE = ("file", "dir", "link", "fifo", "char", "block", "hardlink")

Folder = NamedTuple("Folder", [("path", bytes), ("entry", Entry), ("above", Any)])
Difference = NamedTuple("Difference", [("kind", str), ("path", bytes), ("entry", Entry), ("folder", Optional[Folder])])


Same = Callable[[bytes, Entry, int], bool]


def by_digest(_path: bytes, entry: Entry, source: int) -> bool:
    """Whether an open file has the content of its entry."""
    return bool(pump(source, None) == entry["sha256"])


def differences(snapshot: Snapshot, made: Optional[Dict[bytes, bytes]] = None, same: Same = by_digest) -> Iterator[Difference]:
    """Everything that differs, parents first. Changes nothing.

    made: the marks of files that were just put back and verified on the way; what still has its mark need not be read.
    same: judges the contents of files of one size.
    """
    cursor = Cursor(snapshot.entries_file)
    try:
        walk = _Walk(cursor, snapshot, made or {}, same)
        while cursor.path is not None:
            for found in walk.top():
                yield found
    finally:
        cursor.close()


class _Walk:
    def __init__(self, cursor: Cursor, snapshot: Snapshot, made: Dict[bytes, bytes], same: Same) -> None:
        self._cursor = cursor
        self._made = made
        self._same = same
        self._excludes = bool(snapshot.rules.exclude)
        self._excluded = excluder(snapshot.rules.exclude)
        self._mounts: FrozenSet[bytes] = mount_points()
        self._cross = snapshot.rules.cross_mounts
        self._firsts: Dict[Tuple[int, int], bytes] = {}
        self._mounted = {to_bytes(text) for text in snapshot.facts["mounted"]}

    def top(self) -> Iterator[Difference]:
        path, entry = self._path(), self._cursor.entry
        if path in self._mounted and path not in self._mounts:
            raise RolloutError(
                "A file system was mounted at {0} when the snapshot was taken, and is not now. Nothing was put back. Mount it, then run restore "
                "with force.".format(show(path)),
                "mount",
            )
        if entry["type"] == "absent":
            self._cursor.advance()
            for gone in unwanted(path, entry):
                yield Difference("removed", gone, {}, None)
            return
        if not os.path.lexists(os.path.dirname(path)):
            for found in self._created(None, "created"):
                yield found
            return
        fd = parent_of(path)
        try:
            for found in self._one(os.path.basename(path), fd, None):
                yield found
        finally:
            os.close(fd)

    def _path(self) -> bytes:
        return self._cursor.path or b""

    def _one(self, name: bytes, fd: int, folder: Optional[Folder]) -> Iterator[Difference]:
        """Judge the entry under the cursor and all that is below it; the cursor is after them when this ends."""
        path, entry = self._path(), self._cursor.entry
        status = _stat(name, fd)
        if entry["type"] in ("mount", "socket"):
            if entry["type"] == "mount" and path not in self._mounts:
                raise RolloutError(
                    "Something was mounted at {0} when the snapshot was taken, and is not now. Nothing was put back. Mount it, then run restore with "
                    "force.".format(show(path)),
                    "mount",
                )
            self._cursor.advance()
            if entry["type"] == "socket" and status is not None and not stat.S_ISSOCK(status.st_mode) and path not in self._mounts:
                for place in self._extra(path, name, fd):
                    yield Difference("removed", place, {}, folder)
            return
        if path in self._mounts and not self._cross and folder is not None:
            raise RolloutError(
                "{0} is a mount point now and was none when the snapshot was taken. Nothing was put back. Unmount it, then run restore with force.".format(
                    show(path)
                ),
                "mount",
            )
        if status is not None and entry["type"] == "dir" and stat.S_ISDIR(status.st_mode):
            for found in self._directory(path, entry, name, fd, folder, status):
                yield found
            return
        known = status is not None and mark_of(status) in (self._cursor.mark, self._made.get(path))
        kind = None if known else self._judge(entry, name, fd, status)
        if kind in ("created", "replaced") and entry["type"] == "dir":
            for found in self._created(folder, kind):
                yield found
            return
        self._cursor.advance()
        if kind:
            yield Difference(kind, path, entry, folder)

    def _directory(self, path: bytes, entry: Entry, name: bytes, fd: int, folder: Optional[Folder], status: os.stat_result) -> Iterator[Difference]:
        here = Folder(path, entry, folder)
        try:
            inner = _enter(name, fd)
        except PermissionError:
            # without root: its mode is to be corrected, and what is inside shows once that is done
            self._skip_below(path)
            if stat.S_IMODE(status.st_mode) == entry["mode"]:
                raise
            yield Difference("metadata", path, entry, folder)
            return
        try:
            if self._cursor.mark != mark_of(status) and differs(entry, observe(status, inner)):
                yield Difference("metadata", path, entry, folder)
            self._cursor.advance()
            for found in self._inside(here, inner):
                yield found
        finally:
            os.close(inner)

    def _inside(self, folder: Folder, fd: int) -> Iterator[Difference]:
        cursor = self._cursor
        extras = set(listing(fd)) - {HIDDEN}
        prefix = folder.path + b"/"
        start = len(prefix)
        mounts = self._mounts
        while True:
            path = cursor.path
            if path is None or not path.startswith(prefix):
                break
            name = path[start:]
            extras.discard(name)
            status = _stat(name, fd)
            if status is not None and cursor.mark == mark_of(status) and not stat.S_ISDIR(status.st_mode) and path not in mounts:
                cursor.advance()
                continue
            for found in self._one(name, fd, folder):
                yield found
        for name in sorted(extras):
            for gone in self._extra(prefix + name, name, fd):
                yield Difference("removed", gone, {}, folder)

    def _extra(self, path: bytes, name: bytes, fd: int) -> Iterator[bytes]:
        """What to remove of a thing that the snapshot has not: all of it, but for sockets' and excluded paths' sake."""
        if self._excluded(path):
            return
        if path in self._mounts:
            raise RolloutError(
                "{0} is a mount point that the snapshot does not know, so it cannot be removed. Nothing was put back. Unmount it, then run restore with "
                "force.".format(show(path)),
                "mount",
            )
        status = _stat(name, fd)
        if status is None:
            return
        if not stat.S_ISDIR(status.st_mode) or not self._keeps(path, name, fd):
            yield path
            return
        inner = os.open(name, DIRECTORY, dir_fd=fd)
        try:
            for child in listing(inner):
                for found in self._extra(path + b"/" + child, child, inner):
                    yield found
        finally:
            os.close(inner)

    def _keeps(self, path: bytes, name: bytes, fd: int) -> bool:
        """Whether anything excluded or mounted is below a directory."""
        if not self._excludes:
            return any(place.startswith(path + b"/") for place in self._mounts)
        inner = os.open(name, DIRECTORY, dir_fd=fd)
        try:
            for child in listing(inner):
                here = path + b"/" + child
                status = _stat(child, inner)
                if self._excluded(here) or here in self._mounts or (status and stat.S_ISDIR(status.st_mode) and self._keeps(here, child, inner)):
                    return True
        finally:
            os.close(inner)
        return False

    def _created(self, folder: Optional[Folder], kind: str) -> Iterator[Difference]:
        """The entry under the cursor and all below it, of which nothing is there."""
        path, entry = self._path(), self._cursor.entry
        self._cursor.advance()
        if entry["type"] in MADE:
            yield Difference(kind, path, entry, folder)
        if entry["type"] != "dir":
            return
        here = Folder(path, entry, folder)
        prefix = path + b"/"
        while self._cursor.path is not None and self._cursor.path.startswith(prefix):
            for found in self._created(here, "created"):
                yield found

    def _skip_below(self, path: bytes) -> None:
        self._cursor.advance()
        while self._cursor.path is not None and self._cursor.path.startswith(path + b"/"):
            self._cursor.advance()

    def _judge(self, entry: Entry, name: bytes, fd: int, status: Optional[os.stat_result]) -> Optional[str]:
        """How a thing that is no directory on both sides differs from its entry: one of KINDS, or None."""
        if status is None:
            return "created"
        if entry["type"] == "hardlink":
            return None if _same_file(to_bytes(entry["target"]), status) else "replaced"
        now = entry_of(status)
        if now["type"] != entry["type"] or now.get("rdev") != entry.get("rdev") or (now.get("linked") and not entry.get("linked")):
            return "replaced"
        if now.get("linked") and self._firsts.setdefault((status.st_dev, status.st_ino), self._path()) != self._path():
            return "replaced"  # it was another file than that one
        if entry["type"] == "link" and to_text(os.readlink(name, dir_fd=fd)) != entry["target"]:
            return "replaced"
        if entry["type"] == "file":
            return self._judge_file(entry, name, fd, now)
        with _attributes.handle(name, fd) as place:
            now["xattrs"] = _attributes.read(place)
        return "metadata" if differs(entry, now) else None

    def _judge_file(self, entry: Entry, name: bytes, fd: int, now: Entry) -> Optional[str]:
        if now["size"] != entry["size"]:
            return "replaced"
        try:
            source = os.open(name, READ, dir_fd=fd)
        except PermissionError:
            return "replaced"
        try:
            if not self._same(self._path(), entry, source):
                return "replaced"
            now.update(xattrs=_attributes.read(source), flags=_attributes.flags(source))
        finally:
            os.close(source)
        return "metadata" if differs(entry, now) else None


def _enter(name: bytes, fd: int) -> int:
    """Open a directory in which names can be looked up, or PermissionError."""
    inner = os.open(name, DIRECTORY, dir_fd=fd)
    try:
        os.stat(b".", dir_fd=inner)
    except PermissionError:
        os.close(inner)
        raise
    return inner


def observe(status: os.stat_result, fd: int) -> Entry:
    """An open file or directory as an entry."""
    return dict(entry_of(status), xattrs=_attributes.read(fd), flags=_attributes.flags(fd))


def differs(entry: Entry, now: Entry) -> bool:
    """Whether anything that we may set differs."""
    for key in METADATA:
        before: Any = entry.get(key) or 0
        seen: Any = now.get(key) or 0
        if before == seen or (key == "mode" and entry["type"] == "link"):
            continue
        if key in ("uid", "gid") and owner(entry, now["uid"], now["gid"]) is None:
            continue
        if key == "xattrs" and os.geteuid() != 0:
            before = {name: value for name, value in (before or {}).items() if name.startswith(_attributes.UNPRIVILEGED)}
            if before == (seen or {}):
                continue
        return True
    return False


def owner(entry: Entry, uid: int, gid: int) -> Optional[Any]:
    """The (uid, gid) to set, or None. Without root only what the system would let us set counts as a difference."""
    want_uid, want_gid = entry["uid"], entry["gid"]
    if os.geteuid() != 0:
        want_uid = uid
        if want_gid not in os.getgroups() and want_gid != os.getegid():
            want_gid = gid
    return (want_uid, want_gid) if (want_uid, want_gid) != (uid, gid) else None


def unwanted(path: bytes, entry: Entry) -> List[bytes]:
    """What to remove so that an absent path is absent, and with it the directories that were not there either."""
    above = [to_bytes(text) for text in entry.get("above", [])]  # deepest first
    for place in reversed(above):
        if os.path.lexists(place) and (os.path.islink(place) or not os.path.isdir(place)):
            return [place]  # it was not there, and what it leads to is not ours
    gone = [path] if os.path.lexists(path) else []
    for place in above:
        if os.path.lexists(place):
            if set(os.listdir(place)) - {os.path.basename(path)}:
                break  # somebody else lives there
            gone.append(place)
        path = place
    return gone


def _same_file(path: bytes, status: os.stat_result) -> bool:
    try:
        other = os.lstat(path)
    except OSError:
        return False
    return (other.st_dev, other.st_ino) == (status.st_dev, status.st_ino)


def _stat(name: bytes, fd: int) -> Optional[os.stat_result]:
    try:
        return os.stat(name, dir_fd=fd, follow_symlinks=False)
    except FileNotFoundError:
        return None
