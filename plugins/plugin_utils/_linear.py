# Copyright: onprem.rollout contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""The engine C(linear): a rollout run by plays of ansible-core's own strategy, one after the other, in the process of ansible-playbook.

Its callback tells it when a play or a batch begins, what the tasks report, and when all is over. The keywords and conditions of those
plays ask it, through a lookup, who takes part. Whoever asks while no engine is at work hears that nobody does.
"""

from __future__ import annotations

import atexit
import os
from collections.abc import Sequence
from typing import Any

from ansible.errors import AnsibleError
from ansible.utils.display import Display

from ansible_collections.onprem.rollout.plugins.plugin_utils import _light, _withheld
from ansible_collections.onprem.rollout.plugins.plugin_utils._account import INTERRUPTED, Account
from ansible_collections.onprem.rollout.plugins.plugin_utils._batches import Batch, for_batches, lacks
from ansible_collections.onprem.rollout.plugins.plugin_utils._conductor import Conductor
from ansible_collections.onprem.rollout.plugins.plugin_utils._core_input import PlayInput
from ansible_collections.onprem.rollout.plugins.plugin_utils._interrupt import Interrupt
from ansible_collections.onprem.rollout.plugins.plugin_utils._lockstep import Lockstep
from ansible_collections.onprem.rollout.plugins.plugin_utils._recovery import Recovery
from ansible_collections.onprem.rollout.plugins.plugin_utils._report import Report

display = Display()

UNREACHABLE = 4
EXIT_CODES = {"ok": 0, "waiting": 0, "unreachable": UNREACHABLE}


class Linear(Account):
    """One rollout. Every answer to ask() is made once, at the moment when the play that needs it is about to begin."""

    _driver: Lockstep

    def __init__(self, core: PlayInput) -> None:
        self._answers: dict[str, list[Any]] = {}
        self._may_go = False
        self._over = False
        self._take_in(core, "linear")
        conductor = Conductor(for_batches(self._inputs.plan))
        self._begin(conductor)
        self._driver = Lockstep(
            conductor,
            self._release,
            self._tell,
            self._settings,
            look_only=not self._changes,
            attend=self._decisions.attend if self._decisions else None,
            note=self._write_down,
            soaks={ring.ring.name: ring.ring.soak for ring in self._inputs.plan.rings if self._decisions},
            standing=lambda: self._journal.standing if self._journal else None,
        )
        self._announce(core.forks, *lacks(self._inputs.plan))
        self._interrupt = Interrupt()
        atexit.register(self._die, os.getpid())

    # --- what the callback tells ---

    def hear(self, kind: str, result: Any) -> None:
        """A task ended; see L(_report.Report)."""
        if self._over:
            return
        try:
            report = Report(kind, result)
            self._driver.report(report)
            if report.payload and report.host in self._driver.runs:
                _withheld.withhold(report.host, _withheld.IDLE if self._driver.runs[report.host].idle else "")
            self._write_down()
        except Exception as error:  # core would warn, and go on
            why = f"what a task reported is not understood: {type(error).__name__}: {error}"
            display.error(why, wrap_text=False)
            self._driver.abort(why)

    def begin_batch(self, part: str, hosts: Sequence[str]) -> None:
        """A batch of the play that does this part is about to begin."""
        if part == "settle":
            self._driver.settle(hosts)
        elif part == "change":
            self._may_go = self._driver.let_in(hosts)
            for host in hosts if self._may_go else ():
                _withheld.withhold(host, _withheld.NOT_SOAKED, "soak")

    def before_commits(self) -> None:
        """The hosts of the batch are about to commit: only now may they, and not if anything here goes wrong."""
        if self._over:
            return
        try:
            why = self._driver.soak()
        except Exception as error:  # core would warn, and go on
            why = f"it is not known whether they may commit: {type(error).__name__}: {error}"
            display.error(why, wrap_text=False)
            self._driver.abort(why)
        for host in self._driver.before_commit():
            _withheld.withhold(host, why, "soak")

    def end(self) -> int | None:
        """All plays are over. The exit code, if core would give another one."""
        failed = self._answers.get("failed") == [True] and self._answers["speakers"]
        self._finish()
        self._last_words()
        given = 2 if failed else 4 if any(run.dark for run in self._driver.runs.values()) else 0
        return None if given == self._exit_code else self._exit_code

    def _finish(self) -> None:
        if self._over:
            return
        self._driver.finish()
        self._over = True
        _withheld.forget()
        wanted = self._wanted
        unasked = wanted == "ok" and not self._changes and any(run.dark for run in self._driver.runs.values())
        self._exit_code = UNREACHABLE if unasked else EXIT_CODES.get(wanted, 2)
        self._note_end(wanted)
        self._close()
        self._interrupt.forget()
        if self._inputs.json_file:
            self._write_json(self._inputs.json_file)

    def _die(self, process: int) -> None:
        """This process ends in the middle of the rollout: after a Ctrl-C, or an error that core ends it for."""
        if os.getpid() == process and not self._over:
            self._over, self._exit_code = True, INTERRUPTED
            self._note_end("interrupted" if self._interrupt.seen else "failed")
            self._close()
            self._last_words(code_is_known=self._interrupt.seen)

    # --- what the plays ask ---

    def ask(self, what: str) -> list[Any]:
        if what == "go":
            return [self._may_go]
        if what not in self._answers:
            self._answers.update(self._answer(what))
        return self._answers[what]

    def _answer(self, what: str) -> dict[str, list[Any]]:
        if what in ("settle", "settle_sizes"):
            return _as_play("settle", self._driver.settling())
        if what in ("change", "change_sizes"):
            found = self._driver.batches()
            if found:
                _light.prepare()
            return _as_play("change", found)
        if what == "speakers":
            self._finish()
            return {"speakers": self._driver.speakers(self._core.hosts), "failed": [self._changes and self._exit_code == 2], "summary": [self._summary()]}
        raise AnsibleError(f"{what!r} is nothing that a play can ask for")

    def why(self, host: str) -> str:
        """What a host that speaks for the rollout says."""
        run, state = self._driver.runs[host], self._driver.conductor.state(host)
        return f"{state}: {run.why}" if run.why else f"{state}; the rollout did not reach every host, see below"


def _as_play(what: str, found: list[Batch]) -> dict[str, list[Any]]:
    return {what: [host for batch in found for host in batch], f"{what}_sizes": [len(batch) for batch in found]}


Engine = Linear | Recovery
_engine: Engine | None = None


def begin(core: PlayInput) -> Engine:
    """The one at work from here on; an AnsibleError says why none may be."""
    global _engine
    _engine = None
    _engine = Recovery(core) if core.hosts and core.variables(core.hosts[0]).get("rollout_verb") == "recover" else Linear(core)
    return _engine


def current() -> Engine | None:
    return _engine
