# Copyright: onprem.rollout contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Putting a snapshot back: only what differs, and again from the start after any interruption.

Extras go first, which frees disk; then everything missing or different is made under a temporary name and renamed into
place; a directory gets its mode and time when all below it is done.
"""

import os
import stat
from typing import Any, Dict, Iterator, List, NamedTuple, Optional

from ._errors import RolloutError
from ._snapshot import intact, object_path
from ._store import fsync_dir, remove_quietly, show, to_bytes
from ._tree import DIRECTORY, READ, Entry, describe, digest, enter, listing, parent_of, pump, remove, writable

PASSES = 3
KINDS = ("replaced", "created", "removed", "metadata")

Difference = NamedTuple("Difference", [("kind", str), ("path", bytes), ("sha256", Optional[str])])
Source = NamedTuple("Source", [("objects", str), ("temporary", bytes)])
Node = NamedTuple("Node", [("path", bytes), ("entry", Entry), ("children", Dict[bytes, Any])])


def grow(manifest: Dict[str, Any]) -> List[Node]:
    """The entries of a manifest as trees, one for each snapshot path."""
    nodes = {}  # type: Dict[bytes, Node]
    tops = []
    for entry in manifest["entries"]:
        path = to_bytes(entry["path"])
        node = nodes[path] = Node(path, entry, {})
        parent = nodes.get(os.path.dirname(path))
        if parent is None:
            tops.append(node)
        else:
            parent.children[os.path.basename(path)] = node
    return tops


def differences(manifest: Dict[str, Any]) -> List[Difference]:
    """What putting the snapshot back would change, parents first. Changes nothing."""
    found = []  # type: List[Difference]
    for node in grow(manifest):
        if node.entry["type"] == "absent":
            found.extend(Difference("removed", path, None) for path in _unwanted(node))
            continue
        if not os.path.lexists(os.path.dirname(node.path)):
            found.extend(_created(node))
            continue
        fd = parent_of(node.path)
        try:
            found.extend(_differences(node, os.path.basename(node.path), fd))
        finally:
            os.close(fd)
    return found


def _unwanted(node: Node) -> List[bytes]:
    """What to remove so that an absent path is absent, and with it the directories that were not there either."""
    above = [to_bytes(text) for text in node.entry.get("above", [])]  # deepest first
    for place in reversed(above):
        if os.path.lexists(place) and (os.path.islink(place) or not os.path.isdir(place)):
            return [place]  # it was not there, and what it leads to is not ours
    path = node.path
    gone = [path] if os.path.lexists(path) else []
    for place in above:
        if os.path.lexists(place):
            if set(os.listdir(place)) - {os.path.basename(path)}:
                break  # somebody else lives there
            gone.append(place)
        path = place
    return gone


def _differences(node: Node, name: bytes, fd: int) -> Iterator[Difference]:
    kind = _judge(node.entry, name, fd)
    if kind:
        yield Difference(kind, node.path, node.entry.get("sha256"))
    if node.entry["type"] != "dir":
        return
    if kind in ("created", "replaced"):
        for child in node.children.values():
            yield from _created(child)
        return
    try:
        inner = os.open(name, DIRECTORY, dir_fd=fd)
        try:
            for child in listing(inner):
                if child not in node.children:
                    yield Difference("removed", os.path.join(node.path, child), None)
            for child, below in node.children.items():
                yield from _differences(below, child, inner)
        finally:
            os.close(inner)
    except PermissionError:
        if kind is None:
            raise
        # without root: its mode is to be corrected, and what is inside shows once that is done


def _created(node: Node) -> Iterator[Difference]:
    if node.entry["type"] in ("file", "dir", "link"):
        yield Difference("created", node.path, node.entry.get("sha256"))
    for child in node.children.values():
        yield from _created(child)


def _judge(entry: Entry, name: bytes, fd: int) -> Optional[str]:
    """How the thing at C(name) differs from its entry: one of KINDS, or None."""
    now = describe(name, fd)
    kind = entry["type"]
    if kind == "special":  # sockets and the like belong to running processes
        return None
    if now is None:
        return "created"
    if now["type"] != kind or now.get("target") != entry.get("target"):
        return "replaced"
    if kind == "file" and (now["size"] != entry["size"] or digest(name, fd) != entry["sha256"]):
        return "replaced"
    if now["mtime_ns"] != entry["mtime_ns"] or (kind != "link" and now["mode"] != entry["mode"]):
        return "metadata"
    return "metadata" if _owner(entry, now["uid"], now["gid"]) else None


def _owner(entry: Entry, uid: int, gid: int) -> Optional[Any]:
    """The (uid, gid) to set, or None. Without root only what the system would let us set counts as a difference."""
    want_uid, want_gid = entry["uid"], entry["gid"]
    if os.geteuid() != 0:
        want_uid = uid
        if want_gid not in os.getgroups() and want_gid != os.getegid():
            want_gid = gid
    return (want_uid, want_gid) if (want_uid, want_gid) != (uid, gid) else None


def damaged(state_dir: str, wanted: List[Difference]) -> List[str]:
    """The paths whose object is lost or not what its name says. Read before anything is touched."""
    objects = os.path.join(state_dir, "objects")
    needed = [item for item in wanted if item.sha256 and item.kind in ("created", "replaced")]
    bad = {sha for sha in {str(item.sha256) for item in needed} if not intact(object_path(objects, sha), sha)}
    return ["{0} (object {1})".format(show(item.path), item.sha256) for item in needed if item.sha256 in bad]


def put_back(state_dir: str, manifest: Dict[str, Any]) -> List[Difference]:
    """Make the tree what the manifest says, prove it by comparing again, and return what differed before."""
    source = Source(os.path.join(state_dir, "objects"), temporary_name(manifest))
    first = None  # type: Optional[List[Difference]]
    left = []  # type: List[Difference]
    for _pass in range(PASSES):
        _tidy(manifest)
        left = differences(manifest)
        first = left if first is None else first
        if not left:
            return first
        bad = damaged(state_dir, left)
        if bad:
            raise RolloutError(
                "The snapshot {0} is damaged, nothing was put back. Lost content of: {1}. Bring these files back from a "
                "backup or another host, then run restore with force.".format(manifest["id"], ", ".join(bad)),
                "damaged",
            )
        wanted = {item.path: item.kind for item in left}
        for node in grow(manifest):
            _put_top(source, node, wanted)
    left = differences(manifest)
    if left:
        raise RolloutError(
            "Put back {0} times, but these still differ from the snapshot {1}: {2}. Stop what writes there, then run restore with force.".format(
                PASSES, manifest["id"], ", ".join("{0} ({1})".format(show(item.path), item.kind) for item in left[:10])
            ),
            "unstable",
        )
    return first or []


def temporary_name(manifest: Dict[str, Any]) -> bytes:
    """The name of a file that is being put back: after the snapshot, so nothing in the snapshot can have it."""
    return b".onprem-rollout." + to_bytes(manifest["id"])


def _tidy(manifest: Dict[str, Any]) -> None:
    """A restore that was killed may have left its temporary name beside a snapshot path, where nothing else removes it."""
    for parent in {os.path.dirname(to_bytes(text)) for text in manifest["paths"]}:
        if remove_quietly(os.path.join(parent, temporary_name(manifest))):
            fsync_dir(parent)


def _put_top(source: Source, node: Node, wanted: Dict[bytes, str]) -> None:
    parent = os.path.dirname(node.path)
    if node.entry["type"] == "absent":
        for path in _unwanted(node):
            _remove_at(path)
        return
    if not os.path.isdir(parent):
        os.makedirs(parent)
    fd = parent_of(node.path)
    try:
        name = os.path.basename(node.path)
        _clear(node, name, fd)
        _fill(source, node, name, fd, wanted)
        os.fsync(fd)
    finally:
        os.close(fd)


def _remove_at(path: bytes) -> None:
    fd = parent_of(path)
    try:
        remove(os.path.basename(path), fd)
        os.fsync(fd)
    finally:
        os.close(fd)


def _clear(node: Node, name: bytes, fd: int) -> None:
    """Remove what is in the way: extras, and things of another type."""
    now = describe(name, fd)
    if now is None or node.entry["type"] == "special":
        return
    if now["type"] != node.entry["type"]:
        remove(name, fd)
        return
    if now["type"] != "dir":
        return
    inner = enter(name, fd)
    try:
        for child in listing(inner):
            if child in node.children:
                _clear(node.children[child], child, inner)
            else:
                remove(child, inner)
    finally:
        os.close(inner)


def _fill(source: Source, node: Node, name: bytes, fd: int, wanted: Dict[bytes, str]) -> None:
    """Create, replace or correct one thing and all below it."""
    entry = node.entry
    if entry["type"] == "dir":
        if describe(name, fd) is None:
            writable(fd)
            os.mkdir(name, 0o700, dir_fd=fd)
        inner = enter(name, fd)
        try:
            for child, below in node.children.items():
                _fill(source, below, child, inner, wanted)
            _dress(entry, inner)
        finally:
            os.close(inner)
        return
    kind = wanted.get(node.path)
    if kind in ("created", "replaced"):
        writable(fd)
        remove(source.temporary, fd)
        if entry["type"] == "link":
            os.symlink(to_bytes(entry["target"]), source.temporary, dir_fd=fd)
            _dress_link(entry, source.temporary, fd)
        else:
            _copy(source, entry, fd)
        os.rename(source.temporary, name, src_dir_fd=fd, dst_dir_fd=fd)
    elif kind == "metadata" and entry["type"] == "link":
        _dress_link(entry, name, fd)
    elif kind == "metadata":
        _dress_file(entry, name, fd)


def _copy(source: Source, entry: Entry, fd: int) -> None:
    """Copy an object to the temporary name, verified: a wrong one is removed again and never gets the real name."""
    place = object_path(source.objects, entry["sha256"])
    stored = os.open(place, os.O_RDONLY | os.O_NOFOLLOW)
    try:
        target = os.open(source.temporary, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW, 0o600, dir_fd=fd)
        try:
            if pump(stored, target) != entry["sha256"]:
                os.unlink(source.temporary, dir_fd=fd)
                raise RolloutError(
                    "The object {0} is damaged; {1} was not put back. Bring the file back from a backup or another host, then run restore with force.".format(
                        show(place), show(to_bytes(entry["path"]))
                    ),
                    "damaged",
                )
            _dress(entry, target)
        finally:
            os.close(target)
    finally:
        os.close(stored)


def _dress(entry: Entry, fd: int) -> None:
    """Owner, mode and time of an open file or directory, in the order in which none undoes another; then to disk."""
    now = os.fstat(fd)
    owner = _owner(entry, now.st_uid, now.st_gid)
    if owner:
        os.chown(fd, *owner)
    if owner or stat.S_IMODE(now.st_mode) != entry["mode"]:
        os.fchmod(fd, entry["mode"])
    if os.fstat(fd).st_mtime_ns != entry["mtime_ns"]:
        os.utime(fd, ns=(now.st_atime_ns, entry["mtime_ns"]))
    os.fsync(fd)


def _dress_file(entry: Entry, name: bytes, fd: int) -> None:
    try:
        target = os.open(name, READ, dir_fd=fd)
    except PermissionError:  # only without root: our own file, but not readable by us
        os.chmod(name, 0o600, dir_fd=fd)
        target = os.open(name, READ, dir_fd=fd)
    try:
        _dress(entry, target)
    finally:
        os.close(target)


def _dress_link(entry: Entry, name: bytes, fd: int) -> None:
    now = os.stat(name, dir_fd=fd, follow_symlinks=False)
    owner = _owner(entry, now.st_uid, now.st_gid)
    if owner:
        os.chown(name, owner[0], owner[1], dir_fd=fd, follow_symlinks=False)
    os.utime(name, ns=(now.st_atime_ns, entry["mtime_ns"]), dir_fd=fd, follow_symlinks=False)
