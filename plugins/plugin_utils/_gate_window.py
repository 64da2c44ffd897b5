# Copyright: onprem.rollout contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""The gate that waits for a maintenance window, and for the end of a freeze.

A window is open while start <= now < end, and lets nobody in when now >= end - cutoff. It is frozen while from <= now < to.
Freezes win over windows, and any window that is open is enough. A gate with freezes alone is open outside of them.

All times are those of the clock on the wall in the zone, so a window from 22:00 for 4 hours ends when the clock says 02:00, in every night:

- In spring the clock leaves out an hour. A window that would start or end inside of it does so when the clock jumps; one that
  is all inside of it does not open that day. A window over the jump is an hour shorter.
- In autumn an hour comes twice. A window that starts or ends inside of it does so the first time; a freeze ends the second time.
  A window over the whole of it is an hour longer.

Nothing is remembered: the answer depends on the clock alone, so one that jumps changes the answer and breaks nothing.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from datetime import date, datetime, timedelta, timezone, tzinfo
from typing import Any
from zoneinfo import ZoneInfo

from ansible_collections.onprem.rollout.plugins.plugin_utils._gate import Answer, Situation, Verdict
from ansible_collections.onprem.rollout.plugins.plugin_utils._gate_options import Options
from ansible_collections.onprem.rollout.plugins.plugin_utils._policy import Problem

TYPE = "window"
ONE_WINDOW = ("rrule", "start", "duration", "cutoff")
OPTIONS = ("type", "name", "timezone", "windows", "freezes", *ONE_WINDOW)
START = datetime(2024, 1, 1)  # a Monday; a time without a zone is one on the wall
FREQUENCIES = ("HOURLY", "DAILY", "WEEKLY", "MONTHLY", "YEARLY")
STEPS = {"HOURLY": timedelta(hours=1), "DAILY": timedelta(days=1), "WEEKLY": timedelta(weeks=1)}
MARGIN = timedelta(days=2)  # more than any zone ever moved its clock
STEPS_TOGETHER = 400  # openings that are tried for one at which other gates are open, too
STEPS_AHEAD = 1000  # openings that are tried for one that is not frozen
YEARS_AHEAD = {"HOURLY": 10, "DAILY": 100, "WEEKLY": 400, "MONTHLY": 400, "YEARLY": 400}  # a rule that does not come true for so long never does
FOR_EVER = float("inf")


class TooFar(Exception):
    """A rule did not come true for so long that nobody needs to wait for it."""


def _bounded(rule: Any, years: int) -> Any:
    """The rule, which raises L(TooFar) after so many years. By itself dateutil counts to the year 9999, and asks a rule for its weeks in every year."""
    weeks, left = rule._byweekno, years * (5 if rule._byweekno else 1)

    def _byweekno(self: Any) -> Any:
        nonlocal left
        left -= 1
        if left < 0:
            raise TooFar
        return weeks

    rule.__class__ = type("Bounded", (rule.__class__,), {"_byweekno": property(_byweekno)})
    return rule


@dataclass(frozen=True, slots=True)
class Window:
    """rrule: RFC 5545, counted from start. duration and cutoff in seconds."""

    rrule: str
    start: datetime
    duration: timedelta
    cutoff: float = 0.0

    def openings(self, after: datetime) -> Iterator[datetime]:
        """When it opens, on the wall, from C(after) on."""
        from dateutil.rrule import rrulestr

        start = self._start_near(after)
        years = after.year - start.year + YEARS_AHEAD[_parts(self.rrule)["FREQ"]]
        rule = _bounded(rrulestr(self.rrule, dtstart=start), years)
        with suppress(TooFar):
            yield from rule.xafter(after, inc=True)

    def _start_near(self, wall: datetime) -> datetime:
        """A start that gives the same openings from C(wall) on, without counting through years of them."""
        parts = _parts(self.rrule)
        step = STEPS.get(parts["FREQ"])
        if step is None or "COUNT" in parts or wall <= self.start:
            return self.start
        step *= int(parts.get("INTERVAL", "1"))
        return self.start + (wall - self.start) // step * step


@dataclass(frozen=True, slots=True)
class Freeze:
    """From start on, until before end, on the wall."""

    start: datetime
    end: datetime
    why: str


