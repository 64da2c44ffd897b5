# Copyright: onprem.rollout contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The revert timer and the console program on real systemd hosts: a host comes back although nobody does anything."""

from __future__ import annotations

import json
from typing import Any

import pytest
from fleet import Host, eventually
from playbook import Run
from releases import GOOD, INSTALLED
from shop import Shop, ask, take

PROGRAM = "/var/lib/onprem-rollout/onprem-rollout"
UNIT = "onprem-rollout-revert"
ONE = [{"name": "one", "hosts": "web1", "serial": ["100%"]}]
SHORT = {"rollout_revert_after": 6, "rollout_payload_timeout": 10, "rollout_retry_wait": 1, "rollout_retry_for": 9}
REASON = "revert timer: nobody committed within"


def phase(host: Host) -> str:
    text = host.run("cat /var/lib/onprem-rollout/record.json", check=False).stdout
    return (json.loads(text or "{}").get("transaction") or {}).get("phase", "")


def units(host: Host) -> str:
    """What there is of an armed timer, now or after the next boot."""
    return host.run(f"ls /etc/systemd/system/*.wants/{UNIT}* 2>/dev/null; systemctl list-units --plain --no-legend '{UNIT}*'").stdout.strip()


def hanging(shop: Shop, **options: Any) -> Run:
    """A run whose payload hangs on web1, which is in mid-change."""
    run = shop.start(GOOD, payload="hangs", rings=ONE, limit="web1", **{**SHORT, **options})
    shop.await_payload("web1")
    assert phase(shop.fleet["web1"]) == "changing", run.stdout
    return run


def await_restored(shop: Shop, name: str = "web1", timeout: float = 40) -> dict[str, Any]:
    """Until the host says that its timer restored it, and nothing of the timer is left; its record."""
    host = shop.fleet[name]
    eventually(lambda: phase(host) == "restored", f"{name} to restore itself", timeout=timeout)
    eventually(lambda: not units(host), f"the timer of {name} to be gone: {units(host)}")
    record = shop.verify({name: f"restored {GOOD}"}, hosts=[name])[name].record
    assert record["transaction"]["reverted_by"] == "timer", record
    assert [past.get("reverted_by") for past in record["history"]] == ["timer"], record
    assert record["transaction"]["reason"].startswith(REASON), record
    return record


def test_a_host_whose_controller_is_killed_in_the_payload_restores_itself_and_can_be_upgraded_again(shop: Shop) -> None:
    run, host = hanging(shop), shop.fleet["web1"]
    assert host.run(f"systemctl is-enabled {UNIT}.timer {UNIT}.service").stdout.split() == ["enabled", "enabled"]
    run.kill()
    run.wait()
    await_restored(shop)
    log = host.run(f"{PROGRAM} log").stdout
    assert log.count("restored by its revert timer") == 1, log
    assert "restored by its revert timer" in host.run(f"journalctl -o cat -p notice -u {UNIT}.service").stdout

    again = shop.upgrade(GOOD, rings=ONE, limit="web1")
    assert (again.rc, again.states) == (0, {"web1": "committed"}), str(again)
    shop.verify({"web1": f"committed {GOOD}"}, hosts=["web1"])


def test_a_host_restores_itself_after_a_power_cut_in_the_payload(shop: Shop) -> None:
    run, host = hanging(shop), shop.fleet["web1"]
    run.kill()
    run.wait()
    host.kill()
    host.start()
    await_restored(shop)


def test_a_power_cut_in_the_restore_itself_is_made_good_after_the_boot(shop: Shop) -> None:
    run, host = hanging(shop, hangs_stubborn=True), shop.fleet["web1"]  # its end takes five seconds, in which the power goes
    run.kill()
    run.wait()
    eventually(lambda: phase(host) == "restoring", "the restore to begin", timeout=40, interval=0.05)
    host.kill()
    host.start()
    await_restored(shop)


def test_a_parked_host_whose_network_is_cut_restores_itself_and_the_run_learns_it_from_the_record(shop: Shop) -> None:
    rings = [{"name": "one", "hosts": "web1", "serial": ["100%"], "soak": 7}]
    run = shop.start(GOOD, rings=rings, limit="web1", rollout_lease=12, rollout_reconnect_timeout=60, **SHORT)
    host = shop.fleet["web1"]
    eventually(lambda: phase(host) == "awaiting_commit", "web1 to be parked")
    host.partition()
    eventually(lambda: phase(host) == "restored", "web1 to restore itself", timeout=40)
    assert run.running, run.stdout
    host.heal()
    result = run.wait()
    assert (result.rc, result.states) == (2, {"web1": "restored"}), str(result)
    record = shop.verify({"web1": f"restored {GOOD}"}, hosts=["web1"])["web1"].record
    assert (record["history"][0]["outcome"], record["history"][0]["reverted_by"]) == ("restored", "timer")
    assert not units(host)


