# Copyright: onprem.rollout contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""What goes between the conductor and whoever drives it: orders one way, events the other. Pure."""

from __future__ import annotations

from dataclasses import dataclass, field

from ansible_collections.onprem.rollout.plugins.plugin_utils._states import State


@dataclass(slots=True)
class Orders:
    """What the driver must do now; wake_at is when to ask again if nothing is reported before."""

    admit: list[str] = field(default_factory=list)
    commit: list[str] = field(default_factory=list)
    revert: list[str] = field(default_factory=list)
    wake_at: float | None = None


@dataclass(frozen=True, slots=True)
class Event:
    """Something that happened: kind is one of admitted, parked, failing, ended, wave, soak, halted, finished."""

    kind: str
    at: float
    host: str = ""
    state: State | None = None
    ring: str = ""
    wave: int = 0
    detail: str = ""
