# Copyright: onprem.rollout contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""What the ledger's events add up to for one rollout. Pure.

standing = Standing("shop-2.0")
for entry in ledger.entries(): standing.hear(entry)
standing.hold            # the event by which it is held, or None
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping

from ansible_collections.onprem.rollout.plugins.plugin_utils._ledger import Entry, stamp

VERBS = ("approve", "hold", "resume", "abort", "promote", "unlock")
BY_OPERATORS = (*VERBS, "recover")
BY_RUNS = ("wave", "host", "gate", "outage", "waived", "halted", "finished")  # each says by its line which started event is of its run


class Standing:
    """A rollout as its events say. Events of other rollouts are not heard.

    unfinished: the start of the run that has not brought it to its end: the newest of all hosts, or, without one, of some only.
    soaks: by ring, until when (seconds since 1970) a soak goes on that no run brought to its end.
    promoted: by whom the soak at work was ended.
    launchers: by plan, who started runs of it.
    everywhere: a run of all hosts brought it to its end, and those of some hosts since, too.
    """

    def __init__(self, rollout: str) -> None:
        self.rollout = rollout
        self.hold: Entry | None = None
        self.abort: Entry | None = None
        self.superseded: Entry | None = None
        self.promote: Entry | None = None
        self.promoted: Entry | None = None
        self.run: Entry | None = None
        self.wave: Entry | None = None
        self.outage: Entry | None = None
        self.gate: Entry | None = None
        self.halted: Entry | None = None
        self.recovered: Entry | None = None
        self.end: Entry | None = None
        self.approvals: list[Entry] = []
        self.plans: set[str] = set()
        self.launchers: dict[str, set[str]] = {}
        self.last: Entry | None = None
        self.wave_states: dict[tuple[str, int], str] = {}
        self.soaks: dict[str, float] = {}
        self.unfinished: Entry | None = None
        self.everywhere = False

    def hear(self, entry: Entry) -> None:
        if entry.rollout != self.rollout or self._is_of_another_run(entry):
            return
        if entry.kind not in (*BY_OPERATORS, "superseded"):  # which others write
            self.last = entry
        if entry.kind == "hold":
            self.hold = self.hold or entry
        elif entry.kind == "resume":
            self.hold = None
        elif entry.kind == "abort":
            self.abort = entry
        elif entry.kind == "promote":
            self.promote = entry
            self.promoted = entry if self.soaking else None
        elif entry.kind == "superseded":
            self.superseded = entry
        elif entry.kind == "approve":
            self.approvals.append(entry)
        elif entry.kind == "started":
            self.run, self.end, self.wave, self.gate, self.halted, self.abort, self.promote = entry, None, None, None, None, None, None
            self.outage = self.recovered = self.promoted = self.superseded = None
            self.wave_states = {}
            self.soaks = dict(entry.data.get("soaks") or {})
            self.plans.add(self.plan)
            self.launchers.setdefault(self.plan, set()).add(str(entry.data.get("by") or ""))
            if not self.limited:
                self.everywhere = False
            if not (self.limited and self.unfinished):
                self.unfinished = entry
        elif entry.kind == "wave":
            self._hear_wave(entry)
        elif entry.kind == "recover":
            self.recovered = entry
        elif entry.kind == "outage":
            self.outage = entry if entry.data.get("why") else None
        elif entry.kind == "gate":
            self.gate = None if entry.data.get("verdict") == "pass" else entry
        elif entry.kind == "halted":
            self.halted = entry
        elif entry.kind == "finished":
            self.end = entry
            self.wave_states = {place: state if state == "judged" else "stopped" for place, state in self.wave_states.items()}
            well = entry.data.get("how") == "ok"
            self.everywhere = well and (self.everywhere or not self.limited)
            if self.everywhere:
                self.unfinished = None

    def _is_of_another_run(self, entry: Entry) -> bool:
        """Whether a run wrote it that is not the newest one, and lost the release to that. Of lines from before runs were named nobody can tell."""
        return entry.kind in BY_RUNS and self.run is not None and entry.data.get("run", self.run.head.number) != self.run.head.number

    def _hear_wave(self, entry: Entry) -> None:
        state, ring = str(entry.data.get("state")), str(entry.data.get("ring"))
        if state != "soaking":
            self.promoted = None
        if state.startswith("soaks "):
            self.soaks[ring] = entry.at + float(state.split()[1])
        elif state in ("committing", "judged"):
            self.soaks.pop(ring, None)
        if state != "soaking":  # that it soaks, and for how long, was said just before
            self.wave, self.gate = entry, None
            place = ring, int(entry.data.get("wave") or 0)
            self.wave_states[place] = "stopped" if state == "judged" and self.halted else state

    @property
    def release(self) -> str:
        """The name of the release, by which one run at a time has it; where no run began, nobody has."""
        return str((self.run.data.get("release") or {}).get("name") or self.rollout) if self.run else self.rollout

    @property
    def at_work(self) -> bool:
        """Whether a run began that has not said that it ended. One that was killed never says so."""
        return self.run is not None and self.end is None

    @property
    def soaking(self) -> bool:
        """Whether a wave of the run at work soaks."""
        return self.at_work and any(state.startswith("soaks ") for state in self.wave_states.values())

    @property
    def limited(self) -> bool:
        """Whether the newest run is of some hosts only: that one brings nobody else to the release."""
        return bool(self.run and self.run.data.get("limited"))

    @property
    def since(self) -> int:
        """The number of the oldest event that counts for the runs and verbs to come; 0 when none does."""
        return self.hold.head.number if self.hold else 0

    @property
    def plan(self) -> str:
        """The digest of the plan of the newest run."""
        return str(self.run.data.get("plan", "")) if self.run else ""

    @property
    def waves(self) -> Mapping[str, list[list[str]]]:
        """The hosts of every wave of the newest run, by ring, in the order of the rollout."""
        return dict(self.run.data.get("inputs", {}).get("waves", [])) if self.run else {}


