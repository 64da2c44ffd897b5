# Copyright: onprem.rollout contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Contents in read-only btrfs snapshots: <subvolume>/.onprem-rollout/<id>, which only root can enter.

The entries are written by walking the snapshot, which stands still, as if it were the subvolume. A snapshot is known by its
UUID and by the btrfs transaction that made it: one that was made writable and changed, or put there by somebody else, is not it.
"""

import contextlib
import errno
import fcntl
import os
import re
import stat
import struct
import uuid
from typing import Any, Dict, Iterable, Iterator, List, NamedTuple, Optional, Tuple

from ._capture import HIDDEN, TICK, Capture, Rules, entry_of
from ._errors import Refused, RolloutError
from ._manifest import Devices, Entry
from ._objects import Objects, reflink
from ._putback import Stored, Tally, put_back_from
from ._putback import preview as compare
from ._snapshot import Snapshot, within
from ._store import show, to_bytes, to_text
from ._tree import DIRECTORY, READ, pump

SNAPSHOT = 0x50009417
DESTROY = 0x5000940F
INFO = 0x81F8943C
READ_ONLY = 2
IS_READ_ONLY = 1
ROOT = 256  # the inode of the top of a subvolume
NESTED = 2  # and what stands in a snapshot where another subvolume was
CHUNK = 1024 * 1024

Subvolume = NamedTuple("Subvolume", [("place", bytes), ("mtime_ns", int)])


def subvolumes(paths: Iterable[bytes], strict: bool = True) -> List[Subvolume]:
    """The subvolumes in which the paths are. Refused(provider) names every path that is in none, unless those are kept as files."""
    found = {}
    problems = []
    for path in paths:
        try:
            place = _subvolume(path)
            found[place] = Subvolume(place, os.stat(place).st_mtime_ns)
        except RolloutError as error:
            problems.append(str(error))
    if problems and strict:
        raise _refused("{0}. Nothing was touched. Put these paths on btrfs, or set provider to files".format("; ".join(problems)))
    return [found[place] for place in sorted(found)]


def _subvolume(path: bytes) -> bytes:
    place = path
    while os.path.islink(place) or not os.path.isdir(place):
        place = os.path.dirname(place)
    mount, kind = _file_system(place)
    if kind != "btrfs":
        raise RolloutError("{0} is on {1}, not on btrfs".format(show(path), kind), "provider")
    while os.stat(place).st_ino != ROOT:
        if place == mount:
            raise RolloutError("{0} is in a part of a subvolume that is mounted at {1} without the rest".format(show(path), show(mount)), "provider")
        place = os.path.dirname(place)
    return place


def _file_system(place: bytes) -> Tuple[bytes, str]:
    """Where the file system of a directory is mounted, and its type."""
    best = (b"/", "an unknown file system")
    with open("/proc/self/mountinfo", "rb") as source:
        for line in source:
            fields = line.split(b" ")
            mount = re.sub(rb"\\([0-7]{3})", lambda found: bytes([int(found.group(1), 8)]), fields[4])
            if within(place, mount) and len(mount) >= len(best[0]):
                best = (mount, to_text(fields[fields.index(b"-") + 1]))
    return best


def _refused(why: str) -> Refused:
    return Refused("The provider btrfs cannot take this snapshot: {0}.".format(why), "provider")


def judge(paths: List[bytes], rules: Rules) -> None:
    """Refused(provider) before anything is touched."""
    if os.geteuid() != 0:
        raise _refused("only root can delete a snapshot again, and this runs as uid {0}. Nothing was touched. Use become".format(os.geteuid()))
    if rules.cross_mounts:
        raise _refused("a snapshot ends where something else is mounted. Nothing was touched. Take cross_mounts away, or set provider to files")
    subvolumes(paths)


def freeze(name: str, wanted: List[Subvolume]) -> List[Dict[str, Any]]:
    """Take the read-only snapshots; what to know each by. Refused(provider) with the system's words."""
    taken = []
    for subvolume in wanted:
        try:
            with _opened(subvolume.place) as top:
                status = os.fstat(top)
                with contextlib.suppress(FileExistsError):
                    os.mkdir(HIDDEN, 0o700, dir_fd=top)
                    os.fsync(top)
                os.utime(top, ns=(status.st_atime_ns, subvolume.mtime_ns))
                with _hidden(top, subvolume.place) as hidden:
                    command = bytearray(4096)
                    struct.pack_into("=qQQ32x4040s", command, 0, top, 0, READ_ONLY, to_bytes(name))
                    fcntl.ioctl(hidden, SNAPSHOT, command, True)
                    frozen = os.open(to_bytes(name), DIRECTORY, dir_fd=hidden)
                    try:
                        taken.append(dict(_identity(frozen), place=to_text(subvolume.place)))
                    finally:
                        os.close(frozen)
        except OSError as error:
            raise _refused("{0}: {1}. Nothing was changed".format(show(subvolume.place), error.strerror)) from error
    return taken


