# Copyright: onprem.rollout contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The hosts of the bench from outside: made and removed by tests/tools/fleet, reset through podman, judged over HTTP."""

from __future__ import annotations

import os
import subprocess
import sys
import urllib.error
import urllib.request
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from time import monotonic, sleep
from typing import Any, TypeVar

import yaml

BENCH = Path(__file__).resolve().parent
REPO = BENCH.parents[1]
Value = TypeVar("Value")


class BenchError(Exception):
    """The bench cannot measure, or an upgrade did not do its work."""


def call(argv: list[str], timeout: float = 120, **options: Any) -> str:
    """What the command printed; BenchError with it when it fails."""
    done = subprocess.run(argv, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, timeout=timeout, **options)
    if done.returncode:
        raise BenchError(f"{' '.join(argv)} gave {done.returncode}:\n{done.stdout}")
    return done.stdout


@dataclass(frozen=True)
class Host:
    """One host: its Ansible name, its container, its address."""

    name: str
    container: str
    address: str

    def run(self, command: str) -> str:
        return call(["podman", "exec", self.container, "sh", "-c", command])

    def copy(self, source: Path, path: str) -> None:
        call(["podman", "cp", str(source), f"{self.container}:{path}"])

    def usage(self) -> Path:
        """The file in which the kernel counts the host's CPU time, of control groups 1 or 2."""
        group = call(["podman", "inspect", "--format", "{{.State.CgroupPath}}", self.container]).strip("/\n").removesuffix("/init.scope")
        first, second = Path("/sys/fs/cgroup/cpuacct", group, "cpuacct.usage"), Path("/sys/fs/cgroup", group, "cpu.stat")
        return first if first.exists() else second

    def reset(self) -> None:
        self.run("sh /root/reset")
        self.await_version("1.0")

    def get(self, path: str) -> tuple[int, str]:
        """Status and text of a page; status 0 when there is no answer."""
        try:
            with urllib.request.urlopen(f"http://{self.address}:8080{path}", timeout=5) as answer:
                return answer.status, answer.read().decode().strip()
        except urllib.error.HTTPError as error:
            return error.code, str(error)
        except OSError as error:
            return 0, str(error)

    def await_version(self, version: str, timeout: float = 30) -> None:
        """Until the service answers with that version and says that it is well."""
        deadline = monotonic() + timeout
        while (seen := (self.get("/version"), self.get("/health")[0])) != ((200, version), 200):
            if monotonic() > deadline:
                raise BenchError(f"{self.name} does not run {version}: /version and /health answered {seen}")
            sleep(0.05)


class Fleet:
    """The hosts of one fleet directory; `with Fleet(directory, 12, keep=False) as fleet`."""

    def __init__(self, directory: Path, size: int, keep: bool) -> None:
        self.directory, self.size, self.keep = directory, size, keep
        self.inventory = directory / "fleet.yml"
        self.hosts: list[Host] = []
        self._usage: list[Path] = []
        self.key = directory / "id_ed25519"

    def __enter__(self) -> Fleet:
        if not self.inventory.is_file() or len(self._read()) != self.size:
            try:
                self._tool("down")
                self._tool("up")
            except BaseException:
                self.__exit__()
                raise
        self.hosts = self._read()
        return self

    def __exit__(self, *_error: object) -> None:
        if not self.keep:
            self._tool("down")

    def _tool(self, verb: str) -> None:
        print(f"bench: fleet {verb}, {self.size} hosts", file=sys.stderr, flush=True)
        environment = {**os.environ, "ONPREM_ROLLOUT_FLEET_SIZE": str(self.size)}
        call([str(REPO / "tests/tools/fleet"), verb, str(self.directory)], timeout=600, env=environment)

    def _read(self) -> list[Host]:
        groups = yaml.safe_load(self.inventory.read_text())["all"]["children"]
        return [
            Host(name, hostvars["fleet_container"], hostvars["ansible_host"]) for group in groups.values() for name, hostvars in (group["hosts"] or {}).items()
        ]

    def each(self, act: Callable[[Host], Value]) -> list[Value]:
        with ThreadPoolExecutor(4) as pool:
            return list(pool.map(act, self.hosts))

    def prepare(self, tarball: Path) -> None:
        """Bring what reset needs to every host; `tarball` is version 1.0."""

        def one(host: Host) -> None:
            for source, path in ((tarball, "/root/shop-1.0.tar.gz"), (BENCH / "shop.service.j2", "/root/shop.service"), (BENCH / "reset", "/root/reset")):
                host.copy(source, path)
            host.copy(BENCH / "counting-python", "/usr/local/bin/counting-python")

        self.each(one)
        self._usage = self.each(Host.usage)

    def cpu_seconds(self) -> float:
        """CPU seconds that all hosts have used since they were started."""
        return sum(int(path.read_text()) / 1e9 if path.name == "cpuacct.usage" else int(path.read_text().split()[1]) / 1e6 for path in self._usage)

    def reset(self) -> None:
        """Every host at 1.0, its disk quiet."""
        self.each(Host.reset)
        os.sync()

    def python_starts(self) -> float:
        """How often counting-python was started since the reset, per host."""
        return sum(self.each(lambda host: int(host.run("wc -l </run/python-starts")))) / len(self.hosts)

    def disconnect(self, sockets: Path) -> None:
        """End the kept SSH connections, so that the next run makes its own."""
        for socket in sockets.glob("*"):
            with suppress(BenchError):
                call(["ssh", "-o", f"ControlPath={socket}", "-O", "exit", "root@nobody"])
