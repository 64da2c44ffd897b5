# Copyright: onprem.rollout contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Snapshots: what the paths of a host were, good enough to put back byte for byte.

snapshots/<id>/entries         one line for each path, see _manifest.py
snapshots/<id>/snapshot.json   what it is of; written last: without it the snapshot was never completed
snapshots/<id>/damaged.json    what verify() found lost; such a snapshot is never last known good
snapshots/<id>/provider.json   what lies elsewhere, see _providers.py; written before it is made

The contents of files are in _objects.py.
"""

import contextlib
import os
from typing import Any, Callable, Dict, Iterable, Iterator, List, NamedTuple, Optional

from . import _manifest, _objects
from ._attributes import refuse_strangers
from ._capture import DEFAULT, Capture, Rules
from ._errors import Refused, RolloutError
from ._store import free_bytes, fsync_dir, read_json, remove_quietly, show, to_bytes, to_text, write_json
from ._tree import DIRECTORY, remove

SCHEMA = 2
ENTRY_BYTES = 320
FILES = "files"
NEEDED = ("created", "paths", "exclude", "cross_mounts", "immutable", "mounted", "owners", "files", "bytes", "stored", "entries_sha256")

Size = NamedTuple("Size", [("files", int), ("bytes", int), ("needed", int)])


class Snapshot:
    """A finished snapshot; its entries stay on disk."""

    def __init__(self, place: str, facts: Dict[str, Any]) -> None:
        self.place = place
        self.facts = facts
        self.id = str(facts["id"])
        self.rules = Rules(tuple(facts["exclude"]), facts["cross_mounts"], facts["immutable"])

    @property
    def provider(self) -> str:
        """Who has the contents: files, btrfs or command."""
        return str(self.facts.get("provider", FILES))

    @property
    def entries_file(self) -> str:
        return os.path.join(self.place, "entries")

    @property
    def paths(self) -> List[bytes]:
        return [to_bytes(text) for text in self.facts["paths"]]

    def entries(self) -> Iterator[Any]:
        """Every (path, entry)."""
        return _manifest.entries(self.entries_file)

    def contents(self) -> Iterator[Any]:
        """The (path, SHA-256) of every file that the state directory has."""
        return ((path, entry["sha256"]) for path, entry in self.entries() if "sha256" in entry)

    def check(self) -> None:
        """RolloutError(snapshot) when the entries are not what was written."""
        try:
            intact = _manifest.digest_of(self.entries_file) == self.facts["entries_sha256"]
        except OSError as error:
            raise _unusable(self.entries_file, "cannot be read: {0}".format(error.strerror)) from error
        if not intact:
            raise _unusable(self.entries_file, "is damaged: its SHA-256 is not {0}".format(self.facts["entries_sha256"]))

    def refuse_strangers(self, owners: List[Any]) -> None:
        refuse_strangers(self.facts["owners"], owners)

    @property
    def damage(self) -> List[str]:
        """What an earlier verify() found."""
        try:
            return list((read_json(os.path.join(self.place, "damaged.json")) or {}).get("problems", []))
        except (OSError, ValueError) as error:
            return ["damaged.json: {0}".format(error)]


def _unusable(path: str, why: str) -> RolloutError:
    return RolloutError("{0} {1}. Nothing was put back.".format(show(path), why), "snapshot")


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
                problem = _unreachable(place)
                real.add(place)
        if problem:
            problems.append("{0}: {1}".format(show(path), problem))
    if problems:
        raise Refused("Not good as a path to snapshot: {0}. Nothing was touched.".format("; ".join(problems)), "bad_path")
    return sorted((path for path in real if not any(path != other and within(path, other) for other in real)), key=_manifest.order)


def _unreachable(place: bytes) -> Optional[str]:
    """Why nothing could be put at a place: it is below a file, or in a loop of links, or too long."""
    try:
        os.lstat(place)
    except FileNotFoundError:
        pass
    except OSError as error:
        return "cannot be reached: {0}".format(error.strerror)
    return None


def within(path: bytes, top: bytes) -> bool:
    """Whether C(path) is C(top) or below it."""
    return path == top or path.startswith(top.rstrip(b"/") + b"/")


Walk = Callable[..., Capture]


def estimate(state_dir: str, paths: Iterable[bytes], rules: Rules = DEFAULT, walk: Walk = Capture, provider: str = FILES) -> Size:
    """files and bytes below the paths, and the disk bytes that a snapshot needs now. Writes nothing."""
    with _objects.Objects(state_dir) as objects:
        capture = walk(objects, None, _base(state_dir, objects, rules, provider), rules, None)
        return _size(capture.run(paths))


def preflight(state_dir: str, paths: Iterable[bytes], rules: Rules, min_free: int, walk: Walk = Capture, provider: str = FILES) -> Size:
    """The estimate; Refused(no_space) as take() would."""
    size, free = estimate(state_dir, paths, rules, walk, provider), free_bytes(state_dir)
    if size.needed + min_free > free:
        raise no_space(state_dir, size, min_free, free)
    return size


def _size(capture: Capture) -> Size:
    return Size(capture.files, capture.bytes, capture.needed + capture.entries * ENTRY_BYTES)


def take(
    state_dir: str,
    snapshot: str,
    paths: List[bytes],
    created: str,
    rules: Rules = DEFAULT,
    min_free: int = 0,
    walk: Walk = Capture,
    more: Optional[Dict[str, Any]] = None,
) -> Snapshot:
    """Keep every file below the paths that an earlier snapshot has not, then write the snapshot and return it.

    Refused(no_space) when less than C(min_free) bytes would stay free; it names what the whole snapshot needs.
    C(walk) and C(more) facts are of another provider.
    """
    more = more or {}
    place = os.path.join(state_dir, "snapshots", snapshot)
    for directory in (os.path.dirname(place), place):
        os.makedirs(directory, 0o700, exist_ok=True)
    free = free_bytes(state_dir)
    with _objects.Objects(state_dir) as objects:
        objects.prepare()
        writer = _manifest.Writer(os.path.join(place, "entries"))
        try:
            capture = walk(objects, writer, _base(state_dir, objects, rules, more.get("provider", FILES)), rules, free - min_free)
            size = _size(capture.run(paths))
            if capture.full or size.needed + min_free > free:
                raise no_space(state_dir, size, min_free, free)
            objects.finish()
            sha = writer.finish()
        finally:
            writer.abandon()
        facts = {
            "schema": SCHEMA,
            "id": snapshot,
            "created": created,
            "paths": [to_text(path) for path in paths],
            "exclude": list(rules.exclude),
            "cross_mounts": rules.cross_mounts,
            "immutable": rules.immutable,
            "mounted": [to_text(path) for path in capture.mounted],
            "owners": capture.owners(),
            "files": capture.files,
            "bytes": capture.bytes,
            "read": capture.read,
            "stored": objects.written,
            "entries": capture.entries,
            "entries_sha256": sha,
        }
        facts.update(more)
    for directory in (place, os.path.dirname(place), state_dir):
        fsync_dir(directory)
    write_json(os.path.join(place, "snapshot.json"), facts)
    return Snapshot(place, facts)


def no_space(state_dir: str, size: Size, min_free: int, free: int) -> Refused:
    """The refusal to begin what would fill the disk."""
    return Refused(
        "Too little disk at {0}: the snapshot needs {1} bytes and {2} are to stay free (min_free), but only {3} are free. Nothing "
        "was touched. Free {4} bytes, or set state_dir to a larger file system.".format(
            show(state_dir), size.needed, min_free, free, size.needed + min_free - free
        ),
        "no_space",
        needed=size.needed,
        free=free,
    )


def load(state_dir: str, snapshot: str) -> Snapshot:
    """A finished snapshot, or RolloutError naming what is wrong with it."""
    place = os.path.join(state_dir, "snapshots", snapshot)
    path = os.path.join(place, "snapshot.json")
    try:
        facts = read_json(path)
    except (OSError, ValueError) as error:
        raise _unusable(path, "cannot be read: {0}".format(error)) from error
    if facts is None:
        raise _unusable(path, "does not exist: there is no snapshot {0}, or it was never completed".format(snapshot))
    schema = facts.get("schema") if isinstance(facts, dict) else None
    if isinstance(schema, int) and schema > SCHEMA:
        raise _unusable(path, "has schema {0}; this version of onprem.rollout knows schemas up to {1}".format(schema, SCHEMA))
    if schema != SCHEMA or facts.get("id") != snapshot:
        raise _unusable(path, "is not the description of snapshot {0} in schema {1}".format(snapshot, SCHEMA))
    missing = [name for name in NEEDED if name not in facts]
    if missing:
        raise _unusable(path, "has no {0}".format(", ".join(missing)))
    return Snapshot(place, facts)


def damaged_objects(state_dir: str, snapshot: Snapshot) -> Iterator[str]:
    """Every content that is not what its SHA-256 says, as a sentence."""
    with _objects.Objects(state_dir) as objects:
        for path, sha in snapshot.contents():
            if not objects.intact(sha):
                yield "{0} (object {1}) is damaged or lost".format(show(path), sha)


def verify(state_dir: str, snapshot: str, note: bool = True, damage: Callable[[str, Snapshot], Iterable[str]] = damaged_objects) -> List[str]:
    """Read everything that a restore would need; what is lost, as sentences, and noted for later."""
    problems: List[str] = []
    found = load(state_dir, snapshot)
    try:
        found.check()
        problems += damage(state_dir, found)
        from . import _packages  # here, because only this needs it

        problems += ["the file of package {0} is damaged or lost".format(key) for key in _packages.damaged(state_dir, snapshot)]
    except RolloutError as error:
        problems.append(str(error))
    if note:
        _note(found, problems)
    return problems


def _note(snapshot: Snapshot, problems: List[str]) -> None:
    place = os.path.join(snapshot.place, "damaged.json")
    if problems:
        write_json(place, {"problems": problems})
    elif remove_quietly(place):
        fsync_dir(snapshot.place)


def sound(state_dir: str, snapshot: str) -> bool:
    """Whether a snapshot is there and nothing is known to be wrong with it. Reads no contents: verify() does."""
    try:
        found = load(state_dir, snapshot)
        found.check()
    except RolloutError:
        return False
    return not found.damage


def names(state_dir: str) -> List[str]:
    """The ids of all snapshots, also of unfinished ones."""
    try:
        return sorted(os.listdir(os.path.join(state_dir, "snapshots")))
    except FileNotFoundError:
        return []


def finished(state_dir: str) -> List[Snapshot]:
    """All snapshots that can be read, oldest first."""
    found = []
    for name in names(state_dir):
        with contextlib.suppress(RolloutError):
            found.append(load(state_dir, name))
    return sorted(found, key=lambda item: (item.facts["created"], item.id))


def _base(state_dir: str, objects: _objects.Objects, rules: Rules, provider: str) -> Optional[str]:
    """The entries of the newest snapshot that can be trusted: what has not changed since then is not read again."""
    if objects.broken:
        return None
    for found in reversed(finished(state_dir)):
        if found.provider == provider and found.rules.immutable == rules.immutable and sound(state_dir, found.id):
            return found.entries_file
    return None


def summaries(state_dir: str) -> List[Dict[str, Any]]:
    """Each finished snapshot's id, files, bytes, stored, created, provider and damaged, oldest first."""
    keys = ("id", "files", "bytes", "stored", "created")
    return [dict({key: found.facts[key] for key in keys}, provider=found.provider, damaged=found.damage) for found in finished(state_dir)]


def drop(state_dir: str, snapshot: str) -> None:
    """Forget a snapshot but not its contents, its description first: without it it is not a snapshot any more."""
    place = os.path.join(state_dir, "snapshots", snapshot)
    remove_quietly(os.path.join(place, "snapshot.json"))
    top = os.path.dirname(place)
    if os.path.isdir(top):
        fd = os.open(top, DIRECTORY)
        try:
            remove(to_bytes(snapshot), fd)
            os.fsync(fd)
        finally:
            os.close(fd)


def sweep(state_dir: str) -> None:
    """Remove the contents that no snapshot names. If any snapshot cannot be read, keep them all."""
    left = []
    for name in names(state_dir):
        place = os.path.join(state_dir, "snapshots", name)
        if os.path.exists(os.path.join(place, "provider.json")) and not os.path.exists(os.path.join(place, "snapshot.json")):
            continue  # waits to be dropped where it lies, and has no contents here
        try:
            found = load(state_dir, name)
            found.check()
        except RolloutError:
            return
        left.append(found)
    with _objects.Objects(state_dir) as objects:
        objects.sweep(sha for found in left for _path, sha in found.contents())
