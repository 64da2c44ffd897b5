# Copyright: onprem.rollout contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Runs `ansible-playbook onprem.rollout.<name>` as a user would, so that a case can act on it while it runs."""

from __future__ import annotations

import itertools
import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any


@dataclass(frozen=True)
class Result:
    """How a run ended. `rc` is negative when a signal ended it."""

    rc: int
    stdout: str
    stderr: str
    seconds: float
    data: dict[str, Any] = field(default_factory=dict)  # what a rollout wrote to rollout_json

    @property
    def states(self) -> dict[str, str]:
        """Every host's state in the rollout's own words."""
        return {host: item["state"] for host, item in self.data.get("hosts", {}).items()}

    @property
    def last_words(self) -> str:
        """The verdict, which is what a rollout prints last."""
        return self.stdout[self.stdout.rfind("\nROLLOUT ") :].strip() if "\nROLLOUT " in self.stdout else ""

    def __str__(self) -> str:
        return f"exit code {self.rc} after {self.seconds:.1f} s\n{self.stdout}\n{self.stderr}"


class Run:
    """A run in progress, in a process group of its own. Output goes to files: a ControlPersist master would keep a pipe open."""

    def __init__(self, argv: list[str], env: Mapping[str, str], directory: Path) -> None:
        self._out, self._err, self._json = directory / "stdout", directory / "stderr", directory / "rollout.json"
        self._began = time.monotonic()
        with self._out.open("wb") as out, self._err.open("wb") as err:
            self.process = subprocess.Popen(argv, env=env, cwd=directory, stdin=subprocess.DEVNULL, stdout=out, stderr=err, start_new_session=True)

    @property
    def stdout(self) -> str:
        """What it has printed so far."""
        return self._out.read_text(errors="replace")

    @property
    def running(self) -> bool:
        return self.process.poll() is None

    def interrupt(self) -> None:
        """Ctrl-C: the whole process group gets SIGINT."""
        os.killpg(self.process.pid, signal.SIGINT)

    def kill(self) -> None:
        """What a job runner does to a job it gives up: SIGKILL to the whole group. Workers of ansible-core 2.18 and later survive it."""
        os.killpg(self.process.pid, signal.SIGKILL)

    def wait(self, timeout: float = 120) -> Result:
        """Wait for the end; a run that outlives the timeout is killed and fails the test with what it printed."""
        try:
            rc = self.process.wait(timeout)
        except subprocess.TimeoutExpired:
            self.kill()
            self.process.wait()
            raise AssertionError(f"still running after {timeout:g} s:\n{self.stdout}\n{self._err.read_text()}") from None
        data = json.loads(self._json.read_text()) if self._json.exists() else {}
        return Result(rc, self.stdout, self._err.read_text(errors="replace"), time.monotonic() - self._began, data)


class Playbook:
    """``playbook("upgrade", {"rollout_release": ...})`` runs to the end; ``playbook.start(...)`` returns the `Run`."""

    def __init__(self, inventory: Path, collections: Path, directory: Path) -> None:
        self.inventory, self.collections, self.directory = inventory, collections, directory
        self._numbers = itertools.count(1)
        self._started: list[Run] = []

    def __call__(self, name: str, extra_vars: Mapping[str, Any] | None = None, *, timeout: float = 120, **options: Any) -> Result:
        return self.start(name, extra_vars, **options).wait(timeout)

    def start(
        self,
        name: str,
        extra_vars: Mapping[str, Any] | None = None,
        *,
        inventory: Path | None = None,
        check: bool = False,
        diff: bool = False,
        limit: str | None = None,
        args: tuple[str, ...] = (),
        env: Mapping[str, str] | None = None,
        core: Path | None = None,
    ) -> Run:
        """`name` is a playbook of the collection, or the path of one made for the case (it ends in .yml).

        `core` is the ansible-playbook to run instead of this environment's own.
        """
        directory = self.directory / f"run{next(self._numbers)}"
        directory.mkdir(parents=True)
        argv = [
            str(core or Path(sys.executable).parent / "ansible-playbook"),
            name if name.endswith(".yml") else f"onprem.rollout.{name}",
            "-i",
            str(inventory or self.inventory),
            *args,
        ]
        (directory / "extra_vars.json").write_text(json.dumps({**self._told(directory), **(extra_vars or {})}))
        argv += ["-e", f"@{directory / 'extra_vars.json'}"]
        argv += ["--check"] * check + ["--diff"] * diff + (["--limit", limit] if limit else [])
        (directory / "ansible.cfg").touch()
        run = Run(argv, {**self._environment(), **(env or {})}, directory)
        self._started.append(run)
        return run

    def _told(self, directory: Path) -> dict[str, Any]:
        """Every case has a ledger of its own, and may change its mind from run to run."""
        return {"rollout_json": str(directory / "rollout.json"), "rollout_ledger": str(self.directory / "ledger.jsonl"), "rollout_replan": True}

    def _environment(self) -> dict[str, str]:
        # Molecule's own settings must not reach a run that stands for a user's; its directory has an empty ansible.cfg.
        kept = {key: value for key, value in os.environ.items() if not key.startswith(("ANSIBLE_", "MOLECULE_"))}
        return {**kept, "ANSIBLE_COLLECTIONS_PATH": str(self.collections), "ANSIBLE_PIPELINING": "1", "ANSIBLE_NOCOLOR": "1", "ANSIBLE_HOST_KEY_CHECKING": "0"}

    def stop(self) -> None:
        """End whatever a case has left running."""
        for run in self._started:
            if run.running:
                run.kill()
                run.process.wait()
