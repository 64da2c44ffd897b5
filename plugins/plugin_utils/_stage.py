# Copyright: onprem.rollout contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""What the driver needs: of core, and of whoever starts a rollout."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from enum import Enum
from typing import Any, Protocol

from ansible_collections.onprem.rollout.plugins.plugin_utils._waivers import Waivers


class Place(Enum):
    """Where a host stands in the play."""

    READING = "reading"
    BEGIN = "begin"
    WORKING = "working"
    COMMIT = "commit"
    RESCUE = "rescue"
    OVER = "over"


class Stage(Protocol):
    """What the driver needs of core; see L(_core.Core)."""

    @property
    def width(self) -> int: ...
    def busy(self, host: str) -> bool: ...
    def place(self, host: str) -> Place: ...
    def turn_back(self, host: str, why: str, blameless: bool) -> bool: ...
    def again(self, host: str) -> None: ...
    def withdraw(self, host: str) -> None: ...
    def leave_out(self, host: str) -> None: ...
    def prove_again(self, host: str) -> bool: ...
    @property
    def can_ask(self) -> bool: ...
    def ask(self, host: str) -> bool: ...
    def undo_failure(self, host: str) -> Place: ...
    def restrict(self, hosts: Any) -> None: ...
    def await_result(self) -> None: ...
    def dead_worker(self) -> bool: ...
    def terminated(self) -> bool: ...


class WorkerDied(Exception):
    """A worker process of the controller was killed; what its host did is unknown to this run."""


@dataclass(slots=True)
class Settings:
    """reconnect_timeout: seconds a host that went dark in change may take to come back.
    reconnect_interval: seconds between two tries to reach it.
    renew_interval: seconds after which a parked host proves itself healthy again, which also renews its lease.
    retry_failed: hosts where a release that failed before is tried again.
    release: its name, version, digest, epoch and vulnerable ranges, as a host judges it.
    waivers: hosts that may go below their floor all the same, and why other waivers do not count.
    outage_interval: seconds after which a host does its check again in an outage.
    look_interval: seconds after which a fleet that is not healthy is looked at again.
    max_wait: seconds that an outage, or a fleet that is not healthy, may last before the rollout ends.
    seek_interval: seconds after which a host that was given up is looked for again, as long as the run goes on."""

    reconnect_timeout: float = 300.0
    reconnect_interval: float = 5.0
    retry_failed: frozenset[str] = frozenset()
    renew_interval: float = 600.0
    outage_interval: float = 10.0
    look_interval: float = 30.0
    max_wait: float = 1800.0
    release: Mapping[str, Any] = field(default_factory=dict)
    waivers: Waivers = field(default_factory=Waivers)
    seek_interval: float = 15.0