@dataclass(slots=True)
class WindowGate:
    """No windows: open outside of the freezes. where: its place in the policy."""

    name: str
    windows: tuple[Window, ...]
    freezes: tuple[Freeze, ...]
    zone: tzinfo
    where: str

    def ask(self, situation: Situation) -> Answer:
        now = situation.now
        ends = self._ends(now)
        if ends is not None:
            until = f" until {self._say(ends)}" if ends < FOR_EVER else ""
            return Answer(Verdict.PASS, f"the window is open{until}", ends if ends < FOR_EVER else None)
        opens = self.next_opening(now)
        why = next((f"frozen ({freeze.why})" for freeze in self.freezes if self._begins(freeze) <= now < self._thaws(freeze)), "the window is closed")
        if opens is None:
            return Answer(Verdict.FAIL, f"{why}, and there will be no other one")
        return Answer(Verdict.HOLD, f"{why} until {self._say(opens)}", opens)

    def next_opening(self, now: float) -> float | None:
        """The first moment after now at which somebody may be let in and could not be before; None for never."""
        moment: float | None = now
        for _step in range(STEPS_AHEAD):
            moment = self._next_change(moment) if moment is not None else None
            if moment is None or self._ends(moment) is not None:
                return moment
        return None

    def _next_change(self, after: float) -> float | None:
        """The next opening of a window or end of a freeze; openings within a freeze are skipped."""
        thaws = [moment for moment in map(self._thaws, self.freezes) if moment > after]
        frozen = [self._thaws(freeze) for freeze in self.freezes if self._begins(freeze) <= after < self._thaws(freeze)]
        if frozen:
            return max(frozen)
        openings = [moment for window in self.windows for moment in self._first_opening(window, after)]
        return min([*thaws, *openings], default=None)

    def _first_opening(self, window: Window, after: float) -> list[float]:
        for wall in window.openings(self._wall(after)):
            moment = self._moment(wall)
            if moment is not None and moment > after:
                return [moment]
        return []

    def _ends(self, now: float) -> float | None:
        """When nobody is let in any more, if somebody is now."""
        if any(self._begins(freeze) <= now < self._thaws(freeze) for freeze in self.freezes):
            return None
        ends = [end for window in self.windows for end in self._open(window, now)] if self.windows else [FOR_EVER]
        begins = [moment for moment in map(self._begins, self.freezes) if moment > now]
        return min([max(ends), *begins]) if ends else None

    def _open(self, window: Window, now: float) -> Iterator[float]:
        wall = self._wall(now)
        for start in window.openings(wall - window.duration):
            if start > wall + MARGIN:  # in the second of two hours the first one's openings are past, and yet ahead on the wall
                return
            opens, closes = self._moment(start), self._moment(start + window.duration)
            if opens <= now < closes - window.cutoff:
                yield closes - window.cutoff

    def _begins(self, freeze: Freeze) -> float:
        return self._moment(freeze.start)

    def _thaws(self, freeze: Freeze) -> float:
        return self._moment(freeze.end, last=True)

    def _wall(self, moment: float) -> datetime:
        return datetime.fromtimestamp(moment, self.zone).replace(tzinfo=None, fold=0)

    def _moment(self, wall: datetime, last: bool = False) -> float:
        """When the wall's clock says so: the first or last time, or when it jumps over that."""
        early, late = (wall.replace(tzinfo=self.zone, fold=fold).timestamp() for fold in (0, 1))
        if early <= late:
            return late if last else early
        before, after = int(late) - 1, int(early) + 1  # in a gap: the earlier is read by the clock after the jump
        offset = self._offset(before)
        while after - before > 1:
            middle = (before + after) // 2
            before, after = (middle, after) if self._offset(middle) == offset else (before, middle)
        return float(after)

    def _offset(self, moment: float) -> timedelta | None:
        return datetime.fromtimestamp(moment, self.zone).utcoffset()

    def _say(self, moment: float) -> str:
        return f"{datetime.fromtimestamp(moment, self.zone):%a %Y-%m-%d %H:%M %Z}"


def future_problem(gate: WindowGate, now: float) -> Problem | None:
    """Why nobody would ever be let in, to be refused before any host is touched."""
    if gate.ask(Situation("", "", "", 1, (), "", now, ())).verdict is not Verdict.FAIL:
        return None
    rules = "; ".join(f"{window.rrule} from {window.start.isoformat(' ')}" for window in gate.windows)
    return Problem(gate.where, rules or "freezes", f"has no window after {gate._say(now)}; give one that comes again, or a later end")


def together_problem(gates: Sequence[WindowGate], now: float) -> Problem | None:
    """Why gates that all must pass never do so at the same time; each of them has a future of its own."""
    moment = now
    for _step in range(STEPS_TOGETHER):
        closed = [gate for gate in gates if gate._ends(moment) is None]
        if not closed:
            return None
        openings = [gate.next_opening(moment) for gate in closed]
        if None in openings:
            break
        moment = max(opening for opening in openings if opening is not None)
    names = " and ".join(gate.name for gate in gates)
    return Problem(gates[0].where, names, "these gates are never open at the same time; put windows of which any is enough into one gate")


def parse(raw: Mapping[str, Any], where: str) -> tuple[WindowGate | None, list[Problem]]:
    """One item of the policy. Whether a window lies in the future is asked with L(future_problem): that needs a clock."""
    options = Options(raw, OPTIONS, where)
    name = options.name(TYPE)
    try:
        import dateutil.rrule  # noqa: F401  whether it is there
    except ImportError:
        from ansible.module_utils.basic import missing_required_lib

        remedy = missing_required_lib("python-dateutil", reason="for maintenance windows, see requirements/runtime.txt")
        return None, [*options.problems, Problem(where, TYPE, remedy)]
    zone = _zone(options)
    windows = _windows(options)
    freezes = _freezes(options)
    if not windows and not freezes and not options.problems:
        options.problems.append(Problem(where, dict(raw), "give a window with rrule and duration, or freezes"))
    if options.problems:
        return None, options.problems
    return WindowGate(name, tuple(windows), tuple(freezes), zone, where), []


