# Copyright: onprem.rollout contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""dpkg's own files: how they are written, its locks, and what it keeps of configuration files, which no command of its can set."""

import contextlib
import errno
import fcntl
import hashlib
import os
import time
from typing import Dict, Iterator, List, Tuple

from ._errors import RolloutError
from ._store import fsync_dir, local, remove_quietly, show, to_bytes

LOCK_WAIT = 120.0
LOCK_POLL = 0.1


def paragraph(text: str) -> List[Tuple[str, str]]:
    """The fields of a control paragraph in their order; a value keeps its further lines as they are."""
    fields = []  # type: List[Tuple[str, str]]
    for line in text.rstrip("\n").split("\n"):
        if line[:1] in (" ", "\t") and fields:
            fields[-1] = (fields[-1][0], fields[-1][1] + "\n" + line)
        elif ":" in line:
            name, value = line.split(":", 1)
            fields.append((name, value.strip()))
    return fields


def rendered(fields: List[Tuple[str, str]]) -> str:
    """The inverse of paragraph()."""
    return "".join("{0}:{1}{2}\n".format(name, "" if value.startswith("\n") else " ", value) for name, value in fields)


def info_files(admindir: str, name: str, arch: str) -> Dict[str, str]:
    """What dpkg keeps of an installed package beside its status: preinst, md5sums, list, ... and where each is."""
    info = os.path.join(admindir, "info")
    found = {}
    for prefix in (name + ".", "{0}:{1}.".format(name, arch)):
        for entry in os.listdir(info):
            if entry.startswith(prefix) and "." not in entry[len(prefix) :]:
                found[entry[len(prefix) :]] = os.path.join(info, entry)
    return found


@contextlib.contextmanager
def locked(admindir: str) -> Iterator[None]:
    """Keep apt and its relatives away, after waiting for one that is at work, also for a dpkg that outlived us."""
    deadline = time.monotonic() + LOCK_WAIT
    fds = []
    try:
        for name in ("lock-frontend", "lock"):
            path = os.path.join(admindir, name)
            fds.append(os.open(path, os.O_RDWR | os.O_CREAT | os.O_NOFOLLOW, 0o640))
            while not _taken(fds[-1]):
                if time.monotonic() >= deadline:
                    raise RolloutError(
                        "dpkg is locked by another program, still after {0:g} s: see fuser -v {1}. End it and restore again.".format(LOCK_WAIT, show(path)),
                        "locked",
                    )
                time.sleep(LOCK_POLL)
        os.close(fds.pop())  # the inner one is dpkg's own
        yield
    finally:
        for fd in fds:
            os.close(fd)


def set_conffiles(root: str, admindir: str, key: str, wanted: Dict[str, str]) -> None:
    """Give dpkg the digests of the configuration files as they were: a rebuilt package brought them as the operator had edited them.

    A file that only the release brought, and that nobody edited, goes with it; dpkg would keep it as obsolete.
    """
    name, _colon, arch = key.partition(":")
    path = os.path.join(admindir, "status")
    with locked(admindir):
        texts = _read(path).rstrip("\n").split("\n\n")
        for index, text in enumerate(texts):
            fields = dict(paragraph(text))
            there = conffiles_of(fields.get("Conffiles", ""))
            if fields.get("Package") == name and arch in ("", fields.get("Architecture")) and there != wanted:
                _forget(root, admindir, name, fields.get("Architecture", ""), {path: there[path] for path in there if path not in wanted})
                texts[index] = _with_conffiles(text, wanted)
        replace(path, "\n\n".join(texts) + "\n\n", 0o644)


def _forget(root: str, admindir: str, name: str, arch: str, surplus: Dict[str, str]) -> None:
    for path, digest in surplus.items():
        place = local(os.path.join(root, path.lstrip("/")))
        if _md5(place) == digest.split(" ")[0]:
            remove_quietly(place)
    listing = info_files(admindir, name, arch).get("list")
    if listing and surplus:
        replace(listing, "".join(line for line in _read(listing).splitlines(True) if line.rstrip("\n") not in surplus), 0o644)


def conffiles_of(value: str) -> Dict[str, str]:
    """The field Conffiles of dpkg's status: each path with what stands after it, its digest and perhaps C(obsolete)."""
    found = {}
    for line in value.split("\n"):
        path, _space, rest = line.strip().partition(" ")
        if path.startswith("/"):
            found[path] = rest.strip()
    return found


def _with_conffiles(text: str, wanted: Dict[str, str]) -> str:
    listed = "".join("\n {0} {1}".format(*item) for item in sorted(wanted.items()))
    fields = [field for field in paragraph(text) if field[0] != "Conffiles"]
    return rendered(fields + ([("Conffiles", listed)] if wanted else [])).rstrip("\n")


def _md5(path: str) -> str:
    """The digest that dpkg keeps of a configuration file; only compared with, so a host that allows no MD5 keeps the file."""
    try:
        if os.path.islink(path):
            return ""
        with open(path, "rb") as source:
            return hashlib.md5(source.read()).hexdigest()
    except (OSError, ValueError):
        return ""


def _taken(fd: int) -> bool:
    try:
        fcntl.lockf(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError as error:
        if error.errno not in (errno.EAGAIN, errno.EACCES):
            raise
        return False
    return True


def _read(path: str) -> str:
    with open(local(path), encoding="utf-8", errors="surrogateescape") as source:
        return source.read()


def replace(path: str, content: str, mode: int) -> None:
    """Old content or new content, never a mixture."""
    temp = path + ".rollout-new"
    fd = os.open(local(temp), os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_NOFOLLOW, mode)
    with os.fdopen(fd, "wb") as out:
        out.write(to_bytes(content))
        out.flush()
        os.fchmod(out.fileno(), mode)
        os.fsync(out.fileno())
    os.replace(local(temp), local(path))
    fsync_dir(local(os.path.dirname(path)))
