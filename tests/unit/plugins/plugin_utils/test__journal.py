# Copyright: onprem.rollout contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""A journal over a real ledger file, which a directory without permission, or an edit, takes away from it."""

from __future__ import annotations

import pytest

from ansible_collections.onprem.rollout.plugins.plugin_utils._conductor import Event as Decided
from ansible_collections.onprem.rollout.plugins.plugin_utils._journal import GATHER, LISTEN, RETRY, Journal
from ansible_collections.onprem.rollout.plugins.plugin_utils._ledger import BrokenChain, Event
from ansible_collections.onprem.rollout.plugins.plugin_utils._ledger_file import LedgerFile
from ansible_collections.onprem.rollout.plugins.plugin_utils._states import State


class Clock:
    def __init__(self):
        self.now = 100.0

    def __call__(self):
        return self.now


@pytest.fixture
def clock():
    return Clock()


@pytest.fixture
def place(tmp_path):
    return tmp_path / "below" / "ledger.jsonl"


@pytest.fixture
def journal(place, clock):
    found = Journal(LedgerFile(str(place), "ada", lambda: 0.0), "shop-2.0", clock)
    found.open()
    return found


def other(place, kind, rollout="shop-2.0"):
    return LedgerFile(str(place), "bob", lambda: 0.0).append([Event(kind, rollout, {})])


def kinds(place):
    return [entry.kind for entry in LedgerFile(str(place), "", lambda: 0.0).entries()]


def test_what_was_noted_is_written_at_the_next_flush(journal, place):
    journal.note("started", plan="p1")
    assert kinds(place) == []
    assert journal.flush()
    assert kinds(place) == ["started"]
    assert journal.head.number == 1


def test_nothing_is_forgotten_while_the_ledger_cannot_be_written(journal, place, clock):
    place.parent.write_text("in the way")
    journal.note("started", plan="p1")
    assert not journal.flush()
    assert "cannot be written" in journal.trouble
    journal.note("finished", how="ok")
    place.parent.unlink()
    assert not journal.flush(), "the next try is some seconds away"
    clock.now += RETRY
    assert journal.flush()
    assert (journal.trouble, kinds(place)) == ("", ["started", "finished"])


def test_outcomes_of_hosts_are_written_together_and_before_the_next_decision(journal, place, clock):
    journal.note("started", plan="p1")
    journal.flush()
    journal.note("host", host="web1")
    assert journal.flush()
    assert kinds(place) == ["started"]
    clock.now += GATHER
    assert journal.flush()
    assert kinds(place) == ["started", "host"]
    journal.note("host", host="web2")
    journal.note("halted", why="failures")
    assert journal.flush()
    assert kinds(place) == ["started", "host", "host", "halted"]


def test_at_the_end_it_is_tried_at_once(journal, place):
    place.parent.write_text("in the way")
    journal.note("finished", how="ok")
    assert not journal.flush()
    place.parent.unlink()
    assert journal.flush(at_once=True)


@pytest.mark.parametrize("returns_after, written", [(1.0, True), (60.0, False)])
def test_the_last_words_are_tried_for_a_bounded_time(journal, place, clock, returns_after, written):
    place.parent.write_text("in the way")
    began = clock.now

    def sleep(seconds):
        clock.now += seconds
        if clock.now - began >= returns_after:
            place.parent.unlink(missing_ok=True)

    journal.note("finished", how="ok")
    assert journal.flush_within(15.0, sleep) is written
    assert clock.now - began <= 16.0


def test_what_others_write_is_heard_once_and_not_of_other_rollouts(journal, place, clock):
    other(place, "hold")
    assert journal.listen() == [], "it listened just now"
    clock.now += LISTEN
    other(place, "hold", "other-1.0")
    assert [entry.kind for entry in journal.listen()] == ["hold"]
    assert journal.standing.hold.who == "bob"
    clock.now += LISTEN
    assert journal.listen() == []


def test_a_ledger_that_is_edited_under_a_run_is_trouble_and_in_the_beginning_the_end(journal, place, clock):
    other(place, "hold")
    journal.open()
    other(place, "resume")
    place.write_text(place.read_text().replace("resume", "abort"))
    place.write_text(place.read_text().replace('"n":2', '"n":7'))
    clock.now += LISTEN
    assert journal.listen() == []
    assert "line 2 says that it is line 7" in journal.trouble
    with pytest.raises(BrokenChain):
        Journal(LedgerFile(str(place), "ada", lambda: 0.0), "shop-2.0", clock).open()


def test_what_the_conductor_tells(journal, place):
    for event in (
        Decided("wave", 1.0, ring="early", wave=1, detail="filling"),
        Decided("admitted", 1.0, "web1", State.CHANGING),
        Decided("gate", 1.0, ring="early", wave=1, detail="hold: waits: for ada"),
        Decided("ended", 2.0, "web1", State.COMMITTED, "early", 1, ""),
        Decided("halted", 3.0, ring="early", wave=1, detail="failures"),
    ):
        journal.hear(event)
    journal.flush()
    data = {entry.kind: entry.data for entry in LedgerFile(str(place), "", lambda: 0.0).entries()}
    where = {"ring": "early", "wave": 1}
    assert data == {
        "wave": {**where, "state": "filling"},
        "gate": {**where, "verdict": "hold", "why": "waits: for ada"},
        "host": {**where, "host": "web1", "state": "committed", "why": ""},
        "halted": {**where, "why": "failures"},
    }