def _zone(options: Options) -> tzinfo:
    name = options.text("timezone", "UTC", "write a zone's name, such as Europe/Berlin")
    if name == "UTC":
        return timezone.utc
    try:
        return ZoneInfo(name)
    except (KeyError, ValueError, OSError):
        options.wrong("timezone", "no such zone on the controller; write a name such as Europe/Berlin, and install the system's tzdata or PyPI's")
        return timezone.utc


def _windows(options: Options) -> list[Window]:
    """The windows of the list, or the one that is written without a list."""
    raw, listed = options.raw, options.raw.get("windows")
    alone = {option: raw[option] for option in ONE_WINDOW if option in raw}
    if listed is None:
        given = [(alone, options.where)] if alone else []
    elif alone or not isinstance(listed, list) or not listed:
        options.wrong("windows", f"write a list of windows, each with its own {', '.join(ONE_WINDOW)}, or one window without a list")
        return []
    else:
        given = [(item, f"{options.where}.windows[{index}]") for index, item in enumerate(listed)]
    return [window for item, where in given for window in _window(item, where, options.problems)]


def _window(raw: Any, where: str, problems: list[Problem]) -> list[Window]:
    if not isinstance(raw, Mapping):
        problems.append(Problem(where, raw, "a window is a mapping with rrule and duration"))
        return []
    options = Options(raw, ONE_WINDOW, where)
    rrule = options.text("rrule", "", "write a rule of RFC 5545 on one line").upper().removeprefix("RRULE:")
    start = _wall_time(options, "start", START)
    why = _rule_problem(rrule, start)
    if why and not options.problems:
        options.wrong("rrule", why)
    duration = options.seconds("duration", 0.0, 1.0)
    cutoff = options.seconds("cutoff", 0.0)
    if "duration" not in raw:
        options.wrong("duration", 'write how long it is open: seconds, or such as "4h"')
    elif duration > timedelta(days=366).total_seconds():
        options.wrong("duration", "write at most 366 days")
    elif cutoff >= duration > 0:
        options.wrong("cutoff", f"must be shorter than the duration of {duration:g} seconds, or nobody is ever let in")
    problems += options.problems
    return [] if options.problems else [Window(rrule, start, timedelta(seconds=duration), cutoff)]


def _parts(rrule: str) -> dict[str, str]:
    return {key: value for key, _, value in (part.partition("=") for part in rrule.split(";"))}


def _rule_problem(rrule: str, start: datetime) -> str:
    from dateutil.rrule import rrulestr

    if not rrule:
        return "write a rule of RFC 5545, such as FREQ=WEEKLY;BYDAY=TU,TH;BYHOUR=22"
    if _parts(rrule).get("FREQ") not in FREQUENCIES:
        return f"write FREQ= with one of {', '.join(FREQUENCIES)}"
    if not re.match(r"[1-9][0-9]{0,3}\Z", _parts(rrule).get("INTERVAL", "1")):
        return "write INTERVAL= with a number from 1 to 9999"
    if _parts(rrule).get("UNTIL", "").endswith("Z"):
        return "write UNTIL without Z: it is a time on the wall of the zone"
    try:
        rrulestr(rrule, dtstart=start)
    except (ValueError, KeyError, TypeError, OverflowError) as error:
        return f"is no rule of RFC 5545: {error}"
    return ""


def _freezes(options: Options) -> list[Freeze]:
    raw = options.raw.get("freezes")
    if raw is None:
        return []
    if not isinstance(raw, list):
        options.wrong("freezes", "write a list of freezes, each with from, to and why")
        return []
    found = []
    for index, item in enumerate(raw):
        where = f"{options.where}.freezes[{index}]"
        if not isinstance(item, Mapping):
            options.problems.append(Problem(where, item, "a freeze is a mapping with from, to and why"))
            continue
        inner = Options(item, ("from", "to", "why"), where)
        start, end, why = _wall_time(inner, "from", None), _wall_time(inner, "to", None), inner.text("why", "", "write one line that people can read")
        if "why" not in item:
            inner.wrong("why", "write why; it is what people are told")
        if not inner.problems and start >= end:
            inner.wrong("to", "must be later than from")
        options.problems += inner.problems
        found.append(Freeze(start, end, why))
    return found


def _wall_time(options: Options, option: str, default: datetime | None) -> datetime:
    """YAML itself makes dates and times of what looks like one."""
    raw = options.raw.get(option)
    if raw is None and default is not None:
        return default
    try:
        wall = datetime.fromisoformat(raw.isoformat() if isinstance(raw, date) else str(raw))
    except ValueError:
        wall = START.replace(tzinfo=timezone.utc)
    if wall.tzinfo is not None or not datetime(1970, 1, 3) <= wall <= datetime(9000, 1, 1):
        options.wrong(option, 'write a date and time on the wall of the zone, such as "2026-12-20T18:00:00", without an offset')
        return default or START
    return wall
