# Copyright: onprem.rollout contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Looks at the health of the whole fleet when the conductor wants one, before and after a wave, and again until it is good or took too long."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from ansible_collections.onprem.rollout.plugins.plugin_utils import _fleet
from ansible_collections.onprem.rollout.plugins.plugin_utils._asks import Asks
from ansible_collections.onprem.rollout.plugins.plugin_utils._conductor import Conductor
from ansible_collections.onprem.rollout.plugins.plugin_utils._orders import Event
from ansible_collections.onprem.rollout.plugins.plugin_utils._stage import Settings
from ansible_collections.onprem.rollout.plugins.plugin_utils._states import Halt

FRESH = 30.0  # seconds for which the look after a wave is the one before the next


class Looks:
    def __init__(self, conductor: Conductor, asks: Asks, settings: Settings, tell: Callable[[Event], None]) -> None:
        self._conductor = conductor
        self._asks = asks
        self._settings = settings
        self._tell = tell
        self._place: tuple[str, int, str] | None = None
        self._asked = 0
        self._answers: dict[str, Any] = {}
        self._why = ""
        self._since = self._again_at = 0.0
        self._good_at = float("-inf")

    def attend(self, now: float) -> bool:
        """Whether something went on, so that the conductor is to be asked again."""
        ring, wave, _state = self._conductor.current or ("", 0, None)
        place = (ring, wave, self._conductor.look) if self._conductor.look and self._conductor.halt is None else None
        if place != self._place:
            self._place, self._since, self._why = place, now, ""
            if self._conductor.look == "before" and place is not None and now - self._good_at <= FRESH:
                return self._good(now)
            return place is not None and self._ask(now)
        if place is None or len(self._answers) < self._asked:
            return False
        if not self._again_at:
            return self._judge(now)
        if now - self._since >= self._settings.max_wait:
            self._conductor.outlasted(Halt.UNHEALTHY, self._why, now)
            return True
        return now >= self._again_at and self._ask(now)

    def give_up(self) -> None:
        self._place = None

    def _ask(self, now: float) -> bool:
        hosts = _fleet.members(self._conductor.states(), self._conductor.plan.held)
        self._asked, self._answers, self._again_at = len(hosts), {}, 0.0
        for host in hosts:
            self._asks.add(host, self._answers.__setitem__)
        self._asks.step()
        return True

    def _judge(self, now: float) -> bool:
        why = _fleet.verdict(self._answers, self._conductor.plan.max_unhealthy, len(self._conductor.plan.hosts))
        self._say(f"hold: {why}" if why else "pass: the fleet is healthy again" if self._why else "", why != self._why, now)
        self._why, self._again_at = why, now + self._settings.look_interval
        return True if why else self._good(now)

    def _good(self, now: float) -> bool:
        self._good_at = now
        self._conductor.looked()
        return True

    def _say(self, what: str, new: bool, now: float) -> None:
        if what and new and self._place:
            ring, wave, _when = self._place
            self._tell(Event("gate", now, ring=ring, wave=wave, detail=what))
