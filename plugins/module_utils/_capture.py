# Copyright: onprem.rollout contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Walking the paths of a snapshot once: what has not changed since the last snapshot is not read, the rest is kept."""

import fnmatch
import os
import re
import stat
import time
from typing import Any, Dict, FrozenSet, Iterable, List, NamedTuple, Optional, Set, Tuple

from . import _attributes
from ._errors import Refused
from ._manifest import AS_THEY_ARE, MARKED, UNSURE, Cursor, Devices, Entry, Writer, escape, mark_of, same_mark
from ._objects import SMALL, Objects
from ._store import show, to_text
from ._tree import DIRECTORY, READ, check_depth, listing, parent_of, sync_file_system

ATTEMPTS = 3
TICK = 50 * 1000 * 1000  # a file changed within this many ns may change again without another ctime
DIRTY = 120 * 10**9  # and one changed within this many may be mapped, and what is mapped changes without it until it was written
SHOWN = 10
FORMAT = 0o170000
HIDDEN = b".onprem-rollout"  # where _btrfs.py keeps its snapshots: never part of one
SPECIAL = {stat.S_IFIFO: "fifo", stat.S_IFCHR: "char", stat.S_IFBLK: "block"}


class Rules(NamedTuple):
    """How to walk; see the options of the module begin."""

    exclude: Tuple[str, ...] = ()
    cross_mounts: bool = False
    immutable: str = "refuse"


DEFAULT = Rules()


def excluder(patterns: Iterable[str]) -> Any:
    """A function that says whether a path is left alone: a pattern with / is matched with the whole path, another with its last part."""
    patterns = list(patterns)
    if not patterns:
        return lambda _path: False
    whole = [fnmatch.translate(pattern) for pattern in patterns if "/" in pattern]
    last = [fnmatch.translate(pattern) for pattern in patterns if "/" not in pattern]
    match_whole = re.compile("|".join(whole) or r"(?!)").match
    match_last = re.compile("|".join(last) or r"(?!)").match

    def excluded(path: bytes) -> bool:
        text = to_text(path)
        return bool(match_whole(text) or match_last(text.rpartition("/")[2]))

    return excluded


def mount_points() -> FrozenSet[bytes]:
    """Where something is mounted, file systems and bind mounts alike."""
    try:
        with open("/proc/self/mountinfo", "rb") as source:
            fields = [line.split(b" ")[4] for line in source]
    except OSError:
        return frozenset()
    return frozenset(re.sub(rb"\\([0-7]{3})", lambda found: bytes([int(found.group(1), 8)]), field) for field in fields)


def entry_of(status: os.stat_result) -> Entry:
    """What stat() says of a thing, as an entry."""
    entry: Entry = {"mode": stat.S_IMODE(status.st_mode), "uid": status.st_uid, "gid": status.st_gid, "mtime_ns": status.st_mtime_ns}
    kind = stat.S_IFMT(status.st_mode)
    if kind == stat.S_IFREG:
        entry.update(type="file", size=status.st_size)
        if status.st_blocks * 512 < status.st_size:
            entry["sparse"] = True
    elif kind == stat.S_IFDIR:
        entry["type"] = "dir"
    elif kind == stat.S_IFLNK:
        entry["type"] = "link"
    elif kind in SPECIAL:
        entry["type"] = SPECIAL[kind]
        if kind != stat.S_IFIFO:
            entry["rdev"] = status.st_rdev
    else:
        entry["type"] = "socket"
    if status.st_nlink > 1 and kind != stat.S_IFDIR:
        entry["linked"] = True
    return entry


