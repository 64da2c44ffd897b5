#!/usr/bin/env python3
# Copyright: onprem.rollout contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""The demo's eight hosts: fleet.py up DIR | fleet.py down DIR

Each host is DIR/hosts/<name>: app/ is what a release is installed into, state/ its record, run/ its supervisor. up
installs shop 1.0 on new hosts by hand, as a sysadmin would have, starts the supervisors and waits until every host
answers over HTTP; down stops them and waits until they are gone, keeping the files. Both can be repeated.
DIR/fleet.json holds each host's address and port; inventories/demo reads it.
"""

from __future__ import annotations

import http.client
import json
import os
import shutil
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterable
from functools import partial
from pathlib import Path

from supervisor import running_pid

HERE = Path(__file__).resolve().parent
HOSTS = ("early-1", "early-2", "standard-1", "standard-2", "standard-3", "standard-4", "critical-1", "critical-2")
PATIENCE = 15.0  # seconds; a loaded machine starts eight Pythons in two or three
Fleet = dict[str, dict[str, str | int]]


class FleetError(Exception):
    """The fleet is not as it must be; the message says which host and where to look."""


def root(directory: Path, host: str) -> Path:
    return directory / "hosts" / host


def load(directory: Path) -> Fleet:
    """Each host's address and port."""
    path = directory / "fleet.json"
    return json.loads(path.read_text(encoding="utf-8")) if path.exists() else {}


def ask(place: dict[str, str | int], page: str) -> tuple[int, str]:
    """The status and text a host answers; (0, error) when it does not answer."""
    connection = http.client.HTTPConnection(str(place["address"]), int(place["port"]), timeout=2)
    try:
        connection.request("GET", page)
        answer = connection.getresponse()
        return answer.status, answer.read().decode().strip()
    except (OSError, http.client.HTTPException) as error:
        return 0, str(error)
    finally:
        connection.close()


def _answers(place: dict[str, str | int]) -> bool:
    return ask(place, "/version")[0] == 200


def _ended(run: Path) -> bool:
    return running_pid(run) is None


def wait_until(done: Callable[[], bool], seconds: float = PATIENCE) -> bool:
    deadline = time.monotonic() + seconds
    while not done():
        if time.monotonic() > deadline:
            return False
        time.sleep(0.05)
    return True


def _free_port(address: str) -> int:
    with socket.socket() as probe:
        probe.bind((address, 0))
        return int(probe.getsockname()[1])


def _place_hosts(directory: Path) -> Fleet:
    """A host keeps its port: its record may name it in checks that a restore runs later."""
    fleet = load(directory)
    for number, host in enumerate(HOSTS, 11):
        if host not in fleet:
            address = f"127.0.0.{number}"
            fleet[host] = {"address": address, "port": _free_port(address)}
    (directory / "fleet.json").write_text(json.dumps(fleet, indent=2) + "\n", encoding="utf-8")
    return fleet


def _install_by_hand(directory: Path, host: str) -> None:
    app = root(directory, host) / "app"
    if (app / "current").is_symlink():
        return
    release = app / "releases" / "1.0"
    release.mkdir(parents=True, exist_ok=True)
    subprocess.run(["tar", "-C", release, "-xzf", directory / "releases" / "shop-1.0.tar.gz"], check=True)
    (app / "current").symlink_to("releases/1.0")


def _start(directory: Path, hosts: Iterable[str], fleet: Fleet) -> None:
    started = {}
    for host in hosts:
        place = fleet[host]
        argv = [sys.executable, "-I", directory / "bin" / "supervisor.py", root(directory, host), place["address"], str(place["port"])]
        started[host] = subprocess.Popen([str(item) for item in argv], env={**os.environ, "ONPREM_DEMO_DIR": str(directory)})
    failed = [host for host, process in started.items() if process.wait(PATIENCE) != 0]
    if failed:
        raise FleetError(f"no supervisor on {', '.join(failed)}; see {root(directory, failed[0])}/run/supervisor.log")


def up(directory: Path) -> Fleet:
    if not (directory / "releases" / "shop-1.0.tar.gz").exists():
        subprocess.run([sys.executable, HERE / "build_releases.py", directory], check=True)
    fleet = _place_hosts(directory)
    (directory / "bin").mkdir(exist_ok=True)
    for tool in ("supervisor.py", "ctl.py"):
        shutil.copy(HERE / tool, directory / "bin" / tool)
    for host in HOSTS:
        _install_by_hand(directory, host)
    _start(directory, [host for host in HOSTS if running_pid(root(directory, host) / "run") is None], fleet)
    for host in HOSTS:
        if not wait_until(partial(_answers, fleet[host])):
            raise FleetError(
                f"{host} does not answer on {fleet[host]['address']}:{fleet[host]['port']}: {ask(fleet[host], '/version')[1]};"
                f" see {root(directory, host)}/run/service.log"
            )
    return fleet


def down(directory: Path) -> None:
    """Stop by pid, all at once, then wait for each. A supervisor stops its service before it ends."""
    runs = {host: root(directory, host) / "run" for host in HOSTS}
    for run in runs.values():
        pid = running_pid(run)
        if pid is not None:
            os.kill(pid, signal.SIGTERM)
    left = [host for host, run in runs.items() if not wait_until(partial(_ended, run))]
    if left:
        raise FleetError(f"still running after {PATIENCE:.0f} s: {', '.join(left)}; see {runs[left[0]]}/supervisor.log")


def main() -> int:
    if len(sys.argv) != 3 or sys.argv[1] not in ("up", "down"):
        print(__doc__.splitlines()[0], file=sys.stderr)
        return 2
    directory = Path(sys.argv[2]).resolve()
    try:
        if sys.argv[1] == "down":
            down(directory)
        else:
            for host, place in up(directory).items():
                print(f"{host:<12} http://{place['address']}:{place['port']}  shop {ask(place, '/version')[1]}")
    except FleetError as error:
        print(f"fleet.py: {error}", file=sys.stderr)
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
