# Copyright: onprem.rollout contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Good and bad releases: what is rolled out stays or goes back, and everybody else is left alone."""

from __future__ import annotations

import pytest
from releases import DEAD, GOOD, LOCAL, SICK
from shop import Shop

COUNTING = """\
#!/bin/sh
echo "$0" >>/var/tmp/python-runs
exec /usr/bin/python3 "$@"
"""
MODULE_RUNS = 4  # begin, the payload's one, health, commit


def test_a_good_release_reaches_everybody_in_four_module_runs_a_host(shop: Shop) -> None:
    for host in shop.fleet:
        host.run(f"rm -f /var/tmp/python-runs; printf %s '{COUNTING}' >/usr/local/bin/python-counting; chmod 755 /usr/local/bin/python-counting")
    shop.variables["ansible_python_interpreter"] = "/usr/local/bin/python-counting"
    result = shop.upgrade(GOOD)
    assert (result.rc, set(result.states.values())) == (0, {"committed"}), str(result)
    assert result.last_words.startswith("ROLLOUT DONE: shop 2.0\n"), result.last_words
    assert result.last_words.endswith("exit code: 0"), result.last_words
    assert "failed=0" in result.stdout
    assert "failed=1" not in result.stdout
    shop.verify(dict.fromkeys(result.states, f"committed {GOOD}"))
    runs = {host.name: len(host.read("/var/tmp/python-runs").splitlines()) for host in shop.fleet}
    assert max(runs.values()) <= MODULE_RUNS, runs

    before = {host.name: host.read("/var/lib/onprem-rollout/record.json") for host in shop.fleet}
    again = shop.upgrade(GOOD)
    assert (again.rc, set(again.states.values())) == (0, {"skipped"}), str(again)
    assert {host.name: host.read("/var/lib/onprem-rollout/record.json") for host in shop.fleet} == before
    shop.verify(dict.fromkeys(result.states, f"committed {GOOD}"))


@pytest.mark.parametrize(
    "version, seen",
    [pytest.param(DEAD, "connection refused", id="does not start"), pytest.param(SICK, "500", id="answers 500")],
)
def test_a_bad_release_stops_at_its_canary(shop: Shop, version: str, seen: str) -> None:
    result = shop.upgrade(version)
    assert result.rc == 2, str(result)
    (canary,) = [name for name, state in result.states.items() if state == "restored"]
    assert canary == result.data["plan"]["rings"][0]["waves"][0][0], str(result)
    assert sorted(result.states.values()) == ["held"] * 5 + ["restored"], str(result)
    shop.verify({canary: f"restored {version}"})
    words = result.last_words
    assert words.startswith(f"ROLLOUT HALTED: shop {version}: failures > max_failures (ring early: 1 > 0)\n"), words
    for needed in (f"restored: {canary}: check shop is healthy: ", seen, "proven by shop is healthy", "held: 5 hosts", "to go on", "exit code: 2"):
        assert needed in words, f"{needed!r} is not in the last lines:\n{words}"


def test_a_release_that_is_healthy_on_early_and_bad_on_standard_stays_on_early(shop: Shop) -> None:
    rings = [{"name": "early", "serial": ["100%"]}, {"name": "standard", "serial": ["100%"], "concurrency": 1}, {"name": "critical"}]
    result = shop.upgrade(LOCAL, rings=rings)
    assert result.rc == 2, str(result)
    early = {host.name: "committed" for host in shop.fleet.ring("early")}
    first = result.data["plan"]["rings"][1]["waves"][0][0]
    rest = {host.name: "held" for host in shop.fleet if host.name not in (*early, first)}
    assert result.states == {**early, first: "restored", **rest}, str(result)
    shop.verify({**dict.fromkeys(early, f"committed {LOCAL}"), first: f"restored {LOCAL}"})
    for needed in (f"ROLLOUT HALTED: shop {LOCAL}", f"restored: {first}: ", "committed: 2 hosts", "held: 3 hosts", "exit code: 2"):
        assert needed in result.last_words, result.last_words


def test_healthy_hosts_of_a_failed_wave_are_reverted_with_it(shop: Shop) -> None:
    shop.fleet["web4"].run("mkdir -p /etc/shop && cp /opt/shop/current/catalogue.json /etc/shop/catalogue.json")
    shop.fleet["web5"].run("mkdir -p /etc/shop && cp /opt/shop/current/catalogue.json /etc/shop/catalogue.json")
    shop.look()
    result = shop.upgrade(LOCAL, rings=[{"name": "standard", "serial": ["100%"]}], limit="rollout_standard")
    assert (result.rc, set(result.states.values())) == (2, {"restored"}), str(result)
    shop.verify(dict.fromkeys(("web3", "web4", "web5"), f"restored {LOCAL}"))
    assert "its wave is reverted" in result.stdout, str(result)


def test_a_payload_that_raises_is_undone_to_the_last_byte(shop: Shop) -> None:
    result = shop.upgrade(GOOD, payload="raises")
    assert result.rc == 2, str(result)
    (canary,) = [name for name, state in result.states.items() if state == "restored"]
    shop.verify({canary: f"restored {GOOD}"})
    assert f"restored: {canary}: the payload raises on {canary}" in result.last_words, result.last_words
    assert "exit code: 2" in result.last_words


def test_a_payload_past_its_deadline_leaves_nothing_running(shop: Shop) -> None:
    result = shop.upgrade(GOOD, payload="hangs", hangs_stubborn=True, rollout_payload_timeout=4)
    assert result.rc == 2, str(result)
    (canary,) = [name for name, state in result.states.items() if state == "restored"]
    shop.verify({canary: f"restored {GOOD}"})
    assert "sleep 600" not in shop.fleet[canary].run("cat /proc/[0-9]*/cmdline 2>/dev/null | tr '\\0' ' '", check=False).stdout
    assert f"restored: {canary}: " in result.last_words, result.last_words
    assert "exit code: 2" in result.last_words


def test_a_sick_host_is_refused_and_not_touched(shop: Shop) -> None:
    sick = shop.fleet["web4"]
    sick.run("systemctl stop shop")
    rings = [{"name": "standard", "serial": ["100%"]}]
    result = shop.upgrade(GOOD, rings=rings, limit="rollout_standard")
    assert result.rc == 2, str(result)
    assert result.states == {"web3": "committed", "web4": "refused", "web5": "committed"}, str(result)
    assert "refused: web4: " in result.last_words, result.last_words
    assert "connection refused" in result.last_words, result.last_words
    assert sick.run("systemctl is-active shop", check=False).stdout.strip() == "inactive"
    sick.run("systemctl start shop")
    shop.await_version(sick, "1.0")
    shop.verify({"web3": f"committed {GOOD}", "web5": f"committed {GOOD}"})
