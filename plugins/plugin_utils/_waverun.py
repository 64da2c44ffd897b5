# Copyright: onprem.rollout contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""One wave as the conductor keeps it. Pure."""

from __future__ import annotations

from collections.abc import Sequence

from ansible_collections.onprem.rollout.plugins.plugin_utils._plan import RingPlan
from ansible_collections.onprem.rollout.plugins.plugin_utils._spread import Crowd, Line


class WaveRun:
    """The running numbers of one wave, so that a tick costs what changed and not what exists."""

    __slots__ = ("hosts", "plan", "number", "release_at", "waiting", "in_change", "parked", "good", "reverted")

    def __init__(self, hosts: tuple[str, ...], plan: RingPlan, number: int, crowd: Crowd) -> None:
        self.hosts = hosts
        self.plan = plan
        self.number = number
        self.release_at = 0
        self.waiting = Line(crowd, plan.ring.spread, hosts)
        self.in_change = 0
        self.parked = Line(crowd, plan.ring.spread)
        self.good = 0
        self.reverted = False

    @property
    def free_slots(self) -> int:
        return max((self.plan.ring.concurrency or len(self.hosts)) - self.in_change, 0)


def set_release_points(waves: Sequence[WaveRun]) -> None:
    """Which wave must be judged before the hosts of each commit."""
    last_of_ring = {run.plan.ring.name: index for index, run in enumerate(waves)}
    for index, run in enumerate(waves):
        points = {"ring": last_of_ring[run.plan.ring.name], "rollout": len(waves) - 1}
        run.release_at = points.get(run.plan.ring.commit, index)
