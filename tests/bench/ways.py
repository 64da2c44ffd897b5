# Copyright: onprem.rollout contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The ways to bring the same release to the same hosts, each four hosts at a time: by our role, by a plain playbook, by raw SSH."""

from __future__ import annotations

import os
import resource
import subprocess
import sys
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from time import monotonic

from hosts import BENCH, REPO, BenchError, Fleet

AT_ONCE = 4
SSH_OPTIONS = "-o ControlMaster=auto -o ControlPersist=60s -o StrictHostKeyChecking=no -o UserKnownHostsFile=/dev/null -o LogLevel=ERROR -o IdentitiesOnly=yes"


@dataclass(frozen=True)
class Cost:
    """What an upgrade of the whole fleet took: the clock's seconds, and the CPUs' on the controller and on the hosts together."""

    seconds: float
    controller: float
    hosts: float

    @property
    def cpu(self) -> float:
        return self.controller + self.hosts


@dataclass(frozen=True)
class Way:
    """A way: its name in the options, what the table calls it, and the command with its environment."""

    name: str
    label: str
    command: Callable[[Fleet, Path, Path], tuple[list[str], dict[str, str]]]


def _playbook(*arguments: str) -> Callable[[Fleet, Path, Path], tuple[list[str], dict[str, str]]]:
    def command(fleet: Fleet, work: Path, sockets: Path) -> tuple[list[str], dict[str, str]]:
        argv = [
            str(Path(sys.executable).with_name("ansible-playbook")), *arguments, "--inventory", str(fleet.inventory),
            "--extra-vars", f"@{work / 'release-2.0.yml'}", "--extra-vars", f"ansible_control_path_dir={sockets}",
        ]  # fmt: skip
        environment = {"ANSIBLE_CONFIG": str(BENCH / "ansible.cfg"), "ANSIBLE_COLLECTIONS_PATH": str(REPO / ".build"), "ANSIBLE_NOCOLOR": "1"}
        return argv, {**environment, "XDG_STATE_HOME": str(work / "state")}

    return command


def _raw(fleet: Fleet, work: Path, sockets: Path) -> tuple[list[str], dict[str, str]]:
    argv = ["xargs", "--arg-file", str(work / "addresses"), "--max-args=1", f"--max-procs={AT_ONCE}", str(BENCH / "raw")]
    options = f"-i {fleet.key} {SSH_OPTIONS} -o ControlPath={sockets}/%C"
    return argv, {"SSH_OPTIONS": options, "SHOP_VERSION": "2.0", "SHOP_TARBALL": str(work / "releases" / "shop-2.0.tar.gz")}


WAYS = (
    Way("role", "onprem.rollout.upgrade, waves of 4", _playbook("onprem.rollout.upgrade", "--extra-vars", f"@{BENCH / 'role.yml'}")),
    Way("plain", "plain playbook, serial: 4", _playbook(str(BENCH / "plain.yml"))),
    Way("raw", "raw SSH, 4 at a time", _raw),
)


class Runner:
    """Runs a way against the fleet, from 1.0 to 2.0, and proves that it did."""

    def __init__(self, fleet: Fleet, work: Path) -> None:
        self.fleet, self.work = fleet, work
        self._sockets = Path("/run") / fleet.hosts[0].container.rpartition("-")[0]
        self._kept = {key: value for key, value in os.environ.items() if not key.startswith(("ANSIBLE_", "MOLECULE_"))}
        (work / "addresses").write_text("".join(f"{host.address}\n" for host in fleet.hosts))

    def __call__(self, way: Way, extra: tuple[str, ...] = ()) -> Cost:
        """BenchError when the way failed or left a host behind."""
        self.fleet.disconnect(self._sockets)
        self._sockets.mkdir(mode=0o700, exist_ok=True)
        self.fleet.reset()
        argv, environment = way.command(self.fleet, self.work, self._sockets)
        log = self.work / f"{way.name}.log"
        controller, hosts = self._cpu_seconds()
        # A file: a kept connection would hold a pipe open.
        with log.open("wb") as out:
            began = monotonic()
            done = subprocess.run(
                [*argv, *extra], env={**self._kept, **environment}, cwd=self.work, stdin=subprocess.DEVNULL, stdout=out, stderr=subprocess.STDOUT, timeout=600
            )
            seconds = monotonic() - began
        after = self._cpu_seconds()
        if done.returncode:
            tail = "\n".join(log.read_text(errors="replace").splitlines()[-40:])
            raise BenchError(f"{way.label} gave {done.returncode}; the end of {log}:\n{tail}")
        self.fleet.each(lambda host: host.await_version("2.0", timeout=0))
        return Cost(seconds, after[0] - controller, after[1] - hosts)

    def _cpu_seconds(self) -> tuple[float, float]:
        children = resource.getrusage(resource.RUSAGE_CHILDREN)
        return children.ru_utime + children.ru_stime, self.fleet.cpu_seconds()

    def python_starts(self, way: Way) -> float | None:
        """Remote module runs per host, counted in a run that is not measured; None for a way without modules."""
        if way.name == "raw":
            self(way)
            return None
        self(way, ("--extra-vars", "ansible_python_interpreter=/usr/local/bin/counting-python"))
        return self.fleet.python_starts()
