# Copyright: onprem.rollout contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""What every engine has in common: a run takes its input in, gives account of itself to people and to the ledger, and ends with an exit code."""

from __future__ import annotations

import json
import math
import os
import sys
import time
from collections.abc import Collection, Mapping
from contextlib import suppress
from types import MappingProxyType
from typing import Any, Protocol

from ansible.errors import AnsibleError
from ansible.utils.display import Display

from ansible_collections.onprem.rollout.plugins.plugin_utils import (
    _anchor,
    _ended,
    _floors,
    _inputs,
    _ledgers,
    _signatures,
    _status,
    _story,
    _waivers,
)
from ansible_collections.onprem.rollout.plugins.plugin_utils._audit import anchor_of, audit
from ansible_collections.onprem.rollout.plugins.plugin_utils._commands import Commands
from ansible_collections.onprem.rollout.plugins.plugin_utils._conductor import Conductor
from ansible_collections.onprem.rollout.plugins.plugin_utils._core_input import PlayInput
from ansible_collections.onprem.rollout.plugins.plugin_utils._decisions import Decisions
from ansible_collections.onprem.rollout.plugins.plugin_utils._holder import is_alive, is_gone
from ansible_collections.onprem.rollout.plugins.plugin_utils._hostrun import HostRun
from ansible_collections.onprem.rollout.plugins.plugin_utils._journal import Journal
from ansible_collections.onprem.rollout.plugins.plugin_utils._ledger import BrokenChain, Ledger, LedgerError, stamp
from ansible_collections.onprem.rollout.plugins.plugin_utils._orders import Event
from ansible_collections.onprem.rollout.plugins.plugin_utils._plan import as_data, digest
from ansible_collections.onprem.rollout.plugins.plugin_utils._policy import release_digest, render
from ansible_collections.onprem.rollout.plugins.plugin_utils._reasons import Reason, by_hosts, ordered, reasons
from ansible_collections.onprem.rollout.plugins.plugin_utils._replan import changes, inputs_of
from ansible_collections.onprem.rollout.plugins.plugin_utils._stage import Settings
from ansible_collections.onprem.rollout.plugins.plugin_utils._standing import Standing, by_whom, standing_of
from ansible_collections.onprem.rollout.plugins.plugin_utils._waivers import Waivers

display = Display()

LAST_CHANCE = 15.0  # seconds that the end of a run is tried to be written
INTERRUPTED = 99  # what ansible-playbook exits with after a Ctrl-C


class Runs(Protocol):
    """Whoever carries out what the conductor decides."""

    @property
    def conductor(self) -> Conductor: ...
    @property
    def runs(self) -> Mapping[str, HostRun]: ...
    @property
    def wanted(self) -> str: ...


