# Copyright: onprem.rollout contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

from __future__ import annotations

import pytest

from ansible_collections.onprem.rollout.plugins.plugin_utils._journal import Journal, Taken
from ansible_collections.onprem.rollout.plugins.plugin_utils._ledger import Event
from ansible_collections.onprem.rollout.plugins.plugin_utils._ledger_file import LedgerFile
from ansible_collections.onprem.rollout.tests.unit.plugins.plugin_utils.journals import Sleeps, at_work, kinds, newer, other


def ends(place, elsewhere, version="2.0"):
    """The run of the other version ends, as it does when it hears that it is superseded."""

    def happens():
        if "superseded" in kinds(place) and elsewhere.poll() is None:
            LedgerFile(str(place), "bob", lambda: 0.0).append([Event("finished", f"shop-{version}", {"how": "halted"})])
            elsewhere.kill()
            elsewhere.wait()

    return happens


def test_a_newer_version_tells_the_older_one_once_waits_for_its_end_and_has_the_release(place, elsewhere):
    at_work(place)
    journal = newer(place, Sleeps(ends(place, elsewhere)))
    assert kinds(place) == ["started", "superseded", "finished"]
    assert journal.judged == [["started"], ["started", "superseded", "finished"]], "nobody is told before it is known that this one may begin"
    assert "shop-2.0 is rolled out by another run, of bob on ctl2, pid 7, job 12, since 1970" in journal.told[0]
    assert "60 s at most" in journal.told[0]
    assert "shop-2.1 has its turn after" in journal.told[1]
    (superseded,) = (entry for entry in LedgerFile(str(place), "", lambda: 0.0).entries() if entry.kind == "superseded")
    assert (superseded.rollout, superseded.data) == ("shop-2.0", {"by": "ada", "release": {"name": "shop", "version": "2.1"}})
    journal.close()


def test_one_that_does_not_give_way_is_waited_for_no_longer_than_said(place, elsewhere):
    at_work(place)
    clock = Sleeps()
    with pytest.raises(Taken, match=r"it was told at 1970-01-01T00:01:30.000Z that shop-2.1 supersedes it, and has not ended within 60 s"):
        newer(place, clock)
    assert 60 <= clock.now - 100 < 61
    assert kinds(place) == ["started", "superseded"]


def test_one_that_waits_is_superseded_itself(place, elsewhere):
    at_work(place)

    def another():
        if kinds(place)[-1] == "superseded":
            LedgerFile(str(place), "eve", lambda: 0.0).append([Event("superseded", "shop-2.1", {"release": {"name": "shop", "version": "2.2"}})])

    with pytest.raises(Taken, match=r"shop-2.1 was superseded by shop-2.2 at .*, of eve, while it waited"):
        newer(place, Sleeps(another))
    elsewhere.kill()
    elsewhere.wait()
    journal = newer(place, Sleeps(), version="2.3")
    assert [entry.rollout for entry in LedgerFile(str(place), "", lambda: 0.0).entries() if entry.kind == "superseded"] == ["shop-2.0", "shop-2.1", "shop-2.2"]
    journal.close()


def test_one_whose_run_died_is_superseded_without_a_wait_and_its_hold_holds_the_newer_one_from_its_beginning(place):
    at_work(place)
    other(place, "hold")
    clock = Sleeps()
    journal = newer(place, clock)
    assert (clock.now, journal.told, kinds(place)) == (100.0, [], ["started", "hold", "superseded", "hold"])
    assert "shop-2.0 was held by bob" in journal.standing.hold.data["why"]
    journal.close()


def test_nobody_is_told_by_one_that_must_not_begin(place, elsewhere):
    at_work(place)
    clock = Sleeps()
    with pytest.raises(ValueError, match="not newer"):
        Journal(LedgerFile(str(place), "ada", lambda: 0.0), "shop", "1.9", clock, clock.sleep).open(lambda: int("not newer"), "ada", 60.0)
    assert kinds(place) == ["started"]
