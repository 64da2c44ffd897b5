# Copyright: onprem.rollout contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Hosts that are parked prove themselves again."""

from __future__ import annotations

import pytest

from ansible_collections.onprem.rollout.tests.unit.plugins.plugin_utils.stage_play import (
    BROKEN,
    DARK,
    Play,
)

SOAKS = {"serial": ("100%",), "soak": 100.0}


def test_a_parked_host_proves_itself_again_before_its_lease_ends():
    play = Play(hosts=3, ring=SOAKS, renew_interval=30.0).run()
    assert set(play.outcomes().values()) == {"committed"}
    assert sum(1 for call in play.stage.calls if call == ("prove_again", "h1")) in (3, 4)


def test_renewing_waits_for_a_free_worker():
    play = Play(hosts=3, ring=SOAKS, renew_interval=30.0)
    play.stage.width = 1
    play.run()
    assert set(play.outcomes().values()) == {"committed"}
    assert {call[1] for call in play.stage.calls if call[0] == "prove_again"} == {"h0", "h1", "h2"}


@pytest.mark.parametrize("interval, soak, proofs", [(20.0, 100.0, (4, 5)), (0.0, 100.0, (0,)), (60.0, 0.0, (0,)), (60.0, 50.0, (0,))])
def test_hosts_that_soak_are_checked_as_often_as_their_ring_says(interval, soak, proofs):
    play = Play(hosts=3, ring={"serial": ("100%",), "soak": soak, "soak_interval": interval}).run()
    assert set(play.outcomes().values()) == {"committed"}
    for host in ("h0", "h1", "h2"):
        assert sum(1 for call in play.stage.calls if call == ("prove_again", host)) in proofs


def test_a_host_whose_check_takes_longer_than_the_interval_is_not_asked_twice_at_once():
    play = Play(hosts=1, ring={"soak": 50.0, "soak_interval": 0.5})
    proves = play.stage.prove_again
    play.stage.prove_again = lambda host: host not in play.stage.running and proves(host)
    play.run()
    assert play.outcomes() == {"h0": "committed"}


def test_a_check_that_fails_in_the_soak_is_the_failure_of_its_host_and_names_the_check():
    sick = (
        "failed",
        {"checks": [{"name": "web", "level": "required", "ok": False, "seen": "status 500", "expected": "status 200", "seconds": 1.0, "attempts": 2}]},
    )
    play = Play(hosts=3, ring={**SOAKS, "soak_interval": 20.0}, answers={("h1", "health"): [None, None, sick]}).run()
    assert set(play.outcomes().values()) == {"restored"}
    assert play.driver.runs["h1"].why.startswith("while it was parked, check web: status 500, expected status 200")
    assert play.driver.conductor.failures == {"all": 1}
    assert 40 < play.now < 100


@pytest.mark.parametrize("trouble", [BROKEN, DARK])
def test_a_parked_host_that_gets_sick_or_dark_stops_its_wave_at_once(trouble):
    play = Play(hosts=3, ring=SOAKS, renew_interval=30.0, answers={("h1", "health"): [None, trouble]}).run()
    assert set(play.outcomes().values()) == {"restored"}
    assert play.now < 100