def settled(verb: str, standing: Standing, then: str = "restore") -> str:
    """Why the verb has nothing to do, for people; nothing if it has. then: of an abort."""
    if verb == "hold" and standing.hold:
        return f"is held already, since {stamp(standing.hold.at)} by {told(standing.hold)}"
    if verb == "resume" and not standing.hold:
        return "is not held"
    if verb == "abort" and standing.abort and standing.abort.data.get("then", "restore") == then:
        return f"is aborted already, since {stamp(standing.abort.at)} by {told(standing.abort)}"
    if verb == "promote" and standing.promoted:
        return f"is promoted already, since {stamp(standing.promoted.at)} by {told(standing.promoted)}"
    if verb == "promote" and standing.promote and not standing.at_work:
        return f"was promoted at {stamp(standing.promote.at)} by {told(standing.promote)}, and its run has ended"
    return ""


def told(entry: Entry) -> str:
    """Who, when and why, in one line."""
    why = f": {entry.data['why']}" if entry.data.get("why") else ""
    return f"{entry.who}{why}"


def by_whom(superseded: Entry) -> str:
    """By which version, when and by whom."""
    newer = superseded.data.get("release") or {}
    return f"by {newer.get('name')}-{newer.get('version')} at {stamp(superseded.at)}, of {superseded.who}"


def standing_of(entries: Iterable[Entry], rollout: str = "") -> Standing | None:
    """How that rollout stands, or, without a name, the one that began last; None when there is none."""
    found: dict[str, Standing] = {}
    newest = rollout
    for entry in entries:
        found.setdefault(entry.rollout, Standing(entry.rollout)).hear(entry)
        if entry.kind == "started" and not rollout:
            newest = entry.rollout
    return found.get(newest)


def lately(newest_first: Iterable[Entry], rollout: str = "") -> Standing | None:
    """The same as far as verbs ask, read from the end: back to what the start of the newest run says that still counts.

    Without a run of that rollout everything is read.
    """
    found: list[Entry] = []
    counts = 0
    for entry in newest_first:
        if entry.kind == "started" and not counts and rollout in ("", entry.rollout):
            rollout, counts = entry.rollout, int(entry.data.get("since", 1))
        if not rollout or entry.rollout == rollout:
            found.append(entry)
        if counts and entry.head.number <= counts:
            break
    if not rollout:
        return None
    standing = Standing(rollout)
    for entry in reversed(found):
        standing.hear(entry)
    return standing
