# Copyright: onprem.rollout contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Putting a snapshot back: only what differs, and again from the start after any interruption.

Extras go first, which frees disk; then everything missing or different is made under a temporary name and renamed into
place; a directory gets its mode and time when all below it is done.
"""

import itertools
import os
import stat
from typing import Any, Dict, List, Tuple

from . import _attributes
from ._compare import KINDS, Difference, Same, by_digest, differences, differs, observe, owner
from ._errors import RolloutError
from ._manifest import Entry, mark_of, order
from ._objects import Objects, lost
from ._snapshot import Snapshot, within
from ._store import fsync_dir, remove_quietly, show, to_bytes
from ._tree import READ, describe, enter, parent_of, remove, writable

PASSES = 3
BATCH = 20000
LISTED = 1000
MANY = 200  # from so many paths on, one sync of all file systems is cheaper than an fsync of each


class Tally:
    """How much differs, and the first paths by name."""

    def __init__(self) -> None:
        self.counts = dict.fromkeys(KINDS, 0)
        self.listed: List[Tuple[str, bytes]] = []
        self.note = ""

    def add(self, found: Difference) -> None:
        self.counts[found.kind] += 1
        if len(self.listed) < LISTED:
            self.listed.append((found.kind, found.path))


class Stored:
    """The contents of a snapshot by their SHA-256. Other providers have other contents with the same four methods."""

    same = staticmethod(by_digest)

    def __init__(self, objects: Objects) -> None:
        self._objects = objects

    def intact(self, _path: bytes, entry: Entry) -> bool:
        return self._objects.intact(entry["sha256"])

    def copy(self, _path: bytes, entry: Entry, target: int) -> bool:
        return self._objects.copy(entry["sha256"], target, bool(entry.get("sparse")))

    def lost(self, path: bytes, entry: Entry) -> RolloutError:
        return lost(path, entry["sha256"])


def preview(snapshot: Snapshot, same: Same = by_digest) -> Tally:
    """What put_back() would change."""
    snapshot.check()
    found = Tally()
    for item in differences(snapshot, same=same):
        found.add(item)
    return found


def put_back(state_dir: str, snapshot: Snapshot) -> Tally:
    """put_back_from() the contents of the state directory."""
    with Objects(state_dir) as objects:
        return put_back_from(Stored(objects), snapshot)


def put_back_from(contents: Any, snapshot: Snapshot) -> Tally:
    """Make the paths what the snapshot says, prove it by comparing again, and return what differed before."""
    snapshot.check()
    first = Tally()
    batch: List[Difference] = []
    _tidy(snapshot)
    for found in differences(snapshot, same=contents.same):
        first.add(found)
        if found.entry.get("type") == "file" and found.kind in ("created", "replaced") and not contents.intact(found.path, found.entry):
            raise contents.lost(found.path, found.entry)
        if len(batch) < BATCH:
            batch.append(found)
    stuck = 0
    made: Dict[bytes, bytes] = {}
    while batch:
        snapshot.refuse_strangers([(item.entry["uid"], item.entry["gid"]) for item in batch if "uid" in item.entry])
        made.clear()
        with _Hands(contents, snapshot, len(batch) <= MANY, made) as hands:
            hands.apply(batch)
        _tidy(snapshot)
        before, batch = batch, list(itertools.islice(differences(snapshot, made, same=contents.same), BATCH))
        stuck = stuck + 1 if batch and batch[0].path == before[0].path else 0
        if stuck == PASSES:
            raise RolloutError(
                "Put back {0} times, but these still differ from the snapshot {1}: {2}. Stop what writes there, then run restore with force.".format(
                    PASSES, snapshot.id, ", ".join("{0} ({1})".format(show(item.path), item.kind) for item in batch[:10])
                ),
                "unstable",
            )
    return first


def temporary_name(snapshot: Snapshot) -> bytes:
    """The name of a file that is being put back: after the snapshot, so nothing in the snapshot can have it."""
    return b".onprem-rollout." + to_bytes(snapshot.id)


def _tidy(snapshot: Snapshot) -> None:
    """A restore that was killed may have left its temporary name beside a snapshot path, where nothing else removes it."""
    for parent in {os.path.dirname(path) for path in snapshot.paths}:
        try:
            found = remove_quietly(os.path.join(parent, temporary_name(snapshot)))
        except NotADirectoryError:
            continue
        if found:
            fsync_dir(parent)


class _Hands:
    """Changes the paths, through directories that it opens from the snapshot path down and never through a link."""

    def __init__(self, contents: Any, snapshot: Snapshot, each_to_disk: bool, made: Dict[bytes, bytes]) -> None:
        self._contents = contents
        self._tops = snapshot.paths
        self._temporary = temporary_name(snapshot)
        self._each_to_disk = each_to_disk
        self._made = made
        self._branch: List[Tuple[bytes, int]] = []
        self._dirty: Dict[bytes, Entry] = {}

    def __enter__(self) -> "_Hands":
        return self

    def __exit__(self, *_unused: object) -> None:
        self._leave(0)

    def apply(self, batch: List[Difference]) -> None:
        for item in batch:
            if item.folder:
                self._dirty[item.folder.path] = item.folder.entry
            if item.kind == "removed" or (item.kind == "replaced" and self._in_the_way(item)):
                self._remove(item)
        for item in batch:
            if item.kind != "removed":
                self._make(item)
        for path in sorted(self._dirty, key=order, reverse=True):
            self._dress(self._dirty[path], self._open(path))
        if not self._each_to_disk:
            os.sync()

    def _in_the_way(self, item: Difference) -> bool:
        """Whether a rename cannot replace what is there: a directory on one side only."""
        now = describe(os.path.basename(item.path), self._parent(item))
        return now is not None and (now["type"] == "dir") != (item.entry["type"] == "dir")

    def _remove(self, item: Difference) -> None:
        fd = self._parent(item)
        remove(os.path.basename(item.path), fd)
        self._to_disk(item, fd)
        self._leave(0)  # what was open may be gone

    def _parent(self, item: Difference) -> int:
        """The open directory that a path is in; its own parents, above the snapshot path, are made when they are gone."""
        if item.folder:
            return self._open(os.path.dirname(item.path))
        self._leave(0)
        above = os.path.dirname(item.path)
        if not os.path.isdir(above) and item.entry:
            os.makedirs(above)
        self._branch.append((above, parent_of(item.path)))
        return self._branch[0][1]

    def _open(self, path: bytes) -> int:
        """An open directory of the snapshot; the one before it is mostly a neighbour, so its parents are kept open."""
        while self._branch and not (within(path, self._branch[-1][0]) and any(within(self._branch[-1][0], top) for top in self._tops)):
            self._leave(len(self._branch) - 1)
        if not self._branch:
            top = next(each for each in self._tops if within(path, each))
            outside = parent_of(top)
            try:
                self._branch.append((top, enter(os.path.basename(top), outside)))
            finally:
                os.close(outside)
        here, fd = self._branch[-1]
        for name in path[len(here) :].split(b"/")[1:]:
            here = here + b"/" + name
            fd = enter(name, fd)
            self._branch.append((here, fd))
        return fd

    def _leave(self, depth: int) -> None:
        while len(self._branch) > depth:
            os.close(self._branch.pop()[1])

    def _make(self, item: Difference) -> None:
        entry, name, fd = item.entry, os.path.basename(item.path), self._parent(item)
        if entry["type"] == "dir":
            if item.kind != "metadata" and describe(name, fd) is None:
                writable(fd)
                _attributes.despite_flags(lambda: os.mkdir(name, 0o700, dir_fd=fd), name, fd)
            self._dirty[item.path] = entry
        elif item.kind == "metadata":
            self._correct(entry, name, fd)
        else:
            self._replace(entry, item.path, name, fd)
        self._to_disk(item, fd)

    def _to_disk(self, item: Difference, parent: int) -> None:
        """A directory of the snapshot is brought to the disk once, when all in it is done; no other is met again."""
        if self._each_to_disk and item.folder is None:
            os.fsync(parent)

    def _replace(self, entry: Entry, path: bytes, name: bytes, fd: int) -> None:
        """Make a thing under a temporary name, then put it in the place of what is there."""
        writable(fd)
        remove(self._temporary, fd)
        _attributes.despite_flags(lambda: self._create(entry, path, fd), name, fd)
        _attributes.despite_flags(lambda: os.rename(self._temporary, name, src_dir_fd=fd, dst_dir_fd=fd), name, fd)
        if entry["type"] == "hardlink":
            remove(self._temporary, fd)  # a rename between two names of one file does nothing
        elif entry.get("flags"):
            self._correct(entry, name, fd)
        if entry["type"] == "file":
            self._made[path] = mark_of(os.stat(name, dir_fd=fd, follow_symlinks=False))

    def _create(self, entry: Entry, path: bytes, fd: int) -> None:
        kind, temporary = entry["type"], self._temporary
        if kind == "file":
            self._copy(entry, path, fd)
        elif kind == "hardlink":
            target = to_bytes(entry["target"])
            source, first = self._beside(target), os.path.basename(target)
            try:
                # a flag that is lifted for this is a difference, and set again with the next
                _attributes.despite_flags(lambda: os.link(first, temporary, src_dir_fd=source, dst_dir_fd=fd, follow_symlinks=False), first, source)
            finally:
                os.close(source)
        else:
            if kind == "link":
                os.symlink(to_bytes(entry["target"]), temporary, dir_fd=fd)
            elif kind == "fifo":
                os.mkfifo(temporary, 0o600, dir_fd=fd)
            else:
                os.mknod(temporary, 0o600 | (stat.S_IFCHR if kind == "char" else stat.S_IFBLK), entry["rdev"], dir_fd=fd)
            self._dress_named(entry, temporary, fd)

    def _beside(self, path: bytes) -> int:
        """Another descriptor of the directory that a path of the snapshot is in."""
        if path in self._tops:
            return parent_of(path)
        hands = _Hands.__new__(_Hands)
        hands._tops, hands._branch = self._tops, []
        try:
            return os.dup(hands._open(os.path.dirname(path)))
        finally:
            hands._leave(0)

    def _copy(self, entry: Entry, path: bytes, fd: int) -> None:
        """Copy a content to the temporary name, verified: a wrong one is removed again and never gets the real name."""
        target = os.open(self._temporary, os.O_RDWR | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW, 0o600, dir_fd=fd)
        try:
            if not self._contents.copy(path, entry, target):
                os.unlink(self._temporary, dir_fd=fd)
                raise self._contents.lost(path, entry)
            self._dress(dict(entry, flags=0), target)  # an immutable file cannot be renamed
        finally:
            os.close(target)

    def _correct(self, entry: Entry, name: bytes, fd: int) -> None:
        if entry["type"] != "file":
            self._dress_named(entry, name, fd)
            return
        try:
            target = os.open(name, READ, dir_fd=fd)
        except PermissionError:  # only without root: our own file, but not readable by us
            os.chmod(name, 0o600, dir_fd=fd)
            target = os.open(name, READ, dir_fd=fd)
        try:
            self._dress(entry, target)
        finally:
            os.close(target)

    def _dress(self, entry: Entry, fd: int) -> None:
        """Owner, mode, attributes, time and flags of an open file or directory, in the order in which none undoes another."""
        now = os.fstat(fd)
        seen = observe(now, fd)
        if differs(entry, seen):
            if seen["flags"]:
                _attributes.set_flags(fd, 0)
            wanted = owner(entry, now.st_uid, now.st_gid)
            if wanted:
                os.chown(fd, *wanted)
            if wanted or stat.S_IMODE(now.st_mode) != entry["mode"]:
                os.fchmod(fd, entry["mode"])
            _attributes.put_back(fd, entry.get("xattrs", {}))
            os.utime(fd, ns=(now.st_atime_ns, entry["mtime_ns"]))
            if entry.get("flags"):
                _attributes.set_flags(fd, entry["flags"])
        if self._each_to_disk:
            os.fsync(fd)

    def _dress_named(self, entry: Entry, name: bytes, fd: int) -> None:
        """The same for what cannot or must not be opened: links, pipes and devices."""
        now = os.stat(name, dir_fd=fd, follow_symlinks=False)
        wanted = owner(entry, now.st_uid, now.st_gid)
        if wanted:
            os.chown(name, wanted[0], wanted[1], dir_fd=fd, follow_symlinks=False)
        with _attributes.handle(name, fd) as place:
            if entry["type"] != "link":
                os.chmod(place, entry["mode"])
            _attributes.put_back(place, entry.get("xattrs", {}))
        os.utime(name, ns=(now.st_atime_ns, entry["mtime_ns"]), dir_fd=fd, follow_symlinks=False)