class Account:
    """To be mixed into an engine, which sets L(_driver)."""

    _core: PlayInput
    _driver: Runs
    _inputs: _inputs.Inputs
    _release = ""
    _exit_code = 1
    _width = 0
    _decisions: Decisions | None = None
    _journal: Journal | None = None
    _reasons: Mapping[Reason, str] = MappingProxyType({})
    _digest = ""
    _standing = Standing("")
    _sound = True
    _waived = Waivers()

    def _take_in(self, core: PlayInput, engine: str) -> None:
        """Everything that this run is told; an AnsibleError with all that is wrong with it."""
        self._core = core
        self._listens = engine == "staged"
        self._inputs, problems = _inputs.read(core, engine)
        if problems:
            raise AnsibleError(render(problems))
        if self._inputs.verb == "status" and self._inputs.ledger != _ledgers.default_place():
            self._require_ledger()
        self._release = release_digest(self._inputs.release)
        self._waived = self._read_waivers()
        _waivers.drop(self._waived)
        self._digest = "" if self._inputs.verb == "status" else digest(self._inputs.plan, self._release)
        self._commands = Commands(sys.argv, core.playbooks)

    def _read_waivers(self, earlier: Collection[str] = ()) -> Waivers:
        """The waivers that count now, for hosts that begin in this run. When nobody can tell, none does. earlier: who launched runs of the release."""
        directory, signers = self._inputs.waivers
        if not directory:
            return Waivers()
        release = {**self._inputs.release, "digest": self._release}
        try:
            return _waivers.read(directory, signers, release, _ledgers.user(self._core.variables(self._core.hosts[0])), time.time(), earlier)
        except _signatures.CannotAsk as error:
            return Waivers(flaws=(f"waivers cannot be checked: {error}",))

    @property
    def _changes(self) -> bool:
        """This run is to change hosts, and not only to look at them."""
        return self._inputs.verb == "upgrade"

    @property
    def _settings(self) -> Settings:
        return Settings(
            self._inputs.reconnect_timeout,
            retry_failed=self._inputs.retry_failed,
            release=_floors.identity(self._inputs.release, self._release, list(self._inputs.vulnerable)) if self._inputs.release else {},
            waivers=self._waived,
            renew_interval=self._inputs.lease / 3,
            max_wait=self._inputs.max_wait,
        )

    def _begin(self, conductor: Conductor) -> None:
        """Take up the ledger and what is decided through it; an AnsibleError where the rollout must not begin."""
        if self._changes and not self._core.check_mode:
            self._journal = self._open_journal(self._release)
            self._waived = self._read_waivers(set().union(*self._journal.standing.launchers.values()))
            _waivers.drop(self._waived)
            ahead = time.monotonic() - time.time()
            conductor.owed = {ring: end + ahead for ring, end in self._journal.standing.soaks.items()}
            user = _ledgers.user(self._core.variables(self._core.hosts[0]))
            self._decisions = Decisions(
                conductor, self._journal, self._tell, self._inputs.max_wait, time.monotonic, time.time, self._inputs.gates, self._digest, user
            )  # fmt: skip

    def _announce(self, width: int, *more: str) -> None:
        """The first lines. width: how many hosts core works on at the same time."""
        self._width = width
        for note in self._inputs.notes:
            display.warning(note)
        if self._changes:
            self._say(f"{'CHECK MODE: ' if self._core.check_mode else ''}rollout of {_story.headline(self._inputs.plan)}")
            for line in (*_story.fork_lines(self._inputs.plan, width), *more):
                self._say(line)

    @property
    def _wanted(self) -> str:
        """What the exit code is to say; see L(_outcome.wanted)."""
        if self._inputs.verb != "status":
            return self._driver.wanted
        return _status.wanted(self._reasons, self._standing, self._driver.runs) if self._sound else "failed"

    def _write_down(self) -> None:
        """What was decided is in the ledger before it is done, and hosts that begin from here on keep its head."""
        if self._journal is not None:
            self._journal.flush()
            _anchor.drop(self._journal.head)

    def _close(self) -> None:
        if self._decisions:
            self._decisions.close()

    # --- the ledger ---

    def _open_ledger(self) -> Ledger:
        return _ledgers.open_ledger(self._inputs.ledger, _ledgers.who(self._core.variables(self._core.hosts[0]), os.getpid()))

    def _require_ledger(self) -> None:
        """A place that somebody wrote and that is none is a mistake; a database that does not answer is a reason to be shown."""
        ledger = self._open_ledger()
        with suppress(LedgerError):
            if missing := _ledgers.missing(ledger):
                raise AnsibleError(f"rollout_ledger: {ledger.name}: {missing}")

    def _remembered(self, runs: Mapping[str, HostRun]) -> list[str]:
        """What the ledger says of the rollout, for status; and whether it may be believed, for audit."""
        ledger, release = self._open_ledger(), self._inputs.plan.release
        rollout = f"{release.name}-{release.version}" if release.name else ""
        lines: list[str] = []
        try:
            if self._inputs.audit:
                self._sound = False  # until it is proven
                anchors = {host: head for host, run in runs.items() if (head := anchor_of(run.record))}
                self._sound, lines = audit(ledger.name, ledger.entries(), anchors)
            self._standing, free = self._stands(ledger, rollout)
            found, self._digest = reasons(self._standing, lambda run: is_gone(run) or (free and not is_alive(run))), self._standing.plan
        except (LedgerError, BrokenChain) as error:
            found = {Reason.LEDGER: f"the ledger {ledger.name} cannot be believed: {error}; ask the verb audit"}
        records = {host: run.record for host, run in runs.items()}
        self._reasons = ordered({**by_hosts(records, self._standing, is_gone, time.time()), **found})
        return [*lines, *_status.first_lines(self._standing.rollout or rollout, self._reasons, self._digest, self._commands)]

    @staticmethod
    def _stands(ledger: Ledger, rollout: str) -> tuple[Standing, bool]:
        """How the rollout stands, and whether no run has it. A run that ended after the ledger was read is no run that died."""
        standing = standing_of(ledger.entries(), rollout) or Standing(rollout)
        free = bool(standing.rollout) and not ledger.lease(standing.release).taken()
        return (standing_of(ledger.entries(), rollout) or standing) if standing.at_work and free else standing, free

    def _open_journal(self, release: str) -> Journal:
        """The ledger, with the start of this run in it; a rollout that nobody could account for, or that is not the one that began, does not go on."""
        ledger, plan = self._open_ledger(), self._inputs.plan
        by = _ledgers.user(self._core.variables(self._core.hosts[0]))
        journal, inputs = Journal(ledger, plan.release.name, plan.release.version, time.monotonic, listens=self._listens), inputs_of(plan, release)
        try:
            journal.open(lambda: self._judge(journal, inputs), by, self._inputs.supersede_wait, self._say)
        except (LedgerError, BrokenChain) as error:
            raise AnsibleError(f"rollout_ledger: {ledger.name}: {error}. No host was touched") from error
        _ended.drop(journal.versions.ended)
        changed, since = self._changed(journal, inputs), journal.standing.since or journal.head.number + 1
        limited, named = self._core.limited, journal.versions.release
        soaks = {ring: math.ceil(end) for ring, end in journal.standing.soaks.items() if end > time.time()}
        try:
            journal.start(plan=self._digest, by=by, release=named, inputs=inputs, replanned=changed, since=since, limited=limited, soaks=soaks)
        except LedgerError as error:
            raise AnsibleError(f"rollout_ledger: {error}. No host was touched") from error
        _anchor.drop(journal.head)
        return journal

    def _changed(self, journal: Journal, inputs: Mapping[str, Any]) -> list[str]:
        """What is another one than in the run that did not bring the rollout to its end, if there is one."""
        run = journal.standing.unfinished
        return changes(run.data["inputs"], inputs, self._core.limited or bool(run.data.get("limited"))) if run else []

    def _judge(self, journal: Journal, inputs: Mapping[str, Any]) -> None:
        """An AnsibleError where the rollout goes on only if somebody says that it is meant so."""
        if self._inputs.replan:
            return
        changed, run = self._changed(journal, inputs), journal.standing.unfinished
        if refusal := journal.versions.refusal():
            raise AnsibleError(f"rollout_release: {refusal}. No host was touched")
        if changed and run:
            raise AnsibleError(
                f"The inputs of {self._inputs.plan.release.label} changed since its run of {stamp(run.at)}, which did not bring it to its end:\n  "
                + "\n  ".join(changed) + "\nNo host was touched. Take that back, or go on with the new plan: --extra-vars rollout_replan=true"
            )  # fmt: skip

    def _note_end(self, how: str) -> None:
        if self._journal is not None:
            halt = self._driver.conductor.halt
            self._journal.note("finished", how=how, why=halt.value if halt else "", paused=self._driver.conductor.paused, limited=self._core.limited)
            if not self._journal.flush(at_once=True):
                display.warning(f"{self._journal.trouble}. The end of this run is to be written there; that is tried for {LAST_CHANCE:.0f} s")
            if not self._journal.flush_within(LAST_CHANCE):
                display.warning(f"{self._journal.trouble}. What this run did is in the hosts' records; its end is not in the ledger")
            self._journal.close()

    # --- what people read ---

    def _tell(self, event: Event) -> None:
        if event.kind == "asked":
            self._asked()
        if self._journal is not None:
            run = self._driver.runs.get(event.host)
            self._journal.hear(event, str(run.cause) if run and run.cause else "")
        line = _story.event_line(event, self._driver.conductor, self._driver.runs)
        if line and self._changes:
            self._say(line)

    def _asked(self) -> None:
        conductor, runs = self._driver.conductor, self._driver.runs
        if self._inputs.verb == "status":
            lines = self._remembered(runs)
            display.display("\n".join([*lines, *_status.status_lines(self._inputs.plan, self._standing, runs, is_gone, self._commands)]))
        elif self._inputs.verb == "plan":
            lines = _story.plan_lines(self._inputs.plan, runs, conductor.states(), self._commands)
            lines += [_story.digest_line(self._inputs.plan, self._digest, self._commands), *_story.fork_lines(self._inputs.plan, self._width)]
            display.display("\n".join(lines))

    def _write_json(self, path: str) -> None:
        partial = f"{path}.partial"
        with open(partial, "w", encoding="utf-8") as file:
            json.dump(self._summary(), file, indent=2, sort_keys=True)
            file.flush()
            os.fsync(file.fileno())
        os.replace(partial, path)

    def _summary(self) -> dict[str, Any]:
        hosts = {
            host: {"state": str(state), "why": self._driver.runs[host].why or self._driver.runs[host].dark, "cause": str(self._driver.runs[host].cause or ""),
                   "installed": self._driver.runs[host].record.get("installed")}
            for host, state in self._driver.conductor.states().items()
        }  # fmt: skip
        halt = self._driver.conductor.halt
        return {
            "verb": self._inputs.verb,
            "plan": {**as_data(self._inputs.plan), "digest": self._digest},
            "hosts": hosts,
            "unreachable": _story.unreachable_by_cause(self._driver.runs),
            "halted": halt.value if halt else None,
            "superseded": self._superseded or None,
            "reason": _status.reason_data(self._reasons),
            **(_status.status_data(self._standing) if self._inputs.verb == "status" else {}),
        }

    def _last_words(self, code_is_known: bool = True) -> None:
        if self._changes:
            lines = _story.verdict_lines(self._driver.conductor, self._driver.runs, self._commands, self._exit_code, self._superseded)
            lines = lines if code_is_known else lines[:-1]
            display.display("\n" + "\n".join(lines))

    @property
    def _superseded(self) -> str:
        """By which version this run was superseded, when and by whom, if it was."""
        superseded = self._journal.standing.superseded if self._journal else None
        return by_whom(superseded) if superseded else ""

    def _say(self, line: str) -> None:
        display.display(f"{time.strftime('%H:%M:%S')} {line}")
