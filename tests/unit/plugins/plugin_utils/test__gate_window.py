# Copyright: onprem.rollout contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

from __future__ import annotations

import builtins
import sys
import time
from datetime import date, datetime, timedelta, timezone
from zoneinfo import ZoneInfo

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ansible_collections.onprem.rollout.plugins.plugin_utils._gate import Situation, Verdict
from ansible_collections.onprem.rollout.plugins.plugin_utils._gate_window import future_problem, parse

TUESDAYS = {"rrule": "FREQ=WEEKLY;BYDAY=TU;BYHOUR=22", "duration": "4h"}
NIGHTLY = {"rrule": "FREQ=DAILY;BYHOUR=22", "duration": "4h"}


def made(where="gates[0]", **options):
    gate, problems = parse({"type": "window", **options}, where)
    assert problems == []
    return gate


def utc(text):
    return datetime.fromisoformat(text).replace(tzinfo=timezone.utc).timestamp()


def iso(moment):
    return None if moment is None else datetime.fromtimestamp(moment, timezone.utc).strftime("%Y-%m-%d %H:%M:%S")


def ask(gate, now):
    answer = gate.ask(Situation("", "shop-2.0", "early", 1, (), "ada", utc(now), ()))
    return str(answer.verdict), iso(answer.until)


# 2026-03-03 is a Tuesday.
PLAIN = [
    ("before it", TUESDAYS, "2026-03-03 21:59:59", "hold", "2026-03-03 22:00:00"),
    ("open when start <= now", TUESDAYS, "2026-03-03 22:00:00", "pass", "2026-03-04 02:00:00"),
    ("over midnight", TUESDAYS, "2026-03-04 01:59:59", "pass", "2026-03-04 02:00:00"),
    ("closed when now >= end", TUESDAYS, "2026-03-04 02:00:00", "hold", "2026-03-10 22:00:00"),
    ("before the cut-off", {**TUESDAYS, "cutoff": 3600}, "2026-03-04 00:59:59", "pass", "2026-03-04 01:00:00"),
    ("nobody is let in when now >= end - cutoff", {**TUESDAYS, "cutoff": "1h"}, "2026-03-04 01:00:00", "hold", "2026-03-10 22:00:00"),
    ("before its start", {**TUESDAYS, "start": "2027-01-01"}, "2026-03-03 22:00:00", "hold", "2027-01-05 22:00:00"),
    ("several, the first", {"windows": [TUESDAYS, {"rrule": "FREQ=WEEKLY;BYDAY=SU", "duration": "1d"}]}, "2026-03-03 23:00:00", "pass", "2026-03-04 02:00:00"),
    ("several, the other", {"windows": [TUESDAYS, {"rrule": "FREQ=WEEKLY;BYDAY=SU", "duration": "1d"}]}, "2026-03-08 23:00:00", "pass", "2026-03-09 00:00:00"),
    ("several, between", {"windows": [TUESDAYS, {"rrule": "FREQ=WEEKLY;BYDAY=SU", "duration": "1d"}]}, "2026-03-05 00:00:00", "hold", "2026-03-08 00:00:00"),
    ("overlapping itself", {"rrule": "FREQ=DAILY", "duration": "30h"}, "2026-03-03 03:00:00", "pass", "2026-03-04 06:00:00"),
    ("overlapping itself, past a cut-off", {"rrule": "FREQ=DAILY", "duration": "30h", "cutoff": "10h"}, "2026-03-03 21:00:00", "hold", "2026-03-04 00:00:00"),
    ("the last of a COUNT", {"rrule": "FREQ=DAILY;COUNT=2", "start": "2026-03-01 10:00", "duration": 60}, "2026-03-02 10:00:30", "pass", "2026-03-02 10:01:00"),
    ("after a COUNT", {"rrule": "FREQ=DAILY;COUNT=2", "start": "2026-03-01 10:00", "duration": 60}, "2026-03-02 10:01:00", "fail", None),
    ("long after a COUNT", {"rrule": "FREQ=DAILY;COUNT=2", "start": "2026-03-01 10:00", "duration": 60}, "2026-05-02 10:00:30", "fail", None),
    ("a whole week", {"rrule": "FREQ=MONTHLY", "duration": "7d"}, "2026-03-07 23:59:59", "pass", "2026-03-08 00:00:00"),
    ("after UNTIL", {"rrule": "FREQ=DAILY;UNTIL=20260302T000000", "duration": 60}, "2026-03-02 10:01:00", "fail", None),
    (
        "long after years of hours",
        {"rrule": "FREQ=HOURLY;BYMINUTE=30", "start": "1971-01-01", "duration": "5m"},
        "2026-03-03 21:35:00",
        "hold",
        "2026-03-03 22:30:00",
    ),
    ("every other week keeps its weeks", {**TUESDAYS, "rrule": "FREQ=WEEKLY;INTERVAL=2;BYDAY=TU"}, "2026-03-03 05:00:00", "hold", "2026-03-10 00:00:00"),
    ("the second Tuesday of a month", {**TUESDAYS, "rrule": "RRULE:FREQ=MONTHLY;BYDAY=+2TU"}, "2026-03-03 05:00:00", "hold", "2026-03-10 00:00:00"),
    ("small letters", {**TUESDAYS, "rrule": "freq=weekly;byday=tu;byhour=22"}, "2026-03-03 22:00:00", "pass", "2026-03-04 02:00:00"),
]


