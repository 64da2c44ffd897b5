# Copyright: onprem.rollout contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""A release tarball, verified, judged as a whole, and only then unpacked.

    with open_verified(path, size, sha256) as source:     # RolloutError before anything is unpacked
        members = plan(source, strip, max_bytes)          # Refused before anything is written
        write(source, members, directory)                 # a new directory; on disk when this returns

What plan() lets through cannot leave the directory, whatever the order in which it is written:

1. every name is relative and has no C(..);
2. nothing but files, directories, symbolic and hard links;
3. no name twice, except directories, and nothing inside a file or behind a symbolic link of the archive;
4. every symbolic link, followed through all the other links, ends inside the directory;
5. every hard link leads to a regular file earlier in the archive;
6. no more than C(max_bytes) in total, as they will be on disk, and no more than MAX_MEMBERS members.
"""

import contextlib
import hashlib
import os
import tarfile
import zlib
from typing import IO, Any, Dict, Iterator, List, NamedTuple, Optional, Tuple

from ._errors import Refused, RolloutError
from ._store import fsync_dir, show

CHUNK = 1024 * 1024
MAX_BYTES = 8 * 1024**3
MAX_MEMBERS = 1000000
MAX_LINKS = 40
HEADERS = 8192  # bytes of headers and padding per member, many times what tar writes
MAX_TIME = 2**33
Parts = Tuple[bytes, ...]

# index: its place in the archive. kind: file, dir, link or hardlink.
# target: of a link as it is written, of a hard link the parts of the file it is another name of.
Member = NamedTuple(
    "Member",
    [("index", int), ("parts", Parts), ("kind", str), ("mode", int), ("mtime", int), ("size", int), ("target", Any)],
)


def open_verified(path: str, size: int, sha256: str, origin: Optional[str] = None) -> IO[bytes]:
    """The file, open at its start, after its size and its SHA-256 were found to be as declared.

    C(origin) is what people know it by, when that is not its path.
    """
    origin = origin or show(path)
    try:
        source = open(path, "rb")
    except OSError as error:
        raise RolloutError("The artifact {0} cannot be read: {1}.".format(origin, error.strerror), "artifact") from error
    try:
        found = os.fstat(source.fileno()).st_size
        if found != size:
            raise RolloutError(
                "The artifact {0} has {1} bytes, but its release declares {2}. Nothing was unpacked. Build or copy it again, "
                "or correct size in rollout_release.".format(origin, found, size),
                "size",
            )
        digest = hashlib.sha256()
        for chunk in iter(lambda: source.read(CHUNK), b""):
            digest.update(chunk)
        if digest.hexdigest() != sha256:
            raise RolloutError(
                "The artifact {0} has SHA-256 {1}, but its release declares {2}. Nothing was unpacked. It is not the file that "
                "was released, or rollout_release is of another build.".format(origin, digest.hexdigest(), sha256),
                "digest",
            )
        source.seek(0)
    except BaseException:
        source.close()
        raise
    return source


class _Bounded:
    """Keeps tarfile from reading a header of gigabytes into memory: it would, with one read."""

    def __init__(self, stream: Any) -> None:
        self.stream = stream
        self.seek, self.tell = stream.seek, stream.tell

    def read(self, size: int) -> Any:
        if not 0 <= size <= CHUNK:
            raise _refused("a header of {0} bytes".format(size))
        return self.stream.read(size)

    def seekable(self) -> bool:
        return True


def _refused(what: str) -> Refused:
    return Refused("The archive is refused, and nothing was written: it has {0}.".format(what), "bad_archive")


def _decompressed(source: IO[bytes]) -> Any:
    source.seek(0)
    magic = source.read(6)
    source.seek(0)
    if magic.startswith(b"\x1f\x8b"):
        import gzip  # each only where it is needed: small Pythons lack some of them

        return gzip.GzipFile(fileobj=source, mode="rb")
    if magic.startswith(b"BZh"):
        import bz2

        return bz2.BZ2File(source, "rb")
    if magic == b"\xfd7zXZ\x00":
        import lzma

        return lzma.LZMAFile(source, "rb")
    return source


@contextlib.contextmanager
def _opened(source: IO[bytes]) -> Iterator[tarfile.TarFile]:
    """The tar inside; whatever is wrong with its format or its compression is one RolloutError."""
    try:
        stream = _Bounded(_decompressed(source))
        with tarfile.open(fileobj=stream, mode="r:", encoding="utf-8", errors="surrogateescape") as tar:  # type: ignore[call-overload]
            yield tar
    except (RolloutError, MemoryError):
        raise
    except ImportError as error:
        raise RolloutError("This host's Python cannot decompress the archive: {0}. Pack it with gzip.".format(error), "bad_archive") from error
    except (tarfile.TarError, zlib.error, EOFError, ValueError, RecursionError) as error:
        raise _unreadable(error) from error
    except Exception as error:
        if isinstance(error, OSError) and error.errno is not None:
            raise
        if not isinstance(error, OSError) and type(error).__name__ != "LZMAError":
            raise
        raise _unreadable(error) from error


def _unreadable(error: BaseException) -> RolloutError:
    return RolloutError(
        "The archive cannot be read: {0}. Its size and SHA-256 are as declared, so it was built like this; a tar file, plain or "
        "compressed with gzip, bzip2 or xz, is needed.".format(str(error) or type(error).__name__),
        "bad_archive",
    )


def plan(source: IO[bytes], strip: int = 0, max_bytes: int = MAX_BYTES, max_members: int = MAX_MEMBERS) -> List[Member]:
    """The members as they will be written, in the order of the archive. Refused when one of them breaks a rule."""
    members = []  # type: List[Member]
    nodes = {}  # type: Dict[Parts, Member]
    total = 0
    with _opened(source) as tar:
        for index, info in _infos(tar):
            total += info.size if info.isreg() else 0
            # The offset of the next header is judged too, before tarfile goes there and decompresses all on the way.
            if total > max_bytes or tar.offset > max_bytes + CHUNK + (index + 1) * HEADERS:
                raise _refused("more than {0} bytes, which is max_bytes".format(max_bytes))
            if index >= max_members:
                raise _refused("more than {0} members".format(max_members))
            member = _member(info, index, strip, nodes)
            if member is not None:
                _place(member, nodes)
                members.append(member)
    if not members:
        raise _refused("nothing to unpack" + (" after strip={0}".format(strip) if strip else ""))
    for member in members:
        _check_place(member, nodes)
    return members


def _infos(tar: tarfile.TarFile) -> Iterator[Tuple[int, tarfile.TarInfo]]:
    """The members with their place in the archive. tarfile would keep all of them, a kilobyte each, and trust any size."""
    index, offset, info = 0, -1, tar.next()
    while info is not None:
        if info.size < 0 or tar.offset <= offset:
            raise _refused("{0!r} with a size of {1}".format(info.name, info.size))
        offset = tar.offset
        yield index, info
        tar.members = []  # type: ignore[attr-defined]
        index, info = index + 1, tar.next()


def _member(info: tarfile.TarInfo, index: int, strip: int, nodes: Dict[Parts, Member]) -> Optional[Member]:
    """One member, judged by itself; None when strip leaves nothing of its name, as with tar."""
    parts = _parts(info.name, "the name")[strip:]
    if not (info.isreg() or info.isdir() or info.issym() or info.islnk()):
        raise _refused("{0!r}, which is a {1}; only files, directories and links are unpacked".format(info.name, _type(info)))
    target = None  # type: Any
    if info.issym():
        target = info.linkname.encode("utf-8", "surrogateescape")
        if not target or target.startswith(b"/") or b"\0" in target:
            raise _refused("the link {0!r}, which leads out of the directory, to {1!r}".format(info.name, info.linkname))
    elif info.islnk():
        target = _parts(info.linkname, "the hard link {0!r} to".format(info.name))[strip:]
        if target not in nodes or nodes[target].kind not in ("file", "hardlink"):
            raise _refused("the hard link {0!r} to {1!r}, which is no file earlier in the archive".format(info.name, info.linkname))
    if not parts:
        return None
    kind = "file" if info.isreg() else "dir" if info.isdir() else "link" if info.issym() else "hardlink"
    return Member(index, parts, kind, _mode(kind, info.mode), _mtime(info.mtime), info.size if kind == "file" else 0, target)


def _parts(name: str, what: str) -> Parts:
    raw = name.encode("utf-8", "surrogateescape")
    parts = tuple(part for part in raw.split(b"/") if part not in (b"", b"."))
    if raw.startswith(b"/") or b".." in parts or b"\0" in raw:
        raise _refused("{0} {1!r}, which leads out of the directory".format(what, name))
    return parts


def _type(info: tarfile.TarInfo) -> str:
    return "device" if info.ischr() or info.isblk() else "FIFO" if info.isfifo() else "member of type {0!r}".format(info.type)


def _mode(kind: str, mode: int) -> int:
    """No set-id bits, writable only by the owner, who can always read."""
    return mode & 0o755 | (0o700 if kind == "dir" else 0o600)


def _mtime(raw: Any) -> int:
    try:
        return max(0, min(int(raw), MAX_TIME))
    except (ValueError, OverflowError):  # pax headers may say nan or inf
        return 0


def _place(member: Member, nodes: Dict[Parts, Member]) -> None:
    before = nodes.get(member.parts)
    if before is not None and not before.kind == member.kind == "dir":
        raise _refused("{0} twice".format(_shown(member.parts)))
    nodes[member.parts] = member


def _check_place(member: Member, nodes: Dict[Parts, Member]) -> None:
    for depth in range(1, len(member.parts)):
        above = nodes.get(member.parts[:depth])
        if above is not None and above.kind != "dir":
            what = "the link" if above.kind == "link" else "the file"
            raise _refused("{0}, which would be written through {1} {2}".format(_shown(member.parts), what, _shown(above.parts)))
    if member.kind == "link":
        _follow(member, nodes)


def _follow(link: Member, nodes: Dict[Parts, Member]) -> None:
    """Walk the link through the archive as the kernel would. What is not in the archive is taken for a directory."""
    here, ahead, hops = list(link.parts[:-1]), list(reversed(link.target.split(b"/"))), 0
    while ahead:
        part = ahead.pop()
        if part in (b"", b"."):
            continue
        if part == b"..":
            if not here:
                raise _refused("the link {0}, which leads out of the directory, to {1!r}".format(_shown(link.parts), show(link.target)))
            here.pop()
            continue
        here.append(part)
        node = nodes.get(tuple(here))
        if node is not None and node.kind == "link":
            hops += 1
            if hops > MAX_LINKS:
                raise _refused("the link {0}, which leads through more than {1} links".format(_shown(link.parts), MAX_LINKS))
            here.pop()
            ahead.extend(reversed(node.target.split(b"/")))


def _shown(parts: Parts) -> str:
    return repr(show(b"/".join(parts)))


def write(source: IO[bytes], members: List[Member], directory: bytes) -> None:
    """Write the planned members into C(directory), which must not exist, and wait until they are on disk.

    Links come last, so that nothing can be written through one, and modes of directories after all that is in them.
    """
    made = {}  # type: Dict[Parts, bytes]
    _make((), directory, made)
    for member in members:
        _make(member.parts if member.kind == "dir" else member.parts[:-1], directory, made)
    files = {member.index: member for member in members if member.kind == "file"}
    with _opened(source) as tar:
        for index, info in _infos(tar):
            if index in files:
                _write_file(tar, info, files[index], directory)
    for member in members:
        path = os.path.join(directory, *member.parts)
        if member.kind == "hardlink":
            os.link(os.path.join(directory, *member.target), path)
        elif member.kind == "link":
            os.symlink(member.target, path)
        elif member.kind == "dir":
            os.chmod(path, member.mode)
    # Only now: the first fsync makes the file system write everything, and the others find nothing left to do.
    for member in files.values():
        _flush(os.path.join(directory, *member.parts))
    for path in made.values():
        fsync_dir(path)


def _make(parts: Parts, directory: bytes, made: Dict[Parts, bytes]) -> None:
    for depth in range(len(parts) + 1):
        if parts[:depth] not in made:
            path = os.path.join(directory, *parts[:depth])
            os.mkdir(path)
            os.chmod(path, 0o755)  # whatever the umask is
            made[parts[:depth]] = path


def _write_file(tar: tarfile.TarFile, info: tarfile.TarInfo, member: Member, directory: bytes) -> None:
    content = tar.extractfile(info)
    if content is None or info.size != member.size:
        raise _unreadable(EOFError("{0} reads differently the second time".format(_shown(member.parts))))
    path = os.path.join(directory, *member.parts)
    fd = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW, 0o600)
    with content, os.fdopen(fd, "wb") as out:
        for chunk in iter(lambda: content.read(CHUNK), b""):
            out.write(chunk)
        if out.tell() != member.size:
            raise _unreadable(EOFError("{0} ends after {1} of {2} bytes".format(_shown(member.parts), out.tell(), member.size)))
        os.fchmod(fd, member.mode)
    os.utime(path, (member.mtime, member.mtime), follow_symlinks=False)


def _flush(path: bytes) -> None:
    fd = os.open(path, os.O_RDONLY | os.O_NOFOLLOW)
    try:
        os.fsync(fd)
    finally:
        os.close(fd)
