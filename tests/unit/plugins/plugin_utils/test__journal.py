# Copyright: onprem.rollout contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""A journal over a real ledger file, which a directory without permission, or an edit, takes away from it."""

from __future__ import annotations

import shutil
import subprocess
import sys

import pytest

from ansible_collections.onprem.rollout.plugins.plugin_utils import _holder
from ansible_collections.onprem.rollout.plugins.plugin_utils._journal import GATHER, LISTEN, PATIENCE, RETRY, Journal, Taken
from ansible_collections.onprem.rollout.plugins.plugin_utils._ledger import BrokenChain
from ansible_collections.onprem.rollout.plugins.plugin_utils._ledger_file import LedgerFile
from ansible_collections.onprem.rollout.plugins.plugin_utils._orders import Event as Decided
from ansible_collections.onprem.rollout.plugins.plugin_utils._states import State
from ansible_collections.onprem.rollout.tests.unit.plugins.plugin_utils.journals import Clock, Sleeps, at_work, kinds, other


@pytest.fixture
def clock():
    return Clock()


@pytest.fixture
def journal(place, clock):
    found = Journal(LedgerFile(str(place), "ada", lambda: 0.0), "shop", "2.0", clock)
    found.open()
    return found


def opened(place, clock):
    found = Journal(LedgerFile(str(place), "ada", lambda: 0.0), "shop", "2.0", clock, clock.sleep)
    found.open()
    return found


def in_the_way(place):
    shutil.rmtree(place.parent)
    place.parent.write_text("in the way")


def test_what_was_noted_is_written_at_the_next_flush(journal, place):
    journal.note("started", plan="p1")
    assert kinds(place) == []
    assert journal.flush()
    assert kinds(place) == ["started"]
    assert journal.head.number == 1


def test_nothing_is_forgotten_while_the_ledger_cannot_be_written(journal, place, clock):
    in_the_way(place)
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
    in_the_way(place)
    journal.note("finished", how="ok")
    assert not journal.flush()
    place.parent.unlink()
    assert journal.flush(at_once=True)


@pytest.mark.parametrize("returns_after, written", [(1.0, True), (60.0, False)])
def test_the_last_words_are_tried_for_a_bounded_time(journal, place, clock, returns_after, written):
    place.mkdir()
    began = clock.now

    def sleep(seconds):
        clock.now += seconds
        if clock.now - began >= returns_after and place.exists():
            place.rmdir()

    journal._sleep = sleep
    journal.note("finished", how="ok")
    assert journal.flush_within(15.0) is written
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
        Journal(LedgerFile(str(place), "ada", lambda: 0.0), "shop", "2.0", clock).open()


def test_what_the_conductor_tells(journal, place):
    for event in (
        Decided("wave", 1.0, ring="early", wave=1, detail="filling"),
        Decided("admitted", 1.0, "web1", State.CHANGING),
        Decided("gate", 1.0, ring="early", wave=1, detail="hold: waits: for ada"),
        Decided("ended", 2.0, "web1", State.COMMITTED, "early", 1, ""),
        Decided("outage", 2.5, "web2", detail="check web fails on web3 too"),
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
        "outage": {"host": "web2", "why": "check web fails on web3 too"},
        "halted": {**where, "why": "failures"},
    }


def test_a_second_run_is_refused_and_the_first_is_named(place, elsewhere):
    at_work(place)
    with pytest.raises(Taken) as error:
        opened(place, Sleeps())
    assert str(error.value).startswith("shop-2.0 is rolled out by another run, of bob on ctl2, pid 7, job 12, since 1970-01-01T00:01:00.000Z; wait for it,")


def test_a_run_that_has_just_begun_is_waited_for_to_say_who_it_is(place, elsewhere):
    clock = Sleeps(lambda: at_work(place) if not place.exists() else None)
    with pytest.raises(Taken, match="bob on ctl2, pid 7"):
        opened(place, clock)
    assert clock.now < 100.0 + PATIENCE


def test_a_run_that_says_nothing_is_refused_all_the_same(place, elsewhere):
    at_work(place, run=f"{_holder.controller()}/{_holder.boot_id()}/{_holder.pid_namespace()}/1/1")  # whoever that was is gone
    with pytest.raises(Taken, match="is rolled out by another run"):
        opened(place, Sleeps())


def test_the_rollout_is_free_when_its_run_is_killed(place, elsewhere):
    at_work(place, run=f"{_holder.controller()}/{_holder.boot_id()}/{_holder.pid_namespace()}/1/1")
    journal = opened(place, Sleeps(lambda: elsewhere.kill() or elsewhere.wait()))
    journal.close()
    assert not LedgerFile(str(place), "", lambda: 0.0).lease("shop").taken()


