# Copyright: onprem.rollout contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""What an operator may decide of a rollout, as it stands. Pure."""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from datetime import datetime
from typing import Any

from ansible_collections.onprem.rollout.plugins.plugin_utils._ledger import stamp
from ansible_collections.onprem.rollout.plugins.plugin_utils._policy import Problem
from ansible_collections.onprem.rollout.plugins.plugin_utils._standing import Standing, told

DIGEST = re.compile(r"[0-9a-f]{64}\Z")


def approval_problems(options: Mapping[str, Any], standing: Standing, now: float) -> list[Problem]:
    """Everything wrong with what is to be approved, and until when. A plan is known once a run began with it; before the first run any may be."""
    problems, plan = [], options["plan"]
    if not plan and not standing.plan:
        problems.append(Problem("rollout_plan", plan, f"{standing.rollout} had no run yet; give the digest that the verb plan prints"))
    elif plan and not DIGEST.match(plan):
        problems.append(Problem("rollout_plan", plan, "is no digest of a plan; give all 64 characters, as plan and status print them"))
    elif plan and standing.plans and plan not in standing.plans:
        problems.append(Problem("rollout_plan", plan, f"no run of {standing.rollout} had this plan; that of its newest run is {standing.plan}"))
    if options["expires"]:
        why, end = end_of(options["expires"])
        if why or end <= now:
            remedy = why or f"is past, it is {stamp(now)} now"
            problems.append(Problem("rollout_expires", options["expires"], f"{remedy}; write a time to come, such as 2026-12-01T06:00:00+01:00"))
    return problems


def refusal(verb: str, standing: Standing, is_gone: Callable[[Mapping[str, Any]], bool], then: str = "restore") -> str:
    """Why the verb cannot do anything, or nothing. is_gone: whether the process of a run is known to have ended; then: of an abort."""
    if verb not in ("abort", "promote"):
        return ""
    if standing.at_work and standing.run:
        died = f"the run of {standing.run.who} ended without a word, so there is nothing to {verb}; the next upgrade settles what it left half done"
        if is_gone(standing.run.data):
            return died
        if verb == "promote" and not standing.soaking:
            return f"no wave of {standing.rollout} soaks now, so there is nothing to promote"
        if verb == "abort" and standing.abort and standing.abort.data.get("then", "restore") != then:
            decided = f"is aborted with rollout_then={standing.abort.data.get('then', 'restore')} since {stamp(standing.abort.at)} by {told(standing.abort)}"
            return f"{standing.rollout} {decided}, and its hosts are on their way; {then} comes too late"
        return ""
    if standing.end is None:
        return f"{standing.rollout} had no run yet, so there is nothing to {verb}"
    return f"the last run of {standing.rollout} ended at {stamp(standing.end.at)}, so there is nothing to {verb}; to keep later runs from going on: hold"


def approved(options: Mapping[str, Any], standing: Standing, by: str, now: float) -> str:
    """That the same approval is there, for people; nothing if it is not, or not any more. One that is to be signed is another than one without."""
    for entry in standing.approvals:
        data = entry.data
        same = (data.get("plan"), data.get("by"), data.get("expires")) == (options["plan"] or standing.plan, by, options["expires"] or None)
        ended = bool(data.get("expires")) and end_of(data["expires"])[1] <= now
        if same and not ended and bool(data.get("signature")) == bool(options["key"]):
            return f"is approved already, since {stamp(entry.at)} by {told(entry)}"
    return ""


def end_of(expires: Any) -> tuple[str, float]:
    """Why the end of an approval is none, or nothing; and the end, in seconds since 1970."""
    try:
        end = datetime.fromisoformat(str(expires).replace("Z", "+00:00"))
        return ("", end.timestamp()) if end.tzinfo else ("does not say in which zone", 0.0)
    except (ValueError, OverflowError):
        return "is no ISO 8601 time", 0.0
