# Copyright: onprem.rollout contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""The host transaction: begin, verifying, awaiting_commit, commit. Restoring is in _restore.py.

Each step takes the host lock, reads the record, judges it, and writes the next phase before it acts on it.
"""

import os
import time
from typing import Any, Callable, Dict, List, Optional, Tuple

from . import _packages, _providers, _services, _snapshot, _timer
from ._capture import Rules
from ._checks import describe, failed, validate
from ._checks import run as run_checks
from ._errors import Outcome, Refused, RolloutError
from ._process import run
from ._record import Record, advance, failed_before, iso, load, open_transaction, renew, start, withdraw
from ._restore import Check, inconsistent, label, settle, waits, warned
from ._retention import last_known_good
from ._store import examine, locked, prepare, release_reserve, reserve

BASELINE = 5.0
Clock = Callable[[], float]


def begin(
    options: Dict[str, Any],
    check_mode: bool = False,
    clock: Clock = time.time,
    check: Check = run_checks,
    command: _services.Command = run,
) -> Outcome:
    """Open a transaction on a healthy host that nobody else holds: lock, judge, snapshot, record.

    C(options) are those of the module begin.
    """
    state_dir = options["state_dir"]
    paths = _snapshot.resolve(options["paths"], state_dir)
    rules = Rules(tuple(options["exclude"]), options["cross_mounts"], options["immutable"])
    problems = validate(options["checks"], templated=True)
    if problems:
        raise Refused("The checks are not usable: {0}. Nothing was touched.".format("; ".join(problems)), "bad_check")
    provider = _providers.Provider(options.get("provider", _snapshot.FILES), options.get("provider_commands") or {})
    _providers.judge(provider, paths, rules)
    _services.require(options["services"])
    manager = _packages.manager_of(command) if options["packages"] else None
    _packages.require(options["packages"], manager)
    examine(state_dir) if check_mode else prepare(state_dir)
    with locked(state_dir, check_mode):
        record = load(state_dir)
        before = _summary(record)
        unsettled = _judge(record, options, clock())
        if unsettled and not check_mode:
            reason = "found in phase {0} when {1} began".format(record["transaction"]["phase"], label(options["release"]))
            record = settle(state_dir, record, reason, clock, check, command)[0]
            if record["transaction"]["phase"] == "held":
                raise waits(record["transaction"])
        installed = (record["installed"] or {}).get("digest") == options["release"]["digest"]
        if not installed and not options.get("retry_failed"):
            _refuse_failed(record, options["release"])
        if not installed and options.get("irreversible") and not options.get("accept_irreversible"):
            raise Refused(
                "The change to {0} cannot be undone on this host: {1}. Nothing was touched. Set rollout_accept_irreversible: true to go on; "
                "if the change fails, this host is then held for an operator, not restored.".format(label(options["release"]), options["irreversible"]),
                "irreversible",
            )
        results = [] if unsettled and check_mode else _baseline(options["checks"], check)
        if installed:
            return unsettled and not check_mode, dict(_begun("skipped", record, None, unsettled), checks=results), _change(before, _summary(record))
        looked = _packages.look(options["packages"], manager)
        paths = _snapshot.resolve(options["paths"] + _services.drop_ins(options["services"]) + looked.paths, state_dir)
        if check_mode:
            size = _providers.preflight(state_dir, paths, rules, options["min_free"], provider)
            after = dict(before, phase="changing", release=label(options["release"]))
            would = {"id": None, "files": size.files, "bytes": size.bytes}
            result = dict(_begun("begun", record, None, unsettled), checks=results, phase="changing", snapshot=would)
            return True, result, _change(before, after)
        record, snapshot = _open(state_dir, record, options, paths, rules, provider, looked, clock, check, command)
    result = dict(_begun("begun", record, snapshot, unsettled), checks=results)
    return True, result, _change(before, _summary(record))


def _judge(record: Record, options: Dict[str, Any], now: float) -> bool:
    """Whether an open transaction must be restored first; Refused when it is somebody else's, or for an operator to decide about."""
    found = open_transaction(record)
    if found is None:
        return False
    if found["phase"] in ("inconsistent", "held"):
        error = inconsistent(found) if found["phase"] == "inconsistent" else waits(found)
        raise Refused(str(error), error.reason, **error.details)
    holder = found["holder"]
    ours = holder.get("run") == options["holder"]["run"]
    if not ours and found["id"] != options.get("abandoned") and found["lease_until"] > now:
        raise Refused(
            "This host is held by rollout {0!r} ({1}) of {2} on {3}, process {4}: phase {5}, until {6}. Nothing was touched. Wait for it, "
            "or, if that run is dead, restore it: onprem.rollout.restore with transaction={7}.".format(
                found["rollout"],
                label(found["release"]),
                holder.get("user"),
                holder.get("controller"),
                holder.get("pid"),
                found["phase"],
                iso(found["lease_until"]),
                found["id"],
            ),
            "held",
            holder=holder,
            lease_until=iso(found["lease_until"]),
            transaction=found["id"],
        )
    return True


