# Copyright: onprem.rollout contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""What a gate is: a condition that a wave waits for before its first host. Pure.

A gate is asked again and again until it passes or fails. It fails closed: whoever cannot be asked gives no pass.
Each type of gate is a file of its own with

    TYPE: the word in the policy
    parse(raw, where) -> (gate or None, problems)     # everything wrong with one item of the policy, found before any host is touched
"""

from __future__ import annotations

from collections.abc import Collection, Sequence
from dataclasses import dataclass
from enum import Enum
from typing import Protocol

from ansible_collections.onprem.rollout.plugins.plugin_utils._ledger import Entry


class Verdict(str, Enum):
    """pass lets the wave begin, fail halts the rollout, hold waits for a human or a time, error is asked again soon and then holds."""

    PASS = "pass"
    FAIL = "fail"
    HOLD = "hold"
    ERROR = "error"

    def __str__(self) -> str:
        return self.value


@dataclass(frozen=True, slots=True)
class Answer:
    """A verdict, why in one sentence for people, and when it may change by itself: seconds since 1970, None if nobody knows."""

    verdict: Verdict
    why: str
    until: float | None = None


@dataclass(frozen=True, slots=True)
class Situation:
    """What is asked about: the wave that is to begin, and what the ledger knows.

    plan: the digest of the plan, to which approvals are bound.
    rollout: the name and version of the release, such as shop-2.0, as in the ledger's events.
    ring, wave, hosts: the wave, counted from 1 on.
    launcher: who started this run, as in the ledger's events.
    now: seconds since 1970.
    events: the ledger's events of this rollout, the oldest first.
    launchers: who started runs of this plan, as far as the ledger knows.
    """

    plan: str
    rollout: str
    ring: str
    wave: int
    hosts: tuple[str, ...]
    launcher: str
    now: float
    events: Sequence[Entry]
    launchers: Collection[str] = ()


class Gate(Protocol):
    """name is what people call it: its own, or its type."""

    name: str

    def ask(self, situation: Situation) -> Answer: ...
