# Copyright: onprem.rollout contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

from __future__ import annotations

import json
import socket
from pathlib import Path

import fleet
import pytest
import supervisor


def pids(directory: Path) -> list[int | None]:
    return [supervisor.running_pid(fleet.root(directory, host) / "run") for host in fleet.HOSTS]


def test_up_and_down_can_be_repeated(demo_dir: Path) -> None:
    places = fleet.up(demo_dir)
    first = pids(demo_dir)
    assert None not in first
    assert [fleet.ask(places[host], "/version") for host in fleet.HOSTS] == [(200, "1.0")] * 8
    assert all(status == 200 and text.startswith("ok") for status, text in (fleet.ask(place, "/health") for place in places.values()))
    assert len({place["address"] for place in places.values()}) == 8

    assert fleet.up(demo_dir) == places
    assert pids(demo_dir) == first, "what runs is left alone"

    fleet.down(demo_dir)
    assert pids(demo_dir) == [None] * 8
    assert all(fleet.ask(place, "/version")[0] == 0 for place in places.values())
    fleet.down(demo_dir)

    assert fleet.up(demo_dir) == places, "a host keeps its address and port"


def test_up_keeps_what_a_host_has_installed(demo_dir: Path) -> None:
    fleet.up(demo_dir)
    fleet.down(demo_dir)
    installed = fleet.root(demo_dir, "critical-2") / "app" / "current" / "VERSION"
    installed.write_text("1.5\n", encoding="utf-8")
    assert fleet.ask(fleet.up(demo_dir)["critical-2"], "/version") == (200, "1.5")


def test_a_host_that_cannot_listen_is_named(demo_dir: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(fleet, "PATIENCE", 2.0)
    monkeypatch.setattr(fleet.wait_until, "__defaults__", (0.5,))
    with socket.socket() as squatter:
        squatter.bind(("127.0.0.13", 0))
        port = squatter.getsockname()[1]
        (demo_dir / "fleet.json").write_text(json.dumps({"standard-1": {"address": "127.0.0.13", "port": port}}), encoding="utf-8")
        with pytest.raises(fleet.FleetError, match=rf"standard-1 does not answer on 127.0.0.13:{port}.*service.log"):
            fleet.up(demo_dir)
        monkeypatch.undo()
        fleet.down(demo_dir)