@pytest.mark.parametrize("options, now, verdict, until", [case[1:] for case in PLAIN], ids=[case[0] for case in PLAIN])
def test_windows(options, now, verdict, until):
    assert ask(made(**options), now) == (verdict, until)


XMAS = {"from": "2026-03-03 23:00", "to": "2026-03-11 00:00", "why": "year end"}
FREEZES = [
    ("a pass ends when a freeze begins", [XMAS], "2026-03-03 22:30:00", "pass", "2026-03-03 23:00:00"),
    ("frozen when from <= now", [XMAS], "2026-03-03 23:00:00", "hold", "2026-03-11 00:00:00"),
    ("frozen while the window opens, and open when now >= to", [XMAS], "2026-03-10 23:59:59", "hold", "2026-03-11 00:00:00"),
    ("what is left of the window is open", [XMAS], "2026-03-11 00:00:00", "pass", "2026-03-11 02:00:00"),
    ("one freeze into another", [XMAS, {**XMAS, "from": "2026-03-10", "to": "2026-03-12"}], "2026-03-05 00:00:00", "hold", "2026-03-17 22:00:00"),
    ("one freeze inside another", [XMAS, {**XMAS, "from": "2026-03-05", "to": "2026-03-06"}], "2026-03-05 12:00:00", "hold", "2026-03-11 00:00:00"),
    ("dates as YAML makes them", [{"from": date(2026, 3, 3), "to": datetime(2026, 3, 4, 1), "why": "x"}], "2026-03-03 23:00:00", "hold", "2026-03-04 01:00:00"),
]


@pytest.mark.parametrize("freezes, now, verdict, until", [case[1:] for case in FREEZES], ids=[case[0] for case in FREEZES])
def test_freezes_win(freezes, now, verdict, until):
    assert ask(made(**TUESDAYS, freezes=freezes), now) == (verdict, until)


ALONE = [("2026-03-03 22:59:59", "pass", "2026-03-03 23:00:00"), ("2026-03-04 00:00:00", "hold", "2026-03-11 00:00:00"), ("2026-03-11 00:00:00", "pass", None)]


@pytest.mark.parametrize("now, verdict, until", ALONE)
def test_freezes_alone(now, verdict, until):
    assert ask(made(freezes=[XMAS]), now) == (verdict, until)


