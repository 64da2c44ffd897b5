# Copyright: onprem.rollout contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""A drill: the host is looked at, upgraded, restored and looked at again, and its record is as before but for the result.

What a restore must bring back is judged here with eyes of its own: nothing of _snapshot, _tree or _putback is used to look.
"""

import fnmatch
import hashlib
import os
import stat
import time
from typing import Any, Callable, Dict, List, Optional, Sequence

from . import _packages, _providers, _services, _snapshot
from ._capture import HIDDEN
from ._errors import Outcome, Refused, RolloutError
from ._process import run
from ._record import Record, iso, label, load, open_transaction, rehearsed
from ._store import locked, prepare, read_json, remove_quietly, show, to_bytes, to_text, write_json

SHOWN = 50
CHUNK = 1024 * 1024
FACTS = ("type", "mode", "owner", "group", "mtime", "size", "links", "content", "target", "device", "xattrs")
Seen = Dict[str, Dict[str, Any]]


def look(paths: List[str], exclude: Sequence[str] = (), cross_mounts: bool = False) -> Seen:
    """Everything at and below the paths, by path, with each of FACTS that its kind has; but for what begin leaves out too."""
    found = {}  # type: Seen
    tops = [to_bytes(path) for path in paths]
    queue = list(tops)
    while queue:
        path = queue.pop()
        if path not in tops and (_left_out(to_text(path), exclude) or (os.path.ismount(path) and not cross_mounts)):
            continue
        try:
            status = os.lstat(path)
            found[to_text(path)] = _facts(path, status)
            if stat.S_ISDIR(status.st_mode):
                queue.extend(os.path.join(path, name) for name in os.listdir(path) if name != HIDDEN)
        except (FileNotFoundError, NotADirectoryError):  # a service may remove its own files while they are looked at
            continue
    return found


def _left_out(path: str, patterns: Sequence[str]) -> bool:
    return any(fnmatch.fnmatchcase(path if "/" in pattern else path.rpartition("/")[2], pattern) for pattern in patterns)


def _facts(path: bytes, status: os.stat_result) -> Dict[str, Any]:
    facts = {
        "type": stat.S_IFMT(status.st_mode),
        "mode": stat.S_IMODE(status.st_mode),
        "owner": status.st_uid,
        "group": status.st_gid,
        "mtime": status.st_mtime_ns,
        "xattrs": _xattrs(path),
    }  # type: Dict[str, Any]
    if not stat.S_ISDIR(status.st_mode):
        facts["links"] = status.st_nlink
    if stat.S_ISREG(status.st_mode):
        facts.update(size=status.st_size, content=_sha256(path))
    elif stat.S_ISLNK(status.st_mode):
        facts["target"] = to_text(os.readlink(path))
    elif stat.S_ISCHR(status.st_mode) or stat.S_ISBLK(status.st_mode):
        facts["device"] = status.st_rdev
    return facts


def _xattrs(path: bytes) -> Dict[str, str]:
    try:
        return {name: os.getxattr(path, name, follow_symlinks=False).hex() for name in sorted(os.listxattr(path, follow_symlinks=False))}
    except OSError:  # a file system without them
        return {}


def _sha256(path: bytes) -> str:
    digest = hashlib.sha256()
    with open(path, "rb") as source:
        for chunk in iter(lambda: source.read(CHUNK), b""):
            digest.update(chunk)
    return digest.hexdigest()


def compare(before: Seen, after: Seen) -> List[str]:
    """Each path that is not what it was, and in what, in words."""
    differences = []
    for path in sorted(set(before) | set(after)):
        if path not in after:
            differences.append("{0}: is gone".format(show(path)))
        elif path not in before:
            differences.append("{0}: was not there".format(show(path)))
        elif before[path] != after[path]:
            other = [fact for fact in FACTS if before[path].get(fact) != after[path].get(fact)]
            differences.append("{0}: {1}".format(show(path), ", ".join(other)))
    return differences


def begin(options: Dict[str, Any], clock: Callable[[], float] = time.time, command: _services.Command = run) -> Outcome:
    """Keep what the host is before the drill. C(options) are those of the module drill."""
    state_dir, release = options["state_dir"], options["release"]
    if options["irreversible"]:
        raise Refused(
            "{0} cannot be drilled here, because its change cannot be undone: {1}. Nothing was touched. Drill it on a host that may be lost.".format(
                label(release), options["irreversible"]
            ),
            "irreversible",
        )
    _services.require(options["services"])
    _packages.require(options["packages"], _manager(options, command), options["package_manager"])
    _snapshot.resolve(options["paths"], state_dir)  # refuses bad ones
    prepare(state_dir)
    with locked(state_dir):
        record = load(state_dir)
        if open_transaction(record):
            raise Refused("This host is in a transaction ({0}). Nothing was touched. Settle it first.".format(record["transaction"]["phase"]), "held")
        if (record["installed"] or {}).get("digest") == release["digest"]:
            raise Refused("This host runs {0} already, so there is nothing to drill. Choose another host.".format(label(release)), "installed")
        kept = {
            "release": release,
            "began": clock(),
            "record": record,
            "services": _services.look(options["services"], command),
            "packages": _installed(options, command),
            "seen": look(options["paths"], options["exclude"], options["cross_mounts"]),
        }
        write_json(_path(state_dir), kept)
    return False, {"outcome": "begun", "paths": len(kept["seen"])}, {}


def end(options: Dict[str, Any], clock: Callable[[], float] = time.time, command: _services.Command = run) -> Outcome:
    """Compare, put the record back, and write down how the drill went. Never fails for what it found: the result says it."""
    state_dir = options["state_dir"]
    with locked(state_dir):
        kept = read_json(_path(state_dir))
        if not isinstance(kept, dict) or kept.get("release") != options["release"]:
            raise RolloutError("No drill of {0} was begun on this host.".format(label(options["release"])), "no_drill")
        differences = compare(kept["seen"], look(options["paths"], options["exclude"], options["cross_mounts"]))
        now = _services.look(options["services"], command)
        differences += [
            "{0}: was {1}, is {2}".format(unit, kept["services"][unit], now[unit]) for unit in sorted(now) if now[unit] != kept["services"].get(unit)
        ]
        was, now = kept["packages"], _installed(options, command)
        changed = [name for name in sorted(set(was) | set(now)) if was.get(name) != now.get(name)]
        differences += ["package {0}: was {1}, is {2}".format(name, was.get(name), now.get(name)) for name in changed]
        record = load(state_dir)
        problem = options["problem"] or _unfinished(record, options["transaction"])
        drill = {
            "release": kept["release"],
            "at": iso(clock()),
            "ok": not problem and not differences,
            "seconds": round(max(0.0, clock() - kept["began"]), 1),
            "differences": differences[:SHOWN],
            "count": len(differences),
            "problem": problem,
        }
        transaction = record["transaction"] or {}
        if transaction.get("id") == options["transaction"] and transaction.get("phase") == "restored":
            record = kept["record"]
            rehearsed(state_dir, record, drill)
            _providers.discard(state_dir, transaction["snapshot"])
            _packages.prune(state_dir, _snapshot.names(state_dir))
        else:
            rehearsed(state_dir, record, drill)
        remove_quietly(_path(state_dir))
    return False, {"outcome": "passed" if drill["ok"] else "failed", "drill": drill}, {}


def _installed(options: Dict[str, Any], command: _services.Command) -> Dict[str, Any]:
    """Every package of the host with its version, state, hold and automatic mark, when the release changes packages."""
    manager = _manager(options, command)
    found = manager.look() if manager else {}
    return {key: [str(item.get(fact)) for fact in ("version", "state", "hold", "auto")] for key, item in found.items()}


def _manager(options: Dict[str, Any], command: _services.Command) -> Any:
    return _packages.manager_of(command, wanted=options["package_manager"]) if options["packages"] else None


def _unfinished(record: Record, transaction: str) -> Optional[str]:
    found = record["transaction"]
    if not transaction or found is None or found["id"] != transaction:
        return "the change did not begin"
    return None if found["phase"] == "restored" else "the host is {0}: {1}".format(found["phase"], found.get("reason"))


def _path(state_dir: str) -> str:
    return os.path.join(state_dir, "drill.json")
