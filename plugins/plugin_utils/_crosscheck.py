# Copyright: onprem.rollout contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Outage or bad release? A check that failed on a host in change, or before its change, is run where the release has not been. Pure.

    asked = check.open(states, now)
    for host in asked.hosts: ... run its checks ..., then asked.heard(host, results or None)
    why = check.verdict(run.sick, since, now)     # None: not known yet; nothing: it is the release; else the outage, for people

It is an outage when everything that failed fails as well on every untouched host that answered; without one, on every host that was proven.
For a host that failed before its change it must fail on those that were proven too: of two that are sick the release is to blame for neither.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from itertools import islice
from typing import Any

from ansible_collections.onprem.rollout.plugins.plugin_utils._states import State

UNTOUCHED = 3  # one alone may be sick by itself
PROVEN = 2
FRESH = 10.0  # seconds for which an outage is believed of the next host that fails the same checks

Results = Sequence[Mapping[str, Any]]


@dataclass(frozen=True, slots=True)
class Sick:
    """A required check that failed: its position in the host's list, its name and its type."""

    position: int
    name: str
    type: str


def sick_of(results: Results) -> tuple[Sick, ...]:
    return tuple(
        Sick(position, str(result.get("name")), str(result.get("type")))
        for position, result in enumerate(results)
        if result.get("level") == "required" and not result.get("ok")
    )


@dataclass(slots=True)
class Round:
    began: float
    untouched: tuple[str, ...]
    proven: tuple[str, ...]
    answers: dict[str, Results | None] = field(default_factory=dict)

    @property
    def hosts(self) -> tuple[str, ...]:
        return (*self.untouched, *self.proven)

    @property
    def complete(self) -> bool:
        return all(host in self.answers for host in self.hosts)

    def heard(self, host: str, results: Results | None) -> None:
        """None: it could not be asked."""
        self.answers[host] = results

    def answered(self, hosts: Iterable[str], but: str) -> dict[str, Results]:
        return {host: results for host in hosts if host != but and (results := self.answers.get(host)) is not None}


class CrossCheck:
    def __init__(self) -> None:
        self._round: Round | None = None

    def open(self, states: Mapping[str, State], now: float, fellows: Sequence[str] = ()) -> Round:
        """Begin a round. fellows: hosts that were let in and found sick before their change, for when nobody waits any more."""
        untouched = _first(states, State.WAITING, UNTOUCHED) or (tuple(fellows[: UNTOUCHED + 1]) if len(fellows) > 1 else ())
        proven = (_first(states, State.COMMITTED, PROVEN) + _first(states, State.SKIPPED, PROVEN))[:PROVEN]
        self._round = Round(now, untouched, proven)
        return self._round

    @property
    def asking(self) -> bool:
        return self._round is not None and not self._round.complete

    def give_up(self) -> None:
        self._round = None

    def verdict(self, sick: Sequence[Sick], since: float, now: float, host: str = "", before: bool = False) -> str | None:
        """since: when the check of this host was found failed. That others are well counts if they were asked later than that.

        before: that was before its change. The first judge that is well decides, whoever has not answered yet.
        """
        asked = self._round
        if asked is None or (asked.began < since and now - asked.began > FRESH):
            return None
        untouched, proven = asked.answered(asked.untouched, host), asked.answered(asked.proven, host)
        judges = {**untouched, **proven} if before else untouched or (proven if asked.complete else {})
        if any(not _fails_too(sick, results) for results in judges.values()):
            return "" if asked.began >= since else None
        if not asked.complete:
            return None
        why = _outage(untouched, proven, sick) if judges and sick else ""
        return why if why or asked.began >= since else None


def _outage(untouched: Mapping[str, Results], proven: Mapping[str, Results], sick: Sequence[Sick]) -> str:
    judges = untouched or proven
    names = " and ".join(check.name for check in sick)
    others = [host for host, results in proven.items() if untouched and _fails_too(sick, results)]
    well = [host for host in proven if untouched and host not in others]
    also = f", and on {_list(others)}, proven before" if others else f", but not on {_list(well)}, proven before" if well else ""
    what = "which this release has not touched" if untouched else "proven before, and no host is left that this release has not touched"
    return f"{'check' if len(sick) == 1 else 'checks'} {names} fail{'s' if len(sick) == 1 else ''} on {_list(judges)} too, {what}{also}"


def _fails_too(sick: Iterable[Sick], results: Results) -> bool:
    return all((same := _same(check, results)) is not None and not same.get("ok") for check in sick)


def _same(check: Sick, results: Results) -> Mapping[str, Any] | None:
    """The same check of another host: by its name, or where a name says where it looks, by its place in the list."""
    named = [result for result in results if result.get("name") == check.name]
    placed = [result for result in results[check.position : check.position + 1] if result.get("type") == check.type]
    return next(iter(named or placed), None)


def _first(states: Mapping[str, State], state: State, most: int) -> tuple[str, ...]:
    return tuple(islice((host for host, found in states.items() if found is state), most))


def _list(hosts: Iterable[str]) -> str:
    return " and ".join(hosts)