BERLIN, NEW_YORK = {"timezone": "Europe/Berlin"}, {"timezone": "America/New_York"}
# Berlin: 2026-03-29 02:00 -> 03:00 is 01:00 UTC; 2026-10-25 03:00 -> 02:00 is 01:00 UTC. New York: 2026-03-08 and 2026-11-01.
SWITCHES = [
    ("winter", BERLIN, NIGHTLY, "2026-01-10 20:00:00", "2026-01-10 21:00:00", "2026-01-11 01:00:00"),
    ("summer", BERLIN, NIGHTLY, "2026-07-10 19:00:00", "2026-07-10 20:00:00", "2026-07-11 00:00:00"),
    ("over the gap, an hour shorter", BERLIN, {"rrule": "FREQ=DAILY", "duration": "5h"}, "2026-03-28 12:00:00", "2026-03-28 23:00:00", "2026-03-29 03:00:00"),
    ("over the fold, an hour longer", BERLIN, {"rrule": "FREQ=DAILY", "duration": "5h"}, "2026-10-24 12:00:00", "2026-10-24 22:00:00", "2026-10-25 04:00:00"),
    (
        "starts in the gap",
        BERLIN,
        {"rrule": "FREQ=DAILY;BYHOUR=2;BYMINUTE=30", "duration": "2h"},
        "2026-03-28 12:00:00",
        "2026-03-29 01:00:00",
        "2026-03-29 02:30:00",
    ),
    ("ends in the gap", BERLIN, {"rrule": "FREQ=DAILY;BYHOUR=1", "duration": "90m"}, "2026-03-28 12:00:00", "2026-03-29 00:00:00", "2026-03-29 01:00:00"),
    (
        "all in the gap, not that day",
        BERLIN,
        {"rrule": "FREQ=DAILY;BYHOUR=2;BYMINUTE=15", "duration": "30m"},
        "2026-03-28 12:00:00",
        "2026-03-30 00:15:00",
        "2026-03-30 00:45:00",
    ),
    (
        "starts in the fold, the first time",
        BERLIN,
        {"rrule": "FREQ=DAILY;BYHOUR=2;BYMINUTE=30", "duration": "2h"},
        "2026-10-24 12:00:00",
        "2026-10-25 00:30:00",
        "2026-10-25 03:30:00",
    ),
    (
        "ends in the fold, the first time",
        BERLIN,
        {"rrule": "FREQ=DAILY;BYHOUR=1", "duration": "90m"},
        "2026-10-24 12:00:00",
        "2026-10-24 23:00:00",
        "2026-10-25 00:30:00",
    ),
    (
        "all in the fold, once",
        BERLIN,
        {"rrule": "FREQ=DAILY;BYHOUR=2;BYMINUTE=15", "duration": "30m"},
        "2026-10-25 00:45:00",
        "2026-10-26 01:15:00",
        "2026-10-26 01:45:00",
    ),
    (
        "gap in New York",
        NEW_YORK,
        {"rrule": "FREQ=WEEKLY;BYDAY=SU;BYHOUR=2", "duration": "2h"},
        "2026-03-07 12:00:00",
        "2026-03-08 07:00:00",
        "2026-03-08 08:00:00",
    ),
    (
        "fold in New York",
        NEW_YORK,
        {"rrule": "FREQ=WEEKLY;BYDAY=SU;BYHOUR=1", "duration": "2h"},
        "2026-10-31 12:00:00",
        "2026-11-01 05:00:00",
        "2026-11-01 08:00:00",
    ),
    (
        "a day that was left out",
        {"timezone": "Pacific/Apia"},
        {"rrule": "FREQ=DAILY;BYHOUR=12", "start": "2011-12-01", "duration": "1h"},
        "2011-12-30 00:00:00",
        "2011-12-30 22:00:00",
        "2011-12-30 23:00:00",
    ),
]


@pytest.mark.parametrize("zone, options, now, opens, ends", [case[1:] for case in SWITCHES], ids=[case[0] for case in SWITCHES])
def test_windows_are_on_the_wall_of_the_zone(zone, options, now, opens, ends):
    gate = made(**zone, **options)
    assert ask(gate, now) == ("hold", opens)
    assert ask(gate, opens) == ("pass", ends)
    assert ask(gate, ends)[0] == "hold"


def test_a_window_that_began_in_the_first_of_two_hours_is_open_in_the_second():
    gate = made(**BERLIN, rrule="FREQ=DAILY;BYHOUR=2;BYMINUTE=50", duration="1h")
    assert ask(gate, "2026-10-25 01:10:00") == ("pass", "2026-10-25 02:50:00")  # 02:10 for the second time


