# Copyright: onprem.rollout contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""What the tests of the journal share: clocks, and what other runs do to the ledger."""

from __future__ import annotations

from ansible_collections.onprem.rollout.plugins.plugin_utils._journal import Journal
from ansible_collections.onprem.rollout.plugins.plugin_utils._ledger import Event
from ansible_collections.onprem.rollout.plugins.plugin_utils._ledger_file import LedgerFile


class Clock:
    def __init__(self):
        self.now = 100.0

    def __call__(self):
        return self.now


class Sleeps(Clock):
    """A clock that a sleep moves, and what happens meanwhile."""

    def __init__(self, happens=None):
        super().__init__()
        self.happens = happens or (lambda: None)

    def sleep(self, seconds):
        self.now += seconds
        self.happens()


def other(place, kind, rollout="shop-2.0"):
    return LedgerFile(str(place), "bob", lambda: 0.0).append([Event(kind, rollout, {})])


def at_work(place, who="bob on ctl2, pid 7, job 12", run="ctl2/b/n/7/1", version="2.0"):
    """What the ledger says of that run."""
    LedgerFile(str(place), who, lambda: 60.0).append([Event("started", f"shop-{version}", {"run": run, "release": {"name": "shop", "version": version}})])


def newer(place, clock, wait=60.0, version="2.1"):
    """A journal of a newer version, what its people read, and what was in the ledger when it was judged."""
    found = Journal(LedgerFile(str(place), "ada", lambda: 90.0), "shop", version, clock, clock.sleep)
    found.told, found.judged = [], []
    found.open(lambda: found.judged.append(kinds(place)), "ada", wait, found.told.append)
    return found


def kinds(place):
    return [entry.kind for entry in LedgerFile(str(place), "", lambda: 0.0).entries()]
