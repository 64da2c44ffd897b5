# Copyright: onprem.rollout contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""What the ledger's events add up to for one rollout. Pure.

standing = Standing("shop-2.0")
for entry in ledger.entries(): standing.hear(entry)
standing.hold            # the event by which it is held, or None
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from enum import Enum
from typing import Any

from ansible_collections.onprem.rollout.plugins.plugin_utils._ledger import Entry, stamp

VERBS = ("approve", "hold", "resume", "abort", "promote", "unlock")


class Standing:
    """A rollout as its events say. Events of other rollouts are not heard."""

    def __init__(self, rollout: str) -> None:
        self.rollout = rollout
        self.hold: Entry | None = None
        self.abort: Entry | None = None
        self.promote: Entry | None = None
        self.run: Entry | None = None
        self.wave: Entry | None = None
        self.outage: Entry | None = None
        self.halted: Entry | None = None
        self.end: Entry | None = None
        self.approvals: list[Entry] = []

    def hear(self, entry: Entry) -> None:
        if entry.rollout != self.rollout:
            return
        if entry.kind == "hold":
            self.hold = self.hold or entry
        elif entry.kind == "resume":
            self.hold = None
        elif entry.kind == "abort":
            self.abort = entry
        elif entry.kind == "promote":
            self.promote = entry
        elif entry.kind == "approve":
            self.approvals.append(entry)
        elif entry.kind == "started":
            self.run, self.end, self.wave, self.halted, self.abort, self.promote, self.outage = entry, None, None, None, None, None, None
        elif entry.kind == "wave":
            if entry.data.get("state") != "soaking":  # that it soaks, and for how long, was said just before
                self.wave = entry
        elif entry.kind == "outage":
            self.outage = entry if entry.data.get("why") else None
        elif entry.kind == "halted":
            self.halted = entry
        elif entry.kind == "finished":
            self.end = entry

    @property
    def at_work(self) -> bool:
        """Whether a run began that has not said that it ended. One that was killed never says so."""
        return self.run is not None and self.end is None

    @property
    def unfinished(self) -> Entry | None:
        """The start of the newest run, unless that one brought the rollout to its end."""
        return None if self.end and self.end.data.get("how") == "ok" else self.run

    @property
    def plan(self) -> str:
        """The digest of the plan of the newest run."""
        return str(self.run.data.get("plan", "")) if self.run else ""


def settled(verb: str, standing: Standing) -> str:
    """Why the verb has nothing to do, for people; nothing if it has."""
    if verb == "hold" and standing.hold:
        return f"is held already, by {told(standing.hold)}"
    if verb == "resume" and not standing.hold:
        return "is not held"
    if verb == "abort" and standing.abort:
        return f"is aborted already, by {told(standing.abort)}"
    if verb in ("abort", "promote") and not standing.at_work:
        return "has no run at work"
    return ""


def told(entry: Entry) -> str:
    """Who, when and why, in one line."""
    why = f": {entry.data['why']}" if entry.data.get("why") else ""
    return f"{entry.who}{why}"


def standing_of(entries: Iterable[Entry], rollout: str = "") -> Standing | None:
    """How that rollout stands, or, without a name, the one that began last; None when there is none."""
    found: dict[str, Standing] = {}
    newest = rollout
    for entry in entries:
        found.setdefault(entry.rollout, Standing(entry.rollout)).hear(entry)
        if entry.kind == "started" and not rollout:
            newest = entry.rollout
    return found.get(newest)


class Reason(str, Enum):
    """Why something or nothing happens in a rollout: a closed set."""

    NOT_STARTED = "not_started"
    RUNNING = "running"
    OUTAGE = "outage"
    SOAKING = "soaking"
    HELD = "held"
    WAITING = "waiting"
    HALTED = "halted"
    DIED = "died"
    NOT_EVERYWHERE = "not_everywhere"
    DONE = "done"

    def __str__(self) -> str:
        return self.value


def reason(standing: Standing, is_gone: Callable[[Mapping[str, Any]], bool]) -> tuple[Reason, str]:
    """The reason and a sentence for people. is_gone: whether the process of a run is known to have ended."""
    run, end = standing.run, standing.end
    if standing.hold:
        return Reason.HELD, f"held since {stamp(standing.hold.at)} by {told(standing.hold)}"
    if run is None:
        return Reason.NOT_STARTED, "no run of it is in the ledger"
    if end is None and is_gone(run.data):
        return Reason.DIED, f"the run of {run.who} ended without a word; the next upgrade settles what it left half done"
    if end is None and standing.outage:
        return Reason.OUTAGE, f"an outage since {stamp(standing.outage.at)}: {standing.outage.data['why']}"
    if end is None:
        where = f"{standing.wave.data['ring']} wave {standing.wave.data['wave']}" if standing.wave else "the hosts are asked"
        state = str(standing.wave.data["state"]) if standing.wave else ""
        if state.startswith("soaks"):
            return Reason.SOAKING, f"{where} {state} since {stamp(standing.wave.at if standing.wave else 0)}"
        return Reason.RUNNING, f"{where}, by {run.who}"
    how, when = end.data.get("how"), stamp(end.at)
    if how == "ok":
        return Reason.DONE, f"every host that takes part has it since {when}"
    if how == "waiting":
        return Reason.WAITING, f"the last run waited until {when}: {end.data.get('paused')}"
    if how in ("halted", "interrupted"):
        return Reason.HALTED, f"the last run was {how} at {when}{': ' + end.data['why'] if end.data.get('why') else ''}"
    return Reason.NOT_EVERYWHERE, f"the last run ended at {when}, and some hosts are left"
