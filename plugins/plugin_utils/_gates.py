# Copyright: onprem.rollout contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""The gates of a policy: read, asked at the right moments, and judged together.

gates, problems = parse(policy.get("gates"), "rollout_gates")
watched = [(gate, Watch(clock)) for gate in gates]
for gate, watch in watched:
    if watch.due():
        watch.heard(gate.ask(situation))
answer = judge(watch.answer for _gate, watch in watched)
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from typing import Any

from ansible_collections.onprem.rollout.plugins.plugin_utils import _gate_approval, _gate_command, _gate_window
from ansible_collections.onprem.rollout.plugins.plugin_utils._gate import Answer, Gate, Verdict
from ansible_collections.onprem.rollout.plugins.plugin_utils._gate_command import Pending
from ansible_collections.onprem.rollout.plugins.plugin_utils._policy import Problem

TYPES: Mapping[str, Any] = {module.TYPE: module for module in (_gate_approval, _gate_command, _gate_window)}
WORST_FIRST = (Verdict.FAIL, Verdict.ERROR, Verdict.HOLD, Verdict.PASS)
RETRIES = 3
RETRY = 10.0  # seconds
HELD_RETRY = 30.0
FRESH = 30.0  # for how long a pass is believed
POLL = 0.25  # for a program that runs


def parse(raw: Any, where: str) -> tuple[tuple[Gate, ...], list[Problem]]:
    """Read the list of gates of a policy; None is a policy without one."""
    if raw is None:
        return (), []
    if not isinstance(raw, list):
        return (), [Problem(where, raw, "write a list of gates, each with a type")]
    gates: list[Gate] = []
    problems: list[Problem] = []
    for index, item in enumerate(raw):
        gate, more = _parse_item(item, f"{where}[{index}]")
        problems += more
        if gate is not None and any(gate.name == other.name for other in gates):
            problems.append(Problem(f"{where}[{index}].name", gate.name, "is used twice; give every gate its own name"))
        elif gate is not None:
            gates.append(gate)
    return tuple(gates), problems


def _parse_item(raw: Any, where: str) -> tuple[Gate | None, list[Problem]]:
    if not isinstance(raw, Mapping):
        return None, [Problem(where, raw, "a gate is a mapping with at least a type")]
    kind = raw.get("type")
    if not isinstance(kind, str) or kind not in TYPES:
        return None, [Problem(f"{where}.type", kind, f"no such gate; allowed: {', '.join(sorted(TYPES))}")]
    found: tuple[Gate | None, list[Problem]] = TYPES[kind].parse(raw, where)
    return found


def judge(answers: Iterable[Answer]) -> Answer:
    """All gates as one: any fail fails, else any error is one, else any hold holds; else they pass. Why: of all that gave that verdict."""
    given = list(answers)
    if not given:
        return Answer(Verdict.PASS, "there is no gate")
    worst = min((answer.verdict for answer in given), key=WORST_FIRST.index)
    untils = [answer.until for answer in given if answer.until is not None]
    why = "; ".join(dict.fromkeys(answer.why for answer in given if answer.verdict is worst))
    return Answer(worst, why, None if worst is Verdict.FAIL else min(untils, default=None))


class Watch:
    """When to ask one gate about one wave again, and its answer until then. Pure; clock: seconds since 1970, which may jump.

    hold: every interval seconds, and at its until. pass: at its until, and every 30 seconds while other gates hold. fail: never.
    error: every 10 seconds, 3 times; from then on it counts as a hold, and is asked every 30 seconds.
    While nobody knows yet, the answer before counts on: two slow programs would else never pass at the same time.
    """

    def __init__(self, clock: Callable[[], float], interval: float = 2.0) -> None:
        self.answer: Answer = Pending(Verdict.HOLD, "is not asked yet")
        self._clock = clock
        self._interval = interval
        self._errors = 0
        self._asked = clock()
        self._next = self._asked

    def due(self) -> bool:
        """Whether to ask now. A clock that went back asks at once: nobody knows how long it has been."""
        now = self._clock()
        return self.answer.verdict is not Verdict.FAIL and (now >= self._next or now < self._asked)

    def hurry(self) -> None:
        """Something happened, such as an event in the ledger: ask at once, unless that is about an error."""
        if not self._errors:
            self._next = self._asked

    def heard(self, answer: Answer) -> Answer:
        """What the gate said counts as this."""
        now = self._clock()
        self._asked = now
        if isinstance(answer, Pending):
            self._next = now + POLL
            until = self.answer.until
            if self.answer.verdict is Verdict.PASS and until is not None and until <= now:
                self.answer = answer
            return self.answer
        self._errors = self._errors + 1 if answer.verdict is Verdict.ERROR else 0
        pause = {Verdict.HOLD: self._interval, Verdict.PASS: FRESH, Verdict.ERROR: RETRY if self._errors <= RETRIES else HELD_RETRY}.get(answer.verdict, 0.0)
        self._next = now + pause
        if answer.until is not None and answer.until > now:
            self._next = min(self._next, answer.until)
        if self._errors > RETRIES:
            answer = Answer(Verdict.HOLD, f"{answer.why} (asked {self._errors} times)", answer.until)
        self.answer = answer
        return answer