def test_a_payload_that_goes_on_after_the_timer_fired_is_undone_by_its_own_run(shop: Shop) -> None:
    """The controller sees nothing of the restore before its payload is through."""
    run = shop.start(GOOD, payload="lingers", rings=ONE, limit="web1", **SHORT)
    host = shop.fleet["web1"]
    eventually(lambda: phase(host) == "restored", "web1 to restore itself", timeout=40)
    host.run("mkdir -p /run/shop; touch /run/shop/go-on")
    result = run.wait()
    assert (result.rc, result.states) == (2, {"web1": "restored"}), str(result)
    assert "restored by its revert timer" in result.stdout, str(result)
    now = shop.verify({"web1": f"restored {GOOD}"}, hosts=["web1"])["web1"]
    assert [past["outcome"] for past in now.record["history"]] == ["restored", "restored"]


def test_a_release_that_locks_the_controller_out_is_not_committed_and_goes_back_by_itself(shop: Shop) -> None:
    services = ["shop.service", "ssh.service"]
    run = shop.start(GOOD, payload="locks_out", rings=ONE, limit="web1", rollout_services=services, rollout_lease=12, rollout_reconnect_timeout=60, **SHORT)
    host = shop.fleet["web1"]
    eventually(lambda: phase(host) == "awaiting_commit", "web1 to be healthy, as it sees it")
    assert host.run("systemctl is-active ssh.service", check=False).stdout.strip() == "inactive"
    result = run.wait()
    assert (result.rc, result.states) == (2, {"web1": "restored"}), str(result)
    record = shop.verify({"web1": f"restored {GOOD}"}, hosts=["web1"])["web1"].record
    assert record["history"][0]["reverted_by"] == "timer", record


def test_the_timer_never_fires_after_a_commit(shop: Shop) -> None:
    result, host = shop.upgrade(GOOD, rings=ONE, limit="web1", **SHORT), shop.fleet["web1"]
    assert (result.rc, result.states) == (0, {"web1": "committed"}), str(result)
    assert not units(host)
    # A commit that died before it disarmed: the timer is still there, and its time is over.
    host.run(f"""PYTHONPATH={PROGRAM} python3 -c 'from onprem_rollout import _timer; _timer.arm("/var/lib/onprem-rollout", {{"by": "systemd", "after": 1}})'""")
    eventually(lambda: not units(host), "the timer to find that there is nothing to do")
    assert host.run(f"{PROGRAM} revert").stdout == ""
    shop.verify({"web1": f"committed {GOOD}"}, hosts=["web1"])


def test_the_console_without_network_and_controller(shop: Shop) -> None:
    run, host = hanging(shop, rollout_payload_timeout=300), shop.fleet["web1"]
    host.partition()
    run.kill()
    run.wait()

    status = host.run(f"{PROGRAM} status", check=False)
    assert status.returncode == 3, status
    assert "phase changing" in status.stdout
    assert "restores this host in" in status.stdout
    assert "NOBODY" not in status.stdout
    told = json.loads(host.run(f"{PROGRAM} status --json", check=False).stdout)
    assert (told["open"], told["armed"]) == (True, True)
    assert told["restores_in"] > 200
    before = take(host).files
    plan = host.run(f"{PROGRAM} restore --check").stdout
    assert "replaced: /opt/shop/current" in plan, plan
    assert {path for path in before if before[path] != take(host).files.get(path)} <= {"opt/shop/etc/shop.ini"}  # the payload still writes
    wrong = host.run(f"{PROGRAM} restore --transaction nobody", check=False)
    assert (wrong.returncode, "Transaction nobody is not open" in wrong.stderr) == (1, True), wrong

    done = host.run(f"{PROGRAM} restore").stdout
    assert "check shop is healthy: ok" in done, done
    eventually(lambda: not units(host), "a timer that had just fired to find nothing to do")
    host.heal()
    record = shop.verify({"web1": f"restored {GOOD}"}, hosts=["web1"])["web1"].record
    assert record["history"][-1]["reverted_by"] == "console"
    assert host.run(f"{PROGRAM} status").returncode == 0
    assert host.run(f"{PROGRAM} restore").stdout.strip() == "Nothing to restore: no transaction is open."
    assert "shop 2.0  restored: restored by hand at the console" in host.run(f"{PROGRAM} log").stdout


@pytest.mark.parametrize("days", [-1, 1])
def test_a_wall_clock_that_jumped_neither_delays_nor_hastens_the_timer(shop: Shop, days: int) -> None:
    """The hosts share one clock, so what jumps is what the record says of it: to the timer that is the same."""
    run, host = hanging(shop), shop.fleet["web1"]
    run.kill()
    run.wait()
    host.run(
        f"""cd /var/lib/onprem-rollout && flock lock python3 -c '
import json, os
record = json.load(open("record.json"))
record["transaction"]["revert"]["deadline"] += {days * 86400}
json.dump(record, open("record.json.new", "w"))
os.rename("record.json.new", "record.json")'"""
    )
    first = json.loads(host.run(f"{PROGRAM} status --json", check=False).stdout)["restores_in"]
    assert 0 < first < 12
    assert ask(host, "/version") == (200, GOOD)
    await_restored(shop)
    assert ask(host, "/version") == (200, INSTALLED)
