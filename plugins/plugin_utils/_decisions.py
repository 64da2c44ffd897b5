# Copyright: onprem.rollout contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""What operators decide while a rollout runs, brought from the ledger to the conductor; and how long a run waits for them.

Whoever holds the rollout, or a ledger that cannot be written, stops it between hosts: hosts in change go on to their end, nobody new is let in.
"""

from __future__ import annotations

from collections.abc import Callable

from ansible_collections.onprem.rollout.plugins.plugin_utils._conductor import Conductor, Event
from ansible_collections.onprem.rollout.plugins.plugin_utils._journal import Journal
from ansible_collections.onprem.rollout.plugins.plugin_utils._ledger import Entry
from ansible_collections.onprem.rollout.plugins.plugin_utils._standing import told


class Decisions:
    """tell hears of everything that changes. max_wait: after so many seconds in which nothing may go on, the run ends as waiting."""

    def __init__(self, conductor: Conductor, journal: Journal, tell: Callable[[Event], None], max_wait: float, clock: Callable[[], float]) -> None:
        self._conductor = conductor
        self._journal = journal
        self._tell = tell
        self._max_wait = max_wait
        self._clock = clock
        self._waits_since: float | None = None

    def attend(self) -> None:
        """Hear the ledger, and act. Called before every pass."""
        if self._conductor.finished:
            return
        for entry in self._journal.listen():
            self._act(entry)
        self._journal.flush()
        hold = self._journal.standing.hold
        self._pause(self._journal.trouble or (f"held by {told(hold)}" if hold else ""))
        self._wait()

    def _act(self, entry: Entry) -> None:
        now = self._clock()
        if entry.kind == "abort":
            self._tell(Event("decided", now, detail=f"abort by {told(entry)}"))
            self._conductor.stop(entry.data.get("then") == "keep", now)
        elif entry.kind == "promote":
            self._tell(Event("decided", now, detail=f"the soak ends, by {told(entry)}"))
            self._conductor.promote(now)

    def _pause(self, why: str) -> None:
        if why != self._conductor.paused:
            self._tell(Event("decided", self._clock(), detail=f"nobody new is let in: {why}" if why else "goes on"))
            self._conductor.paused = why

    def _wait(self) -> None:
        """Count the time in which nothing goes on."""
        now = self._clock()
        if not self._conductor.paused or not self._conductor.stands_still or self._conductor.halt is not None:
            self._waits_since = None
        elif self._waits_since is None:
            self._waits_since = now
        elif now - self._waits_since >= self._max_wait:
            self._conductor.give_way(now)