def _refuse_failed(record: Record, release: Dict[str, Any]) -> None:
    """A release that failed on this host would fail again, until it changes or an operator knows better."""
    found = failed_before(record, release["digest"])
    if found:
        raise Refused(
            "{0} failed on this host before ({1}, {2}): {3}. Nothing was touched. Build it anew, or, with the cause mended, try this very "
            "release again with rollout_retry_failed: true.".format(label(release), found.get("at"), times(found["times"]), found.get("reason")),
            "failed_before",
            failed=found,
        )


def times(number: int) -> str:
    """R(3) is R("3 times")."""
    return "once" if number == 1 else "{0} times".format(number)


def _baseline(checks: List[Dict[str, Any]], check: Check) -> List[Dict[str, Any]]:
    """A host must be well now: one success of each check, with little patience, whatever its deadline after a change."""
    results = check([dict(item, deadline=BASELINE, consecutive=1) for item in checks])
    sick = failed(results)
    if sick:
        raise Refused(
            "This host is already sick, so it was not touched: {0}. Make it well first, or correct the check.".format(describe(sick)),
            "sick",
            checks=results,
        )
    return results


def _open(
    state_dir: str,
    record: Record,
    options: Dict[str, Any],
    paths: List[bytes],
    rules: Rules,
    provider: _providers.Provider,
    looked: _packages.Looked,
    clock: Clock,
    check: Check,
    command: _services.Command,
) -> Tuple[Record, _snapshot.Snapshot]:
    now = clock()
    transaction = {
        "id": os.urandom(16).hex(),
        "rollout": options["rollout"],
        "holder": options["holder"],
        "release": options["release"],
        "previous": record["installed"],
        "snapshot": "{0}-{1}".format(iso(now).replace(":", "").replace("-", ""), os.urandom(4).hex()),
        "began": iso(now),
        "updated": iso(now),
        "lease": options["lease"],
        "lease_until": int(now + options["lease"]),
        "options": {key: options[key] for key in ("paths", "packages", "services", "restart", "checks", "keep", "keep_days", "keep_bytes")},
        "services": _services.look(options["services"], command),
        "reason": None,
        "irreversible": options.get("irreversible") or None,
        "revert": _timer.plan(options["revert_after"], options["payload_timeout"], now),
    }
    before = record
    try:
        reserve(state_dir)  # first, so that a disk that is full from here on lets the record say how it ended
        record = start(state_dir, record, transaction)
    except OSError:
        release_reserve(state_dir)
        raise
    try:
        _packages.secure(state_dir, record["transaction"]["snapshot"], looked, options["min_free"])
        from . import _program  # here, because only begin needs it

        _program.leave(state_dir)
        if transaction["revert"]:
            _timer.arm(state_dir, transaction["revert"], command)
        snapshot = _providers.take(state_dir, record["transaction"]["snapshot"], paths, iso(now), rules, options["min_free"], provider)
    except Refused:
        _providers.discard(state_dir, record["transaction"]["snapshot"])
        _packages.prune(state_dir, _snapshot.names(state_dir))
        release_reserve(state_dir)
        withdraw(state_dir, before)
        _timer.disarm(state_dir, command)
        raise
    except (RolloutError, OSError) as error:
        settle(state_dir, record, "no snapshot: {0}".format(error), clock, check, command)
        raise
    return advance(state_dir, record, "changing", clock(), **_progress(record, "changing", clock())), snapshot


def _progress(record: Record, phase: str, now: float) -> Dict[str, Any]:
    """The revert timer of a transaction that is in this phase from now on. Nobody asks a parked host before its lease ends."""
    transaction = record["transaction"]
    revert = transaction.get("revert")
    if not revert:
        return {}
    wait = {"changing": revert["payload"], "awaiting_commit": max(revert["after"], transaction.get("lease", 0))}
    return {"revert": _timer.moved(revert, wait.get(phase, revert["after"]), now)}


def verifying(state_dir: str, holder: Dict[str, Any], clock: Clock = time.time, check_mode: bool = False) -> Tuple[bool, Record]:
    """The payload is through, its health is being judged. Also extends the lease."""
    return _move(state_dir, holder, "verifying", clock, check_mode)


def awaiting_commit(state_dir: str, holder: Dict[str, Any], clock: Clock = time.time, check_mode: bool = False) -> Tuple[bool, Record]:
    """The host is healthy and may be committed. Also extends the lease, for the time it is parked."""
    return _move(state_dir, holder, "awaiting_commit", clock, check_mode)


def retrying(state_dir: str, holder: Dict[str, Any], clock: Clock = time.time, check_mode: bool = False) -> Tuple[bool, Record]:
    """The payload is to be run again later. Extends the lease, for the time it takes."""
    return _move(state_dir, holder, "changing", clock, check_mode)


def _move(state_dir: str, holder: Dict[str, Any], phase: str, clock: Clock, check_mode: bool) -> Tuple[bool, Record]:
    with locked(state_dir, check_mode):
        record = load(state_dir)
        transaction = _ours(record, holder)
        lease_until = int(clock() + transaction.get("lease", 0))
        progress = _progress(record, phase, clock())
        if transaction["phase"] == phase:
            return False, record if check_mode else renew(state_dir, record, lease_until, **progress)
        if check_mode:
            return True, record
        return True, advance(state_dir, record, phase, clock(), lease_until=lease_until, **progress)


