# Copyright: onprem.rollout contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""What becomes of healthy hosts that are not committed when a rollout stops before its end. Pure."""

from __future__ import annotations

from ansible_collections.onprem.rollout.plugins.plugin_utils._plan import RingPlan
from ansible_collections.onprem.rollout.plugins.plugin_utils._states import Halt


def on_halt(halt: Halt | None, kept: bool, ring: RingPlan | None) -> str:
    """One of L(_policy.ON_FAILURE); kept: the operator who stopped it wants so; ring: where it stopped.

    An unproven wave says nothing against the release, so nothing is reverted for it; an abort leaves nothing open. When an artifact
    cannot be fetched, and in a run that only waits, hosts that are healthy on the release are committed: parked ones could not stay.
    Where checks fail in an outage, or too much of the fleet is not healthy, nobody knows, and whoever is not committed stays as it is.
    """
    if halt in (Halt.OUTAGE, Halt.UNREACHABLE, Halt.WAITING) or (halt is Halt.STOPPED and kept):
        return "restore_host"
    if halt in (Halt.STOPPED, Halt.SUPERSEDED, Halt.ABORTED):
        return "restore_wave"
    if halt in (Halt.UNPROVEN, Halt.UNJUDGED, Halt.UNHEALTHY) or ring is None:
        return "hold"
    return ring.ring.on_failure
