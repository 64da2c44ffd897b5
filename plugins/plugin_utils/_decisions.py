# Copyright: onprem.rollout contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""What operators and gates decide while a rollout runs, brought to the conductor; and how long a run waits for them.

Whoever holds the rollout, a gate that closes, and a ledger that cannot be written stop it between hosts: hosts in change go on to their
end, nobody new is let in.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping

from ansible_collections.onprem.rollout.plugins.plugin_utils._conductor import Conductor
from ansible_collections.onprem.rollout.plugins.plugin_utils._gate import Answer, Gate, Situation, Verdict
from ansible_collections.onprem.rollout.plugins.plugin_utils._gate_command import Pending
from ansible_collections.onprem.rollout.plugins.plugin_utils._gates import Watch, judge
from ansible_collections.onprem.rollout.plugins.plugin_utils._journal import Journal
from ansible_collections.onprem.rollout.plugins.plugin_utils._ledger import Entry, repair_of
from ansible_collections.onprem.rollout.plugins.plugin_utils._orders import Event
from ansible_collections.onprem.rollout.plugins.plugin_utils._standing import VERBS, by_whom, told
from ansible_collections.onprem.rollout.plugins.plugin_utils._states import Halt, Wave

ASKED = (Wave.PENDING, Wave.FILLING)  # while hosts of a wave may be let in


class Decisions:
    """tell hears of everything that changes. max_wait: after so many seconds in which nothing may go on, the run ends as waiting.

    clock: any that never runs backwards; now: seconds since 1970, for gates.
    """

    def __init__(
        self,
        conductor: Conductor,
        journal: Journal,
        tell: Callable[[Event], None],
        max_wait: float,
        clock: Callable[[], float],
        now: Callable[[], float],
        gates: Mapping[str, Iterable[Gate]],
        plan: str,
        launcher: str,
    ) -> None:
        self._conductor = conductor
        self._journal = journal
        self._tell = tell
        self._max_wait = max_wait
        self._clock = clock
        self._now = now
        self._gates = gates
        self._plan = plan
        self._launcher = launcher
        self._waits_since: float | None = None
        self._place = ("", 0)
        self._watched: list[tuple[Gate, Watch]] = []
        self._answer = Answer(Verdict.PASS, "")
        conductor.gated = frozenset(gates)
        conductor.announces = True  # so that a wave is in the ledger before its first host is let in

    def attend(self, asked: bool = True) -> None:
        """Hear the ledger, ask the gates, and act. Called before every pass. asked: whether all hosts were; before, nothing waits for gates or time."""
        if self._conductor.finished:
            return
        for entry in self._journal.listen():
            self._act(entry)
        closed = self._ask() if asked else ""
        self._journal.flush()
        hold = self._journal.standing.hold
        self._pause(self._journal.trouble or (f"held by {told(hold)}" if hold else closed), closed)
        if asked:
            self._wait()

    def close(self) -> None:
        """Nobody is asked any more: end what was started to find an answer."""
        for gates in self._gates.values():
            for gate in gates:
                getattr(gate, "close", lambda: None)()

    def _act(self, entry: Entry) -> None:
        now = self._clock()
        for _gate, watch in self._watched if entry.kind in VERBS else ():
            watch.hurry()
        if entry.kind == "abort":
            self._tell(Event("decided", now, detail=f"abort by {told(entry)}"))
            if self._conductor.current:  # or there is nobody to be let in
                self._conductor.stop(entry.data.get("then") == "keep", now)
        elif entry.kind == "superseded":
            self._tell(Event("decided", now, detail=f"superseded {by_whom(entry)}"))
            if self._conductor.current:
                self._conductor.stop(False, now, Halt.SUPERSEDED)
        elif entry.kind == "promote":
            self._tell(Event("decided", now, detail=f"the soak ends, by {told(entry)}"))
            self._conductor.promote(now)
        elif entry.kind == "repaired":
            self._tell(Event("decided", now, detail=repair_of(entry)))
        elif entry.kind == "unlock":
            self._tell(Event("decided", now, detail=f"{entry.data.get('host')} is taken from {entry.data.get('from')} by {told(entry)}"))

    def _ask(self) -> str:
        """Ask the gates of the wave at work, if it has any; why it may not go on, or nothing."""
        ring, number, state = self._conductor.current or ("", 0, Wave.JUDGED)
        if ring not in self._gates or state not in ASKED or self._conductor.halt is not None or not (self._conductor.at_gate or state is Wave.FILLING):
            self._place, self._watched = ("", 0), []
            return ""
        if self._place != (ring, number):
            self._place = (ring, number)
            self._watched = [(gate, Watch(self._now)) for gate in self._gates[ring]]
            self._answer = Answer(Verdict.PASS, "")
        standing = self._journal.standing
        situation = Situation(
            self._plan, standing.rollout, ring, number, self._conductor.wave_hosts, self._launcher, self._now(), standing.approvals,
            standing.launchers.get(self._plan, ()),
        )  # fmt: skip
        for gate, watch in self._watched:
            if watch.due():
                watch.heard(_asked(gate, situation))
        self._hear(judge(watch.answer for _gate, watch in self._watched), state)
        return "" if self._answer.verdict is Verdict.PASS else self._answer.why

    @property
    def _pending(self) -> bool:
        """Whether a gate of the wave has not given any answer yet; its own time limit says for how long."""
        return any(isinstance(watch.answer, Pending) for _gate, watch in self._watched)

    def _hear(self, answer: Answer, state: Wave) -> None:
        if (answer.verdict, answer.why) != (self._answer.verdict, self._answer.why):
            ring, number = self._place
            self._tell(Event("gate", self._clock(), ring=ring, wave=number, detail=f"{answer.verdict}: {answer.why}"))
        self._answer = answer
        if answer.verdict is Verdict.FAIL and state is Wave.PENDING:
            self._conductor.refuse(self._clock())
        elif answer.verdict is Verdict.PASS and state is Wave.PENDING:
            self._conductor.open_gate()

    def _pause(self, why: str, closed: str) -> None:
        if why != self._conductor.paused and self._conductor.halt is not Halt.WAITING:  # why it waited is its last word
            if why != closed or not self._conductor.at_gate:  # of a gate everybody has heard
                self._tell(Event("decided", self._clock(), detail=f"nobody new is let in: {why}" if why else "goes on"))
            self._conductor.paused = why

    def _wait(self) -> None:
        """Count the time in which nothing goes on."""
        now = self._clock()
        if self._pending or not self._conductor.paused or not self._conductor.stands_still or self._conductor.halt is not None:
            self._waits_since = None
        elif self._waits_since is None:
            self._waits_since = now
        if self._waits_since is not None and now - self._waits_since >= self._max_wait:
            self._conductor.give_way(now)


def _asked(gate: Gate, situation: Situation) -> Answer:
    """What the gate says; whatever goes wrong in it lets nobody through."""
    try:
        return gate.ask(situation)
    except Exception as error:
        return Answer(Verdict.ERROR, f"the gate {gate.name} itself failed: {type(error).__name__}: {error}")
