# Copyright: onprem.rollout contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Snapshots: what the paths of a host were, good enough to put back byte for byte.

snapshots/<id>/manifest.json   written last: a snapshot without it was never completed
objects/<aa>/<sha256>          file contents, shared by all snapshots
"""

import contextlib
import os
import stat
from typing import Any, Dict, Iterable, Iterator, List, Optional, Set, Tuple

from ._errors import Refused, RolloutError
from ._store import fsync_dir, local, read_json, remove_quietly, show, to_bytes, to_text, write_json
from ._tree import DIRECTORY, READ, Entry, check_depth, describe, digest, listing, parent_of, pump, remove

SCHEMA = 1
ATTEMPTS = 3
BLOCK = 4096
Known = Set[Tuple[str, int, int]]


def resolve(paths: List[str], state_dir: str) -> List[bytes]:
    """The real places of the wanted paths, without those inside another one. Refused(bad_path) names every bad one."""
    problems = []
    real = set()
    state = os.path.realpath(to_bytes(state_dir))
    for text in paths:
        path = to_bytes(text)
        problem = None
        if not path.startswith(b"/"):
            problem = "is relative; write it from / on"
        elif b".." in path.split(b"/"):
            problem = "contains ..; write where it really leads"
        elif b"\0" in path:
            problem = "contains a NUL byte"
        else:
            # a link at the end is the thing to keep, links above it only lead there
            clean = os.path.normpath(b"/" + path.lstrip(b"/"))
            place = os.path.join(os.path.realpath(os.path.dirname(clean)), os.path.basename(clean))
            if clean == b"/":
                problem = "is the whole system; name the directories the release changes"
            elif within(state, place) or within(place, state):
                problem = "overlaps the state directory {0}".format(show(state))
            else:
                real.add(place)
        if problem:
            problems.append("{0}: {1}".format(show(path), problem))
    if problems:
        raise Refused("Not good as a path to snapshot: {0}. Nothing was touched.".format("; ".join(problems)), "bad_path")
    return sorted(path for path in real if not any(path != other and within(path, other) for other in real))


def within(path: bytes, top: bytes) -> bool:
    """Whether C(path) is C(top) or below it."""
    return path == top or path.startswith(top.rstrip(b"/") + b"/")


def walk(paths: Iterable[bytes]) -> Iterator[Tuple[bytes, Entry, bytes, int]]:
    """Every (path, entry, name, open directory) below the paths, parents first. Changes nothing."""
    for path in paths:
        missing = _missing_above(path)
        if missing is not None:
            yield path, dict({"type": "absent"}, **missing), b"", -1
            continue
        fd = parent_of(path)
        try:
            if describe(os.path.basename(path), fd) is None:
                yield path, {"type": "absent"}, b"", -1
            else:
                yield from _below(path, os.path.basename(path), fd, 0)
        finally:
            os.close(fd)


def _missing_above(path: bytes) -> Optional[Dict[str, List[str]]]:
    above = []
    parent = os.path.dirname(path)
    while not os.path.lexists(parent):
        above.append(to_text(parent))
        parent = os.path.dirname(parent)
    return {"above": above} if above else None


def _below(path: bytes, name: bytes, fd: int, depth: int) -> Iterator[Tuple[bytes, Entry, bytes, int]]:
    check_depth(path, depth)
    entry = describe(name, fd)
    if entry is None:  # a running service may remove its temporary files while we look
        return
    yield path, entry, name, fd
    if entry["type"] != "dir":
        return
    try:
        inner = os.open(name, DIRECTORY, dir_fd=fd)
    except FileNotFoundError:
        return
    except PermissionError:
        raise _unreadable(path) from None
    try:
        for child in listing(inner):
            yield from _below(os.path.join(path, child), child, inner, depth + 1)
    finally:
        os.close(inner)


def _unreadable(path: bytes) -> Refused:
    return Refused(
        "{0} cannot be read by uid {1}, so it could not be restored. Use become, change its mode, or leave it out of paths. Nothing was changed.".format(
            show(path), os.geteuid()
        ),
        "unreadable",
    )


def estimate(paths: Iterable[bytes], known: Any = frozenset()) -> Dict[str, int]:
    """files and bytes below the paths, and the disk bytes a snapshot needs when the C(known) files are kept already."""
    files = size = needed = entries = 0
    for path, entry, _name, _fd in walk(paths):
        entries += 1
        if entry["type"] == "file":
            files += 1
            size += entry["size"]
            if (to_text(path), entry["size"], entry["mtime_ns"]) not in known:
                needed += -(-entry["size"] // BLOCK) * BLOCK
    return {"files": files, "bytes": size, "needed": needed + entries * 512}


def known(manifest: Optional[Dict[str, Any]]) -> Known:
    """The files of a snapshot as estimate() wants them."""
    entries = manifest["entries"] if manifest else []
    return {(entry["path"], entry["size"], entry["mtime_ns"]) for entry in entries if entry["type"] == "file"}


def take(state_dir: str, snapshot: str, paths: List[bytes], created: str) -> Dict[str, Any]:
    """Copy every file below the paths into the object store, then write the manifest and return it."""
    objects = os.path.join(state_dir, "objects")
    place = os.path.join(state_dir, "snapshots", snapshot)
    for directory in (objects, os.path.dirname(place), place):
        os.makedirs(directory, 0o700, exist_ok=True)
    entries = []
    for path, entry, name, fd in walk(paths):
        if entry["type"] == "file":
            kept = _keep(objects, path, name, fd)
            if kept is None:
                continue
            entry = kept
        entries.append(dict(entry, path=to_text(path)))
    fsync_dir(objects)
    manifest = {
        "schema": SCHEMA,
        "id": snapshot,
        "created": created,
        "paths": [to_text(path) for path in paths],
        "files": sum(1 for entry in entries if entry["type"] == "file"),
        "bytes": sum(entry.get("size", 0) for entry in entries),
        "entries": entries,
    }
    fsync_dir(state_dir)
    fsync_dir(os.path.dirname(place))
    write_json(os.path.join(place, "manifest.json"), manifest)
    return manifest


def _keep(objects: str, path: bytes, name: bytes, fd: int) -> Optional[Entry]:
    """Store one file's content; its entry is what it was while it stood still. None when it is gone."""
    for _attempt in range(ATTEMPTS):
        try:
            source = os.open(name, READ, dir_fd=fd)
        except FileNotFoundError:
            return None
        except PermissionError:
            raise _unreadable(path) from None
        try:
            before = os.fstat(source)
            if not stat.S_ISREG(before.st_mode):
                continue
            sha = _store_object(objects, source)
            after = os.fstat(source)
        finally:
            os.close(source)
        if sha is not None and (before.st_size, before.st_mtime_ns, before.st_ctime_ns) == (after.st_size, after.st_mtime_ns, after.st_ctime_ns):
            return {
                "type": "file",
                "mode": stat.S_IMODE(after.st_mode),
                "uid": after.st_uid,
                "gid": after.st_gid,
                "mtime_ns": after.st_mtime_ns,
                "size": after.st_size,
                "sha256": sha,
            }
    raise Refused(
        "{0} changed while it was copied, {1} times in a row. Stop what writes to it, or leave it out of paths. Nothing was changed.".format(
            show(path), ATTEMPTS
        ),
        "busy_file",
    )


