# Copyright: onprem.rollout contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""The rollouts of all versions of one release, of which one run at a time is at work. No disk, no clock.

A rollout of another version that did not come to its end is superseded by the run that takes the release, whether a run of it is at work, waits
for the end of another one, or ended before. Versions are ordered by packaging, which ansible-core itself depends on.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

from packaging.version import InvalidVersion, Version

from ansible_collections.onprem.rollout.plugins.plugin_utils._ledger import Entry, Event
from ansible_collections.onprem.rollout.plugins.plugin_utils._standing import Standing, by_whom, told

TO_GO_ON = "To roll it out all the same: --extra-vars rollout_replan=true"


class Versions:
    """own: how the rollout of this version stands. ended: the runs, of whatever version, that said that they ended."""

    def __init__(self, name: str, version: str) -> None:
        self.release = {"name": name, "version": version}
        self.own = Standing(f"{name}-{version}")
        self.ended: set[str] = set()
        self._standings = {self.own.rollout: self.own}
        self._versions: dict[str, str] = {}
        self._runs: dict[int, str] = {}  # by the line that each began with
        self._submitted: set[str] = set()  # who superseded another one, and has not begun

    def hear(self, entry: Entry) -> None:
        if not entry.rollout:  # it is bare
            return
        standing = self._standings.setdefault(entry.rollout, Standing(entry.rollout))
        standing.hear(entry)
        release = entry.data.get("release") or {}
        if entry.kind == "started":
            self._learn(entry.rollout, release)
            self._submitted.discard(entry.rollout)
            self._runs[entry.head.number] = str(entry.data.get("run"))
            self.ended.discard(self._runs[entry.head.number])  # one ansible-playbook may have several plays
        elif entry.kind == "superseded":
            self._submitted.discard(entry.rollout)
            newer = f"{release.get('name')}-{release.get('version')}"
            self._learn(newer, release)
            self._submitted.add(newer)
        elif entry.kind == "finished" and standing.run and entry.rollout in self._versions:
            number = entry.data.get("run", standing.run.head.number)
            self.ended.update({self._runs[number]} if number in self._runs else ())

    def _learn(self, rollout: str, release: Mapping[str, Any]) -> None:
        if release.get("name") == self.release["name"]:
            self._versions[rollout] = str(release.get("version"))
            self._standings.setdefault(rollout, Standing(rollout))

    def at_work(self, is_gone: Callable[[Mapping[str, Any]], bool]) -> Standing | None:
        """The rollout, of whatever version, whose run has the release, as far as runs say that they began and ended."""
        known = [self._standings[rollout] for rollout in {*self._versions, self.own.rollout}]
        running = [(each.run.head.number, each) for each in known if each.run and each.at_work and not is_gone(each.run.data)]
        return max(running, key=lambda found: found[0])[1] if running else None

    @property
    def in_progress(self) -> list[Standing]:
        """The rollouts of other versions that did not come to their end and are not superseded."""
        others = (self._standings[rollout] for rollout in self._versions if rollout != self.own.rollout)
        return [each for each in others if not each.superseded and (each.at_work or each.unfinished or each.rollout in self._submitted)]

    def refusal(self) -> str:
        """Why this version is rolled out only if somebody says that it is meant, or nothing."""
        rollout = self.own.rollout
        if self.own.superseded:
            return f"{rollout} was superseded {by_whom(self.own.superseded)}. {TO_GO_ON}"
        newer = [each.rollout for each in self.in_progress if not _is_older(self._versions[each.rollout], self.release["version"])]
        return f"{rollout} would supersede {', '.join(newer)}, which is in progress and no older version. {TO_GO_ON}" if newer else ""

    def to_supersede(self, by: str) -> list[Event]:
        """What is to be written so that this version takes the place of those in progress. Who held one of them held the release: that goes on."""
        others = self.in_progress
        holds = [each.hold for each in others if each.hold]
        events = [Event("superseded", each.rollout, {"by": by, "release": self.release}) for each in others]
        if holds and not self.own.hold:
            why = f"{holds[0].rollout} was held by {told(holds[0])}"
            events.append(Event("hold", self.own.rollout, {"by": holds[0].data.get("by"), "why": why}))
        return events


def _is_older(version: str, than: str) -> bool:
    """False where the two have no order."""
    try:
        return Version(version) < Version(than)
    except InvalidVersion:
        return False
