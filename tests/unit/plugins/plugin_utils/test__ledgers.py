# Copyright: onprem.rollout contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""What every ledger does, wherever it is."""

from __future__ import annotations

import multiprocessing
import os
import sys
from contextlib import suppress
from pathlib import Path

import pytest

from ansible_collections.onprem.rollout.plugins.plugin_utils._ledger import START, BrokenChain, Event, Head, LedgerError, line_of
from ansible_collections.onprem.rollout.plugins.plugin_utils._ledgers import missing, open_ledger, place_problem, shown

sys.path.insert(0, str(Path(__file__).parents[3]))
from postgresql import running_server

FORK = multiprocessing.get_context("fork")


@pytest.fixture(scope="module")
def server():
    with running_server() as running:
        yield running


class File:
    def __init__(self, path):
        self.place = str(path / "below" / "ledger.jsonl")

    def change(self, number, line):
        """Put another line there, or none, behind the ledger's back."""
        lines = Path(self.place).read_text().splitlines()
        lines[number - 1 : number] = [line] if line else []
        Path(self.place).write_text("".join(line + "\n" for line in lines))

    def remove(self):
        os.remove(self.place)


class Database:
    def __init__(self, server, name):
        self._sql = lambda statements: server.sql(f"set session_replication_role = replica; {statements}", name)
        server.sql(f"drop database if exists {name} with (force)")
        server.sql(f"create database {name}")
        self.place = server.place(name)

    def change(self, number, line):
        rows = "onprem_rollout_ledger.lines"
        self._sql(f"delete from {rows} where number = {number}")
        if line:
            self._sql(f"insert into {rows} values ({number}, $line${line}$line$)")

    def remove(self):
        self._sql("drop schema onprem_rollout_ledger cascade")


@pytest.fixture(params=["file", "postgresql"])
def kind(request, tmp_path):
    return File(tmp_path) if request.param == "file" else Database(request.getfixturevalue("server"), "contract")


@pytest.fixture
def ledger(kind):
    return open_ledger(kind.place, "ada")


def kinds(ledger):
    return [entry.kind for entry in ledger.entries()]


def test_a_ledger_that_is_not_there_is_empty(ledger):
    assert (list(ledger.entries()), list(ledger.news()), ledger.exists()) == ([], [], False)
    assert "there is no such ledger" in missing(ledger)
    ledger.append([Event("hold", "r", {})])
    assert (ledger.exists(), missing(ledger)) == (True, "")


def test_what_is_appended_is_read_and_is_news_once(kind, ledger):
    ledger.append([Event("hold", "shop-2.0", {"why": "ünïcode \n \x00 'quoted' $1 %s \\"})])
    head = ledger.append([Event("resume", "shop-2.0", {})])
    assert [entry.head for entry in ledger.entries()][-1] == head
    assert next(ledger.entries()).data == {"why": "ünïcode \n \x00 'quoted' $1 %s \\"}
    assert [entry.kind for entry in list(ledger.news())] == ["hold", "resume"]
    open_ledger(kind.place, "bob").append([Event("abort", "shop-2.0", {})])
    assert [(entry.kind, entry.who) for entry in list(ledger.news())] == [("abort", "bob")]
    assert list(ledger.news()) == []


def test_it_is_read_from_its_end_as_far_as_one_wants_to(kind, ledger):
    assert list(ledger.newest_first()) == []
    ledger.append([Event("host", "r", {"number": number, "long": "x" * 997}) for number in range(450)])
    assert list(ledger.newest_first()) == list(ledger.entries())[::-1]
    assert [entry.data["number"] for entry, _nothing in zip(ledger.newest_first(), range(3), strict=False)] == [449, 448, 447]
    kind.change(449, line_of(Head(448, "f" * 64), Event("hold", "r", {}), "eve", 0.0))
    back = ledger.newest_first()
    assert next(back).data["number"] == 449
    with pytest.raises(BrokenChain, match="line 450 does not follow from line 449, which was changed after it was written"):
        next(back)


def test_what_comes_before_a_broken_line_is_news(kind, ledger):
    ledger.append([Event("hold", "r", {}), Event("resume", "r", {}), Event("abort", "r", {})])
    kind.change(3, "vim was here")
    news = ledger.news()
    assert [next(news).kind, next(news).kind] == ["hold", "resume"]
    for attempt in (news, ledger.news()):
        with pytest.raises(BrokenChain, match="line 3 is no event: 'vim was here'"):
            next(attempt)


def test_many_events_are_written_at_once_and_none_changes_nothing(ledger):
    assert ledger.append([]) == START
    head = ledger.append([Event("wave", "r", {"number": number}) for number in range(3)])
    assert ledger.append([]) == head
    assert [entry.data["number"] for entry in ledger.entries()] == [0, 1, 2]


