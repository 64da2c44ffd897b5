# Copyright: onprem.rollout contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

from __future__ import annotations

import contextlib
import functools
import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ansible_collections.onprem.rollout.plugins.plugin_utils import _ledger
from ansible_collections.onprem.rollout.plugins.plugin_utils._ledger import (
    KINDS,
    START,
    BrokenChain,
    Entry,
    Event,
    follow,
    follow_back,
    head_of,
    line_of,
    replay,
)

DATA = st.dictionaries(st.text(max_size=8), st.one_of(st.text(max_size=8), st.integers(), st.booleans(), st.none()), max_size=3)
EVENTS = st.lists(st.tuples(st.sampled_from(sorted(KINDS)), st.text(max_size=8), st.text(max_size=8), st.floats(0, 4e9), DATA), min_size=1, max_size=8)


def chain(events):
    lines, head = [], START
    for kind, rollout, who, at, data in events:
        lines.append(line_of(head, Event(kind, rollout, data), who, at))
        head = head_of(head, lines[-1])
    return lines, head


@given(EVENTS)
def test_what_was_written_is_read(events):
    lines, head = chain(events)
    found = list(replay(lines))
    assert [(entry.kind, entry.rollout, entry.who, entry.data) for entry in found] == [(kind, rollout, who, data) for kind, rollout, who, _at, data in events]
    assert [entry.at for entry in found] == pytest.approx([at for _kind, _rollout, _who, at, _data in events], abs=0.001)
    assert found[-1].head == head
    assert all("\n" not in line for line in lines)


@given(EVENTS, st.data())
def test_a_chain_that_was_edited_breaks_or_has_another_head(events, choose):
    lines, head = chain(events)
    at = choose.draw(st.integers(0, len(lines) - 1))
    edit = choose.draw(st.sampled_from(("remove", "twice", "swap", "change")))
    edited = list(lines)
    if edit == "remove":
        del edited[at]
    elif edit == "twice":
        edited.insert(at, lines[at])
    elif edit == "swap":
        edited[at], edited[-1] = edited[-1], edited[at]
    else:
        event = json.loads(edited[at])
        event["who"] += "!"
        edited[at] = _ledger.ENCODER.encode(event)
    if edited == lines:
        return
    heads = [None]
    with contextlib.suppress(BrokenChain):
        heads = [None, *(entry.head for entry in replay(edited))]
    assert heads[-1] != head


def bared(entry, kind):
    return Entry(entry.head, kind, "", "", 0.0, {}) if entry.kind == kind else entry


@given(EVENTS, st.sampled_from(sorted(KINDS)))
def test_what_was_written_is_read_from_both_ends_and_of_one_kind_no_more_than_the_chain_needs(events, kind):
    lines, _head = chain(events)
    found = list(replay(lines))
    assert list(follow_back(lines[::-1])) == found[::-1]
    assert list(follow_back(lines[::-1], kind)) == [entry for entry in found[::-1] if entry.kind != kind]
    before = START
    for line, entry in zip(lines, found, strict=True):
        assert follow(before, line, kind) == bared(entry, kind)
        before = entry.head


def test_words_that_look_like_a_kind_are_no_kind():
    lines, _head = chain([("abort", '","kind":"host","n":2', '"kind":"host"', 0, {"kind": "host", "n": 7, "why": '"kind":"host","n":1,"prev":"'})] * 3)
    assert [entry.kind for entry in follow_back(lines[::-1], "host")] == ["abort"] * 3


@given(EVENTS, st.data())
def test_a_chain_that_was_edited_breaks_from_both_ends(events, choose):
    lines, _head = chain([("host", "r", "w", 0, {"number": number}) for number in range(3)] + events)
    at = choose.draw(st.integers(0, len(lines) - 2))
    lines[at] = lines[at][:-2] + "!" + lines[at][-2:]
    with pytest.raises(BrokenChain):
        list(follow_back(lines[::-1], "host"))
    with pytest.raises(BrokenChain):
        functools.reduce(lambda before, line: follow(before, line, "host").head, lines, START)


def test_a_bare_event_of_a_newer_schema_is_refused():
    line = line_of(START, Event("host", "r", {}), "w", 0).replace('"schema":1', '"schema":2')
    with pytest.raises(BrokenChain, match="has schema 2"):
        follow(START, line, "host")


BROKEN = [
    ("not json", "line 1 is no event: 'not json'"),
    ("{}", "line 1 is no event: '{}'"),
    (line_of(START, Event("hold", "r", {}), "w", 0).replace('"schema":1', '"schema":2'), "line 1 has schema 2, and this collection reads 1"),
    (line_of(_ledger.Head(4, START.sha256), Event("hold", "r", {}), "w", 0), "line 1 says that it is line 5: lines were taken away"),
    (line_of(_ledger.Head(0, "f" * 64), Event("hold", "r", {}), "w", 0), "line 1 does not follow from line 0"),
]


@pytest.mark.parametrize("line, why", BROKEN, ids=[why for _line, why in BROKEN])
def test_a_broken_chain_says_where_and_why(line, why):
    with pytest.raises(BrokenChain, match="^" + why.replace("{", r"\{")):
        list(replay([line]))


def test_only_known_kinds_are_written():
    with pytest.raises(ValueError, match="'shrug' is no kind of event"):
        line_of(START, Event("shrug", "r", {}), "w", 0)


def test_times_are_utc_to_the_millisecond():
    assert _ledger.stamp(1700000000.1234) == "2023-11-14T22:13:20.123Z"
    assert _ledger.seconds("2023-11-14T22:13:20.123Z") == 1700000000.123


def test_an_anchor_proves_a_ledger_that_was_cut_or_written_anew():
    lines, head = chain([("hold", "r", "ada", 0, {}), ("resume", "r", "ada", 1, {})])
    heads = {entry.head.number: entry.head.sha256 for entry in replay(lines)}
    assert _ledger.anchor_problem(head, heads) == ""
    assert "its end is lost" in _ledger.anchor_problem(head, {1: heads[1]})
    assert "written anew" in _ledger.anchor_problem(head, {**heads, 2: "e" * 64})
