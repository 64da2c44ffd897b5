# Copyright: onprem.rollout contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Hosts that go dark, come back, or could never be reached."""

from __future__ import annotations

import pytest

from ansible_collections.onprem.rollout.tests.unit.plugins.plugin_utils.stage_play import (
    BROKEN,
    DARK,
    Play,
)


def test_a_dark_host_is_looked_for_without_stopping_the_others():
    answers = {("h1", "payload"): DARK, ("h1", "restore"): [DARK]}
    play = Play(ring={"serial": ("100%",), "max_failures": 1}, answers=answers).run()
    assert play.outcomes() == {"h0": "committed", "h1": "restored", "h2": "committed", "h3": "committed"}
    assert ("again", "h1") in play.stage.calls


def test_a_host_that_went_dark_in_its_payload_says_so_even_if_its_wave_is_to_be_reverted():
    answers = {("h0", "payload"): BROKEN, ("h1", "payload"): DARK}
    play = Play(hosts=2, ring={"serial": ("100%",)}, answers=answers, delays={("h1", "payload"): 5}).run()
    assert play.outcomes() == {"h0": "restored", "h1": "restored"}
    assert play.driver.runs["h1"].why == "unreachable in 'payload': No route to host"


TWO_WAVES = {"serial": (2, "100%"), "max_failures": "100%", "soak": 100.0}


def lost(times: int, then: tuple | None = None, **more) -> Play:
    """h1 goes dark in its payload, and stays so for longer than it is waited for; the others soak, in two waves."""
    return Play(ring=TWO_WAVES, answers={("h1", "payload"): DARK, ("h1", "restore"): [DARK] * times + [then]}, **more).run()


def ends(play: Play, host: str) -> list[str]:
    return [str(event.state) for event in play.told if event.kind == "ended" and event.host == host]


def test_a_lost_host_that_comes_back_while_the_run_goes_on_gets_its_restore():
    play = lost(14)
    assert play.outcomes() == {"h0": "committed", "h1": "restored", "h2": "committed", "h3": "committed"}
    assert ends(play, "h1") == ["lost", "restored"]
    assert play.driver.runs["h1"].why == "unreachable in 'payload': No route to host; did not come back within 60 s, but later"
    assert (play.driver.conductor.failures, play.driver.wanted) == ({"all": 1}, "failed")


def test_the_run_does_not_stay_for_a_lost_host():
    play = lost(10_000)
    assert (play.outcomes()["h1"], ends(play, "h1")) == ("lost", ["lost"])
    assert play.now < lost(14).now + 20


def test_a_lost_host_whose_restore_fails_when_it_comes_back_halts_the_rollout():
    failed = ("failed", {"outcome": "restore_failed", "msg": "still 500"})
    play = lost(14, failed)
    assert (play.outcomes()["h1"], play.driver.conductor.halt.value) == ("restore_failed", "restore_failed")


def test_a_run_that_is_aborted_while_it_looks_for_a_lost_host_leaves_it_to_the_next():
    def is_looked_for(play: Play) -> bool:
        if ends(play, "h1"):
            play.delays.setdefault(("h1", "restore"), 3)
        return bool(ends(play, "h1")) and play.stage.running.get("h1") == "restore"

    play = lost(10_000, aborts=is_looked_for)
    assert (play.outcomes()["h1"], play.driver.conductor.halt.value) == ("lost", "aborted")


def test_a_lost_host_says_in_the_end_how_long_it_was_waited_for():
    play = Play(hosts=1, answers={("h0", "payload"): DARK, ("h0", "restore"): DARK}).run()
    assert play.driver.runs["h0"].why.endswith("No route to host; did not come back within 60 s")


LOGIN = ("unreachable", {"msg": "Failed to connect to the host via ssh: root@h2: Permission denied (publickey)."})
CAUSES = [
    ("before", {("h2", "settle"): DARK}, {"before": 0}, "ring all, unreachable before their change: 1 > 0", "unreachable"),
    ("login", {("h2", "settle"): LOGIN}, {"login": 0}, "ring all, login refused: 1 > 0", "unreachable"),
    ("login", {("h2", "begin"): LOGIN}, {"login": 0}, "ring all, login refused: 1 > 0", "unreachable"),
    ("after", {("h2", "payload"): DARK}, {"after": 0}, "ring all, unreachable after their change began: 1 > 0", "dark"),
    ("after", {("h2", "payload"): LOGIN}, {"after": 0}, "ring all, unreachable after their change began: 1 > 0", "dark"),
    ("after", {("h2", "health"): BROKEN, ("h2", "restore"): [DARK]}, {"after": 0}, "ring all, unreachable after their change began: 1 > 0", "dark"),
    ("login", {("h2", "settle"): LOGIN}, {"before": 0, "after": 0}, "", None),
    ("after", {("h2", "payload"): DARK}, {"before": 0, "login": 0}, "", None),
    ("after", {("h2", "payload"): DARK}, 0, "", None),
]  # fmt: skip


@pytest.mark.parametrize("cause, answers, limit, exceeded, halt", CAUSES)
def test_hosts_that_cannot_be_reached_are_counted_by_cause(cause, answers, limit, exceeded, halt):
    play = Play(ring={"max_failures": "100%", "max_unreachable": limit}, answers=answers).run()
    assert str(play.driver.runs["h2"].cause) == cause
    assert (play.driver.conductor.exceeded, getattr(play.driver.conductor.halt, "value", None)) == (exceeded, halt)
