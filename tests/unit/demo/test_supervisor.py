# Copyright: onprem.rollout contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from pathlib import Path
from typing import Any

import fleet
import pytest
import supervisor

HOST = "early-1"


@pytest.mark.parametrize(("deaths", "seconds"), [(0, 0.2), (1, 0.2), (2, 0.4), (3, 0.8), (5, 3.2), (6, 5.0), (1000, 5.0)])
def test_back_off_doubles_up_to_a_limit(deaths: int, seconds: float) -> None:
    assert supervisor.back_off(deaths) == pytest.approx(seconds)


class Clock:
    now = 100.0

    def __call__(self) -> float:
        return self.now


def supervise(tmp_path: Path, script: str, clock: Clock) -> supervisor.Supervisor:
    return supervisor.Supervisor([sys.executable, "-Ic", script], (tmp_path / "log").open("wb"), clock)


def test_a_dying_service_is_started_later_each_time_and_never_before_it_is_due(tmp_path: Path) -> None:
    clock = Clock()
    tested = supervise(tmp_path, "raise SystemExit(3)", clock)
    waits = []
    for _death in range(4):
        assert tested.tick() is None  # started
        assert tested.process is not None
        os.waitid(os.P_PID, tested.process.pid, os.WEXITED | os.WNOWAIT)
        wait = tested.tick()
        assert wait is not None
        waits.append(wait)
        clock.now += wait - 0.01
        assert tested.tick() == pytest.approx(0.01)
        clock.now += 0.02
    assert waits == pytest.approx([0.2, 0.4, 0.8, 1.6])
    assert (tested.starts, tested.last_exit) == (4, 3)


def test_the_death_of_a_stable_service_is_its_first_again(tmp_path: Path) -> None:
    clock = Clock()
    tested = supervise(tmp_path, "", clock)
    tested.deaths = 6
    tested.tick()
    clock.now += supervisor.STABLE
    assert tested.process is not None
    os.waitid(os.P_PID, tested.process.pid, os.WEXITED | os.WNOWAIT)
    assert tested.tick() == pytest.approx(0.2)


def test_a_service_that_ignores_term_is_killed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(supervisor, "STOP_GRACE", 0.1)
    ready = tmp_path / "ready"
    tested = supervise(tmp_path, f"import signal; signal.signal(15, signal.SIG_IGN); open({str(ready)!r}, 'w'); signal.pause()", Clock())
    tested.start()
    assert fleet.wait_until(ready.exists)
    tested.stop()
    assert tested.last_exit == -signal.SIGKILL


class Host:
    """One real host of the fleet, with a real supervisor."""

    def __init__(self, directory: Path) -> None:
        self.root = fleet.root(directory, HOST)
        self.run = self.root / "run"
        fleet._install_by_hand(directory, HOST)
        self.place: dict[str, str | int] = {"address": "127.0.0.11", "port": fleet._free_port("127.0.0.11")}
        started = self.start()
        assert started.returncode == 0, started.stderr

    def start(self) -> subprocess.CompletedProcess[str]:
        argv: list[str | Path] = [sys.executable, fleet.HERE / "supervisor.py", self.root, str(self.place["address"]), str(self.place["port"])]
        return subprocess.run(argv, capture_output=True, text=True, timeout=15, check=False)

    def ctl(self, command: str) -> subprocess.CompletedProcess[str]:
        argv: list[str | Path] = [sys.executable, fleet.HERE / "ctl.py", self.root, command]
        return subprocess.run(argv, capture_output=True, text=True, timeout=15, check=False)

    def status(self) -> dict[str, Any]:
        answer: dict[str, Any] = json.loads(self.ctl("status").stdout)
        return answer

    def served_by(self, page: str = "/pid") -> str:
        """What the host answers, as soon as it does."""
        assert fleet.wait_until(lambda: fleet.ask(self.place, page)[0] == 200), fleet.ask(self.place, page)
        return fleet.ask(self.place, page)[1]


@pytest.fixture
def host(demo_dir: Path) -> Host:
    return Host(demo_dir)


def alive(pid: int) -> bool:
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    return True


