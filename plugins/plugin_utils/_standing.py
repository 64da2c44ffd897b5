# Copyright: onprem.rollout contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""What the ledger's events add up to for one rollout. Pure.

standing = Standing("shop-2.0")
for entry in ledger.entries(): standing.hear(entry)
standing.hold            # the event by which it is held, or None
"""

from __future__ import annotations

from ansible_collections.onprem.rollout.plugins.plugin_utils._ledger import Entry

VERBS = ("approve", "hold", "resume", "abort", "promote", "unlock")


class Standing:
    """A rollout as its events say. Events of other rollouts are not heard."""

    def __init__(self, rollout: str) -> None:
        self.rollout = rollout
        self.hold: Entry | None = None
        self.abort: Entry | None = None
        self.promote: Entry | None = None
        self.run: Entry | None = None
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
            self.run, self.end, self.abort, self.promote = entry, None, None, None
        elif entry.kind == "finished":
            self.end = entry

    @property
    def at_work(self) -> bool:
        """Whether a run began that has not said that it ended. One that was killed never says so."""
        return self.run is not None and self.end is None

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
