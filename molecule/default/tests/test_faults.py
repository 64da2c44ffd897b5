# Copyright: onprem.rollout contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Hosts and controllers that fail in the middle: what is half done is settled, by the same run or by the next."""

from __future__ import annotations

import signal
from collections.abc import Callable

import pytest
from fleet import eventually
from playbook import Run
from releases import GOOD
from shop import Shop, ask, take

ONE_WAVE = [{"name": "early", "serial": ["100%"]}, {"name": "standard", "serial": ["100%"]}, {"name": "critical"}]


def half_done(shop: Shop) -> tuple[Run, str]:
    """A run whose payload hangs on the canary, and the canary's name."""
    run = shop.start(GOOD, payload="hangs")
    canary = eventually(lambda: next((host.name for host in shop.fleet if f"{host.name}: in change" in run.stdout), None), "a canary")
    shop.await_payload(canary)
    return run, canary


def is_half_done(shop: Shop, name: str) -> bool:
    now = take(shop.fleet[name])
    return now.record["transaction"]["phase"] == "changing" and now.files != shop.before[name].files and bool(now.payload)


def test_a_host_that_is_dark_before_the_start_is_left_out_and_the_others_go_on(shop: Shop) -> None:
    dark = shop.fleet["web2"]
    dark.partition()
    result = shop.upgrade(GOOD, rings=ONE_WAVE)
    assert result.rc == 4, str(result)
    others = {host.name: "committed" for host in shop.fleet if host is not dark}
    assert result.states == {**others, "web2": "unreachable"}, str(result)
    for needed in ("ROLLOUT DONE, NOT EVERYWHERE: shop 2.0", "unreachable: web2: ", "committed: 5 hosts", "exit code: 4"):
        assert needed in result.last_words, result.last_words
    dark.heal()
    shop.verify(dict.fromkeys(others, f"committed {GOOD}"))

    again = shop.upgrade(GOOD, rings=ONE_WAVE, limit="web1,web2")
    assert (again.rc, again.states) == (0, {"web1": "skipped", "web2": "committed"}), str(again)
    shop.verify({host.name: f"committed {GOOD}" for host in shop.fleet})


def test_a_power_cut_in_mid_payload_is_restored_by_the_same_run(shop: Shop) -> None:
    run, canary = half_done(shop)
    host = shop.fleet[canary]
    host.kill()
    host.start()
    shop.await_version(host, GOOD)  # what the link led to when the power went
    result = run.wait()
    assert result.rc == 2, str(result)
    assert result.states[canary] == "restored", str(result)
    assert f"restored: {canary}: unreachable in" in result.last_words, result.last_words
    assert "exit code: 2" in result.last_words
    shop.verify({canary: f"restored {GOOD}"})


def interrupted(run: Run) -> None:
    run.interrupt()
    result = run.wait()
    assert result.rc not in (0, 2, 4), str(result)
    assert "ROLLOUT INTERRUPTED: shop 2.0" in result.stdout, str(result)


def killed(run: Run) -> None:
    run.kill()
    assert run.wait().rc == -signal.SIGKILL


@pytest.mark.parametrize("end", [pytest.param(interrupted, id="Ctrl-C"), pytest.param(killed, id="SIGKILL")])
def test_the_next_upgrade_settles_first_what_a_run_left_that_was_ended_by(shop: Shop, end: Callable[[Run], None]) -> None:
    run, canary = half_done(shop)
    end(run)
    assert is_half_done(shop, canary)
    assert ask(shop.fleet[canary], "/version") == (200, GOOD)

    result = shop.upgrade(GOOD, rings=ONE_WAVE, limit="rollout_early")
    assert (result.rc, set(result.states.values())) == (0, {"committed"}), str(result)
    settled = f"{canary}: was left half done by an earlier run, now restored"
    assert settled in result.stdout, str(result)
    assert result.stdout.index(settled) < result.stdout.index(": in change"), str(result)
    now = shop.verify(dict.fromkeys(result.states, f"committed {GOOD}"))
    assert [item["outcome"] for item in now[canary].record["history"]] == ["restored", "committed"]