def test_restart_makes_a_switched_release_serve(host: Host, demo_dir: Path) -> None:
    assert host.served_by("/version") == "1.0"
    before = host.status()["pid"]
    release = host.root / "app" / "releases" / "2.0"
    release.mkdir()
    subprocess.run(["tar", "-C", release, "-xzf", demo_dir / "releases" / "shop-2.0.tar.gz"], check=True)
    (host.root / "app" / "next").symlink_to("releases/2.0")
    (host.root / "app" / "next").rename(host.root / "app" / "current")
    assert host.served_by("/version") == "1.0", "a switched link alone changes nothing"
    answer = host.ctl("restart")
    assert answer.returncode == 0
    assert json.loads(answer.stdout)["pid"] not in (None, before)
    assert not alive(before), "the old process is gone when restart returns"
    assert host.served_by("/version") == "2.0"
    assert host.served_by() == str(host.status()["pid"])


def test_a_killed_service_is_started_again(host: Host) -> None:
    before = host.served_by()
    os.kill(int(before), signal.SIGKILL)
    assert fleet.wait_until(lambda: host.status()["starts"] == 2)
    assert host.served_by() != before
    assert host.status()["last_exit"] == -signal.SIGKILL


def test_a_release_that_does_not_start_is_tried_until_it_does(host: Host) -> None:
    server = host.root / "app" / "current" / "server.py"
    good = server.read_text(encoding="utf-8")
    server.write_text("raise SystemExit(7)\n", encoding="utf-8")
    assert host.ctl("restart").returncode == 0, "spawned; that it is not healthy is for the checks to say"
    assert fleet.wait_until(lambda: host.status()["deaths"] >= 2)
    server.write_text(good, encoding="utf-8")
    assert host.served_by("/version") == "1.0"


def test_stop_by_command_ends_service_and_supervisor(host: Host) -> None:
    service, keeper = int(host.served_by()), supervisor.running_pid(host.run)
    answer = host.ctl("stop")
    assert (answer.returncode, json.loads(answer.stdout)["pid"]) == (0, None)
    assert not alive(service)
    assert fleet.wait_until(lambda: supervisor.running_pid(host.run) is None)
    assert keeper is not None
    refused = host.ctl("status")
    assert refused.returncode == 1
    assert str(host.root) in refused.stderr
    assert "fleet.py up" in refused.stderr


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGKILL], ids=["TERM", "KILL"])
def test_no_service_outlives_its_supervisor(host: Host, number: signal.Signals) -> None:
    service, keeper = int(host.served_by()), supervisor.running_pid(host.run)
    assert keeper is not None
    os.kill(keeper, number)
    assert fleet.wait_until(lambda: supervisor.running_pid(host.run) is None)
    assert fleet.wait_until(lambda: not alive(service))


def test_after_a_kill_it_can_be_started_again(host: Host) -> None:
    keeper = supervisor.running_pid(host.run)
    assert keeper is not None
    os.kill(keeper, signal.SIGKILL)
    assert fleet.wait_until(lambda: supervisor.running_pid(host.run) is None)
    assert host.start().returncode == 0
    assert host.served_by("/version") == "1.0"


def test_there_is_never_a_second_one(host: Host) -> None:
    again = host.start()
    assert again.returncode == 1
    assert f"pid {supervisor.running_pid(host.run)} supervises" in again.stderr


def test_a_stale_pid_file_is_not_believed(tmp_path: Path) -> None:
    (tmp_path / "supervisor.pid").write_text("1\n", encoding="ascii")
    assert supervisor.running_pid(tmp_path) is None


def test_an_unknown_command_names_what_is_allowed(host: Host) -> None:
    answer = host.ctl("reload")
    assert answer.returncode == 1
    assert "'reload'; allowed: restart, status, stop" in answer.stdout


def test_a_client_that_goes_away_does_no_harm(host: Host) -> None:
    argv = [sys.executable, "-c", "import os, socket, sys; os.chdir(sys.argv[1]); socket.socket(socket.AF_UNIX).connect('control.sock')"]
    subprocess.run([*argv, host.run], check=True)
    assert host.status()["ok"]
