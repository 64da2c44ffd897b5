# Copyright: onprem.rollout contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""A .deb built again from what dpkg installed, for a version that no repository has any more.

The files are those of the disk, as they are now. A configuration file that the operator edited therefore goes in edited;
L(_apt) gives dpkg back the digests of the pristine files after it installed such a package.
"""

import contextlib
import gzip
import io
import os
import stat
import tarfile
import time
from typing import IO, Dict, Iterator, List

from ._dpkg import paragraph, rendered
from ._errors import RolloutError
from ._store import show

NOT_OF_THE_PACKAGE = ("Status", "Conffiles", "Config-Version", "Triggers-Pending", "Triggers-Awaited")
EMPTY = 0o644


def rebuild(target: str, root: str, status: str, info: Dict[str, str], moved: Dict[str, str]) -> None:
    """Write the .deb C(target) and fsync it. C(status) is the package's paragraph, C(moved) where its diverted files are."""
    if "list" not in info:
        raise RolloutError("dpkg has no list of its files", "package")
    conffiles = _lines(info["conffiles"]) if "conffiles" in info else []
    with open(target, "wb") as out:
        out.write(b"!<arch>\n")
        _member(out, b"debian-binary", io.BytesIO(b"2.0\n"))
        with _packed(out, target, "control.tar.gz") as tar:
            _control(tar, status, info)
        with _packed(out, target, "data.tar.gz") as tar:
            _data(tar, root, info["list"], conffiles, moved)
        out.flush()
        os.fsync(out.fileno())


@contextlib.contextmanager
def _packed(out: IO[bytes], target: str, name: str) -> Iterator[tarfile.TarFile]:
    """A tar to fill, which then becomes a member."""
    part = target + "." + name
    with open(part, "w+b") as content:
        packed = gzip.GzipFile("", "wb", 1, content, 0)
        with packed, tarfile.open(fileobj=packed, mode="w", format=tarfile.GNU_FORMAT, encoding="utf-8", errors="surrogateescape") as tar:
            yield tar
        _member(out, name.encode("ascii"), content)
    os.unlink(part)


def _lines(path: str) -> List[str]:
    with open(path, encoding="utf-8", errors="surrogateescape") as source:
        return [line for line in source.read().split("\n") if line]


def _member(out: IO[bytes], name: bytes, content: IO[bytes]) -> None:
    size = content.seek(0, os.SEEK_END)
    content.seek(0)
    out.write(b"%-16s%-12d%-6d%-6d%-8s%-10d`\n" % (name, int(time.time()), 0, 0, b"100644", size))
    for chunk in iter(lambda: content.read(1 << 20), b""):
        out.write(chunk)
    if size % 2:
        out.write(b"\n")


def _control(tar: tarfile.TarFile, status: str, info: Dict[str, str]) -> None:
    fields = [(name, value) for name, value in paragraph(status) if name not in NOT_OF_THE_PACKAGE]
    content = rendered(fields).encode("utf-8", "surrogateescape")
    member = tarfile.TarInfo("./control")
    member.size, member.mtime = len(content), int(time.time())
    tar.addfile(member, io.BytesIO(content))
    for name in sorted(info):
        if name != "list":
            tar.add(info[name], "./" + name, recursive=False)


def _data(tar: tarfile.TarFile, root: str, listing: str, conffiles: List[str], moved: Dict[str, str]) -> None:
    paths = [path for path in _lines(listing) if path.startswith("/") and path != "/."]
    above = {os.path.dirname(path) for path in paths}
    for path in paths:
        place = os.path.join(root, moved.get(path, path).lstrip("/"))
        try:
            status = os.stat(place) if path in above else os.lstat(place)
        except FileNotFoundError:
            if path in conffiles:  # the operator removed it, and dpkg remembers that only of a file it has seen
                member = tarfile.TarInfo("." + path)
                member.mode = EMPTY
                tar.addfile(member)
            continue
        if path in above and stat.S_ISDIR(status.st_mode):  # also a link to a directory, such as /lib, is a directory of the package
            member = tarfile.TarInfo("." + path)
            member.type, member.mode, member.mtime = tarfile.DIRTYPE, stat.S_IMODE(status.st_mode), int(status.st_mtime)
            member.uid, member.gid = status.st_uid, status.st_gid
            tar.addfile(member)
        elif stat.S_ISSOCK(status.st_mode):
            raise RolloutError("its file {0} is a socket".format(show(place)), "package")
        else:
            tar.add(place, "." + path, recursive=False)