def test_writers_take_turns_from_the_first_line_on(kind, ledger):
    def write(name):
        own = open_ledger(kind.place, name)
        for number in range(20):
            own.append([Event("hold", "r", {"number": number})])

    writers = [FORK.Process(target=write, args=(name,)) for name in ("ada", "bob", "eve")]
    for writer in writers:
        writer.start()
    for writer in writers:
        writer.join(60)
    found = list(ledger.entries())
    assert [entry.head.number for entry in found] == list(range(1, 61))
    for who in ("ada", "bob", "eve"):
        assert [entry.data["number"] for entry in found if entry.who == who] == list(range(20))


def test_an_event_of_no_kind_is_not_written(ledger):
    ledger.append([Event("hold", "r", {})])
    with pytest.raises(ValueError, match="'hodl' is no kind of event"):
        ledger.append([Event("resume", "r", {}), Event("hodl", "r", {})])
    ledger.append([Event("abort", "r", {})])
    assert kinds(ledger) == ["hold", "abort"]


@pytest.mark.parametrize("line, why", [
    ('{"edited": true}', "line 2 is no event"),
    (None, "line 2 (says that it is line 3|is gone: line 3 comes after line 1)"),
])  # fmt: skip
def test_a_line_that_was_changed_or_taken_away_breaks_the_chain_there(kind, ledger, line, why):
    ledger.append([Event("hold", "r", {"number": number}) for number in range(4)])
    kind.change(2, line)
    with pytest.raises(BrokenChain, match=why) as broken:
        list(ledger.entries())
    assert broken.value.number == 2
    with pytest.raises(BrokenChain, match=why):
        list(ledger.news())


def test_words_that_were_changed_in_a_line_break_the_chain_after_it(kind, ledger):
    ledger.append([Event("hold", "r", {"why": "a sale"}), Event("resume", "r", {})])
    kind.change(1, line_of(START, Event("hold", "r", {"why": "an audit"}), "ada", 0.0))
    with pytest.raises(BrokenChain, match="line 2 does not follow from line 1, which was changed after it was written"):
        list(ledger.entries())


@pytest.mark.parametrize("harm, why", [("remove", "is gone: the ledger was removed"), ("cut", "is gone: the ledger (is shorter than it was|was shortened)")])
def test_a_ledger_that_shrinks_under_a_run_is_seen(kind, ledger, harm, why):
    ledger.append([Event("hold", "r", {}), Event("resume", "r", {})])
    list(ledger.news())
    if harm == "remove":
        kind.remove()
    else:
        kind.change(2, None)
    with suppress(LedgerError, BrokenChain):  # a table that goes away under a connection is known to be gone by the next one
        list(ledger.news())
    with pytest.raises(BrokenChain, match=f"line 2 {why}"):
        list(ledger.news())


def test_after_a_line_of_a_newer_schema_nothing_is_written_or_believed(kind, ledger):
    head = ledger.append([Event("hold", "r", {})])
    ledger.append([Event("resume", "r", {})])
    kind.change(2, line_of(head, Event("resume", "r", {}), "eve", 0.0).replace('"schema":1', '"schema":2'))
    newer = "has schema 2, and this collection reads 1; use the version of onprem.rollout that wrote it, or a newer one"
    with pytest.raises(LedgerError, match=f"the last line of the ledger .* {newer}"):
        ledger.append([Event("abort", "r", {})])
    for read in (ledger.entries, ledger.news, ledger.newest_first):
        with pytest.raises(BrokenChain, match=newer):
            list(read())


def test_a_clock_that_jumps_back_changes_what_lines_say_and_not_their_order(kind, ledger):
    now = [2_000_000_000.0, 1_000_000_000.0, 3_000_000_000.0]
    ledger._clock = lambda: now.pop(0)
    for verb in ("hold", "resume", "abort"):
        ledger.append([Event(verb, "r", {})])
    assert [(entry.head.number, entry.kind, entry.at) for entry in ledger.entries()] == [
        (1, "hold", 2_000_000_000.0),
        (2, "resume", 1_000_000_000.0),
        (3, "abort", 3_000_000_000.0),
    ]
    assert list(ledger.newest_first()) == list(ledger.news())[::-1]


def test_after_a_last_line_that_is_no_event_nothing_is_written(kind, ledger):
    ledger.append([Event("hold", "r", {}), Event("resume", "r", {})])
    kind.change(2, "vim was here")
    with pytest.raises(LedgerError, match=r"is no event: .*; look at it with the verb audit"):
        ledger.append([Event("resume", "r", {})])
    with pytest.raises(BrokenChain, match="line 2 is no event: 'vim was here'"):
        list(ledger.entries())


@pytest.mark.parametrize("place, problem", [
    ("/var/lib/ledger.jsonl", ""),
    ("postgresql://ada@db/shop", ""),
    ("postgres://db", ""),
    ("", "write the path of a file, or postgresql://..."),
    (7, "write the path of a file, or postgresql://..."),
    ("mysql://ada:secret@db", "is neither a path nor postgresql://..."),
    ("postgresql://ada:sec/ret@db", "write what is special in the user's name and the password by its number: %2F for /, %40 for @, %3A for :"),
])  # fmt: skip
def test_what_a_ledger_may_be_called(place, problem):
    assert place_problem(place) == problem
    assert "secret" not in str(shown(place)).replace("/", "")
