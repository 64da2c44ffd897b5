# Copyright: onprem.rollout contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""The first step of a host transaction: judge the host, write the intent, arm the revert timer, take the snapshot."""

import os
import time
from typing import Any, Dict, List, Optional, Tuple

from . import _floor, _packages, _program, _providers, _services, _snapshot, _timer
from ._capture import Rules, excluder
from ._checks import describe, failed, validate
from ._checks import run as run_checks
from ._errors import Outcome, Refused, RolloutError
from ._process import run
from ._record import Record, advance, failed_before, iso, label, load, open_transaction, start, unix, whose, withdraw
from ._restore import Check, inconsistent, settle, waits
from ._store import examine, locked, prepare, release_reserve, reserve, to_bytes
from ._transaction import Clock, change, progress, summary

BASELINE = 5.0


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
    wanted = options["package_manager"]
    manager = _packages.manager_of(command, wanted=wanted) if options["packages"] else None
    _packages.require(options["packages"], manager, wanted)
    examine(state_dir) if check_mode else prepare(state_dir)
    with locked(state_dir, check_mode):
        record = load(state_dir)
        before = summary(record)
        unsettled = _judge(record, options, clock())
        if unsettled and not check_mode:
            reason = "found in phase {0} when {1} began".format(record["transaction"]["phase"], label(options["release"]))
            record = settle(state_dir, record, reason, clock, check, command)[0]
            if record["transaction"]["phase"] == "held":
                raise waits(record["transaction"])
        installed = (record["installed"] or {}).get("digest") == options["release"]["digest"]
        waiver = None if installed else _waiver(record, options, clock())
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
            return unsettled and not check_mode, dict(_begun("skipped", record, None, unsettled), checks=results), change(before, summary(record))
        looked = _packages.look(options["packages"], manager)
        excluded = excluder(rules.exclude)
        added = [path for path in _services.files(options["services"]) + looked.paths if not excluded(to_bytes(path))]
        paths = _snapshot.resolve(options["paths"] + added, state_dir)
        if check_mode:
            size = _providers.preflight(state_dir, paths, rules, options["min_free"], provider)
            after = dict(before, phase="changing", release=label(options["release"]))
            would = {"id": None, "files": size.files, "bytes": size.bytes}
            result = dict(_begun("begun", record, None, unsettled), checks=results, phase="changing", snapshot=would)
            return True, result, change(before, after)
        record, snapshot = _open(state_dir, record, options, paths, rules, provider, looked, waiver, clock, check, command)
    result = dict(_begun("begun", record, snapshot, unsettled), checks=results, package_manager=manager.tool if manager else None)
    return True, result, change(before, summary(record))


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
            "This host is held by rollout {0!r} ({1}) of {2}: phase {3}, until {4}. Nothing was touched. Wait for it, or, if that run is dead, take "
            "the host from it with onprem.rollout.unlock.".format(
                found["rollout"], label(found["release"]), whose(holder), found["phase"], iso(found["lease_until"])
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


def _waiver(record: Record, options: Dict[str, Any], now: float) -> Optional[Dict[str, Any]]:
    """The waiver that a release below the floor is let in by, None if it needs none."""
    why = _floor.judge(record.get("floors"), options["release"])
    if not why:
        return None
    waiver = options.get("waiver") or {}
    used = next((item for item in record.get("waivers") or [] if item["id"] == waiver.get("id")), None)
    if used:
        why = "{0}. The waiver {1} of {2} was used here on {3}, and one is good for once".format(why, used["id"], used["by"], used["used"])
    elif waiver and now >= unix(waiver["expires"]):
        why = "{0}. The waiver {1} of {2} expired on {3}".format(why, waiver["id"], waiver["by"], waiver["expires"])
    elif waiver:
        return waiver
    raise Refused(
        "{0} must not run on this host: {1}. Nothing was touched. Roll a newer release out, or have somebody else waive this: onprem.rollout.waive.".format(
            label(options["release"]), why
        ),
        "below_floor",
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
    looked: "_packages.Looked",
    waiver: Optional[Dict[str, Any]],
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
        "waiver": waiver,
        "quarantine": options["quarantine"],
        "anchor": options.get("anchor"),
        "revert": _timer.plan(options["revert_after"], options["payload_timeout"], now),
    }
    before = record
    try:
        reserve(state_dir)  # first, so that a disk that is full from here on lets the record say how it ended
        _program.leave(state_dir)
        if transaction["revert"]:
            _timer.arm(state_dir, transaction["revert"], command)  # while we hold the lock it waits; without a record it disarms itself
        record = start(state_dir, record, transaction)
    except (RolloutError, OSError):
        release_reserve(state_dir)
        _timer.disarm(state_dir, command)
        raise
    try:
        _packages.secure(state_dir, record["transaction"]["snapshot"], looked, options["min_free"])
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
    return advance(state_dir, record, "changing", clock(), **progress(record, "changing", clock())), snapshot


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
        "package_manager": None,
    }