def test_a_freeze_that_ends_in_the_fold_ends_the_second_time():
    gate = made(**BERLIN, freezes=[{"from": "2026-10-25T01:00", "to": "2026-10-25T02:30", "why": "x"}])
    assert ask(gate, "2026-10-25 00:45:00") == ("hold", "2026-10-25 01:30:00")


RULES = st.sampled_from(["FREQ=DAILY;BYHOUR=2,14", "FREQ=HOURLY;INTERVAL=5", "FREQ=WEEKLY;INTERVAL=3;BYDAY=SU,WE;BYHOUR=1", "FREQ=MONTHLY;BYDAY=-1SU;BYHOUR=2"])
MOMENTS = st.integers(int(utc("2025-01-01")), int(utc("2027-12-31")))


@given(RULES, st.sampled_from(["UTC", "Europe/Berlin", "America/New_York", "Australia/Lord_Howe"]), st.integers(10, 30 * 3600), MOMENTS)
def test_open_and_closed_take_turns_as_they_say(rule, zone, duration, now):
    """Against a reader of its own: every opening, counted from the start, one by one."""
    from dateutil.rrule import rrulestr

    gate = made(timezone=zone, windows=[{"rrule": rule, "duration": duration}])
    local = ZoneInfo(zone)
    wall = datetime.fromtimestamp(now, local).replace(tzinfo=None, fold=0)
    every = rrulestr(rule, dtstart=datetime(2024, 1, 1))
    near = every.between(wall - timedelta(seconds=duration, days=1), wall + timedelta(days=1), inc=True)
    length = timedelta(seconds=duration)
    sure = [start <= wall < start + length for start in near]
    answer = gate.ask(Situation("", "", "", 1, (), "", float(now), ()))
    if datetime.fromtimestamp(now - 90000, local).utcoffset() == datetime.fromtimestamp(now + 90000, local).utcoffset():
        assert (answer.verdict is Verdict.PASS) is any(sure)
    assert answer.until is not None
    assert answer.until > now
    if answer.verdict is Verdict.HOLD:
        before = gate.ask(Situation("", "", "", 1, (), "", answer.until - 1, ()))
        after = gate.ask(Situation("", "", "", 1, (), "", answer.until, ()))
        assert (before.verdict, after.verdict) == (Verdict.HOLD, Verdict.PASS)


def test_a_clock_that_jumps_changes_the_answer_and_nothing_else():
    gate = made(**TUESDAYS)
    before = ask(gate, "2026-03-03 23:00:00")
    assert ask(gate, "2036-03-03 23:00:00")[0] == "hold"
    assert ask(gate, "1999-03-03 23:00:00") == ("hold", "2024-01-02 22:00:00")
    assert ask(gate, "2026-03-03 23:00:00") == before


def test_it_says_why():
    gate = made(**TUESDAYS, **BERLIN, freezes=[{"from": "2026-12-20", "to": "2027-01-06", "why": "year end"}])
    says = {now: gate.ask(Situation("", "", "", 1, (), "", utc(now), ())).why for now in ("2026-03-03 21:30", "2026-03-01 12:00", "2026-12-21 12:00")}
    assert says == {
        "2026-03-03 21:30": "the window is open until Wed 2026-03-04 02:00 CET",
        "2026-03-01 12:00": "the window is closed until Tue 2026-03-03 22:00 CET",
        "2026-12-21 12:00": "frozen (year end) until Wed 2027-01-06 00:00 CET",
    }


