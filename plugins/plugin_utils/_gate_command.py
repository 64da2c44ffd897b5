# Copyright: onprem.rollout contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""The gate that asks a program on the controller.

Its exit code is the verdict: 0 pass, 1 fail, 2 hold. Any other one, a signal, the time limit, and a program that cannot be started are an
error. The last line of what it writes is why. On its stdin is what is asked about, as one JSON object with plan, rollout, ring,
wave, hosts and launcher; all of them but hosts are also in its environment, as ONPREM_ROLLOUT_PLAN and so on, with ONPREM_ROLLOUT_HOST_COUNT.

Nobody waits for it: the first ask() starts it, and those after it look whether it has ended. It has a process group of its own, which is
ended with it, at its time limit (by the first ask() from then on), by close(), and when something else is asked about.
"""

from __future__ import annotations

import json
import os
import shutil
import signal
import subprocess
import tempfile
import time
from collections.abc import Callable, Mapping
from contextlib import suppress
from dataclasses import dataclass, field
from typing import IO, Any

from ansible_collections.onprem.rollout.plugins.module_utils._process import last_line, reason
from ansible_collections.onprem.rollout.plugins.plugin_utils._gate import Answer, Situation, Verdict
from ansible_collections.onprem.rollout.plugins.plugin_utils._gate_options import Options
from ansible_collections.onprem.rollout.plugins.plugin_utils._policy import Problem

TYPE = "command"
OPTIONS = ("type", "name", "argv", "timeout", "interval", "env")
PREFIX = "ONPREM_ROLLOUT_"
VERDICTS = {0: Verdict.PASS, 1: Verdict.FAIL, 2: Verdict.HOLD}
SAYS = {Verdict.PASS: "passes", Verdict.FAIL: "fails", Verdict.HOLD: "holds"}
OUTPUT = 16 * 1024  # bytes of the end of its output that are looked at


@dataclass(frozen=True, slots=True)
class Pending(Answer):
    """Nobody knows yet: not a word on what was answered before."""


@dataclass(slots=True)
class Run:
    process: subprocess.Popen[bytes]
    output: IO[bytes]
    question: tuple[Any, ...]
    ends: float


@dataclass(slots=True)
class CommandGate:
    """timeout: seconds that the program may take. interval: seconds after which a program that held is started again.
    clock: seconds, whatever becomes of the time of day."""

    name: str
    argv: tuple[str, ...]
    timeout: float = 60.0
    interval: float = 30.0
    env: Mapping[str, str] = field(default_factory=dict)
    clock: Callable[[], float] = time.monotonic
    _run: Run | None = None
    _held: tuple[Answer, tuple[Any, ...], float] | None = None

    def ask(self, situation: Situation) -> Answer:
        question = _question(situation)
        if self._held is not None and self._held[1] == question and self.clock() < self._held[2]:
            return self._held[0]
        if self._run is not None and self._run.question != question:
            self.close()
        if self._run is None:
            try:
                self._run = self._start(situation, question)
            except OSError as error:
                return Answer(Verdict.ERROR, f"{self.name}: {self.argv[0]} cannot be started: {reason(error)}")
        run = self._run
        if not _has_ended(run.process):
            if self.clock() < run.ends:
                return Pending(Verdict.HOLD, f"{self.name} is asked")
            self.close()
            return Answer(Verdict.ERROR, f"{self.name}: {self.argv[0]} was ended after {self.timeout:g} s, its time limit")
        answer = self._answer(run)
        self._held = (answer, question, self.clock() + self.interval) if answer.verdict is Verdict.HOLD else None
        return answer

    def close(self) -> None:
        """End the program and what it started; it may be asked again."""
        if self._run is not None:
            run, self._run = self._run, None
            _end(run.process)
            run.output.close()

    def _start(self, situation: Situation, question: tuple[Any, ...]) -> Run:
        told = dict(zip(("plan", "rollout", "ring", "wave", "launcher"), question, strict=False))
        variables = {PREFIX + key.upper(): str(value) for key, value in told.items()}
        variables[PREFIX + "HOST_COUNT"] = str(len(situation.hosts))  # their names may be more than an environment holds
        output = tempfile.TemporaryFile()
        try:
            with tempfile.TemporaryFile() as asked:
                asked.write(json.dumps({**told, "hosts": list(situation.hosts)}).encode() + b"\n")
                asked.seek(0)
                process = subprocess.Popen(
                    self.argv, stdin=asked, stdout=output, stderr=subprocess.STDOUT, env={**os.environ, **self.env, **variables}, start_new_session=True
                )
        except BaseException:
            output.close()
            raise
        return Run(process, output, question, self.clock() + self.timeout)

    def _answer(self, run: Run) -> Answer:
        size = os.fstat(run.output.fileno()).st_size
        said = last_line(os.pread(run.output.fileno(), OUTPUT, max(0, size - OUTPUT)).decode("utf-8", "replace"))
        self.close()
        code = run.process.returncode
        verdict = VERDICTS.get(code, Verdict.ERROR)
        how = SAYS.get(verdict) or (f"ended with {code}" if code >= 0 else f"was killed by signal {-code}")
        return Answer(verdict, f"{self.name} {how}{': ' if said else ''}{said}")


def _question(situation: Situation) -> tuple[Any, ...]:
    return situation.plan, situation.rollout, situation.ring, situation.wave, situation.launcher, situation.hosts


def _has_ended(process: subprocess.Popen[bytes]) -> bool:
    """Looks, and leaves the process to be waited for: as long as it is not, its group's number is nobody else's."""
    return os.waitid(os.P_PID, process.pid, os.WEXITED | os.WNOHANG | os.WNOWAIT) is not None


def _end(process: subprocess.Popen[bytes]) -> None:
    with suppress(ProcessLookupError, PermissionError):
        os.killpg(process.pid, signal.SIGKILL)
    process.wait()


def parse(raw: Mapping[str, Any], where: str) -> tuple[CommandGate | None, list[Problem]]:
    """One item of the policy."""
    options = Options(raw, OPTIONS, where)
    argv, env = raw.get("argv"), raw.get("env") or {}
    if not isinstance(env, Mapping) or not all(_is_variable(key, value) for key, value in env.items()):
        options.wrong("env", f"write a mapping of names to texts; names that begin with {PREFIX} are the gate's own")
        env = {}
    if not isinstance(argv, list) or not argv or not all(isinstance(item, str) and "\0" not in item for item in argv) or not argv[0]:
        options.wrong("argv", "write the program and its arguments as a list of texts")
        argv = [""]
    program = os.path.expanduser(argv[0])
    if argv[0] and shutil.which(program, path=env.get("PATH")) is None:
        options.wrong("argv", f"there is no such program on the controller; relative paths are looked for in {os.getcwd()}")
    name = options.name(TYPE)
    timeout, interval = options.seconds("timeout", 60.0, 1.0), options.seconds("interval", 30.0, 1.0)
    gate = CommandGate(name, (program, *argv[1:]), timeout, interval, dict(env))
    return (None if options.problems else gate), options.problems


def _is_variable(key: Any, value: Any) -> bool:
    texts = isinstance(key, str) and isinstance(value, str) and "\0" not in key + value
    return texts and key != "" and "=" not in key and not key.startswith(PREFIX)
