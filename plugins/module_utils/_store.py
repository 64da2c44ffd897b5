# Copyright: onprem.rollout contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Files of the state directory: written whole or not at all, one writer at a time."""

import contextlib
import errno
import fcntl
import json
import os
import stat
import time
from typing import Any, Callable, Iterator, TypeVar, Union

from ._errors import Refused, RolloutError

LOCK_WAIT = 10.0
LOCK_POLL = 0.05
SPARE = 64 * 1024
AnyPath = Union[str, bytes]
Value = TypeVar("Value")


def to_bytes(text: str) -> bytes:
    """A path as the kernel sees it. Always UTF-8: Python 3.6 in the C locale would refuse names that another run wrote."""
    return text.encode("utf-8", "surrogateescape")


def to_text(path: bytes) -> str:
    """The inverse of to_bytes; bytes that are not UTF-8 survive as surrogates, also through JSON."""
    return path.decode("utf-8", "surrogateescape")


def show(path: AnyPath) -> str:
    """A path for people and for Ansible's results, which must be valid UTF-8."""
    return (to_bytes(path) if isinstance(path, str) else path).decode("utf-8", "backslashreplace")


def local(text: str) -> str:
    """The str that this interpreter's os functions turn into the UTF-8 bytes of C(text), whatever the locale."""
    return os.fsdecode(to_bytes(text))


def fsync_dir(path: AnyPath) -> None:
    """A rename is on disk only when its directory is."""
    fd = os.open(path, os.O_RDONLY | os.O_DIRECTORY)
    try:
        os.fsync(fd)
    finally:
        os.close(fd)


def write_json(path: str, data: Any) -> None:
    """Old content or new content, never a mixture. The temporary name is fixed: leftovers are overwritten under the lock."""
    temp = path + ".new"
    fd = os.open(temp, os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_NOFOLLOW, 0o600)
    with os.fdopen(fd, "w", encoding="ascii") as out:
        json.dump(data, out, sort_keys=True, separators=(",", ":"))
        out.write("\n")
        out.flush()
        os.fsync(out.fileno())
    os.replace(temp, path)
    fsync_dir(os.path.dirname(path))


def write_file(path: str, content: bytes, mode: int) -> None:
    """The same for bytes; what is there already is not written again."""
    if not _holds(path, content, mode):
        temp = path + ".new"
        remove_quietly(temp)
        fd = os.open(temp, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW, 0o600)
        try:
            with os.fdopen(fd, "wb") as out:
                out.write(content)
                out.flush()
                os.fchmod(fd, mode)
                os.fsync(fd)
        except OSError:
            remove_quietly(temp)  # of a full disk
            raise
        os.replace(temp, path)
    fsync_dir(os.path.dirname(path))


def _holds(path: str, content: bytes, mode: int) -> bool:
    try:
        with open(path, "rb") as source:
            return stat.S_IMODE(os.fstat(source.fileno()).st_mode) == mode and source.read() == content
    except OSError:
        return False


def read_json(path: str) -> Any:
    """The content, or None when there is no such file. OSError or ValueError when it cannot be read."""
    try:
        with open(path, encoding="utf-8") as source:
            return json.load(source)
    except FileNotFoundError:
        return None


def prepare(state_dir: str) -> None:
    """Make the state directory, or refuse. It holds commands that are run as us, so nobody else may own it."""
    examine(state_dir)
    try:
        if not os.path.isdir(state_dir):
            os.makedirs(state_dir, 0o700)
            fsync_dir(os.path.dirname(state_dir))
    except OSError as error:
        raise _unusable(state_dir, "cannot be made: {0}".format(error.strerror)) from error
    examine(state_dir)
    if os.stat(state_dir).st_mode & 0o7777 != 0o700:
        os.chmod(state_dir, 0o700)