def thaw(name: str, wanted: List[Subvolume]) -> None:
    """Delete the snapshots that are there, and the directory that held them if they were the last. May be done again."""
    for subvolume in wanted:
        if not os.path.isdir(subvolume.place) or os.stat(subvolume.place).st_ino != ROOT:
            raise RolloutError("{0} is no subvolume any more; mount it".format(show(subvolume.place)), "provider")
        with _opened(subvolume.place) as top:
            with contextlib.suppress(FileNotFoundError), _hidden(top, subvolume.place) as hidden:
                command = bytearray(4096)
                struct.pack_into("=q4088s", command, 0, 0, to_bytes(name))
                with contextlib.suppress(FileNotFoundError):
                    fcntl.ioctl(hidden, DESTROY, command, True)
                os.fsync(hidden)
            if not _removed(top):
                continue
            os.utime(top, ns=(os.fstat(top).st_atime_ns, subvolume.mtime_ns))
            os.fsync(top)


def _removed(top: int) -> bool:
    try:
        os.rmdir(HIDDEN, dir_fd=top)
    except FileNotFoundError:
        pass
    except OSError as error:
        if error.errno != errno.ENOTEMPTY:
            raise
        return False
    return True


@contextlib.contextmanager
def _opened(place: bytes) -> Iterator[int]:
    fd = os.open(place, DIRECTORY)
    try:
        yield fd
    finally:
        os.close(fd)


@contextlib.contextmanager
def _hidden(top: int, place: bytes) -> Iterator[int]:
    """Our directory in a subvolume, which may belong to somebody less trusted."""
    fd = os.open(HIDDEN, DIRECTORY, dir_fd=top)
    try:
        status = os.fstat(fd)
        if status.st_uid != os.geteuid() or stat.S_IMODE(status.st_mode) & 0o077:
            raise _refused("{0} must be of uid {1} and closed to all others. Remove it".format(show(os.path.join(place, HIDDEN)), os.geteuid()))
        yield fd
    finally:
        os.close(fd)


def _identity(frozen: int) -> Dict[str, Any]:
    answer = bytearray(504)
    fcntl.ioctl(frozen, INFO, answer, True)
    flags, name, changed = struct.unpack_from("=Q16s32xQ", answer, 288)
    return {"uuid": uuid.UUID(bytes=bytes(name)).hex, "changed": changed, "read_only": bool(flags & IS_READ_ONLY)}


class Frozen:
    """The open snapshots of a finished or an unfinished snapshot, and the contents in them; see _putback.Stored."""

    def __init__(self, name: str, known: List[Dict[str, Any]]) -> None:
        self._name = to_bytes(name)
        self._tops: List[Tuple[bytes, int]] = []
        self.devices: Devices = {}
        try:
            for item in sorted(known, key=lambda item: -len(item["place"])):
                self._open(to_bytes(item["place"]), item)
        except BaseException:
            self.close()
            raise

    def _open(self, place: bytes, known: Dict[str, Any]) -> None:
        where = os.path.join(place, HIDDEN, self._name)
        try:
            with _opened(place) as top, _hidden(top, place) as hidden:
                fd = os.open(self._name, DIRECTORY, dir_fd=hidden)
                self._tops.append((place, fd))
                self.devices[os.fstat(fd).st_dev] = os.fstat(top).st_dev
                found = dict(_identity(fd), place=known["place"])
        except (OSError, Refused) as error:
            raise RolloutError("The btrfs snapshot {0} is damaged or lost ({1}). Nothing was put back.".format(show(where), error), "damaged") from error
        if found != known or not found["read_only"]:
            raise RolloutError("{0} is not the btrfs snapshot that was taken: it was changed since. Nothing was put back.".format(show(where)), "damaged")

    def close(self) -> None:
        while self._tops:
            os.close(self._tops.pop()[1])

    def __enter__(self) -> "Frozen":
        return self

    def __exit__(self, *_unused: object) -> None:
        self.close()

    def at(self, path: bytes) -> Tuple[int, bytes]:
        """A directory to be closed, and the name in it, that are in the snapshot what C(path) is in the subvolume."""
        for place, fd in self._tops:
            if within(path, place):
                inner = path[len(place.rstrip(b"/")) + 1 :]
                return os.open(os.path.dirname(inner) or b".", DIRECTORY, dir_fd=fd), os.path.basename(inner) or b"."
        raise self.lost(path, {})

    def _file(self, path: bytes) -> int:
        fd, name = self.at(path)
        try:
            return os.open(name, READ, dir_fd=fd)
        finally:
            os.close(fd)

    def intact(self, path: bytes, entry: Entry) -> bool:
        """Whether all of the content can be read: btrfs keeps its checksums, but for files with the attribute C (no copy on write)."""
        try:
            source = self._file(path)
            try:
                pump(source, None)
                return bool(os.fstat(source).st_size == entry["size"])
            finally:
                os.close(source)
        except (OSError, RolloutError):
            return False

    def same(self, path: bytes, entry: Entry, target: int) -> bool:
        try:
            source = self._file(path)
        except OSError as error:
            raise self.lost(path, entry) from error
        try:
            while True:
                block, other = self._block(source, path, entry), os.read(target, CHUNK)
                if block != other:
                    return False
                if not block:
                    return True
        finally:
            os.close(source)

    def _block(self, source: int, path: bytes, entry: Entry) -> bytes:
        try:
            return os.read(source, CHUNK)
        except OSError as error:
            raise self.lost(path, entry) from error

    def copy(self, path: bytes, entry: Entry, target: int) -> bool:
        """Share the blocks where that is possible; False when the content cannot be read."""
        try:
            source = self._file(path)
        except OSError:
            return False
        try:
            if not reflink(source, target):
                pump(source, target, bool(entry.get("sparse")))
            return bool(os.fstat(target).st_size == entry["size"])
        finally:
            os.close(source)

    def lost(self, path: bytes, _entry: Entry) -> RolloutError:
        return RolloutError(
            "The content of {0} in the btrfs snapshot {1} is damaged or lost; it was not put back. Bring the file back from a backup or another host, "
            "then run restore with force.".format(show(path), show(self._name)),
            "damaged",
        )


