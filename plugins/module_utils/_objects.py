# Copyright: onprem.rollout contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""File contents by their SHA-256, shared by all snapshots.

packs/<name>.pack, packs/<name>.index   small contents one after another, and where each is: the index makes the pack count
objects/<aa>/<sha256>                   large contents, one file each

20 000 small files are one write and two fsyncs, not 20 000 creations. Whatever is neither named by an index nor by a
snapshot is garbage of a run that died, and goes with the next sweep.
"""

import contextlib
import fcntl
import hashlib
import mmap
import os
import struct
from typing import Dict, Iterable, Iterator, List, NamedTuple, Optional, Set, Tuple

from ._errors import RolloutError
from ._store import fsync_dir, remove_quietly, show
from ._tree import pump, start_writing, write

SMALL = 256 * 1024
PACK_COUNT = 65536
PACK_BYTES = 512 * 1024 * 1024
AT_ONCE = 512  # contents that go to a pack in one call
BUFFER = 1024 * 1024
BEHIND = 8 * 1024 * 1024  # bytes of a pack that may wait before the kernel is told to write them
INCOMING = "incoming"
INCOMING_COUNT = 64
INCOMING_BYTES = 256 * 1024 * 1024
HEAD = struct.Struct(">8sQQ")  # magic, contents, bytes of the pack
PLACE = struct.Struct(">32sQI")  # digest, offset, size
PLACE_AFTER_DIGEST = struct.Struct(">QI")
MAGIC = b"onprem-1"
FICLONE = 0x40049409

Location = NamedTuple("Location", [("pack", "Pack"), ("offset", int), ("size", int)])


class Pack:
    """A finished pack, looked up in its sorted index without reading it into memory."""

    def __init__(self, index: str) -> None:
        self.index = index
        self.place = index[: -len(".index")] + ".pack"
        with open(index, "rb") as source:
            size = os.fstat(source.fileno()).st_size
            if size < HEAD.size:
                raise ValueError("the index is too short")
            self._map = mmap.mmap(source.fileno(), 0, access=mmap.ACCESS_READ)
        magic, self.count, self.bytes = HEAD.unpack_from(self._map, 0)
        if magic != MAGIC or size != HEAD.size + self.count * PLACE.size:
            raise ValueError("the index is damaged")
        if os.stat(self.place).st_size != self.bytes:
            raise ValueError("the pack has not the size that its index says")

    def item(self, number: int) -> Tuple[bytes, int, int]:
        """The digest, offset and size of the content at this place of the sorted index."""
        digest, offset, size = PLACE.unpack_from(self._map, HEAD.size + number * PLACE.size)
        return digest, offset, size

    def find(self, digest: bytes) -> Optional[int]:
        """The place of a content in the sorted index."""
        low, high = 0, self.count
        content = self._map
        while low < high:
            middle = (low + high) // 2
            at = HEAD.size + middle * PLACE.size
            if content[at : at + 32] < digest:
                low = middle + 1
            else:
                high = middle
        at = HEAD.size + low * PLACE.size
        return low if low < self.count and content[at : at + 32] == digest else None

    def read(self, number: int) -> bytes:
        _digest, offset, size = self.item(number)
        with open(self.place, "rb", 0) as source:
            return os.pread(source.fileno(), size, offset)

    def close(self) -> None:
        self._map.close()


class Objects:
    """The contents of a state directory. Under the host lock there is one writer."""

    def __init__(self, state_dir: str) -> None:
        self.loose = os.path.join(state_dir, "objects")
        self.packs_dir = os.path.join(state_dir, "packs")
        self.broken: List[str] = []
        self.packs: List[Pack] = []
        self.written = 0
        self._open: Optional[OpenPack] = None
        self._incoming: Dict[str, Tuple[str, int]] = {}
        self._incoming_bytes = 0
        self._dirty: Set[str] = set()
        for name in _names(self.packs_dir):
            if name.endswith(".index"):
                self._load(os.path.join(self.packs_dir, name))

    def _load(self, index: str) -> None:
        try:
            self.packs.append(Pack(index))
        except (OSError, ValueError) as error:
            self.broken.append("{0}: {1}".format(show(index), error))

    def close(self) -> None:
        for pack in self.packs:
            pack.close()
        if self._open:
            self._open.abandon()
        while self._incoming:
            os.close(self._incoming.popitem()[1][1])

    def __enter__(self) -> "Objects":
        return self

    def __exit__(self, *_unused: object) -> None:
        self.close()

    def prepare(self) -> None:
        """Make the directories, before the first write."""
        for directory in (self.loose, self.packs_dir):
            os.makedirs(directory, 0o700, exist_ok=True)

    def path_of(self, sha: str) -> str:
        """Where a large content is."""
        return os.path.join(self.loose, sha[:2], sha)

    def _locations(self, sha: str) -> Iterator[Tuple[Pack, int]]:
        digest = bytes.fromhex(sha)
        for pack in self.packs:
            number = pack.find(digest)
            if number is not None:
                yield pack, number

    def has(self, sha: str) -> bool:
        """Whether the content is there, without reading it."""
        return os.path.exists(self.path_of(sha)) or any(True for _found in self._locations(sha))

    def small(self, sha: str) -> Optional[bytes]:
        """A packed content that is what its name says, or None."""
        for pack, number in self._locations(sha):
            content = pack.read(number)
            if hashlib.sha256(content).hexdigest() == sha:
                return content
        return None

    def intact(self, sha: str) -> bool:
        """Whether the content is there and still what its name says: disks forget, and crashes leave torn files."""
        if self.small(sha) is not None:
            return True
        try:
            source = os.open(self.path_of(sha), os.O_RDONLY | os.O_NOFOLLOW)
        except OSError:
            return False
        try:
            return pump(source, None) == sha
        finally:
            os.close(source)

    def copy(self, sha: str, target: int, sparse: bool = False) -> bool:
        """Write the content to an open, empty file, with holes for zeros if it shall be sparse; False when it is lost or damaged."""
        content = self.small(sha)
        if content is not None:
            write(target, content, sparse)
            return True
        try:
            source = os.open(self.path_of(sha), os.O_RDONLY | os.O_NOFOLLOW)
        except OSError:
            return False
        try:
            if reflink(source, target):
                os.lseek(target, 0, os.SEEK_SET)
                return pump(target, None) == sha
            return pump(source, target, sparse) == sha
        finally:
            os.close(source)

    def add(self, content: bytes) -> str:
        """Keep a small content; its SHA-256."""
        digest = hashlib.sha256(content).digest()
        sha = digest.hex()
        pack = self._open
        if (pack and digest in pack.digests) or (self.packs and self.small(sha) is not None):
            return sha
        if pack is None or pack.full:
            self._finish_pack()
            pack = self._open = OpenPack(self.packs_dir)
        pack.add(digest, content)
        self.written += len(content)
        return sha

    def add_file(self, source: int) -> str:
        """Keep the content of an open file; its SHA-256."""
        temp = os.path.join(self.loose, "{0}.{1}".format(INCOMING, len(self._incoming)))
        target = os.open(temp, os.O_RDWR | os.O_CREAT | os.O_TRUNC | os.O_NOFOLLOW, 0o600)
        kept = False
        try:
            if reflink(source, target):
                sha = pump(target, None)
            else:
                status = os.fstat(source)
                sha = pump(source, target, status.st_blocks * 512 < status.st_size, status.st_size)
            if sha in self._incoming or self.intact(sha):
                return sha
            start_writing(target)
            size = os.fstat(target).st_size
            self._incoming[sha] = temp, target
            kept = True
        finally:
            if not kept:
                os.close(target)
        self.written += size
        self._incoming_bytes += size
        if len(self._incoming) >= INCOMING_COUNT or self._incoming_bytes >= INCOMING_BYTES:
            self._receive()
        return sha

    def _receive(self) -> None:
        """Bring large contents to the disk and then to their places: many files wait for the disk at once."""
        for _temp, target in self._incoming.values():
            os.fsync(target)
        while self._incoming:
            sha, (temp, target) = self._incoming.popitem()
            os.close(target)
            place = self.path_of(sha)
            os.makedirs(os.path.dirname(place), 0o700, exist_ok=True)
            os.replace(temp, place)
            self._dirty.add(os.path.dirname(place))
        self._incoming_bytes = 0

    def finish(self) -> None:
        """All that was added is on disk."""
        self._finish_pack()
        self._receive()
        for name in _names(self.loose):
            if name.startswith(INCOMING):
                remove_quietly(os.path.join(self.loose, name))
        for directory in sorted(self._dirty):
            fsync_dir(directory)
        if self._dirty:
            fsync_dir(self.loose)
        self._dirty.clear()

    def _finish_pack(self) -> None:
        if self._open is not None:
            self._load(self._open.finish())
            self._open = None

    def sweep(self, used: Iterable[str]) -> None:
        """Remove every content that is not used; a pack of which less than half is used is written again."""
        marks = {pack: bytearray(pack.count) for pack in self.packs}
        loose: Set[str] = set()
        for sha in used:
            found = False
            for pack, number in self._locations(sha):
                marks[pack][number] = found = True
            if not found:
                loose.add(sha)
        for pack, marked in marks.items():
            self._thin_out(pack, marked)
        self.finish()
        known = {os.path.basename(path) for pack in self.packs for path in (pack.index, pack.place)}
        for name in _names(self.packs_dir):
            if name not in known and not any(os.path.splitext(name)[0] in problem for problem in self.broken):
                remove_quietly(os.path.join(self.packs_dir, name))
        for directory in _names(self.loose):
            for name in _names(os.path.join(self.loose, directory)):
                if name not in loose:
                    remove_quietly(os.path.join(self.loose, directory, name))

    def _thin_out(self, pack: Pack, marked: bytearray) -> None:
        live = [number for number in range(pack.count) if marked[number]]
        if sum(pack.item(number)[2] for number in live) * 2 >= pack.bytes and live:
            return
        self.packs.remove(pack)
        for number in live:
            if hashlib.sha256(pack.read(number)).digest() != pack.item(number)[0]:
                self.packs.append(pack)  # a damaged one stays as it is, for the message that names it
                return
        for number in live:
            self.add(pack.read(number))
        self._finish_pack()
        remove_quietly(pack.index)
        remove_quietly(pack.place)
        pack.close()

    def bytes(self) -> int:
        """The disk that all contents take."""
        large = (os.path.join(self.loose, part, name) for part in _names(self.loose) for name in _names(os.path.join(self.loose, part)))
        packed = sum(int(pack.bytes) + int(pack.count) * PLACE.size for pack in self.packs)
        return packed + sum(os.stat(path).st_size for path in large)


class OpenPack:
    """A pack that is being written."""

    def __init__(self, directory: str) -> None:
        self._directory = directory
        self._temp = os.path.join(directory, INCOMING)
        self._out = os.open(self._temp, os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_NOFOLLOW, 0o600)
        self.digests: Set[bytes] = set()
        self._places: List[bytes] = []
        self._waiting: List[bytes] = []
        self._size = self._written = self._started = 0

    @property
    def full(self) -> bool:
        return len(self._places) >= PACK_COUNT or self._size >= PACK_BYTES

    def add(self, digest: bytes, content: bytes) -> None:
        self.digests.add(digest)
        self._places.append(digest + PLACE_AFTER_DIGEST.pack(self._size, len(content)))
        self._size += len(content)
        self._waiting.append(content)
        if len(self._waiting) >= AT_ONCE or self._size - self._written >= BUFFER:
            self._write()

    def _write(self) -> None:
        write(self._out, b"".join(self._waiting))
        self._waiting.clear()
        self._written = self._size
        if self._written - self._started >= BEHIND:
            start_writing(self._out, self._started, self._written - self._started)
            self._started = self._written

    def finish(self) -> str:
        """The path of the index. Both are on disk before either has its name, and the index gets it last."""
        self._write()
        start_writing(self._out)
        index = b"".join(sorted(self._places))
        name = os.path.join(self._directory, hashlib.sha256(index).hexdigest()[:32])
        temp = name + ".new"
        fd = os.open(temp, os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_NOFOLLOW, 0o600)
        try:
            write(fd, HEAD.pack(MAGIC, len(self._places), self._size) + index)
            os.fsync(self._out)
            os.fsync(fd)
        finally:
            os.close(fd)
        self.abandon()
        os.replace(self._temp, name + ".pack")
        os.replace(temp, name + ".index")
        fsync_dir(self._directory)
        return name + ".index"

    def abandon(self) -> None:
        if self._out >= 0:
            os.close(self._out)
        self._out = -1


def reflink(source: int, target: int) -> bool:
    """Share the blocks of two files, where the file system can."""
    try:
        fcntl.ioctl(target, FICLONE, source)
        return True
    except OSError:
        return False


def _names(directory: str) -> List[str]:
    with contextlib.suppress(FileNotFoundError, NotADirectoryError):
        return sorted(os.listdir(directory))
    return []


def lost(path: bytes, sha: str) -> RolloutError:
    """What is said of a content that is lost or damaged."""
    return RolloutError(
        "The content of {0} (object {1}) is damaged or lost; it was not put back. Bring the file back from a backup or another host, then run "
        "restore with force.".format(show(path), sha),
        "damaged",
    )
