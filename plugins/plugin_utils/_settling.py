# Copyright: onprem.rollout contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Which half-done hosts may be settled at the same time. Pure."""

from __future__ import annotations

from collections.abc import Collection

from ansible_collections.onprem.rollout.plugins.plugin_utils._plan import Plan
from ansible_collections.onprem.rollout.plugins.plugin_utils._spread import Crowd, limits


class Settling:
    """As many of a ring, and of a failure domain, as may be in change; of the hosts that the customer holds one at a time."""

    def __init__(self, plan: Plan) -> None:
        self._domains = plan.domains
        self._ring_of = {host: ring for ring in plan.rings for host in ring.hosts}

    def may_join(self, host: str, settling: Collection[str]) -> bool:
        ring = self._ring_of.get(host)
        most = (ring.ring.concurrency or max(map(len, ring.waves))) if ring else 1
        if sum(1 for other in settling if self._ring_of.get(other) is ring) >= most:
            return False
        crowd = Crowd(self._domains)
        for other in settling:
            crowd.count(other, 1)
        rules = ring.ring.spread if ring else ()
        return all(crowd.has_room(limit) for limit in limits(self._domains.get(host, ()), rules))
