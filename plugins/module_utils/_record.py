# Copyright: onprem.rollout contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""The host record: what is installed, what is last known good, which transaction is in progress.

One writer: every phase is moved by start() or advance(), which refuse what PHASES does not allow, and which return only
when the record is on disk. A dead machine is then judged by the phase it is found in:

    prepared, changing, verifying, awaiting_commit   restore
    restoring                                        restore again
    committed, restored                              leave alone; restored by its revert timer: again, when its run asks
    inconsistent                                     leave alone until an operator forces a restore
    held                                             leave alone until an operator commits or forces a restore

A change that was declared irreversible is held where another one would be restored.
"""

import os
import time
from typing import Any, Dict, List, Optional

from . import _floor
from ._errors import RolloutError
from ._store import fsync_dir, read_json, remove_quietly, show, write_json

SCHEMA = 2  # of a record with floors or a quarantine, which a version that knows nothing of them must not go on with; else 1
HISTORY = 20
GOOD_COPY = "Put a good copy back, or move it away if this host's files are known to be right: it then counts as never upgraded."
FAILED = 20
DRILLS = 20
PHASES = {
    "prepared": ("changing", "restoring"),
    "changing": ("verifying", "restoring", "held"),
    "verifying": ("awaiting_commit", "verifying", "restoring", "held"),
    "awaiting_commit": ("committed", "verifying", "restoring", "held"),
    "committed": (),
    "restoring": ("restored", "inconsistent", "restoring"),
    "restored": ("restoring",),
    "inconsistent": ("restoring",),
    "held": ("restoring", "committed"),
}
OVER = ("committed", "restored")
OUTCOMES = {"committed": "committed", "restored": "restored", "inconsistent": "restore_failed"}
FIELDS = ("id", "rollout", "holder", "release", "previous", "phase", "snapshot", "began", "updated", "lease_until", "options")
Record = Dict[str, Any]
EMPTY = {"schema": 1, "installed": None, "last_known_good": None, "transaction": None, "history": []}  # type: Record


def iso(now: float) -> str:
    """Unix seconds as ISO 8601 in UTC, such as 2025-01-31T23:59:59Z."""
    return time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime(now))


def unix(text: str) -> float:
    """The inverse of iso(); ValueError for another text. Reckoned here, because the imports of strptime() cost a host more than a commit."""
    year, month, day, hour, minute, second = (int(text[start:end]) for start, end in ((0, 4), (5, 7), (8, 10), (11, 13), (14, 16), (17, 19)))
    leaps = year - (month < 3)
    days = 365 * year + leaps // 4 - leaps // 100 + leaps // 400 + (0, 31, 59, 90, 120, 151, 181, 212, 243, 273, 304, 334)[(month - 1) % 12] + day - 719528
    found = float(((days * 24 + hour) * 60 + minute) * 60 + second)
    if iso(found) != text:
        raise ValueError("{0!r} is no time such as 2025-01-31T23:59:59Z".format(text))
    return found


def label(release: Dict[str, Any]) -> str:
    """A release in words."""
    return "{0} {1}".format(release.get("name"), release.get("version"))


def whose(holder: Dict[str, Any]) -> str:
    """A run in words."""
    job = ", job {0}".format(holder["job"]) if holder.get("job") else ""
    return "{0} on {1}, process {2}{3}".format(holder.get("user"), holder.get("controller"), holder.get("pid"), job)


def path_of(state_dir: str) -> str:
    """Where the record is."""
    return os.path.join(state_dir, "record.json")


def load(state_dir: str) -> Record:
    """The record of this host, an empty one if there is none. RolloutError when it cannot be understood."""
    path = path_of(state_dir)
    try:
        record = read_json(path)
    except (NotADirectoryError, PermissionError) as error:
        raise _unreadable(path, str(error), "Set state_dir to a directory of the user that runs this, or use become.") from error
    except (OSError, ValueError) as error:
        raise _unreadable(path, str(error)) from error
    return dict(EMPTY, history=[]) if record is None else judged(path, record)


def judged(path: str, record: Any) -> Record:
    """The record, read from there. RolloutError when it cannot be understood, which is never taken for none."""
    if not isinstance(record, dict) or not isinstance(record.get("schema"), int):
        raise _unreadable(path, "it has no schema number")
    if record["schema"] > SCHEMA:
        raise RolloutError(
            "The record {0} has schema {1}; this version of onprem.rollout knows schemas up to {2}. Use the version that "
            "wrote it, or a newer one. Nothing was touched.".format(show(path), record["schema"], SCHEMA),
            "schema",
        )
    problem = _problem(record)
    if problem:
        raise _unreadable(path, problem)
    return record


def _problem(record: Record) -> Optional[str]:
    if record["schema"] < 1:
        return "its schema is {0}".format(record["schema"])
    transaction = record.get("transaction")
    if not _floor.sound(record.get("floors") or {}):
        return "floors is not a mapping of releases to epochs and ranges"
    failed = record.get("failed") or []
    if not isinstance(failed, list) or not all(isinstance(item, dict) and isinstance(item.get("release"), dict) and "times" in item for item in failed):
        return "failed is not a list of releases that failed"
    drills = record.get("drills") or []
    if not isinstance(drills, list) or not all(isinstance(item, dict) and isinstance(item.get("release"), dict) for item in drills):
        return "drills is not a list of drills"
    if not isinstance(record.get("history"), list) or "installed" not in record or "last_known_good" not in record:
        return "history, installed or last_known_good is missing"
    if transaction is None:
        return None if "transaction" in record else "transaction is missing"
    if not isinstance(transaction, dict):
        return "transaction is not a mapping"
    missing = [field for field in FIELDS if field not in transaction]
    if missing:
        return "transaction has no {0}".format(", ".join(missing))
    if transaction["phase"] not in PHASES:
        return "phase {0!r} is unknown".format(transaction["phase"])
    if not isinstance(transaction["holder"], dict) or not isinstance(transaction["options"], dict):
        return "holder or options of the transaction is not a mapping"
    return None


def _unreadable(path: str, why: str, remedy: str = GOOD_COPY) -> RolloutError:
    return RolloutError("The record {0} cannot be read: {1}. Nothing was touched. {2}".format(show(path), why, remedy), "record")


def open_transaction(record: Record) -> Optional[Dict[str, Any]]:
    """The transaction that is not over yet (an inconsistent one is not), or None."""
    transaction = record["transaction"]
    return transaction if transaction is not None and transaction["phase"] not in OVER else None


def _write(state_dir: str, record: Record) -> Record:
    record["schema"] = 2 if record.get("floors") or record.get("quarantined") else 1
    write_json(path_of(state_dir), record)
    return record


def start(state_dir: str, record: Record, transaction: Dict[str, Any]) -> Record:
    """Write a new transaction in phase prepared. The one before it must be over.

    What its release declares vulnerable, and the waiver that it is begun with, are known here from now on, however it ends.
    """
    if open_transaction(record):
        raise RolloutError("transaction {0} is still {1}".format(record["transaction"]["id"], record["transaction"]["phase"]), "phase")
    record = dict(record, transaction=dict(transaction, phase="prepared"))
    floors = _floor.declared(record.get("floors"), transaction["release"])
    if floors:
        record["floors"] = floors
    if transaction.get("waiver"):
        record["waivers"] = (record.get("waivers") or []) + [dict(transaction["waiver"], used=transaction["began"])]
    return _write(state_dir, record)


def withdraw(state_dir: str, before: Record) -> None:
    """Write the record as it was before start(), when the host was refused after all; one that was not there goes."""
    if before == EMPTY:
        remove_quietly(path_of(state_dir))
        fsync_dir(state_dir)
    else:
        write_json(path_of(state_dir), before)


def disown(state_dir: str, record: Record, last_known_good: Optional[str]) -> Record:
    """Another snapshot is last known good, because the one that was is damaged."""
    record = dict(record, last_known_good=last_known_good)
    return _write(state_dir, record)


def advance(state_dir: str, record: Record, phase: str, now: float, last_known_good: Optional[str] = None, **changes: Any) -> Record:
    """Move the transaction to another phase, with what that means for the rest of the record, in one write.

    last_known_good: of a host that is committed.
    """
    before = record["transaction"]
    if phase not in PHASES[before["phase"]]:
        raise RolloutError(
            "Transaction {0} is {1}; from there it cannot become {2}, only: {3}.".format(
                before["id"], before["phase"], phase, ", ".join(PHASES[before["phase"]]) or "nothing, it is over"
            ),
            "phase",
        )
    transaction = dict(before, phase=phase, updated=iso(now), **changes)
    record = dict(record, transaction=transaction)
    if transaction.get("failed") and not before.get("failed"):
        record["failed"] = _remembered(record, transaction, now)
    if phase in OUTCOMES:
        record["history"] = (record["history"] + [_past(transaction, OUTCOMES[phase], now)])[-HISTORY:]
    if phase == "restored":
        _judge_restored(record, transaction, now)
    if phase == "committed":
        record.update(installed=transaction["release"], last_known_good=last_known_good)
        floors = _floor.raised(record.get("floors"), transaction["release"], iso(now))
        if floors:
            record["floors"] = floors
        if not transaction.get("waiver"):
            record.pop("quarantined", None)
        record["failed"] = _others(record, transaction["release"].get("digest"))
        record.pop("drained", None)  # a host rejoins before it commits
    return _write(state_dir, record)


def _judge_restored(record: Record, transaction: Dict[str, Any], now: float) -> None:
    """A host that runs what is known to be unsafe is quarantined; the time to mend that counts from the first time."""
    why = _floor.unsafe(record.get("floors"), record["installed"], transaction["release"])
    if why:
        until = iso(now + transaction.get("quarantine", 0))
        first = record.get("quarantined") or {"since": iso(now), "until": until}
        record["quarantined"] = dict(first, why=why, release=record["installed"], transaction=transaction["id"])


def anchored(anchor: Optional[Dict[str, Any]]) -> Dict[str, Any]:
    """For advance(): the head of the ledger by now, a later one than that of the begin. A step without a ledger keeps what is there."""
    return {"anchor": anchor} if anchor else {}


def renew(state_dir: str, record: Record, **changes: Any) -> Record:
    """Write the transaction with another lease, and what else goes with that; the phase stays."""
    record = dict(record, transaction=dict(record["transaction"], **changes))
    return _write(state_dir, record)


def rehearsed(state_dir: str, record: Record, drill: Dict[str, Any]) -> Record:
    """Write the record with the result of one more drill; all else stays."""
    record = dict(record, drills=((record.get("drills") or []) + [drill])[-DRILLS:])
    return _write(state_dir, record)


def drilled(record: Record, digest: str) -> bool:
    """Whether the last drill of this release on this host passed."""
    found = [item for item in record.get("drills") or [] if item["release"].get("digest") == digest]
    return bool(found) and bool(found[-1].get("ok"))


def failed_before(record: Record, digest: str) -> Optional[Dict[str, Any]]:
    """How the release of this digest failed on this host: reason, at, times, and the release; or None."""
    return next((item for item in record.get("failed") or [] if item["release"].get("digest") == digest), None)


def _remembered(record: Record, transaction: Dict[str, Any], now: float) -> List[Dict[str, Any]]:
    digest = transaction["release"].get("digest")
    times = (failed_before(record, digest) or {"times": 0})["times"] + 1
    item = {"release": transaction["release"], "reason": transaction.get("reason"), "at": iso(now), "times": times}
    return (_others(record, digest) + [item])[-FAILED:]


def _others(record: Record, digest: Any) -> List[Dict[str, Any]]:
    return [item for item in record.get("failed") or [] if item["release"].get("digest") != digest]


def note_drained(state_dir: str, record: Record, drained: bool) -> Record:
    """Note that the host may be out of traffic, or that it is not; transactions that begin and end do not change this."""
    record = dict(record, drained=drained)
    return _write(state_dir, record)


def _past(transaction: Dict[str, Any], outcome: str, now: float) -> Dict[str, Any]:
    past = {
        "id": transaction["id"],
        "rollout": transaction["rollout"],
        "release": transaction["release"],
        "previous": transaction["previous"],
        "outcome": outcome,
        "began": transaction["began"],
        "ended": iso(now),
        "seconds": max(0, int(now - unix(transaction["began"]))),
        "reason": transaction.get("reason"),
    }
    return dict(past, **{key: transaction[key] for key in ("reverted_by", "evicted") if transaction.get(key)})
