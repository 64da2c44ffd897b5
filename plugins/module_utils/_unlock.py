# Copyright: onprem.rollout contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Who holds this host, and an operator who takes it from them.

What that run left half done stays half done: the transaction, its snapshot and its revert timer are as before, only that nobody holds it. The
next run settles it as after a crash, and the run that had it is refused at its next step.
"""

import os
import time
from typing import Any, Dict

from ._errors import Outcome, Refused
from ._record import Record, iso, label, load, renew
from ._store import locked
from ._transaction import Clock, change

HELD = ("prepared", "changing", "verifying", "awaiting_commit", "restoring")


def look(state_dir: str, clock: Clock = time.time) -> Dict[str, Any]:
    """Whether a run holds this host: which, for how many seconds its lease goes on, in which phase of which transaction."""
    return _told(load(state_dir) if os.path.isdir(state_dir) else {"transaction": None}, clock())


def unlock(
    state_dir: str,
    holder: Dict[str, Any],
    transaction: str,
    why: str,
    force: bool = False,
    gone: str = "",
    check_mode: bool = False,
    clock: Clock = time.time,
) -> Outcome:
    """Take the transaction from the run that holds this host.

    Refused while its lease goes on, unless C(force), or C(gone) is that run: the controller knows that its process has ended.
    """
    if not os.path.isdir(state_dir):
        return False, dict(look(state_dir), outcome="free"), {}
    with locked(state_dir, check_mode):
        record = load(state_dir)
        told = _told(record, clock())
        if not told["held"]:
            return False, dict(told, outcome="free"), {}
        found = record["transaction"]
        if found["id"] != transaction:
            raise Refused("This host is in transaction {0} by now, not in {1}. Nothing was touched. Ask it again.".format(found["id"], transaction), "changed")
        if told["lease_left"] > 0 and not force and found["holder"].get("run") != gone:
            raise Refused(
                "The lease of transaction {0} ({1}, phase {2}) goes on for {3} s, so its run may be at work. Nothing was touched. End it, wait, or use "
                "force.".format(found["id"], label(found["release"]), found["phase"], told["lease_left"]),
                "held",
                **told,
            )
        now = clock()
        forced = told["lease_left"] > 0 and found["holder"].get("run") != gone
        evicted = {"holder": found["holder"], "by": holder, "why": why, "at": iso(now), "forced": forced}
        nobody = dict(holder, run="")  # no run is called so: what is half done is nobody's, and is for the next run to settle
        if not check_mode:
            record = renew(state_dir, record, holder=nobody, lease_until=int(now), evicted=evicted)
        after = _told({"transaction": dict(found, holder=nobody, lease_until=int(now), evicted=evicted)}, now)
        return True, dict(after, outcome="evicted"), change({"holder": found["holder"]}, {"holder": None})


def _told(record: Record, now: float) -> Dict[str, Any]:
    found = record["transaction"] or {}
    half_done = found.get("phase") in HELD
    return {
        "held": half_done and not found.get("evicted"),
        "phase": found.get("phase"),
        "rollout": found.get("rollout"),
        "release": label(found["release"]) if found else None,
        "transaction": found.get("id"),
        "began": found.get("began"),
        "holder": found.get("holder") if half_done else None,
        "lease_left": max(0, int(found["lease_until"] - now)) if half_done else 0,
        "evicted": found.get("evicted") if half_done else None,
    }
