# Copyright: onprem.rollout contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Hosts that must not commit, for the worker processes that are forked from the one that decides it."""

from __future__ import annotations

IDLE = "the payload ran no task, so the release cannot have been installed"
NOT_SOAKED = "its soak was not served, and it was not asked whether it may commit"

_reasons: dict[tuple[str, str], str] = {}


def withhold(host: str, why: str, of: str = "payload") -> None:
    """From here on the host does not commit and goes back; it may, if there is no reason. of: what sees to it, each for itself."""
    _reasons[host, of] = why


def forget() -> None:
    """The rollout is over."""
    _reasons.clear()


def reason(host: str) -> str:
    """Why the host must not commit, as it was when this process was forked; nothing where the engine sees to it in another way."""
    return next((why for (name, _of), why in _reasons.items() if name == host and why), "")
