# Copyright: onprem.rollout contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Who holds a host, by what its module unlock told, and whether it may be taken from them."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from ansible_collections.onprem.rollout.plugins.plugin_utils import _holder
from ansible_collections.onprem.rollout.plugins.plugin_utils._story import clean, span


def said(told: Mapping[str, Any]) -> str:
    """Who holds the host, for people."""
    what = f"{clean(told['phase'])} to {clean(told['release'])} since {clean(told['began'])}"
    if told["held"]:
        holder = told["holder"]
        left = f"its lease goes on for {span(told['lease_left'])}" if told["lease_left"] else "its lease has ended"
        known = "that run has ended" if _holder.is_gone(holder) else "that run is alive" if _holder.is_alive(holder) else left
        return f"held by rollout {clean(told['rollout'])} of {clean(_holder.describe(holder))}: {what}; {known}"
    if told.get("evicted"):
        by = told["evicted"]
        from_whom, who = (clean(_holder.describe(by.get(one) or {})) for one in ("holder", "by"))
        return f"nobody holds it: {what}, left half done by {from_whom}, from whom {who} took it at {clean(by.get('at'))}: {clean(by.get('why'))}"
    return "nobody holds it"


def refusal(told: Mapping[str, Any], why: str, force: bool) -> str:
    """Why the host is not taken from its run; nothing if it is."""
    holder = told["holder"]
    if not why.strip():
        return "rollout_why is empty: say why the host is taken, for those who read the ledger. Nothing was touched"
    if force or _holder.is_gone(holder) or (told["lease_left"] <= 0 and not _holder.is_alive(holder)):
        return ""
    return f"{said(told)}. It may be at work, so it was not touched. End that run, or wait; rollout_force_evict: true takes the host all the same"
