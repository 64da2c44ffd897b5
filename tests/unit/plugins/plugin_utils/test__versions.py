# Copyright: onprem.rollout contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

from __future__ import annotations

from itertools import count

import pytest

from ansible_collections.onprem.rollout.plugins.plugin_utils._ledger import Entry, Head
from ansible_collections.onprem.rollout.plugins.plugin_utils._versions import Versions

NUMBERS = count(1)
OK, WAITS, SKIPS = ({"how": how, "why": ""} for how in ("ok", "waiting", "halted"))


def event(kind, version="2.0", name="shop", **data):
    return Entry(Head(next(NUMBERS), ""), kind, f"{name}-{version}", "ada on ctl1, pid 7", 0.0, data)


def started(version="2.0", name="shop", run="r1"):
    return event("started", version, name, release={"name": name, "version": version}, run=run)


def superseded(by, version="2.0"):
    return event("superseded", version, release={"name": "shop", "version": by})


def versions(own, *events):
    found = Versions("shop", own)
    for each in events:
        found.hear(each)
    return found


CASES = [
    ("at work", [started()], ["shop-2.0"]),
    ("waiting for the next run", [started(), event("finished", **WAITS)], ["shop-2.0"]),
    ("at its end", [started(), event("finished", **OK)], []),
    ("superseded already, by one that waits", [started(), superseded("2.0.9")], ["shop-2.0.9"]),
    ("superseded already, by one that is at its end", [started(), superseded("2.0.9"), started("2.0.9"), event("finished", "2.0.9", **OK)], []),
    ("superseded, and begun again since", [started(), superseded("2.0.9"), started()], ["shop-2.0", "shop-2.0.9"]),
    ("of another release", [started("2.0", "other"), started("1.0", "shop-web")], []),
    ("its own", [started("2.1"), superseded("2.1")], []),
]


@pytest.mark.parametrize("events, rollouts", [case[1:] for case in CASES], ids=[case[0] for case in CASES])
def test_what_is_in_progress_is_superseded(events, rollouts):
    found = versions("2.1", *events)
    assert sorted(each.rollout for each in found.in_progress) == rollouts
    assert sorted((each.kind, each.rollout) for each in found.to_supersede("ada")) == [("superseded", rollout) for rollout in rollouts]
    assert found.refusal() == ""


@pytest.mark.parametrize("own", ["1.9", "2.0rc1", "nightly", "2.0.0"])
def test_what_is_no_newer_goes_on_only_if_it_is_meant(own):
    assert f"shop-{own} would supersede shop-2.0, which is in progress and no older version" in versions(own, started()).refusal()
    assert "rollout_replan=true" in versions(own, started()).refusal()
    assert versions(own, started(), event("finished", **OK)).refusal() == ""


def test_what_was_superseded_goes_on_only_if_it_is_meant_and_is_in_progress_again_then():
    events = [started(), superseded("2.1"), started("2.1")]
    assert "shop-2.0 was superseded by shop-2.1 at 1970-01-01T00:00:00.000Z, of ada on ctl1, pid 7" in versions("2.0", *events).refusal()
    assert "is in progress and no older" in versions("2.0", *events, started("2.0")).refusal()


def test_a_hold_goes_over_once():
    events = [started(), event("hold", why="a sale", by="bob")]
    (_superseded, hold) = versions("2.1", *events).to_supersede("ada")
    assert (hold.kind, hold.rollout, hold.data) == ("hold", "shop-2.1", {"by": "bob", "why": "shop-2.0 was held by ada on ctl1, pid 7: a sale"})
    assert [each.kind for each in versions("2.1", *events, event("hold", "2.1")).to_supersede("ada")] == ["superseded"]
    assert [each.kind for each in versions("2.1", *events, event("resume")).to_supersede("ada")] == ["superseded"]


def test_the_run_that_began_last_and_has_not_ended_has_the_release():
    gone = {"r1"}
    events = [started(run="r1"), started("2.0.9", run="r2")]
    assert versions("2.1", *events).at_work(lambda run: run["run"] in gone).rollout == "shop-2.0.9"
    assert versions("2.1", *events, event("finished", "2.0.9", **SKIPS)).at_work(lambda run: False).rollout == "shop-2.0"
    assert versions("2.1", *events, event("finished", "2.0.9", **SKIPS)).at_work(lambda run: run["run"] in gone) is None
    assert versions("2.1", *events, event("finished", "2.0.9", **SKIPS)).ended == {"r2"}


def test_a_run_that_lost_the_release_and_ends_does_not_end_the_one_that_has_it():
    first, second = started(run="r1"), started(run="r2")
    lost = {"run": first.head.number}
    late = [event("wave", ring="early", wave=1, state="soaks 9 s", **lost), event("gate", verdict="hold", **lost), event("halted", **lost)]
    late += [event("outage", why="no route", **lost), event("finished", how="ok", why="", **lost)]
    found = versions("2.0", first, second, *late)
    assert found.ended == {"r1"}
    standing = found.own
    assert (standing.at_work, standing.run, standing.last) == (True, second, second)
    assert (standing.wave, standing.gate, standing.halted, standing.outage, standing.soaks) == (None, None, None, None, {})
    assert versions("2.1", first, second, *late).in_progress
    for each in (event("finished", how="ok", why="", run=second.head.number), event("finished", how="ok", why="")):  # that is how older lines are
        found = versions("2.0", first, second, *late, each)
        assert (found.ended, found.own.at_work) == ({"r1", "r2"}, False)