class Capture:
    """One walk. Without a writer, or once the disk would be too full, nothing is kept and it only counts."""

    def __init__(self, objects: Objects, writer: Optional[Writer], base: Optional[str], rules: Rules, room: Optional[int]) -> None:
        self._objects = objects
        self._writer = writer
        self._keep_line = writer.add_line if writer else _nothing
        self._base = Cursor(base)
        self._rules = rules
        self._room = room
        self._excluded = excluder(rules.exclude)
        self._all_mounts = mount_points()
        self._mounts: Set[bytes] = set()
        self._sure_before = int(time.time() * 1e9) - TICK
        self._devices: Devices = AS_THEY_ARE
        self._links: Dict[Tuple[int, int], bytes] = {}
        self._uids: Set[int] = set()
        self._gids: Set[int] = set()
        self._flagged: List[bytes] = []
        self._written: Set[int] = set()
        self.mounted: List[bytes] = []
        self.files = self.bytes = self.needed = self.entries = self.read = 0
        self.full = False

    def run(self, paths: Iterable[bytes]) -> "Capture":
        """Walk all paths, parents first."""
        try:
            for path in paths:
                self._top(path)
        finally:
            self._base.close()
        if self._flagged:
            raise Refused(
                "These are immutable or append-only, so they could not be put back: {0}{1}. Nothing was touched. Take the flag away (chattr -ia), exclude "
                "them, or set immutable to lift: a restore then lifts the flags and sets them again.".format(
                    ", ".join(show(path) for path in self._flagged[:SHOWN]), " and more" if len(self._flagged) > SHOWN else ""
                ),
                "immutable",
            )
        return self

    def owners(self) -> _attributes.Names:
        """The names of all owners that were met."""
        return _attributes.owner_names(self._uids, self._gids)

    def _top(self, path: bytes) -> None:
        missing = _missing_above(path)
        if missing:
            self._add(path, UNSURE, {"type": "absent", "above": missing})
            return
        fd, name = self._at(path)
        try:
            if self._excluded(path):
                raise Refused("{0} is asked for by paths and left out by exclude. Nothing was touched. Take it out of one.".format(show(path)), "bad_path")
            self._mounts = {place for place in self._all_mounts if place.startswith(path + b"/")} if not self._rules.cross_mounts else set()
            if path in self._all_mounts:
                self.mounted.append(path)
            status = _stat(name, fd)
            if status is None:
                self._add(path, UNSURE, {"type": "absent"})
            else:
                self._one(path, name, fd, status, 0)
        finally:
            os.close(fd)

    def _at(self, path: bytes) -> Tuple[int, bytes]:
        """Where to look at a snapshot path: a directory to be closed, and the name in it."""
        return parent_of(path), os.path.basename(path)

    def _inside(self, path: bytes, fd: int, depth: int) -> None:
        check_depth(path, depth)
        base, uids, gids, lstat, device_of = self._base, self._uids, self._gids, os.lstat, self._devices.get
        line, next_line, keep = base.line, base.next_line, self._keep_line
        files = size = 0
        prefix = path + b"/"
        names = [name for name in listing(fd) if name != HIDDEN]
        if self._rules.exclude:
            names = [name for name in names if not self._excluded(prefix + name)]
        start = escape(prefix)
        every = b"".join(names)
        comparable = escape(every) == every and not any(place.startswith(prefix) for place in self._mounts)
        for name in names:
            try:
                status = lstat(name, dir_fd=fd)
            except FileNotFoundError:  # a running service may remove its temporary files while we look
                continue
            if not (comparable and status.st_mode & FORMAT == stat.S_IFREG and status.st_nlink == 1):
                base.stand(line)
                self._one(prefix + name, name, fd, status, depth)
                line = base.line
                continue
            uids.add(status.st_uid)
            gids.add(status.st_gid)
            device, here = status.st_dev, status.st_size
            if (
                line
                and here <= SMALL
                and line.startswith(MARKED % (start, name, device_of(device, device), status.st_ino, here, status.st_mtime_ns, status.st_ctime_ns))
            ):
                files += 1
                size += here
                keep(line)
                line = next_line()
            else:
                base.stand(line)
                self._file(prefix + name, name, fd, status)
                line = base.line
        base.stand(line)
        self.files += files
        self.bytes += size
        self.entries += files

    def _one(self, path: bytes, name: bytes, fd: int, status: os.stat_result, depth: int) -> None:
        if path in self._mounts:
            self._add(path, UNSURE, {"type": "mount"})
            return
        self._uids.add(status.st_uid)
        self._gids.add(status.st_gid)
        kind = stat.S_IFMT(status.st_mode)
        if status.st_nlink > 1 and kind != stat.S_IFDIR:
            first = self._links.setdefault((status.st_dev, status.st_ino), path)
            if first != path:
                self._add(path, UNSURE, {"type": "hardlink", "target": to_text(first)})
                return
        if kind == stat.S_IFREG:
            self._file(path, name, fd, status)
        elif kind == stat.S_IFDIR:
            self._directory(path, name, fd, status, depth)
        elif not self._unchanged(path, status):
            entry = entry_of(status)
            if kind == stat.S_IFLNK:
                entry["target"] = to_text(os.readlink(name, dir_fd=fd))
            if entry["type"] != "socket":
                with _attributes.handle(name, fd) as place:
                    _put(entry, "xattrs", _attributes.read(place))
            self._add(path, self._mark(status), entry)

    def _directory(self, path: bytes, name: bytes, fd: int, status: os.stat_result, depth: int) -> None:
        try:
            inner = os.open(name, DIRECTORY, dir_fd=fd)
        except FileNotFoundError:
            return
        except PermissionError:
            raise _unreadable(path) from None
        try:
            if not self._unchanged(path, status):
                self._add(path, self._mark(status), self._with_attributes(entry_of(status), path, inner))
            self._inside(path, inner, depth + 1)
        finally:
            os.close(inner)

    def _file(self, path: bytes, name: bytes, fd: int, status: os.stat_result) -> None:
        self.files += 1
        self.bytes += status.st_size
        if self._base.line:
            self._base.seek(path)
            if self._base.path == path and self._base.mark == mark_of(status) and self._objects.has(self._base.entry["sha256"]):
                self._same_line()
                return
        self.needed += status.st_size
        if self._room is not None and self.needed > self._room:
            self.full = True
        if self._writer is None or self.full:
            self.entries += 1
        else:
            self._read_file(path, name, fd, status, self._writer)

    def _read_file(self, path: bytes, name: bytes, fd: int, status: os.stat_result, writer: Writer) -> None:
        """Keep one file's content; its entry is what it was while it stood still."""
        for _attempt in range(ATTEMPTS):
            try:
                source = os.open(name, READ, dir_fd=fd)
            except FileNotFoundError:
                self.files -= 1
                self.bytes -= status.st_size
                self._links.pop((status.st_dev, status.st_ino), None)
                return
            except PermissionError:
                raise _unreadable(path) from None
            try:
                self._write_back(source, status)
                sha = self._content(source, status.st_size)
                after = os.fstat(source)
                if sha is not None and same_mark(status, after):
                    xattrs, flags = _attributes.read(source), _attributes.flags(source)
                    self.read += 1
                    self.entries += 1
                    mark = mark_of(after) if after.st_ctime_ns < self._sure_before else UNSURE
                    if flags or after.st_nlink > 1 or after.st_blocks * 512 < after.st_size:
                        writer.add(path, mark, self._with(dict(entry_of(after), sha256=sha), path, xattrs, flags))
                    else:
                        writer.add_plain(path, mark, after, sha, xattrs)
                    return
            finally:
                os.close(source)
            self.bytes += after.st_size - status.st_size
            status = after
        raise Refused(
            "{0} changed while it was copied, {1} times in a row. Stop what writes to it, or leave it out of paths. Nothing was changed.".format(
                show(path), ATTEMPTS
            ),
            "busy_file",
        )

    def _write_back(self, source: int, status: os.stat_result) -> None:
        """Have the kernel notice the next change of what a program has mapped: once for each file system, and only if something is new there."""
        if status.st_dev not in self._written and status.st_ctime_ns > self._sure_before - DIRTY:
            self._written.add(status.st_dev)
            sync_file_system(source)

    def _content(self, source: int, size: int) -> Optional[str]:
        if size > SMALL:
            return self._objects.add_file(source)
        try:
            content = os.read(source, size + 1)
        except IsADirectoryError:
            return None
        return self._objects.add(content) if len(content) == size else None

    def _with_attributes(self, entry: Entry, path: bytes, fd: int) -> Entry:
        return self._with(entry, path, _attributes.read(fd), _attributes.flags(fd))

    def _with(self, entry: Entry, path: bytes, xattrs: Dict[str, str], flags: int) -> Entry:
        if flags and self._rules.immutable == "refuse":
            self._flagged.append(path)
        _put(entry, "xattrs", xattrs)
        _put(entry, "flags", flags)
        return entry

    def _mark(self, status: os.stat_result) -> bytes:
        return mark_of(status, self._devices) if status.st_ctime_ns < self._sure_before else UNSURE

    def _unchanged(self, path: bytes, status: os.stat_result) -> bool:
        self._base.seek(path)
        if self._base.path != path or self._base.mark != mark_of(status, self._devices):
            return False
        self._same_line()
        return True

    def _add(self, path: bytes, mark: bytes, entry: Entry) -> None:
        self.entries += 1
        if self._writer is not None:
            self._writer.add(path, mark, entry)

    def _same_line(self) -> None:
        """What the base says of this path still holds."""
        self.entries += 1
        if self._writer is not None:
            self._writer.add_line(self._base.line)
        self._base.advance()


def _nothing(_line: bytes) -> None:
    """What is done with a line when there is no writer."""


def _stat(name: bytes, fd: int) -> Optional[os.stat_result]:
    try:
        return os.stat(name, dir_fd=fd, follow_symlinks=False)
    except FileNotFoundError:
        return None


def _put(entry: Entry, key: str, value: Any) -> None:
    if value:
        entry[key] = value


def _missing_above(path: bytes) -> List[str]:
    above = []
    parent = os.path.dirname(path)
    while not os.path.lexists(parent):
        above.append(to_text(parent))
        parent = os.path.dirname(parent)
    return above


def _unreadable(path: bytes) -> Refused:
    return Refused(
        "{0} cannot be read by uid {1}, so it could not be restored. Use become, change its mode, or leave it out of paths. Nothing was changed.".format(
            show(path), os.geteuid()
        ),
        "unreadable",
    )
