# Copyright: onprem.rollout contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Reading and removing directory trees through directory descriptors.

Root works here inside trees that less trusted users own. Every name is looked up in an open directory and never through
a link, so nobody can swap a directory for a link to somewhere else between the look and the act.
"""

import hashlib
import os
import stat
from typing import Any, Dict, List, Optional

from ._attributes import despite_flags
from ._errors import RolloutError
from ._store import show

CHUNK = 256 * 1024  # what is read, hashed and written stays in the processor's cache
HOLE = 4096
ZEROS = bytes(HOLE)
MAX_DEPTH = 200
DIRECTORY = os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW
READ = os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK  # a fifo that took a file's place must not hang us
Entry = Dict[str, Any]


def describe(name: bytes, fd: int) -> Optional[Entry]:
    """The mode and the type (file, dir, link or special) of C(name) in the directory C(fd); None if it is not there."""
    try:
        mode = os.stat(name, dir_fd=fd, follow_symlinks=False).st_mode
    except FileNotFoundError:
        return None
    kinds = {stat.S_IFREG: "file", stat.S_IFDIR: "dir", stat.S_IFLNK: "link"}
    return {"mode": stat.S_IMODE(mode), "type": kinds.get(stat.S_IFMT(mode), "special")}


def listing(fd: int) -> List[bytes]:
    """The names in an open directory, in a fixed order."""
    try:
        return sorted(os.listdir(b"/proc/self/fd/%d" % fd))
    except FileNotFoundError:  # no /proc; a descriptor gives text, which takes longer
        return sorted(os.fsencode(name) for name in os.listdir(fd))


def pump(source: int, target: Optional[int], sparse: bool = False, expected: Optional[int] = None) -> str:
    """Read one descriptor to its end, write it all to the other if there is one, return the SHA-256 in hex.

    What has more than C(expected) bytes is given up there: it may grow as fast as it is read.
    """
    sha = hashlib.sha256()
    size = 0
    buffer = memoryview(bytearray(CHUNK))
    while True:
        block = buffer[: os.readv(source, [buffer])]
        if not block:
            break
        sha.update(block)
        if target is not None:
            write(target, bytes(block) if sparse else block, sparse)
        size += len(block)
        if expected is not None and size > expected:
            break
    return sha.hexdigest()


def start_writing(target: int, offset: int = 0, length: int = 0) -> None:
    """Have the kernel begin to bring this part of a file to the disk. Nobody waits for it here: an fsync that comes later waits less."""
    os.posix_fadvise(target, offset, length, os.POSIX_FADV_DONTNEED)


def write(target: int, content: Any, sparse: bool = False) -> None:
    """Write all of it where the file ends; if it shall be sparse, with holes for blocks of zeros."""
    if not sparse:
        rest = memoryview(content)
        while rest:
            rest = rest[os.write(target, rest) :]
        return
    for start in range(0, len(content), HOLE):
        piece = content[start : start + HOLE]
        if piece == ZEROS[: len(piece)]:
            os.lseek(target, len(piece), os.SEEK_CUR)
        else:
            write(target, piece)
    os.ftruncate(target, os.lseek(target, 0, os.SEEK_CUR))


def sync_file_system(fd: int) -> None:
    """Write all that is dirty on the file system of an open file. os.sync() would wait for all others too, dead network ones among them."""
    try:
        import ctypes  # here, because it is seldom needed
    except ImportError:  # a Python that was built without
        os.sync()
        return
    if ctypes.CDLL(None, use_errno=True).syncfs(fd) != 0:
        number = ctypes.get_errno()
        raise OSError(number, os.strerror(number))


def parent_of(path: bytes) -> int:
    """Open the directory that holds a snapshot path. Its own parents are the operator's, and must be what they were."""
    parent = os.path.dirname(path)
    if os.path.realpath(parent) != parent:
        raise RolloutError(
            "{0} was a real path when the snapshot was taken; now it leads to {1}. Put that directory back, then restore again.".format(
                show(parent), show(os.path.realpath(parent))
            ),
            "moved",
        )
    return os.open(parent, DIRECTORY)


def enter(name: bytes, fd: int) -> int:
    """Open a directory to change it. Without root its owner may have to grant himself access first; its mode is set last."""
    try:
        inner = os.open(name, DIRECTORY, dir_fd=fd)
    except PermissionError:
        os.chmod(name, 0o700, dir_fd=fd)
        inner = os.open(name, DIRECTORY, dir_fd=fd)
    _grant(inner, 0o500)
    return inner


def writable(fd: int) -> None:
    """Let us change the entries of an open directory; only needed, and only done, without root."""
    _grant(fd, 0o300)


def _grant(fd: int, bits: int) -> None:
    status = os.fstat(fd)
    if os.geteuid() != 0 and status.st_uid == os.geteuid() and status.st_mode & bits != bits:
        os.fchmod(fd, stat.S_IMODE(status.st_mode) | 0o700)


def remove(name: bytes, fd: int, depth: int = 0) -> None:
    """Remove whatever C(name) is, with all below it; not an error if it is gone already."""
    writable(fd)
    found = describe(name, fd)
    if found is None:
        return
    if found["type"] != "dir":
        despite_flags(lambda: os.unlink(name, dir_fd=fd), name, fd)
        return
    check_depth(name, depth)
    inner = enter(name, fd)
    try:
        for child in listing(inner):
            remove(child, inner, depth + 1)
    finally:
        os.close(inner)
    despite_flags(lambda: os.rmdir(name, dir_fd=fd), name, fd)


def check_depth(path: bytes, depth: int) -> None:
    """Every level costs a descriptor: give up with a message before the system does."""
    if depth > MAX_DEPTH:
        raise RolloutError("{0} is nested deeper than {1} directories".format(show(path), MAX_DEPTH), "too_deep")