def _store_object(objects: str, source: int) -> Optional[str]:
    """Put the content of a descriptor into the store; None when it changed between hashing and copying."""
    sha = pump(source, None)
    place = object_path(objects, sha)
    if intact(place, sha):
        return sha
    os.makedirs(os.path.dirname(place), 0o700, exist_ok=True)
    os.lseek(source, 0, os.SEEK_SET)
    temp = os.path.join(objects, "incoming")
    target = os.open(temp, os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_NOFOLLOW, 0o600)
    try:
        if pump(source, target) != sha:
            return None
        os.fsync(target)
    finally:
        os.close(target)
    os.replace(temp, place)
    fsync_dir(os.path.dirname(place))
    return sha


def object_path(objects: str, sha: str) -> str:
    """Where an object is."""
    return os.path.join(objects, sha[:2], sha)


def intact(place: str, sha: str) -> bool:
    """Whether an object is there and still what its name says: disks forget, and crashes leave torn files."""
    try:
        fd = os.open(os.path.dirname(place), DIRECTORY)
    except FileNotFoundError:
        return False
    try:
        return digest(os.path.basename(place).encode("ascii"), fd) == sha
    finally:
        os.close(fd)


def load(state_dir: str, snapshot: str) -> Dict[str, Any]:
    """The manifest of a snapshot, or RolloutError(snapshot) naming the file."""
    path = os.path.join(state_dir, "snapshots", snapshot, "manifest.json")
    try:
        manifest = read_json(path)
    except (OSError, ValueError) as error:
        raise RolloutError("The manifest {0} cannot be read: {1}. Nothing was put back.".format(show(path), error), "snapshot") from error
    if not isinstance(manifest, dict) or manifest.get("schema") != SCHEMA or not isinstance(manifest.get("entries"), list):
        raise RolloutError("The manifest {0} is missing or has another schema than {1}. Nothing was put back.".format(show(path), SCHEMA), "snapshot")
    return manifest


