# Copyright: onprem.rollout contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Health while a wave soaks, in an outage, and of the whole fleet."""

from __future__ import annotations

import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import pytest
from conftest import eventually


def phase(hosts, host):
    return (hosts.record(host).get("transaction") or {}).get("phase")


def test_a_service_that_dies_in_mid_soak_sends_its_wave_back_and_the_check_is_named(fleet):
    hosts = fleet(standard=2)
    process = hosts.start(rollout_rings=[{"name": "standard", "serial": ["100%"], "soak": 600, "soak_interval": 1}])
    eventually(lambda: all(phase(hosts, host) == "awaiting_commit" for host in hosts.hosts), process)
    (hosts.app("standard1") / "version").write_text("died\n")
    result = hosts.finish(process)
    assert (result.rc, set(result.states.values())) == (2, {"restored"}), result.out
    assert "FAILED: while it was parked, check version: rc 1" in result.out
    assert "restored: standard1: while it was parked, check version" in result.out
    assert all(hosts.is_as_before(host) for host in hosts.hosts)


class Shared(ThreadingHTTPServer):
    """A service that the checks of all hosts ask. It answers 200, or 503 while it is down."""

    down = False

    class RequestHandlerClass(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            self.send_response(503 if self.server.down else 200)
            self.end_headers()

        def log_message(self, *arguments) -> None: ...


@pytest.fixture
def shared():
    server = Shared(("127.0.0.1", 0), Shared.RequestHandlerClass)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    yield server
    server.shutdown()
    server.server_close()


def outages(hosts):
    return [entry.data for entry in hosts.ledger() if entry.kind == "outage"]


def test_a_fleet_that_is_not_healthy_holds_the_rollout_and_touches_nobody(fleet):
    hosts = fleet(early=1, standard=2)
    (hosts.app("standard1") / "version").write_text("died\n")
    result = hosts.run(rollout_max_unhealthy=0, rollout_max_wait=0)
    assert (result.rc, set(result.states.values()), result.data["halted"]) == (2, {"held"}, "unhealthy"), result.out
    assert "early wave 1/1: hold: unhealthy hosts of the fleet: 1 > max_unhealthy 0: standard1 (version)" in result.out
    assert not any(hosts.record(host) for host in hosts.hosts)
    (hosts.app("standard1") / "version").write_text("1.0\n")
    result = hosts.run(rollout_max_unhealthy=0)
    assert (result.rc, set(result.states.values())) == (0, {"committed"}), result.out


def checks_of(shared):
    return [{"name": "orders", "type": "http", "url": f"http://127.0.0.1:{shared.server_address[1]}/", "deadline": 0.5, "interval": 0.2}]


def goes_down_in_change(hosts, shared, **variables):
    """The second host, of its own wave, is in change when the service goes down."""
    rings = [{"name": "standard", "serial": [1]}]
    down = hosts.root / "down"
    hostvars = {hosts.in_line("standard")[1]: {"awaits": [str(down)]}}
    process = hosts.start(rollout_payload="naps", nap=0, rollout_rings=rings, rollout_checks=checks_of(shared), hostvars=hostvars, **variables)
    eventually(lambda: sum(entry.kind == "host" for entry in hosts.ledger()) == 1 and "changing" in {phase(hosts, host) for host in hosts.hosts}, process)
    shared.down = True
    down.touch()
    return process


def test_an_outage_restores_nobody_spends_no_budget_and_says_so(fleet, shared):
    hosts = fleet(standard=3)
    result = hosts.finish(goes_down_in_change(hosts, shared, rollout_max_wait=0))
    assert (result.rc, sorted(result.states.values())) == (2, ["committed", "held", "held"]), result.out
    assert sorted(hosts.version(host) for host in hosts.hosts) == ["1.0", "2.0", "2.0"]
    assert result.data["halted"] == "unjudged"
    assert "check orders fails on " in result.out
    assert "too, which this release has not touched" in result.out
    assert "ROLLOUT HALTED: shop 2.0: an outage that took too long; nothing is known of the release" in result.out
    assert "uncommitted, put back by its revert timer or the next upgrade: 1 host" in result.out
    assert "FAILED: check orders" not in result.out
    (held,) = [host for host in hosts.hosts if phase(hosts, host) == "verifying"]
    assert not hosts.record(held).get("failed")
    shared.down = False
    result = hosts.run(rollout_payload="naps", nap=0)
    assert (result.rc, {hosts.version(host) for host in hosts.hosts}) == (0, {"2.0"}), result.out


def goes_down_in_its_soak(hosts, shared):
    """Everybody is parked when the service goes down; one host, which has no part in that wave, is not touched yet."""
    rings = [{"name": "standard", "serial": [1], "soak": 4, "soak_interval": 1}]
    process = hosts.start(rollout_rings=rings, rollout_checks=checks_of(shared))
    eventually(lambda: "awaiting_commit" in {phase(hosts, host) for host in hosts.hosts}, process)
    shared.down = True
    return process


@pytest.mark.parametrize("goes_down", [goes_down_in_change, goes_down_in_its_soak])
def test_a_rollout_goes_on_by_itself_when_an_outage_is_over(fleet, shared, goes_down):
    hosts = fleet(standard=2)
    process = goes_down(hosts, shared)
    eventually(lambda: outages(hosts), process)
    shared.down = False
    result = hosts.finish(process)
    assert (result.rc, set(result.states.values())) == (0, {"committed"}), result.out
    assert [bool(event["why"]) for event in outages(hosts)] == [True, False]
    assert "the outage is over" in result.out
    assert "failed=1" not in result.out


@pytest.mark.parametrize("serial", [[1, "100%"], ["100%"]], ids=["the others wait", "all are let in together"])
def test_a_service_that_is_down_before_their_change_uses_up_nobody(fleet, shared, serial):
    hosts = fleet(standard=3)
    shared.down = True
    process = hosts.start(rollout_rings=[{"name": "standard", "serial": serial}], rollout_checks=checks_of(shared))
    eventually(lambda: outages(hosts), process)
    assert not any(hosts.record(host) for host in hosts.hosts)
    shared.down = False
    result = hosts.finish(process)
    assert (result.rc, set(result.states.values())) == (0, {"committed"}), result.out
    assert "check orders fails on " in result.out
    assert "the outage is over" in result.out
    assert "failed=1" not in result.out


def test_a_host_that_is_sick_by_itself_is_refused_as_ever(fleet):
    hosts = fleet(standard=3)
    (hosts.app("standard1") / "version").write_text("died\n")
    result = hosts.run(rollout_rings=[{"name": "standard", "serial": ["100%"]}])
    assert (result.rc, sorted(result.states.values())) == (2, ["committed", "committed", "refused"]), result.out
    assert not outages(hosts)