PAST = {"rrule": "FREQ=DAILY;COUNT=2", "start": "2026-03-01 10:00", "duration": 60}
NO_FUTURE = [
    ({}, PAST, "2026-02-01", None),
    ({}, PAST, "2026-03-02 10:00:30", None),
    ({}, PAST, "2026-03-02 10:01", "FREQ=DAILY;COUNT=2 from 2026-03-01 10:00:00"),
    ({}, {**TUESDAYS, "freezes": [{"from": "2026-01-01", "to": "8999-01-01", "why": "the end"}]}, "2026-03-02", None),
    ({}, {**PAST, "freezes": [{"from": "2026-01-01", "to": "2027-01-01", "why": "x"}]}, "2026-02-01", "FREQ=DAILY;COUNT=2 from 2026-03-01 10:00:00"),
    (BERLIN, {"rrule": "FREQ=YEARLY;UNTIL=20260401;BYMONTH=3;BYMONTHDAY=29;BYHOUR=2", "duration": 60}, "2026-03-28", "FREQ=YEARLY;"),
    ({}, {"rrule": "FREQ=MONTHLY;BYMONTH=2;BYMONTHDAY=30", "duration": 60}, "2026-03-02", "FREQ=MONTHLY;BYMONTH=2;BYMONTHDAY=30"),
]


@pytest.mark.parametrize("zone, options, now, value", NO_FUTURE)
def test_a_schedule_without_a_future_is_found_before_anybody_is_touched(zone, options, now, value):
    problem = future_problem(made(**zone, **options), utc(now))
    if value is None:
        assert problem is None
    else:
        assert (problem.where, problem.value[: len(value)]) == ("gates[0]", value)
        assert "has no window after" in problem.remedy


NEVER = [
    *(f"FREQ={freq};BYMONTH=2;BYMONTHDAY=30" for freq in ("YEARLY", "MONTHLY", "DAILY", "HOURLY")),
    "FREQ=DAILY;INTERVAL=7;BYDAY=TU",
    "FREQ=WEEKLY;BYMONTH=2;BYMONTHDAY=30",
    "FREQ=YEARLY;BYWEEKNO=53;BYMONTH=6",
    "FREQ=DAILY;BYMONTH=2;BYMONTHDAY=30;COUNT=3",
]


@pytest.mark.parametrize("rule", NEVER)
def test_a_rule_that_never_comes_true_is_found_in_no_time(rule):
    gate = made(rrule=rule, duration="1h")
    began = time.process_time()
    assert "has no window after" in str(future_problem(gate, utc("2027-01-12")))
    assert time.process_time() - began < 2


SELDOM = [
    ("FREQ=YEARLY;BYMONTH=2;BYMONTHDAY=29", "2097-01-01", "2104-02-29 00:00:00"),
    ("FREQ=YEARLY;BYMONTH=2;BYMONTHDAY=29;BYDAY=FR", "2027-01-01", "2036-02-29 00:00:00"),
    ("FREQ=DAILY;BYMONTH=2;BYMONTHDAY=29;BYDAY=FR", "2080-01-01", "2092-02-29 00:00:00"),
    ("FREQ=YEARLY;BYWEEKNO=53;BYDAY=MO", "2027-02-01", "2032-12-27 00:00:00"),
]


@pytest.mark.parametrize("rule, now, opens", SELDOM)
def test_a_rule_that_seldom_comes_true_does(rule, now, opens):
    assert iso(made(rrule=rule, duration="1h").next_opening(utc(now))) == opens


def test_an_answer_takes_no_time_however_old_the_start():
    gate = made(rrule="FREQ=HOURLY", start="1971-01-01", duration="10m")
    began = time.process_time()
    for minute in range(100):
        gate.ask(Situation("", "", "", 1, (), "", utc("2026-03-01") + 60 * minute, ()))
    assert (time.process_time() - began) / 100 < 0.05