def names(state_dir: str) -> List[str]:
    """The ids of all snapshots, also of unfinished ones."""
    try:
        return sorted(os.listdir(os.path.join(state_dir, "snapshots")))
    except FileNotFoundError:
        return []


def summaries(state_dir: str) -> List[Dict[str, Any]]:
    """Each finished snapshot's id, files, bytes and created, oldest first."""
    found = []
    for name in names(state_dir):
        with contextlib.suppress(RolloutError):
            manifest = load(state_dir, name)
            found.append({key: manifest[key] for key in ("id", "files", "bytes", "created")})
    return sorted(found, key=lambda item: (item["created"], item["id"]))


def drop(state_dir: str, snapshot: str) -> None:
    """Forget a snapshot but not its objects, manifest first: without one it is not a snapshot any more."""
    place = os.path.join(state_dir, "snapshots", snapshot)
    remove_quietly(os.path.join(place, "manifest.json"))
    top = os.path.dirname(place)
    if os.path.isdir(top):
        fd = os.open(top, DIRECTORY)
        try:
            remove(to_bytes(snapshot), fd)
            os.fsync(fd)
        finally:
            os.close(fd)


def discard(state_dir: str, snapshot: str) -> None:
    """Drop a snapshot and the objects that only it had."""
    drop(state_dir, snapshot)
    _sweep(state_dir)


def prune(state_dir: str, keep: int, needed: Iterable[Optional[str]]) -> List[str]:
    """Drop all but the newest C(keep) snapshots and the C(needed) ones; returns the ids dropped."""
    newest = [item["id"] for item in summaries(state_dir)][-keep:] if keep > 0 else []
    stale = [name for name in names(state_dir) if name not in newest and name not in set(needed)]
    for name in stale:
        drop(state_dir, name)
    _sweep(state_dir)
    return stale


def _sweep(state_dir: str) -> None:
    """Remove the objects that no snapshot names. If any manifest cannot be read, keep them all."""
    used = set()  # type: Set[Optional[str]]
    for name in names(state_dir):
        try:
            used.update(entry.get("sha256") for entry in load(state_dir, name)["entries"])
        except RolloutError:
            return
    objects = local(os.path.join(state_dir, "objects"))
    for top, _dirs, files in os.walk(objects):
        for name in files:
            if name not in used:
                remove_quietly(os.path.join(top, name))