def test_another_rollout_of_the_same_ledger_is_free(place, clock, elsewhere):
    ledger = LedgerFile(str(place), "ada", lambda: 0.0)
    journal = Journal(ledger, "other", "1.0", clock)
    journal.open()
    assert journal.flush()
    assert not journal.trouble
    journal.close()


class Lost:
    """A lease that goes with a connection: held says whether it is there, others whether another run has it."""

    def __init__(self):
        self.held, self.others, self.asked, self.tied_to = False, False, 0, "its session"

    def take(self):
        self.asked += 1
        self.held = not self.others
        return self.held


def test_a_lease_that_was_lost_is_taken_again_and_where_another_run_was_faster_nobody_new_is_let_in(place, clock):
    ledger = LedgerFile(str(place), "ada", lambda: 0.0)
    lease = Lost()
    ledger.lease = lambda release, listens: lease
    journal = Journal(ledger, "shop", "2.0", clock)
    journal.open()
    lease.held = False
    clock.now += LISTEN
    journal.listen()
    assert (lease.held, journal.trouble) == (True, "")
    lease.held, lease.others = False, True
    at_work(place)
    clock.now += LISTEN
    journal.listen()
    assert "is rolled out by another run, of bob on ctl2" in journal.trouble
    assert "this one lost it with its session" in journal.trouble
    journal.note("host", host="web1")
    clock.now += GATHER
    assert journal.flush(at_once=True), "what happened is written all the same"
    lease.others = False
    clock.now += LISTEN
    journal.listen()
    assert journal.trouble == ""


def test_a_run_that_does_not_listen_says_now_and_then_that_it_is_there(place, clock):
    """As while hosts are asked: a session without a word would be taken for one that hangs."""
    ledger, lease = LedgerFile(str(place), "ada", lambda: 0.0), Lost()
    ledger.lease = lambda release, listens: lease
    journal = Journal(ledger, "shop", "2.0", clock)
    journal.open()
    for _second in range(200):
        clock.now += 1
        journal.flush()
    assert lease.asked == 1 + 3
    for _second in range(200):
        clock.now += 1
        journal.listen()
        journal.flush()
    assert lease.asked == 1 + 3


def test_a_run_that_lives_and_whose_lock_was_taken_away_is_not_run_beside_and_takes_it_again(place, elsewhere):
    at_work(place, run=_holder.run_of(elsewhere.pid))
    (lock,) = place.parent.glob("*.lease")
    lock.unlink()
    with pytest.raises(Taken, match="is rolled out by another run, of bob on ctl2"):
        opened(place, Sleeps())
    assert not LedgerFile(str(place), "", lambda: 0.0).lease("shop").taken(), "it is free for the run that lost it"
    elsewhere.kill()
    elsewhere.wait()
    opened(place, Sleeps()).close()


def test_a_lock_that_was_taken_away_is_made_anew_and_where_another_run_was_faster_nobody_new_is_let_in(place, clock, journal):
    (lock,) = place.parent.glob("*.lease")
    lock.unlink()
    clock.now += LISTEN
    journal.listen()
    assert (lock.exists(), journal.trouble) == (True, "")
    lock.unlink()
    code = "import fcntl, sys; file = open(sys.argv[1], 'w'); fcntl.lockf(file, fcntl.LOCK_EX); print(flush=True); sys.stdin.read()"
    with subprocess.Popen([sys.executable, "-c", code, str(lock)], stdin=subprocess.PIPE, stdout=subprocess.PIPE) as faster:
        faster.stdout.readline()
        clock.now += LISTEN
        journal.listen()
        assert f"this one lost it with its lock {lock}, which was taken away" in journal.trouble
        faster.communicate()
    clock.now += LISTEN
    journal.listen()
    assert journal.trouble == ""
    journal.close()


def test_what_a_run_decides_names_the_run_and_one_that_has_the_release_again_begins_again(journal, place, clock):
    journal.start(plan="p1", soaks={})
    other(place, "started")
    journal.note("gate", verdict="hold")
    journal.flush()
    clock.now += LISTEN
    journal.listen()
    journal.note("finished", how="ok")
    journal.flush()
    written = list(LedgerFile(str(place), "eve", lambda: 0.0).entries())
    assert [(entry.kind, entry.who, entry.data.get("run")) for entry in written] == [
        ("started", "ada", journal._run), ("started", "bob", None), ("gate", "ada", 1), ("started", "ada", journal._run), ("finished", "ada", 4)
    ]  # fmt: skip
    clock.now += LISTEN
    journal.listen()
    assert (journal.standing.gate, journal.standing.at_work) == (None, False)