def _is_ours(record: Record, holder: Dict[str, Any]) -> bool:
    found = record["transaction"]
    return bool(found) and found["holder"].get("run") == holder.get("run")


def _ours(record: Record, holder: Dict[str, Any]) -> Dict[str, Any]:
    found = record["transaction"]
    if found is None:
        raise RolloutError("This host has no transaction. Run onprem.rollout.begin first.", "no_transaction")
    if found["holder"].get("run") != holder.get("run"):
        raise RolloutError(
            "The transaction {0} of this host ({1}, phase {2}) belongs to {3} on {4}, process {5}, not to this run. Run onprem.rollout.begin first.".format(
                found["id"],
                label(found["release"]),
                found["phase"],
                found["holder"].get("user"),
                found["holder"].get("controller"),
                found["holder"].get("pid"),
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


def _named(record: Record, transaction: str) -> Dict[str, Any]:
    found = record["transaction"]
    if found is None or found["id"] != transaction:
        raise RolloutError(
            "This host is not in transaction {0} but in {1}. Nothing was touched. Ask it with onprem.rollout.host_info.".format(
                transaction, found["id"] if found else "none"
            ),
            "no_transaction",
        )
    return dict(found)


def commit(
    state_dir: str,
    holder: Dict[str, Any],
    lease: int = 0,
    check_mode: bool = False,
    clock: Clock = time.time,
    check: Check = run_checks,
    transaction: Optional[str] = None,
    command: _services.Command = run,
) -> Outcome:
    """Judge the health once more, then make the release the installed one. After this nothing restores by itself.

    C(transaction) names a held one, whoever began it: then an operator commits.
    """
    with locked(state_dir, check_mode):
        record = load(state_dir)
        before = _summary(record)
        if check_mode and not transaction and not _is_ours(record, holder):
            return True, {"outcome": "committed", "transaction": None, "phase": "committed", "checks": []}, _change(before, dict(before, phase="committed"))
        found = _named(record, transaction) if transaction else _ours(record, holder)
        if found["phase"] == "committed":
            return False, _committed(record, []), _change(before, before)
        if found["phase"] != ("held" if transaction else "awaiting_commit"):
            raise RolloutError(
                "Transaction {0} of this host is {1}; only one that is awaiting_commit, or held and named, can be committed. Run "
                "onprem.rollout.health with in_transaction first, or onprem.rollout.restore.".format(found["id"], found["phase"]),
                "phase",
                phase=found["phase"],
            )
        if lease and not check_mode:
            record = renew(state_dir, record, int(clock() + lease), **_progress(record, "awaiting_commit", clock()))
        results = check(found["options"].get("checks") or [])
        sick = failed(results)
        if sick:
            raise RolloutError(
                "Not committed, this host is no longer healthy: {0}. It stays revertible: run onprem.rollout.restore, or make it well and commit again.".format(
                    describe(sick)
                ),
                "sick",
                checks=results,
                phase=found["phase"],
            )
        good = found["snapshot"] if _providers.sound(state_dir, found["snapshot"]) else last_known_good(state_dir)
        if check_mode:
            after = dict(before, phase="committed", installed=label(found["release"]))
            return True, dict(_committed(record, results), phase="committed", last_known_good=good), _change(before, after)
        record = advance(state_dir, record, "committed", clock(), good)
        _timer.disarm(state_dir, command)
        release_reserve(state_dir)
        more = warned(state_dir, record, clock())
        return True, dict(_committed(record, results), **more), _change(before, _summary(record))


def _committed(record: Record, results: List[Dict[str, Any]]) -> Dict[str, Any]:
    transaction = record["transaction"]
    return {
        "outcome": "committed",
        "transaction": transaction["id"],
        "phase": transaction["phase"],
        "installed": transaction["release"],
        "last_known_good": record["last_known_good"],
        "checks": results,
    }


def _begun(outcome: str, record: Record, snapshot: Optional[_snapshot.Snapshot], settled: bool) -> Dict[str, Any]:
    transaction = record["transaction"] or {}
    return {
        "outcome": outcome,
        "transaction": transaction["id"] if snapshot else None,
        "snapshot": {key: snapshot.facts[key] for key in ("id", "files", "bytes", "read", "stored")} if snapshot else None,
        "phase": transaction.get("phase"),
        "settled": settled,
        "revert": _timer.describe(transaction.get("revert")) if snapshot else None,
        "checks": [],
    }


def _summary(record: Record) -> Dict[str, Any]:
    transaction = record["transaction"]
    return {
        "installed": label(record["installed"]) if record["installed"] else None,
        "phase": transaction["phase"] if transaction else None,
        "release": label(transaction["release"]) if transaction else None,
    }


def _change(before: Dict[str, Any], after: Dict[str, Any]) -> Dict[str, Any]:
    return {"before": before, "after": after}
