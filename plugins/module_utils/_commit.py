# Copyright: onprem.rollout contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""The last step of a host transaction. After it nothing restores this host by itself."""

import time
from typing import Any, Dict, List, Optional

from . import _providers, _services, _timer
from ._checks import describe, failed
from ._checks import run as run_checks
from ._errors import Outcome, RolloutError
from ._process import run
from ._record import Record, advance, anchored, label, load, renew
from ._restore import Check, warned
from ._retention import last_known_good
from ._store import locked, release_reserve
from ._transaction import Clock, change, is_ours, ours, progress, summary


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
    anchor: Optional[Dict[str, Any]] = None,
) -> Outcome:
    """Judge the health once more, then make the release the installed one. After this nothing restores by itself.

    C(transaction) names a held one, whoever began it: then an operator commits. C(anchor): see L(_record.anchored).
    """
    with locked(state_dir, check_mode):
        record = load(state_dir)
        before = summary(record)
        if check_mode and not transaction and not is_ours(record, holder):
            return True, {"outcome": "committed", "transaction": None, "phase": "committed", "checks": []}, change(before, dict(before, phase="committed"))
        found = _named(record, transaction) if transaction else ours(record, holder)
        if found["phase"] == "committed":
            return False, _committed(record, []), change(before, before)
        if found["phase"] != ("held" if transaction else "awaiting_commit"):
            raise RolloutError(
                "Transaction {0} of this host is {1}; only one that is awaiting_commit, or held and named, can be committed. Run "
                "onprem.rollout.health with in_transaction first, or onprem.rollout.restore.".format(found["id"], found["phase"]),
                "phase",
                phase=found["phase"],
            )
        if lease and not check_mode:
            renewed = progress(record, "awaiting_commit", clock())
            record = renew(state_dir, record, **dict(renewed, lease_until=max(int(clock() + lease), renewed["lease_until"])))
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
            return True, dict(_committed(record, results), phase="committed", last_known_good=good), change(before, after)
        record = advance(state_dir, record, "committed", clock(), good, **anchored(anchor))
        _timer.disarm(state_dir, command)
        release_reserve(state_dir)
        more = warned(state_dir, record, clock())
        return True, dict(_committed(record, results), **more), change(before, summary(record))


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
