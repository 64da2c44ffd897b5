# Copyright: onprem.rollout contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Extended attributes (POSIX ACLs, SELinux labels, capabilities among them) and the flags immutable and append-only."""

import base64
import contextlib
import errno
import fcntl
import grp
import os
import pwd
import stat
import struct
from typing import Any, Callable, Dict, Iterable, Iterator, List, Optional, Tuple

from ._errors import RolloutError

LONG = struct.calcsize("l")
FLAGS = struct.Struct("i{0}x".format(LONG - struct.calcsize("i")))  # the kernel writes an int, whatever the request says
NO_FLAGS = bytes(LONG)
GET_FLAGS = 0x80006601 | LONG << 16
SET_FLAGS = 0x40006602 | LONG << 16
IMMUTABLE = 0x10
APPEND = 0x20
KEPT_FLAGS = IMMUTABLE | APPEND
MADE_BY_THE_KERNEL = ("security.ima", "security.evm")
UNPRIVILEGED = ("user.", "system.posix_acl_")
NONE = (errno.ENOTSUP, errno.ENOSYS, errno.ENODATA, errno.ENOENT)


def read(place: Any) -> Dict[str, str]:
    """The extended attributes of an open file or of a path, as name: base64."""
    try:
        names = os.listxattr(place)
    except OSError as error:
        if error.errno in NONE:
            return {}
        raise
    found = {}
    for name in names:
        if _ours_to_set(name):
            try:
                found[name] = base64.b64encode(os.getxattr(place, name)).decode("ascii")
            except OSError:  # gone since, or of another name space than ours
                continue
    return found


def _ours_to_set(name: str) -> bool:
    return name not in MADE_BY_THE_KERNEL and (os.geteuid() == 0 or name.startswith(UNPRIVILEGED))


def put_back(place: Any, wanted: Dict[str, str]) -> None:
    """Set, correct and remove extended attributes so that they are C(wanted)."""
    now = read(place)
    for name in now:
        if name not in wanted:
            os.removexattr(place, name)
    for name, value in wanted.items():
        if _ours_to_set(name) and now.get(name) != value:
            os.setxattr(place, name, base64.b64decode(value))


@contextlib.contextmanager
def handle(name: bytes, fd: int) -> Iterator[str]:
    """A path to C(name) in an open directory that leads to the thing itself, also to a link, and opens nothing."""
    opened = os.open(name, os.O_PATH | os.O_NOFOLLOW, dir_fd=fd)
    try:
        yield "/proc/self/fd/{0}".format(opened)
    finally:
        os.close(opened)


def flags(fd: int) -> int:
    """Which of immutable and append-only an open file or directory has."""
    return (_all_flags(fd) or 0) & KEPT_FLAGS


def set_flags(fd: int, wanted: int) -> None:
    """Make immutable and append-only what is C(wanted); the other flags stay."""
    now = _all_flags(fd)
    if now is not None and now & KEPT_FLAGS != wanted:
        fcntl.ioctl(fd, SET_FLAGS, FLAGS.pack(now & ~KEPT_FLAGS | wanted))


def _all_flags(fd: int) -> Optional[int]:
    """None on a file system without flags."""
    try:
        return int(FLAGS.unpack(fcntl.ioctl(fd, GET_FLAGS, NO_FLAGS))[0])
    except OSError:
        return None


def lift(name: bytes, fd: int) -> bool:
    """Take both flags from C(name) and from the directory that it is in; False when there were none."""
    found = _lift(fd)
    with contextlib.suppress(OSError):
        status = os.stat(name, dir_fd=fd, follow_symlinks=False)
        if stat.S_ISREG(status.st_mode) or stat.S_ISDIR(status.st_mode):
            opened = os.open(name, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK, dir_fd=fd)
            try:
                found = _lift(opened) or found
            finally:
                os.close(opened)
    return found


def _lift(fd: int) -> bool:
    if not flags(fd):
        return False
    with contextlib.suppress(OSError):
        set_flags(fd, 0)
        return True
    return False


def despite_flags(act: Callable[[], Any], name: bytes, fd: int) -> Any:
    """Do it, and if the system says no because of a flag, lift the flags and do it again."""
    try:
        return act()
    except PermissionError as error:
        if error.errno != errno.EPERM or not lift(name, fd):
            raise
        return act()


Names = Dict[str, Dict[str, Optional[str]]]


def owner_names(uids: Iterable[int], gids: Iterable[int]) -> Names:
    """Each id of a user or group as text, with its name or None."""
    return {"users": {str(uid): user_of(uid) for uid in uids}, "groups": {str(gid): group_of(gid) for gid in gids}}


def user_of(uid: int) -> Optional[str]:
    try:
        return pwd.getpwuid(uid).pw_name
    except KeyError:
        return None


def group_of(gid: int) -> Optional[str]:
    try:
        return grp.getgrgid(gid).gr_name
    except KeyError:
        return None


def strangers(names: Names, owners: List[Tuple[int, int]]) -> List[str]:
    """The owners that had a name when the snapshot was taken and have lost it, as sentences."""
    problems = []
    for kind, word, number, name_of in (("users", "user", 0, user_of), ("groups", "group", 1, group_of)):
        for wanted in sorted({owner[number] for owner in owners}):
            before = names.get(kind, {}).get(str(wanted))
            now = name_of(wanted)
            if before is not None and now != before:
                problems.append(
                    "{0} {1} (id {2}) no longer exists".format(word, before, wanted)
                    if now is None
                    else "id {2} was the {0} {1} and is now {3}".format(word, before, wanted, now)
                )
    return problems


def refuse_strangers(names: Names, owners: List[Tuple[int, int]]) -> None:
    """RolloutError(owner) before anything is put back to an owner that has gone."""
    problems = strangers(names, owners)
    if problems:
        raise RolloutError(
            "Nothing was put back, because files would belong to somebody else than before: {0}. Create it again with this id, then run restore "
            "with force.".format("; ".join(problems)),
            "owner",
        )
