# Copyright: onprem.rollout contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""What every type of gate asks of its item of the policy. Pure.

A reader notes every problem and goes on with the default, so that all of them are shown at once.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

from ansible_collections.onprem.rollout.plugins.plugin_utils import _policy
from ansible_collections.onprem.rollout.plugins.plugin_utils._policy import Problem


class Options:
    """One mapping of options that stands at C(where)."""

    def __init__(self, raw: Mapping[str, Any], known: Iterable[str], where: str) -> None:
        self.raw = raw
        self.where = where
        self.problems: list[Problem] = []
        allowed = ", ".join(sorted(known))
        for option in raw:
            if option not in known:
                self.wrong(str(option), f"no such option; allowed: {allowed}")

    def wrong(self, option: str, remedy: str) -> None:
        self.problems.append(Problem(f"{self.where}.{option}", self.raw.get(option), remedy))

    def text(self, option: str, default: str, remedy: str) -> str:
        """One line of text that is not empty, or the default where the option is not given."""
        raw = self.raw.get(option)
        if raw is None:
            return default
        if not isinstance(raw, str) or not raw.strip() or not raw.isprintable():
            self.wrong(option, remedy)
            return default
        return raw.strip()

    def name(self, default: str) -> str:
        return self.text("name", default, "write one line of text, or leave it out")

    def flag(self, option: str, default: bool) -> bool:
        raw = self.raw.get(option, default)
        if not isinstance(raw, bool):
            self.wrong(option, "write true or false")
            return default
        return raw

    def whole(self, option: str, default: int) -> int:
        """A number from 1 on."""
        number = _policy._whole(self.raw.get(option, default))
        if number is None or number < 1:
            self.wrong(option, "write a whole number from 1 on")
            return default
        return number

    def seconds(self, option: str, default: float, least: float = 0.0) -> float:
        raw = self.raw.get(option)
        if raw is None:
            return default
        before = len(self.problems)
        value = _policy._seconds(raw, f"{self.where}.{option}", self.problems)
        if len(self.problems) == before and value < least:
            self.wrong(option, f"write at least {least:g} seconds")
        return value
