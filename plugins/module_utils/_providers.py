# Copyright: onprem.rollout contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""The providers of snapshots behind one contract: files (the state directory), btrfs, and command (programs of the operator).

What lies outside the state directory is named in snapshots/<id>/provider.json before it is made, and that goes after it. So
whatever is killed at whatever moment, the next prune finds what is left and drops it.
"""

import contextlib
import functools
import itertools
import os
import time
from typing import Any, Dict, Iterable, List, NamedTuple

from . import _btrfs, _hooks, _putback, _snapshot
from ._capture import DEFAULT, Rules
from ._errors import Refused, RolloutError
from ._snapshot import FILES, Size, Snapshot
from ._store import fsync_dir, read_json, remove_quietly, show, to_bytes, to_text, write_json

BTRFS = "btrfs"
COMMAND = "command"
KINDS = (FILES, BTRFS, COMMAND)

Provider = NamedTuple("Provider", [("kind", str), ("commands", Dict[str, Any])])
PLAIN = Provider(FILES, {})


def judge(provider: Provider, paths: List[bytes], rules: Rules) -> None:
    """Refused(provider) when the snapshot certainly cannot be taken so. Changes nothing."""
    if provider.kind == BTRFS:
        _btrfs.judge(paths, rules)
    elif provider.kind == COMMAND:
        _hooks.judge(provider.commands, rules)


def preflight(state_dir: str, paths: List[bytes], rules: Rules, min_free: int, provider: Provider) -> Size:
    """What the snapshot would hold; refuses what take() would."""
    if provider.kind == BTRFS:
        walk = functools.partial(_btrfs.Walk, wanted=_btrfs.subvolumes(paths, strict=False))
        return _snapshot.preflight(state_dir, paths, rules, min_free, walk, BTRFS)
    return _snapshot.preflight(state_dir, [] if provider.kind == COMMAND else paths, rules, min_free)


def take(state_dir: str, snapshot: str, paths: List[bytes], created: str, rules: Rules = DEFAULT, min_free: int = 0, provider: Provider = PLAIN) -> Snapshot:
    """Take a snapshot and return it. Refused when nothing but what drop() undoes was done, as the provider did not do its part."""
    if provider.kind == BTRFS:
        return _take_btrfs(state_dir, snapshot, paths, created, rules, min_free)
    if provider.kind == COMMAND:
        return _take_command(state_dir, snapshot, paths, created, min_free, provider)
    return _snapshot.take(state_dir, snapshot, paths, created, rules, min_free)


def _take_btrfs(state_dir: str, snapshot: str, paths: List[bytes], created: str, rules: Rules, min_free: int) -> Snapshot:
    wanted = _btrfs.subvolumes(paths, strict=False)  # begin adds paths of its own, such as drop-ins; judge() was asked about the others
    _intend(state_dir, snapshot, _frozen_intent(snapshot, wanted))
    began = int(time.time() * 1e9)
    known = _btrfs.freeze(snapshot, wanted)
    with _btrfs.Frozen(snapshot, known) as frozen:
        walk = functools.partial(_btrfs.Walk, wanted=wanted, frozen=frozen, began=began)
        return _snapshot.take(state_dir, snapshot, paths, created, rules, min_free, walk, {"provider": BTRFS, "subvolumes": known})


def _frozen_intent(snapshot: str, wanted: "Iterable[_btrfs.Subvolume]") -> Dict[str, Any]:
    places = [{"place": to_text(item.place), "mtime_ns": item.mtime_ns} for item in wanted]
    return {"provider": BTRFS, "id": snapshot, "subvolumes": places}


def _take_command(state_dir: str, snapshot: str, paths: List[bytes], created: str, min_free: int, provider: Provider) -> Snapshot:
    known = [to_text(path) for path in paths]
    intent = {"provider": COMMAND, "id": snapshot, "paths": known, "commands": _hooks.absolute(provider.commands)}
    try:
        _hooks.call("take", _intend(state_dir, snapshot, intent), intent)
    except RolloutError as error:
        raise Refused("{0} Nothing was changed.".format(error), error.reason) from error
    return _snapshot.take(state_dir, snapshot, [], created, DEFAULT, min_free, more={"provider": COMMAND, "paths": known})


def _intend(state_dir: str, snapshot: str, intent: Dict[str, Any]) -> str:
    """Write what is going to be made, and return the directory of the snapshot."""
    place = _place(state_dir, snapshot)
    for directory in (os.path.dirname(place), place):
        os.makedirs(directory, 0o700, exist_ok=True)
    for directory in (os.path.dirname(place), state_dir):
        fsync_dir(directory)
    write_json(os.path.join(place, "provider.json"), intent)
    return place


def _place(state_dir: str, snapshot: str) -> str:
    return os.path.join(state_dir, "snapshots", snapshot)


def _intent(state_dir: str, snapshot: str) -> Dict[str, Any]:
    """What provider.json says; RolloutError(snapshot) when it cannot be read."""
    path = os.path.join(_place(state_dir, snapshot), "provider.json")
    try:
        found = read_json(path)
    except (OSError, ValueError) as error:
        raise RolloutError("{0} cannot be read: {1}".format(show(path), error), "snapshot") from error
    return dict(found or {"provider": FILES})


def preview(snapshot: Snapshot) -> "_putback.Tally":
    """What put_back() would change. Programs of the operator cannot say that."""
    if snapshot.provider == BTRFS:
        return _btrfs.preview(snapshot)
    if snapshot.provider == COMMAND:
        found = _putback.Tally()
        found.note = "the restore command of the provider would be run; which paths it changes cannot be said"
        return found
    return _putback.preview(snapshot)


def put_back(state_dir: str, snapshot: Snapshot) -> "_putback.Tally":
    """Make the paths what they were; what differed before. May be done again after any interruption."""
    if snapshot.provider == BTRFS:
        return _btrfs.put_back(state_dir, snapshot)
    if snapshot.provider == COMMAND:
        snapshot.check()
        _hooks.call("restore", snapshot.place, _intent(state_dir, snapshot.id))
        found = _putback.Tally()
        found.note = "the restore command of the provider was run; which paths it changed cannot be said"
        return found
    return _putback.put_back(state_dir, snapshot)


def verify(state_dir: str, snapshot: str, note: bool = True) -> List[str]:
    """Read or have read all that a restore would need; what is damaged or lost, as sentences, and noted for later."""

    def damage(state_dir: str, found: Snapshot) -> Iterable[str]:
        if found.provider == BTRFS:
            return itertools.chain(_btrfs.damage(found), _snapshot.damaged_objects(state_dir, found))
        if found.provider == COMMAND:
            _hooks.call("verify", found.place, _intent(state_dir, found.id), note)
            return ()
        return _snapshot.damaged_objects(state_dir, found)

    return _snapshot.verify(state_dir, snapshot, note, damage)


def sound(state_dir: str, snapshot: str) -> bool:
    """Whether a snapshot is there and nothing is known to be wrong with it. Reads no contents."""
    if not _snapshot.sound(state_dir, snapshot):
        return False
    found = _snapshot.load(state_dir, snapshot)
    try:
        if found.provider == BTRFS:
            _btrfs.usable(found)
        elif found.provider == COMMAND:
            _intent(state_dir, snapshot)["commands"]
    except (RolloutError, KeyError):
        return False
    return True


def drop(state_dir: str, snapshot: str) -> bool:
    """Forget a snapshot, with what lies elsewhere. False when that failed: it is kept, unusable, for the next prune; see undropped()."""
    place = _place(state_dir, snapshot)
    try:
        intent = _intent(state_dir, snapshot)
        _drop_elsewhere(place, intent)
    except (RolloutError, OSError, KeyError) as error:
        with contextlib.suppress(OSError):  # it is found again all the same
            write_json(os.path.join(place, "undropped.json"), {"problem": str(error)})
        return False
    _snapshot.drop(state_dir, snapshot)
    return True


def _drop_elsewhere(place: str, intent: Dict[str, Any]) -> None:
    if intent["provider"] == FILES:
        return
    wanted = []
    if intent["provider"] == BTRFS:
        wanted = [_btrfs.Subvolume(to_bytes(item["place"]), item["mtime_ns"]) for item in intent["subvolumes"]]
        if os.path.exists(os.path.join(place, "snapshot.json")):
            wanted = _btrfs.subvolumes(item.place for item in wanted)  # their times have gone on since
            intent = _frozen_intent(intent["id"], wanted)
            write_json(os.path.join(place, "provider.json"), intent)
    if remove_quietly(os.path.join(place, "snapshot.json")):
        fsync_dir(place)
    if intent["provider"] == BTRFS:
        _btrfs.thaw(intent["id"], wanted)
    else:
        _hooks.call("drop", place, intent)


def discard(state_dir: str, snapshot: str) -> None:
    """Drop a snapshot and the contents that only it had."""
    drop(state_dir, snapshot)
    _snapshot.sweep(state_dir)


def undropped(state_dir: str) -> List[str]:
    """The snapshots that could not be dropped, and why, as sentences."""
    found = []
    for name in _snapshot.names(state_dir):
        path = os.path.join(_place(state_dir, name), "undropped.json")
        try:
            problem = (read_json(path) or {}).get("problem")
        except (OSError, ValueError) as error:
            problem = str(error)
        if problem:
            found.append("The snapshot {0} could not be dropped, which will be tried again: {1}".format(name, problem))
    return found