class Walk(Capture):
    """Walks the subvolumes as they were frozen, or as they are, and reads no content of theirs."""

    def __init__(self, *arguments: Any, wanted: Iterable[Subvolume], frozen: Optional[Frozen] = None, began: Optional[int] = None) -> None:
        super().__init__(*arguments)
        self._wanted = list(wanted)
        self._frozen = frozen
        if frozen:
            self._devices = frozen.devices
        if began is not None:
            self._sure_before = began - TICK

    def _at(self, path: bytes) -> Tuple[int, bytes]:
        return self._frozen.at(path) if self._frozen and self._is_wanted(path) else super()._at(path)

    def _is_wanted(self, path: bytes) -> bool:
        return any(within(path, item.place) for item in self._wanted)

    def _directory(self, path: bytes, name: bytes, fd: int, status: os.stat_result, depth: int) -> None:
        if status.st_ino in (ROOT, NESTED) and depth > 0 and self._is_wanted(path):
            raise _refused("{0} is a subvolume of its own inside of paths. Nothing was changed. Exclude it, or set provider to files".format(show(path)))
        super()._directory(path, name, fd, status, depth)

    def _file(self, path: bytes, name: bytes, fd: int, status: os.stat_result) -> None:
        if not self._is_wanted(path):
            super()._file(path, name, fd, status)
            return
        self.files += 1
        self.bytes += status.st_size
        if self._unchanged(path, status):
            return
        if self._writer is None:
            self.entries += 1
            return
        source = os.open(name, READ, dir_fd=fd)
        try:
            self._add(path, self._mark(status), self._with_attributes(entry_of(status), path, source))
        finally:
            os.close(source)


class Mixed:
    """The contents of a snapshot of which some paths are on btrfs and the others kept as files."""

    def __init__(self, frozen: Frozen, stored: Any) -> None:
        self._frozen, self._stored = frozen, stored

    def _of(self, entry: Entry) -> Any:
        return self._stored if "sha256" in entry else self._frozen

    def intact(self, path: bytes, entry: Entry) -> bool:
        return bool(self._of(entry).intact(path, entry))

    def same(self, path: bytes, entry: Entry, target: int) -> bool:
        return bool(self._of(entry).same(path, entry, target))

    def copy(self, path: bytes, entry: Entry, target: int) -> bool:
        return bool(self._of(entry).copy(path, entry, target))

    def lost(self, path: bytes, entry: Entry) -> Any:
        return self._of(entry).lost(path, entry)


def preview(snapshot: Snapshot) -> Tally:
    with Frozen(snapshot.id, snapshot.facts["subvolumes"]) as frozen:
        return compare(snapshot, Mixed(frozen, Stored).same)


def put_back(state_dir: str, snapshot: Snapshot) -> Tally:
    with Frozen(snapshot.id, snapshot.facts["subvolumes"]) as frozen, Objects(state_dir) as objects:
        return put_back_from(Mixed(frozen, Stored(objects)), snapshot)


def damage(snapshot: Snapshot) -> Iterator[str]:
    """Every file of the subvolumes that cannot be read any more, as a sentence."""
    with Frozen(snapshot.id, snapshot.facts["subvolumes"]) as frozen:
        for path, entry in snapshot.entries():
            if entry["type"] == "file" and "sha256" not in entry and not frozen.intact(path, entry):
                yield "{0} is damaged or lost in the btrfs snapshot".format(show(path))


def usable(snapshot: Snapshot) -> None:
    """RolloutError(damaged) when a snapshot is not there any more."""
    Frozen(snapshot.id, snapshot.facts["subvolumes"]).close()
