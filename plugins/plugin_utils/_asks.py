# Copyright: onprem.rollout contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Runs the checks of hosts that are not at work, out of turn and as many at once as core has free workers."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from ansible_collections.onprem.rollout.plugins.plugin_utils._stage import Stage

Hear = Callable[[str, Any], None]


class Asks:
    """hear(host, results) is called once for each host that is added: the result of each of its checks, or None when it gave no answer."""

    def __init__(self, stage: Stage) -> None:
        self._stage = stage
        self._waiting: dict[str, list[Hear]] = {}
        self._asked: dict[str, list[Hear]] = {}

    @property
    def busy(self) -> list[str]:
        return [host for host in self._asked if self._stage.busy(host)]

    def add(self, host: str, hear: Hear) -> None:
        self._waiting.setdefault(host, []).append(hear)

    def step(self) -> None:
        for host in list(self._waiting):
            if not self._stage.can_ask:
                self._tell(self._waiting.pop(host), host, None)
            elif host not in self._asked and not self._stage.busy(host):
                if not self._stage.ask(host):
                    return
                self._asked[host] = self._waiting.pop(host)

    def heard(self, host: str, results: Any) -> None:
        self._tell(self._asked.pop(host, []), host, results)

    def give_up(self) -> None:
        self._waiting.clear()
        self._asked.clear()

    def _tell(self, hears: list[Hear], host: str, results: Any) -> None:
        for hear in hears:
            hear(host, results)
