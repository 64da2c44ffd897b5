# Copyright: onprem.rollout contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""How a rollout ended, as the exit code says it. Pure."""

from __future__ import annotations

from collections.abc import Mapping

from ansible_collections.onprem.rollout.plugins.plugin_utils._conductor import Conductor
from ansible_collections.onprem.rollout.plugins.plugin_utils._hostrun import HostRun, in_progress
from ansible_collections.onprem.rollout.plugins.plugin_utils._states import Halt, State

GOOD = {State.COMMITTED, State.SKIPPED}


def wanted(conductor: Conductor, runs: Mapping[str, HostRun], look_only: bool) -> str:
    """ok, changes (of a plan), waiting, unreachable, failed or halted.

    A run that waits does so whoever could not be reached, for it is not their last chance; more of them than their budget is a halt of its own.
    """
    states = set(conductor.states().values())
    if look_only:
        unsettled = any(in_progress(run.record) or run.record.get("drained") for run in runs.values())
        return "changes" if unsettled or states & {State.WAITING, State.REFUSED} else "ok"
    left = any(run.unsettled or run.drained or run.kept for run in runs.values())
    if conductor.halt is Halt.WAITING and states <= {*GOOD, State.HELD, State.UNREACHABLE} and not left:
        return "waiting"
    if conductor.halt is not None or not conductor.finished:
        return "halted"
    if any(run.unsettled or run.drained for run in runs.values()):
        return "failed"
    bad = {state for host, state in conductor.states().items() if state not in GOOD and host not in conductor.plan.held}
    return "ok" if not bad else "unreachable" if bad == {State.UNREACHABLE} else "failed"