def examine(state_dir: str) -> None:
    """Refuse a state directory that prepare() could not use. Changes nothing: check mode asks this."""
    place = state_dir
    while not os.path.lexists(place) and place != os.path.dirname(place):
        place = os.path.dirname(place)
    if not os.path.isdir(place):
        raise _unusable(state_dir, "{0} is not a directory".format(show(place)))
    owner = os.stat(place).st_uid
    if place == state_dir and owner != os.geteuid():
        raise _unusable(state_dir, "belongs to uid {0}, but this runs as uid {1}".format(owner, os.geteuid()))
    if not os.access(place, os.W_OK | os.X_OK):
        raise _unusable(state_dir, "{0} is not writable".format(show(place)))


def unfit(state_dir: str, needed: int) -> str:
    """Why the state directory could not be made or written, or has less than C(needed) bytes; nothing when it is fit."""
    try:
        examine(state_dir)
    except Refused as error:
        return str(error)
    free = free_bytes(state_dir)
    return "" if free >= needed else "Too little disk at {0}: {1} bytes are needed, {2} are free.".format(show(state_dir), needed, free)


def _unusable(state_dir: str, why: str) -> Refused:
    return Refused(
        "The state directory {0} cannot be used: {1}. Set state_dir to a directory of the user that runs this, or use become. Nothing was changed.".format(
            show(state_dir), why
        ),
        "state_dir",
    )


def free_bytes(path: str) -> int:
    """What an unprivileged writer may still write at C(path), or at what exists of it."""
    while not os.path.exists(path) and path != os.path.dirname(path):
        path = os.path.dirname(path)
    status = os.statvfs(path)
    return status.f_bavail * status.f_frsize


def reserve(state_dir: str) -> None:
    """Set a little disk aside, so that a payload which fills it cannot keep restore from writing the record."""
    fd = os.open(os.path.join(state_dir, "spare"), os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_NOFOLLOW, 0o600)
    try:
        os.write(fd, os.urandom(SPARE))  # zeros may be compressed away by the file system
        os.fsync(fd)
    finally:
        os.close(fd)


def release_reserve(state_dir: str) -> None:
    """Give back what reserve() set aside."""
    with contextlib.suppress(FileNotFoundError):
        os.unlink(os.path.join(state_dir, "spare"))


def with_reserve(state_dir: str, action: Callable[[], Value]) -> Value:
    """Do what must be done on a full disk too: once more, with what reserve() set aside."""
    try:
        return action()
    except OSError as error:
        if error.errno not in (errno.ENOSPC, errno.EDQUOT):
            raise
        release_reserve(state_dir)
        return action()


@contextlib.contextmanager
def locked(state_dir: str, check_mode: bool = False, wait: float = LOCK_WAIT) -> Iterator[None]:
    """Hold the host lock; the kernel frees it when this process dies. Check mode does not create the file."""
    path = os.path.join(state_dir, "lock")
    try:
        fd = os.open(path, os.O_RDWR | os.O_NOFOLLOW | (0 if check_mode else os.O_CREAT), 0o600)
    except FileNotFoundError:
        yield
        return
    except OSError as error:
        raise _unusable(state_dir, "its lock cannot be opened: {0}".format(error.strerror)) from error
    try:
        _acquire(fd, path, wait)
        if not check_mode:
            os.ftruncate(fd, 0)
            os.write(fd, "{0}\n".format(os.getpid()).encode("ascii"))
        yield
    finally:
        os.close(fd)


def _acquire(fd: int, path: str, wait: float) -> None:
    deadline = time.monotonic() + wait
    while True:
        try:
            fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
            return
        except OSError as error:
            if error.errno not in (errno.EAGAIN, errno.EACCES):
                raise
        if time.monotonic() >= deadline:
            owner = os.pread(fd, 32, 0).decode("ascii", "replace").strip() or "unknown"
            raise RolloutError(
                "The lock {0} is held by process {1} of this host, still after {2:g} s. Wait until it ends, or look at it with: ps -fp {1}".format(
                    show(path), owner, wait
                ),
                "locked",
            )
        time.sleep(LOCK_POLL)


def remove_quietly(path: AnyPath) -> bool:
    """Unlink a file that may be gone already, and say whether it was there."""
    try:
        os.unlink(path)
        return True
    except FileNotFoundError:
        return False
