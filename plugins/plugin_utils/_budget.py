# Copyright: onprem.rollout contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""How many hosts may fail, or cannot be reached, before a rollout stops: counted per wave, per ring and in the whole rollout. Pure."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping

from ansible_collections.onprem.rollout.plugins.plugin_utils._causes import WORDS, Cause
from ansible_collections.onprem.rollout.plugins.plugin_utils._plan import Plan, RingPlan

Limit = int | str | None
ByCause = Limit | Mapping[str, Limit]


def allowed(limit: Limit, hosts: int) -> float:
    """R("10%", 25) is 2: percentages are of these hosts, rounded down. None is no limit."""
    if limit is None:
        return float("inf")
    return int(limit[:-1]) * hosts // 100 if isinstance(limit, str) else limit


class Budget:
    """Each method counts one host and gives what is exceeded now, for people, or nothing. A count is exceeded when it is > its limit."""

    def __init__(self, plan: Plan) -> None:
        self._plan = plan
        self._hosts = len(plan.hosts)
        self.failures: Counter[str] = Counter({ring.ring.name: 0 for ring in plan.rings})
        self._of_wave: Counter[tuple[str, int]] = Counter()
        self._unreachable: Counter[tuple[str, Cause]] = Counter()

    def failed(self, ring: RingPlan, wave: int) -> str:
        name, policy = ring.ring.name, ring.ring
        self.failures[name] += 1
        self._of_wave[name, wave] += 1
        return (
            _exceeded(f"wave {wave} of {name}", self._of_wave[name, wave], allowed(policy.max_wave_failures, len(ring.waves[wave - 1])))
            or _exceeded(f"ring {name}", self.failures[name], allowed(policy.max_failures, len(ring.hosts)))
            or _exceeded("the rollout", self.failures.total(), allowed(self._plan.max_failures, self._hosts))
        )

    def unreachable(self, ring: RingPlan, cause: Cause) -> str:
        name = ring.ring.name
        self._unreachable[name, cause] += 1
        here = {each: self._unreachable[name, each] for each in Cause}
        everywhere = {each: sum(number for (_ring, of), number in self._unreachable.items() if of is each) for each in Cause}
        return _too_many(f"ring {name}", here, cause, ring.ring.max_unreachable, len(ring.hosts)) or _too_many(
            "the rollout", everywhere, cause, self._plan.max_unreachable, self._hosts
        )


def _too_many(where: str, counts: Mapping[Cause, int], cause: Cause, limit: ByCause, hosts: int) -> str:
    """A number is for all whose change had not begun; of a mapping each cause has its own."""
    if isinstance(limit, Mapping):
        return _exceeded(f"{where}, {WORDS[cause]}", counts[cause], allowed(limit.get(cause.value), hosts))
    return "" if cause is Cause.AFTER else _exceeded(where, counts[Cause.BEFORE] + counts[Cause.LOGIN], allowed(limit, hosts))


def _exceeded(where: str, count: int, limit: float) -> str:
    return f"{where}: {count} > {limit:g}" if count > limit else ""
