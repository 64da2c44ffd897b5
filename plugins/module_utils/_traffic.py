# Copyright: onprem.rollout contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Whether a host may be out of traffic: noted before it is drained, and until it has rejoined or is committed."""

import os
from typing import Any, Dict

from ._errors import Outcome, RolloutError
from ._record import load, note_drained, open_transaction, whose
from ._store import locked, show


def note(state_dir: str, holder: Dict[str, Any], drained: bool, check_mode: bool = False) -> Outcome:
    """Write it into the record, for a run that may work on this host. RolloutError when another run's transaction is open."""
    if not os.path.isdir(state_dir):
        if drained and not check_mode:
            raise RolloutError("{0} does not exist, so there is no record to note in. Run onprem.rollout.begin first.".format(show(state_dir)), "record")
        return drained, {"drained": drained}, _diff(False, drained)
    with locked(state_dir, check_mode):
        record = load(state_dir)
        found = open_transaction(record)
        others = found and found["phase"] != "inconsistent" and found["holder"].get("run") != holder.get("run")
        if found and others and not drained and not check_mode:  # a settle in check mode leaves it open
            raise RolloutError(
                "Transaction {0} of this host is {1} and belongs to {2}, not to this run. Nothing was noted.".format(
                    found["id"], found["phase"], whose(found["holder"])
                ),
                "not_ours",
            )
        before = bool(record.get("drained"))
        if before != drained and not check_mode:
            note_drained(state_dir, record, drained)
    return before != drained, {"drained": drained}, _diff(before, drained)


def _diff(before: bool, after: bool) -> Dict[str, Any]:
    return {"before": {"drained": before}, "after": {"drained": after}}
