# Copyright: onprem.rollout contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The hosts of the fleet as the cases see them: from outside, through podman and the host's namespaces, never through Ansible or SSH."""

from __future__ import annotations

import os
import subprocess
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import TypeVar

import testinfra
import yaml

Value = TypeVar("Value")


def eventually(seen: Callable[[], Value], what: str, timeout: float = 30, interval: float = 0.2) -> Value:
    """Ask until the answer is true and return it; fail naming what was awaited and the last answer."""
    deadline = time.monotonic() + timeout
    while True:
        value = seen()
        if value:
            return value
        if time.monotonic() > deadline:
            raise AssertionError(f"waited {timeout:g} s for {what}; last seen: {value!r}")
        time.sleep(interval)


def _command(*argv: str, timeout: float = 30, check: bool = True) -> subprocess.CompletedProcess[str]:
    done = subprocess.run(argv, capture_output=True, text=True, errors="surrogateescape", timeout=timeout)
    if check and done.returncode:
        raise AssertionError(f"{' '.join(argv)} gave {done.returncode}: {done.stdout}{done.stderr}")
    return done


def _pid_namespace(pid: int) -> str:
    """What a process sees as all processes; empty if there is no such process."""
    try:
        return os.readlink(f"/proc/{pid}/ns/pid")
    except OSError:
        return ""


class Host:
    """One systemd host: its Ansible name, its container, its address, its ring, and what can be done to it."""

    def __init__(self, name: str, container: str, address: str, ring: str) -> None:
        self.name, self.container, self.address, self.ring = name, container, address, ring
        self._entrance = (0, "")  # the host's init and its PID namespace
        self.testinfra = testinfra.get_host(f"podman://{container}")

    def __repr__(self) -> str:
        return f"Host({self.name}, {self.container}, {self.address}, {self.ring})"

    def run(self, cmd: str, timeout: float = 30, check: bool = True) -> subprocess.CompletedProcess[str]:
        """A shell command on the host, as root. `check` fails the test when it does not exit 0."""
        return _command(*self.inside("sh", "-c", cmd), timeout=timeout, check=check)

    def inside(self, *argv: str) -> list[str]:
        """The command as it is started from here to run on the host. `podman exec` does the same at fifty times the price."""
        init, namespace = self._entrance
        if not namespace or _pid_namespace(init) != namespace:
            init = self.init
            self._entrance = (init, _pid_namespace(init))
        environment = ("-i", "PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin", "HOME=/root", "TERM=xterm", "container=podman")
        return ["nsenter", "--target", str(init), "--all", "env", *environment, *argv]

    def read(self, path: str) -> bytes:
        """A file's bytes."""
        return subprocess.run(self.inside("cat", path), capture_output=True, check=True, timeout=30).stdout

    def copy(self, source: Path, path: str) -> None:
        """Copy a file or a directory tree onto the host."""
        _command("podman", "cp", str(source), f"{self.container}:{path}")

    @property
    def state(self) -> str:
        """What podman calls it: running, paused, exited."""
        return _command("podman", "inspect", "--format", "{{.State.Status}}", self.container).stdout.strip()

    @property
    def init(self) -> int:
        """The process that this machine runs the host as."""
        return int(_command("podman", "inspect", "--format", "{{.State.Pid}}", self.container).stdout)

    def pause(self) -> None:
        """The host hangs: nothing on it runs, its connections stay open and silent."""
        _command("podman", "pause", self.container)

    def unpause(self) -> None:
        _command("podman", "unpause", self.container)

    def kill(self) -> None:
        """A power cut: every process dies at once, the disk keeps what was written."""
        _command("podman", "kill", "--signal", "KILL", self.container)
        eventually(lambda: self.state == "exited", f"{self.name} to be off")

    def start(self) -> None:
        """The power is back: boot, and wait until sshd takes connections."""
        _command("podman", "start", self.container)
        self.await_boot()

    def await_boot(self) -> None:
        eventually(lambda: self.run("systemctl is-system-running --wait", check=False, timeout=60).stdout.strip() == "running", f"{self.name} to boot")
        eventually(lambda: self.run("systemctl is-active ssh", check=False).returncode == 0, f"sshd on {self.name}")

    def partition(self) -> None:
        """The network to the host is gone: packets both ways are dropped, nobody is told."""
        self.heal()
        for rule in self._rules():
            _command("iptables", "-w", "-I", *rule)

    def heal(self) -> None:
        """The network is back, if it was gone."""
        for rule in self._rules():
            while _command("iptables", "-w", "-C", *rule, check=False).returncode == 0:
                _command("iptables", "-w", "-D", *rule)

    def _rules(self) -> Iterator[list[str]]:
        # The comment starts with the fleet's name: by it the rules are found when the fleet is removed.
        for chain, way in (("INPUT", "-s"), ("OUTPUT", "-d"), ("FORWARD", "-s"), ("FORWARD", "-d")):
            yield [chain, way, self.address, "-m", "comment", "--comment", self.container, "-j", "DROP"]

    def recover(self, state: str = "") -> None:
        """Undo whatever a case did to the host from outside."""
        self.heal()
        state = state or self.state
        if state == "paused":
            self.unpause()
        elif state != "running":
            self.start()


class Fleet(list[Host]):
    """The hosts in the order of the inventory; also by name: ``fleet["web1"]``."""

    def __init__(self, inventory: Path) -> None:
        self.inventory = inventory
        groups = yaml.safe_load(inventory.read_text())["all"]["children"]
        super().__init__(
            Host(name, hostvars["fleet_container"], hostvars["ansible_host"], group.removeprefix("rollout_"))
            for group, content in groups.items()
            for name, hostvars in content["hosts"].items()
        )

    def __getitem__(self, key):  # type: ignore[no-untyped-def,override]
        if isinstance(key, str):
            return next(host for host in self if host.name == key)
        return super().__getitem__(key)

    def recover(self) -> None:
        states = _command("podman", "inspect", "--format", "{{.State.Status}}", *(host.container for host in self)).stdout.split()
        for host, state in zip(self, states, strict=True):
            host.recover(state)

    def ring(self, name: str) -> list[Host]:
        return [host for host in self if host.ring == name]
