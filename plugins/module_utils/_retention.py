# Copyright: onprem.rollout contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Which snapshots are kept: the newest by count, age and bytes, and always those that something may still need."""

import os
from typing import Any, Dict, Iterable, List, Optional, Set

from . import _objects, _providers, _snapshot
from ._record import disown, load, unix
from ._store import locked

DAY = 86400.0


def prune(state_dir: str, keep: Dict[str, int], needed: Iterable[Optional[str]], now: float) -> List[str]:
    """Drop what C(keep) does not keep and C(needed) does not name; returns the ids dropped.

    keep: C(count) newest snapshots, none older than C(days) days and no more than C(bytes) bytes in all; 0 is no limit, but for C(count).
    """
    held = set(needed)
    known = _snapshot.finished(state_dir)
    newest: Set[str] = {found.id for found in known[-keep["count"] :]} if keep["count"] > 0 else set()
    young = {found.id for found in known if not keep.get("days") or unix(found.facts["created"]) > now - keep["days"] * DAY}
    stale = [name for name in _snapshot.names(state_dir) if name not in held and not (name in newest and name in young)]
    dropped = [name for name in stale if _providers.drop(state_dir, name)]
    if dropped:
        _snapshot.sweep(state_dir)
    return dropped + _shrink(state_dir, keep.get("bytes", 0), held)


def _shrink(state_dir: str, limit: int, held: Set[Optional[str]]) -> List[str]:
    dropped: List[str] = []
    for found in _snapshot.finished(state_dir) if limit else []:
        with _objects.Objects(state_dir) as objects:
            if objects.bytes() <= limit:
                break
        if found.id not in held and found.provider == _snapshot.FILES:
            _providers.drop(state_dir, found.id)
            _snapshot.sweep(state_dir)
            dropped.append(found.id)
    return dropped


def verify(state_dir: str, wanted: Optional[str] = None, check_mode: bool = False) -> Dict[str, Any]:
    """Read all that a restore of one or of every snapshot would need. Of what is damaged none stays last known good.

    Returns C(snapshots) (id and what is damaged or lost) and C(last_known_good).
    """
    if not os.path.isdir(state_dir):
        return {"snapshots": [], "last_known_good": None}
    with locked(state_dir, check_mode):
        record = load(state_dir)
        names = [wanted] if wanted else [each.id for each in _snapshot.finished(state_dir)]
        found = {name: _providers.verify(state_dir, name, not check_mode) for name in names}
        bad = [name for name in names if found[name]]
        good = record["last_known_good"]
        if good in bad:
            good = last_known_good(state_dir, bad)
            if not check_mode:
                disown(state_dir, record, good)
        return {"snapshots": [{"id": name, "problems": found[name]} for name in names], "last_known_good": good}


def last_known_good(state_dir: str, bad: Iterable[str] = ()) -> Optional[str]:
    """The newest snapshot with which nothing is known to be wrong: each was taken of a healthy host."""
    for found in reversed(_snapshot.finished(state_dir)):
        if found.id not in bad and _providers.sound(state_dir, found.id):
            return found.id
    return None
