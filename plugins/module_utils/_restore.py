# Copyright: onprem.rollout contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Putting a host back: the second half of a host transaction, and what a dead one is settled with.

Every step can be repeated from the start: a host that dies in the middle is found in C(restoring) and restored again.
"""

import os
import time
from typing import Any, Callable, Dict, List, Optional, Sequence, Tuple

from . import _packages, _providers, _putback, _retention, _services, _snapshot, _timer
from ._checks import describe
from ._checks import failed as failed_checks
from ._checks import run as run_checks
from ._errors import Outcome, Refused, RolloutError
from ._fence import VARIABLE, fence
from ._process import run
from ._record import Record, advance, anchored, label, load, open_transaction
from ._store import locked, release_reserve, show, with_reserve

SHOWN = 50
Check = Callable[[Any], List[Dict[str, Any]]]


def restore(
    state_dir: str,
    run_id: str,
    transaction: Optional[str] = None,
    reason: str = "",
    *,
    force: bool = False,
    failed: bool = False,
    check_mode: bool = False,
    clock: Callable[[], float] = time.time,
    check: Check = run_checks,
    command: _services.Command = run,
    by: str = "",
    anchor: Optional[Dict[str, Any]] = None,
) -> Outcome:
    """Restore the transaction of this run, or the named one, if there is something to restore.

    C(failed): the release failed on this host, which remembers it; not so when its wave is reverted, or after an outage.
    C(by): who else asks, such as the revert timer. C(anchor): see L(_record.anchored).
    """
    if not os.path.isdir(state_dir):
        return False, _result("untouched", None), {}
    with locked(state_dir, check_mode):
        record = load(state_dir)
        found = record["transaction"]
        stuck = found is not None and found["phase"] in ("inconsistent", "held")
        if force and not transaction and not stuck and (found is None or found["holder"].get("run") != run_id):
            raise Refused(
                "There is nothing to force: this host is neither inconsistent nor held, {0}. Nothing was touched. Name the transaction to restore, or leave "
                "force out.".format("transaction {id} is {phase}".format(**found) if found else "it has no transaction"),
                "nothing_to_force",
            )
        if force and transaction and (found is None or found["id"] != transaction):
            raise Refused(
                "Transaction {0} is not on this host, {1}. Nothing was touched. Ask the host with onprem.rollout.host_info.".format(
                    transaction, "its last one is {id} ({phase})".format(**found) if found else "which has none"
                ),
                "no_transaction",
            )
        if force and stuck:
            transaction = transaction or found["id"]
        if found is None or (found["id"] != transaction if transaction else found["holder"].get("run") != run_id):
            return False, _result("untouched", None), {}
        if not open_transaction(record) and not may_be_dirty(found):
            return False, dict(_result(found["phase"], found), quarantined=record.get("quarantined")), {}
        if found["phase"] == "inconsistent" and not force:
            raise inconsistent(found)
        if found["phase"] == "held" and not force:
            return False, _held(found), {}
        if check_mode and not force and cannot_be_undone(found):
            return True, _held(found), {}
        if check_mode:
            would = _putback.Tally() if _untouched(found) else _providers.preview(_snapshot.load(state_dir, found["snapshot"]))
            packages = (
                [] if _untouched(found) else _packages.differences(state_dir, found["snapshot"], _packages.manager_for(state_dir, found["snapshot"], command))
            )
            return True, dict(_result("restored", found, would), packages=packages), _diff(would, packages)
        _record, result, diff = settle(state_dir, record, reason, clock, check, command, failed, force, by, anchor)
        return True, result, diff


def may_be_dirty(transaction: Dict[str, Any]) -> bool:
    """Whether its revert timer restored it while its run lived on, whose payload may have written since."""
    return transaction["phase"] == "restored" and transaction.get("reverted_by") == "timer" and not _untouched(transaction)


def inconsistent(transaction: Dict[str, Any]) -> RolloutError:
    """The refusal to touch a host whose state nobody knows."""
    return RolloutError(
        "This host is inconsistent: transaction {id} ({0}) could not be restored on {updated}: {reason}. Nothing was touched. "
        "Repair what the message names, then run onprem.rollout.restore with transaction={id} and force=true.".format(
            label(transaction["release"]), **transaction
        ),
        "inconsistent",
        outcome="inconsistent",
        transaction=transaction["id"],
    )


def waits(transaction: Dict[str, Any]) -> RolloutError:
    """The refusal to touch a host that runs what cannot be undone."""
    return RolloutError(
        "This host is held on {0} since {updated}, because its change cannot be undone ({irreversible}) and it did not go through: {reason}. "
        "Nothing was touched. An operator decides: make it well and run the playbook recover with rollout_force_commit: true, or have its "
        "files put back all the same with rollout_force_restore: true.".format(label(transaction["release"]), **transaction),
        "held",
        outcome="held",
        transaction=transaction["id"],
    )


def cannot_be_undone(transaction: Dict[str, Any]) -> bool:
    """A change that began and was declared irreversible is held; one that did not begin, or whose restore was forced, is restored."""
    return bool(transaction.get("irreversible")) and transaction["phase"] in ("changing", "verifying", "awaiting_commit")


def settle(
    state_dir: str,
    record: Record,
    reason: str,
    clock: Callable[[], float],
    check: Check,
    command: _services.Command,
    failed: bool = False,
    force: bool = False,
    by: str = "",
    anchor: Optional[Dict[str, Any]] = None,
) -> Tuple[Record, Dict[str, Any], Dict[str, Any]]:
    """Restore the open transaction of a record, the lock being held. Ends in restored, or in inconsistent with an error.

    An irreversible change ends in held, unless the restore is forced.
    """
    began = clock()
    transaction = record["transaction"]
    untouched = _untouched(transaction)
    reason = reason or transaction.get("reason") or "found in phase {0}".format(transaction["phase"])
    failed = bool(transaction.get("failed") or (failed and not untouched))
    if cannot_be_undone(transaction) and not force:
        proven = transaction["phase"] == "awaiting_commit" and not failed
        record = _move(state_dir, record, "held", began, reason=reason, failed=failed, proven=proven, **anchored(anchor))
        _timer.disarm(state_dir, command)
        return record, _held(record["transaction"]), {}
    changes = dict(anchored(anchor), touched=not untouched, failed=failed, reverted_by=by or None)
    record = _move(state_dir, record, "restoring", began, reason=reason, **changes)
    transaction = record["transaction"]
    result = _result("restored", transaction)
    diff = {}  # type: Dict[str, Any]
    try:
        if untouched:  # the snapshot may not even be complete
            _providers.discard(state_dir, transaction["snapshot"])
        else:
            diff = _diff(with_reserve(state_dir, lambda: _put_back(state_dir, transaction, check, command, result)), result["packages"])
    except (RolloutError, OSError) as error:
        result.update(outcome="restore_failed", seconds=round(clock() - began, 3))
        message = "{0}; after the change failed with: {1}".format(error, reason)
        _move(state_dir, record, "inconsistent", clock(), reason=message)
        _timer.disarm(state_dir, command)
        raise RolloutError(
            "The restore of {0} could not be proven, this host is now inconsistent: {1}".format(label(transaction["release"]), error),
            "restore_failed",
            changed=True,
            **result,
        ) from error
    record = _move(state_dir, record, "restored", clock())
    _timer.disarm(state_dir, command)
    result.update(warned(state_dir, record, clock()), quarantined=record.get("quarantined"))
    result["seconds"] = round(clock() - began, 3)
    return record, result, diff


def warned(state_dir: str, record: Record, now: float) -> Dict[str, Any]:
    """prune(), and C(warnings) if there is anything that could not be dropped."""
    prune(state_dir, record, now)
    problems = _providers.undropped(state_dir)
    return {"warnings": problems} if problems else {}


def _move(state_dir: str, record: Record, phase: str, now: float, **changes: Any) -> Record:
    """advance() on a disk that may be full. What was set aside for this is kept until the end of the restore, and then given back."""
    record = with_reserve(state_dir, lambda: advance(state_dir, record, phase, now, **changes))
    if phase != "restoring":
        release_reserve(state_dir)
    return record


def prune(state_dir: str, record: Record, now: float) -> None:
    """Keep as many snapshots as the transaction says, and always last known good."""
    options = record["transaction"]["options"]
    keep = {"count": int(options.get("keep", 3)), "days": int(options.get("keep_days", 0)), "bytes": int(options.get("keep_bytes", 0))}
    _retention.prune(state_dir, keep, [record["last_known_good"], record["transaction"]["snapshot"]], now)
    _packages.prune(state_dir, _snapshot.names(state_dir))


def _put_back(state_dir: str, transaction: Dict[str, Any], check: Check, command: _services.Command, result: Dict[str, Any]) -> "_putback.Tally":
    """Fence, packages, files, services, proof. What is known so far is left in C(result) also when this raises."""
    options = transaction["options"]
    fence(transaction["id"])
    os.environ.pop(VARIABLE, None)  # what is restarted below must not be taken for the payload by a later restore
    problems = []  # type: List[str]
    if options.get("packages"):
        manager = _packages.manager_for(state_dir, transaction["snapshot"], command)
        result["packages"], problems = _packages.put_back(state_dir, transaction["snapshot"], manager)
    _services.retire(transaction.get("services") or {}, command)
    found = _providers.put_back(state_dir, _snapshot.load(state_dir, transaction["snapshot"]))
    result["files"] = _count(found)
    problems += _services.put_back(transaction.get("services") or {}, command)
    problems += _services.rerun(options.get("restart") or [], command)
    result["checks"] = check(options.get("checks") or [])
    sick = failed_checks(result["checks"])
    if sick:
        problems.append("the files are back, but the host is not healthy: {0}".format(describe(sick)))
    if problems:
        raise RolloutError("; ".join(problems), "unproven")
    return found


def _untouched(transaction: Dict[str, Any]) -> bool:
    """Whether the restore finds a host that nobody changed: it died while its snapshot was being taken."""
    if transaction["phase"] in ("restoring", "restored", "inconsistent"):
        return not transaction.get("touched", True)
    return bool(transaction["phase"] == "prepared")


def _result(outcome: str, transaction: Optional[Dict[str, Any]], found: "Optional[_putback.Tally]" = None) -> Dict[str, Any]:
    return {
        "outcome": outcome,
        "transaction": transaction["id"] if transaction else None,
        "files": _count(found or _putback.Tally()),
        "packages": [],
        "checks": [],
        "seconds": 0.0,
        "quarantined": None,
        "remembered": bool(transaction and transaction.get("failed")),
    }


def _held(transaction: Dict[str, Any]) -> Dict[str, Any]:
    """proven: the host was healthy on the release, and is held for the sake of others."""
    return dict(_result("held", transaction), irreversible=transaction["irreversible"], proven=bool(transaction.get("proven")))


def _count(found: "_putback.Tally") -> Dict[str, Any]:
    return dict(found.counts, paths=[show(path) for _kind, path in found.listed[:SHOWN]])


def _diff(found: "_putback.Tally", packages: Sequence[str] = ()) -> Dict[str, Any]:
    more = sum(found.counts.values()) - len(found.listed)
    lines = [line + "\n" for line in packages] + ["{0}: {1}\n".format(kind, show(path)) for kind, path in found.listed]
    lines += [found.note + "\n"] if found.note else []
    return {"prepared": "".join(lines + (["and {0} more\n".format(more)] if more else []))}