BAD = [
    ({}, "gates[0]"),
    ({"rrule": "FREQ=DAILY"}, "gates[0].duration"),
    ({"duration": 60}, "gates[0].rrule"),
    ({"rrule": "DAILY", "duration": 60}, "gates[0].rrule"),
    ({"rrule": "FREQ=SECONDLY", "duration": 60}, "gates[0].rrule"),
    ({"rrule": "FREQ=MINUTELY", "duration": 60}, "gates[0].rrule"),
    ({"rrule": "FREQ=DAILY;INTERVAL=0", "duration": 60}, "gates[0].rrule"),
    ({"rrule": "FREQ=DAILY;INTERVAL=x", "duration": 60}, "gates[0].rrule"),
    ({"rrule": "FREQ=DAILY;BYDAY=XX", "duration": 60}, "gates[0].rrule"),
    ({"rrule": "FREQ=DAILY;BYHOUR=25", "duration": 60}, "gates[0].rrule"),
    ({"rrule": "FREQ=DAILY;SHRUG=1", "duration": 60}, "gates[0].rrule"),
    ({"rrule": "FREQ=DAILY;UNTIL=20260302T000000Z", "duration": 60}, "gates[0].rrule"),
    ({"rrule": "FREQ=DAILY\nRRULE:FREQ=DAILY", "duration": 60}, "gates[0].rrule"),
    ({"rrule": ["FREQ=DAILY"], "duration": 60}, "gates[0].rrule"),
    ({"rrule": "FREQ=DAILY", "duration": 0}, "gates[0].duration"),
    ({"rrule": "FREQ=DAILY", "duration": "400d"}, "gates[0].duration"),
    ({"rrule": "FREQ=DAILY", "duration": 60, "cutoff": 60}, "gates[0].cutoff"),
    ({"rrule": "FREQ=DAILY", "duration": 60, "start": "monday"}, "gates[0].start"),
    ({"rrule": "FREQ=DAILY", "duration": 60, "start": "2026-01-01T00:00:00+01:00"}, "gates[0].start"),
    ({"rrule": "FREQ=DAILY", "duration": 60, "timezone": "Europe/Nowhere"}, "gates[0].timezone"),
    ({"rrule": "FREQ=DAILY", "duration": 60, "timezone": "../../etc/passwd"}, "gates[0].timezone"),
    ({"rrule": "FREQ=DAILY", "duration": 60, "timezone": "Europe"}, "gates[0].timezone"),
    ({"rrule": "FREQ=DAILY", "duration": 60, "timezone": 2}, "gates[0].timezone"),
    ({"rrule": "FREQ=DAILY", "duration": 60, "windows": [TUESDAYS]}, "gates[0].windows"),
    ({"windows": []}, "gates[0].windows"),
    ({"windows": TUESDAYS}, "gates[0].windows"),
    ({"windows": ["FREQ=DAILY"]}, "gates[0].windows[0]"),
    ({"windows": [TUESDAYS, {**TUESDAYS, "timezone": "UTC"}]}, "gates[0].windows[1].timezone"),
    ({"freezes": {}}, "gates[0].freezes"),
    ({"freezes": ["2026-01-01"]}, "gates[0].freezes[0]"),
    ({"freezes": [{**XMAS, "to": "2026-01-01"}]}, "gates[0].freezes[0].to"),
    ({"freezes": [{**XMAS, "to": XMAS["from"]}]}, "gates[0].freezes[0].to"),
    ({"freezes": [{"from": "2026-01-01", "to": "2026-01-02"}]}, "gates[0].freezes[0].why"),
    ({"freezes": [{**XMAS, "from": None}]}, "gates[0].freezes[0].from"),
    ({"freezes": [{**XMAS, "zone": "UTC"}]}, "gates[0].freezes[0].zone"),
    ({**TUESDAYS, "hours": 2}, "gates[0].hours"),
]


@pytest.mark.parametrize("raw, where", BAD, ids=[f"{where} {raw!r:.60}" for raw, where in BAD])
def test_bad_options(raw, where):
    gate, problems = parse({"type": "window", **raw}, "gates[0]")
    assert (gate, [problem.where for problem in problems]) == (None, [where])


def test_without_python_dateutil_it_says_what_to_install(monkeypatch):
    real = builtins.__import__

    def without(name, *args, **kwargs):
        if name.startswith("dateutil"):
            raise ImportError(name)
        return real(name, *args, **kwargs)

    for name in [name for name in sys.modules if name.startswith("dateutil")]:
        monkeypatch.delitem(sys.modules, name)
    monkeypatch.setattr(builtins, "__import__", without)
    gate, problems = parse({"type": "window", **TUESDAYS}, "gates[0]")
    assert gate is None
    assert [problem.where for problem in problems] == ["gates[0]"]
    assert "python-dateutil" in problems[0].remedy
    assert "requirements/runtime.txt" in problems[0].remedy
