# Copyright: onprem.rollout contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""When parked hosts prove themselves healthy again. Pure.

proofs.proven("web1", now)               # it is parked, and was healthy just now
proofs.due(now, 60)                      # who was not asked for 60 s, the longest first; it is not due again before the next proven()
"""

from __future__ import annotations


class Proofs:
    def __init__(self) -> None:
        self._proven: dict[str, float] = {}  # in the order of time

    def proven(self, host: str, now: float) -> None:
        self.forget(host)
        self._proven[host] = now

    def forget(self, host: str) -> None:
        self._proven.pop(host, None)

    def due(self, now: float, interval: float) -> str | None:
        host = next(iter(self._proven), None)
        return host if host is not None and now - self._proven[host] >= interval else None
