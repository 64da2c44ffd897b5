# Copyright: onprem.rollout contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""The host transaction: what all its steps share, and those that only say how far it is.

Each step takes the host lock, reads the record, judges it, and writes the next phase before it acts on it. The others are in
_begin.py, _commit.py and _restore.py; an import that a step does not need is time that every host pays.
"""

import time
from typing import Any, Callable, Dict, Tuple

from . import _timer
from ._errors import RolloutError
from ._record import Record, advance, label, load, renew, whose
from ._store import locked

Clock = Callable[[], float]


def progress(record: Record, phase: str, now: float, later: float = 0) -> Dict[str, Any]:
    """Lease and revert timer of a transaction that is in this phase from now on, or from C(later) seconds on.

    Nobody asks a parked host before its lease ends. And the lease never ends before the timer: until a host restores itself it waits for its run,
    so no other run touches it.
    """
    transaction = record["transaction"]
    lease, revert = transaction.get("lease", 0), transaction.get("revert")
    if not revert:
        return {"lease_until": int(now + later + lease)}
    wait = {"changing": revert["payload"], "awaiting_commit": max(revert["after"], lease)}.get(phase, revert["after"])
    return {"lease_until": int(now + later + max(lease, wait)), "revert": _timer.moved(revert, later + wait, now)}


def verifying(state_dir: str, holder: Dict[str, Any], clock: Clock = time.time, check_mode: bool = False) -> Tuple[bool, Record]:
    """The payload is through, its health is being judged. Also extends the lease."""
    return _move(state_dir, holder, "verifying", clock, check_mode)


def awaiting_commit(state_dir: str, holder: Dict[str, Any], clock: Clock = time.time, check_mode: bool = False) -> Tuple[bool, Record]:
    """The host is healthy and may be committed. Also extends the lease, for the time it is parked."""
    return _move(state_dir, holder, "awaiting_commit", clock, check_mode)


def retrying(state_dir: str, holder: Dict[str, Any], clock: Clock = time.time, check_mode: bool = False, wait: float = 0) -> Tuple[bool, Record]:
    """The payload is to be run again after C(wait) seconds. Extends the lease, for the time it takes, and moves the revert timer by both."""
    return _move(state_dir, holder, "changing", clock, check_mode, wait)


def _move(state_dir: str, holder: Dict[str, Any], phase: str, clock: Clock, check_mode: bool, later: float = 0) -> Tuple[bool, Record]:
    with locked(state_dir, check_mode):
        record = load(state_dir)
        transaction = ours(record, holder)
        moved = progress(record, phase, clock(), later)
        if transaction["phase"] == phase:
            return False, record if check_mode else renew(state_dir, record, **moved)
        if check_mode:
            return True, record
        return True, advance(state_dir, record, phase, clock(), **moved)


def is_ours(record: Record, holder: Dict[str, Any]) -> bool:
    found = record["transaction"]
    return bool(found) and found["holder"].get("run") == holder.get("run")


def ours(record: Record, holder: Dict[str, Any]) -> Dict[str, Any]:
    found = record["transaction"]
    if found is None:
        raise RolloutError("This host has no transaction. Run onprem.rollout.begin first.", "no_transaction")
    evicted = found.get("evicted")
    if evicted and evicted["holder"].get("run") == holder.get("run"):
        raise RolloutError(
            "This host was taken from this run by {0} at {1}: {2}. This run does not touch it any more; it is {3}, and the next upgrade settles that.".format(
                whose(evicted["by"]), evicted["at"], evicted["why"], found["phase"]
            ),
            "not_ours",
            holder=found["holder"],
        )
    if found["holder"].get("run") != holder.get("run"):
        raise RolloutError(
            "The transaction {0} of this host ({1}, phase {2}) belongs to {3}, not to this run. Run onprem.rollout.begin first.".format(
                found["id"], label(found["release"]), found["phase"], whose(found["holder"])
            ),
            "not_ours",
            holder=found["holder"],
        )
    if found["phase"] == "restored" and found.get("reverted_by"):
        raise RolloutError(
            "This host was restored by its {0} at {1}, so {2} is not on it any more: {3}. Let this run restore it, which makes sure that "
            "the payload wrote nothing since, and see why nobody came in time.".format(
                "revert timer" if found["reverted_by"] == "timer" else found["reverted_by"],
                found["updated"],
                label(found["release"]),
                found.get("reason"),
            ),
            "reverted",
            phase=found["phase"],
        )
    return dict(found)


def summary(record: Record) -> Dict[str, Any]:
    transaction = record["transaction"]
    return {
        "installed": label(record["installed"]) if record["installed"] else None,
        "phase": transaction["phase"] if transaction else None,
        "release": label(transaction["release"]) if transaction else None,
    }


def change(before: Dict[str, Any], after: Dict[str, Any]) -> Dict[str, Any]:
    return {"before": before, "after": after}
