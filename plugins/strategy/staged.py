# Copyright: onprem.rollout contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Strategy plugin: rings and waves; see DOCUMENTATION."""

from __future__ import annotations

DOCUMENTATION = r"""
name: staged
short_description: Upgrades hosts ring by ring and wave by wave
version_added: 0.1.0
author: onprem.rollout contributors
description:
  - Runs a play as P(ansible.builtin.host_pinned#strategy) does, but lets only those hosts run tasks whose turn it is.
  - Before any host is touched, everything the rollout is told is checked as a whole, and all problems are shown at once.
  - Tasks that only read, M(onprem.rollout.host_info), M(onprem.rollout.settle) and fact gathering, run on all hosts first.
  - Then the hosts of a wave are let in, up to C(concurrency) at a time. Each runs on until M(onprem.rollout.commit) and
    waits there, upgraded and healthy, until the whole wave is. Then all of them commit.
  - When in a ring failures > C(max_failures), nobody new is let in, and the waiting hosts are sent into their C(rescue).
  - A host that becomes unreachable after its change began gets its C(rescue) as soon as it can be reached again.
  - Hosts that were never let in are not touched, and are reported as held, not as failed.
notes:
  - C(serial), C(max_fail_percentage) and C(any_errors_fatal) on the play, C(--tags), C(--skip-tags) and C(--start-at-task) are refused.
  - Needs the role P(onprem.rollout.upgrade#role), or tasks that call M(onprem.rollout.begin), M(onprem.rollout.health),
    M(onprem.rollout.commit) and, in a C(rescue), M(onprem.rollout.restore) in the same order.
  - Third-party strategies are deprecated from ansible-core 2.19 on. Nothing that keeps a host safe lives here; the role is
    also correct under C(linear).
seealso:
  - plugin: ansible.builtin.host_pinned
    plugin_type: strategy
"""

import json
import os
import signal
import sys
import threading
import time
from collections.abc import Mapping
from contextlib import suppress
from typing import Any

from ansible.errors import AnsibleError
from ansible.plugins.strategy.host_pinned import StrategyModule as HostPinned
from ansible.utils.display import Display

from ansible_collections.onprem.rollout.plugins.plugin_utils import _anchor, _holder, _inputs, _ledgers, _light, _status, _story
from ansible_collections.onprem.rollout.plugins.plugin_utils._audit import anchor_of, audit
from ansible_collections.onprem.rollout.plugins.plugin_utils._commands import Commands
from ansible_collections.onprem.rollout.plugins.plugin_utils._conductor import Conductor
from ansible_collections.onprem.rollout.plugins.plugin_utils._core import Core
from ansible_collections.onprem.rollout.plugins.plugin_utils._decisions import Decisions
from ansible_collections.onprem.rollout.plugins.plugin_utils._driver import Driver
from ansible_collections.onprem.rollout.plugins.plugin_utils._holder import is_gone
from ansible_collections.onprem.rollout.plugins.plugin_utils._hostrun import HostRun
from ansible_collections.onprem.rollout.plugins.plugin_utils._journal import Journal
from ansible_collections.onprem.rollout.plugins.plugin_utils._ledger import BrokenChain, Ledger, LedgerError, stamp
from ansible_collections.onprem.rollout.plugins.plugin_utils._orders import Event
from ansible_collections.onprem.rollout.plugins.plugin_utils._plan import as_data, digest
from ansible_collections.onprem.rollout.plugins.plugin_utils._policy import release_digest, render
from ansible_collections.onprem.rollout.plugins.plugin_utils._replan import changes, inputs_of
from ansible_collections.onprem.rollout.plugins.plugin_utils._stage import Settings, WorkerDied
from ansible_collections.onprem.rollout.plugins.plugin_utils._standing import Reason, Standing, reason, standing_of

display = Display()

ATTEMPTS = 3
LAST_CHANCE = 15.0  # seconds that the end of a run is tried to be written
INTERRUPTED = 99  # what ansible-playbook exits with after a Ctrl-C


class StrategyModule(HostPinned):
    _core: Core
    _driver: Driver
    _inputs: _inputs.Inputs
    _journal: Journal | None = None
    _reason: tuple[Reason, str] | None = None
    _digest = ""
    _standing = Standing("")
    _sound = True
    _asking = False

    def run(self, iterator: Any, play_context: Any) -> int:
        self.play_context = play_context
        self._core = Core(self, iterator)
        self._inputs, problems = _inputs.read(self._core)
        if problems:
            raise AnsibleError(render(problems))
        if self._inputs.verb == "status" and self._inputs.ledger != _ledgers.default_place():
            self._require_ledger()
        conductor, release = Conductor(self._inputs.plan), release_digest(self._inputs.release)
        self._digest = "" if self._inputs.verb == "status" else digest(self._inputs.plan, release)
        decisions = None
        if self._inputs.verb == "upgrade" and not self._core.check_mode:
            self._journal = self._open_journal(release)
            user = _ledgers.user(self._core.variables(self._core.hosts[0]))
            decisions = Decisions(
                conductor, self._journal, self._tell, self._inputs.max_wait, time.monotonic, time.time, self._inputs.gates, self._digest, user
            )  # fmt: skip
        self._driver = Driver(
            conductor,
            self._core,
            release,
            self._tell,
            Settings(
                self._inputs.reconnect_timeout,
                retry_failed=self._inputs.retry_failed,
                renew_interval=self._inputs.lease / 3,
                max_wait=self._inputs.max_wait,
            ),
            look_only=self._inputs.verb != "upgrade",
            attend=(lambda: decisions.attend(self._driver.asked)) if decisions else None,
        )
        self._commands = Commands(sys.argv, self._core.playbooks)
        self._core.listen(self._driver.report, self._last_words)
        self._exit_code = 1
        for note in self._inputs.notes:
            display.warning(note)
        if self._inputs.verb == "upgrade":
            self._say(f"{'CHECK MODE: ' if self._core.check_mode else ''}rollout of {_story.headline(self._inputs.plan)}")
            for line in _story.fork_lines(self._inputs.plan, self._core.width):
                self._say(line)
        before = self._end_as_by_ctrl_c()
        try:
            code = self._run_to_the_end(iterator, play_context)
        except KeyboardInterrupt:
            self._exit_code = INTERRUPTED
            self._note_end("interrupted")
            self._last_words()
            raise
        except AnsibleError:
            self._note_end("failed")
            self._last_words()
            raise
        finally:
            if decisions:
                decisions.close()
            if before is not None:
                signal.signal(signal.SIGTERM, before)
        self._driver.withdraw_rest()
        self._core.restrict(self._core.hosts)
        wanted = self._driver.wanted
        if self._inputs.verb == "status":
            wanted = _status.wanted(self._reason, self._standing, self._driver.runs) if self._sound else "failed"
        code = self._core.exit_code(code, wanted)
        self._exit_code = 2 if wanted == "halted" else code
        self._note_end(wanted)
        self._core.publish("onprem_rollout", self._summary())
        if self._inputs.json_file:
            self._write_json(self._inputs.json_file)
        return code

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
            self._reason, self._digest = reason(self._standing, lambda run: free or is_gone(run)), self._standing.plan
        except (LedgerError, BrokenChain) as error:
            self._reason = Reason.LEDGER, f"the ledger {ledger.name} cannot be believed: {error}; ask the verb audit"
        return [*lines, *_status.first_lines(self._standing.rollout or rollout, self._reason, self._digest)]

    @staticmethod
    def _stands(ledger: Ledger, rollout: str) -> tuple[Standing, bool]:
        """How the rollout stands, and whether no run has it. A run that ended after the ledger was read is no run that died."""
        standing = standing_of(ledger.entries(), rollout) or Standing(rollout)
        free = bool(standing.rollout) and not ledger.lease(standing.rollout).taken()
        return (standing_of(ledger.entries(), rollout) or standing) if standing.at_work and free else standing, free

    def _open_journal(self, release: str) -> Journal:
        """The ledger, with the start of this run in it; a rollout that nobody could account for, or that is not the one that began, does not go on."""
        ledger, plan = self._open_ledger(), self._inputs.plan
        journal = Journal(ledger, f"{plan.release.name}-{plan.release.version}", time.monotonic)
        try:
            journal.open()
        except (LedgerError, BrokenChain) as error:
            raise AnsibleError(f"rollout_ledger: {ledger.name}: {error}. No host was touched") from error
        inputs, open_run = inputs_of(plan, release), journal.standing.unfinished
        changed = changes(open_run.data["inputs"], inputs, self._core.limited or bool(open_run.data.get("limited"))) if open_run else []
        if changed and not self._inputs.replan:
            raise AnsibleError(
                f"The inputs of {plan.release.label} changed since its run of {stamp(open_run.at if open_run else 0)}, which did not bring it to its end:\n  "
                + "\n  ".join(changed) + "\nNo host was touched. Take that back, or go on with the new plan: --extra-vars rollout_replan=true"
            )  # fmt: skip
        by = _ledgers.user(self._core.variables(self._core.hosts[0]))
        since = journal.standing.since or journal.head.number + 1
        run, limited = _holder.run_of(os.getpid()), self._core.limited
        journal.note("started", plan=self._digest, by=by, inputs=inputs, replanned=changed, run=run, since=since, limited=limited)
        if not journal.flush():
            raise AnsibleError(f"rollout_ledger: {journal.trouble}. No host was touched")
        _anchor.drop(journal.head)
        return journal

    def _note_end(self, how: str) -> None:
        if self._journal is not None:
            halt = self._driver.conductor.halt
            self._journal.note("finished", how=how, why=halt.value if halt else "", paused=self._driver.conductor.paused, limited=self._core.limited)
            if not self._journal.flush(at_once=True):
                display.warning(f"{self._journal.trouble}. The end of this run is to be written there; that is tried for {LAST_CHANCE:.0f} s")
            if not self._journal.flush_within(LAST_CHANCE):
                display.warning(f"{self._journal.trouble}. What this run did is in the hosts' records; its end is not in the ledger")
            self._journal.close()

    def _run_to_the_end(self, iterator: Any, play_context: Any) -> Any:
        """Core ends a whole run for an error in one included file or a killed worker. Then the hosts in change still get their rescue."""
        why = ""
        for _attempt in range(ATTEMPTS):
            try:
                return super().run(iterator, play_context)
            except (AnsibleError, WorkerDied) as error:
                why = str(error)
            self._core.give_up_tasks()
            if self._inputs.verb != "upgrade":
                raise AnsibleError(f"the hosts could not be asked: {why}. Nothing was changed: run it again")
            display.error(why)
            self._driver.abort(f"the run failed: {why}")
        raise AnsibleError(f"{why}; given up after {ATTEMPTS} times. The next upgrade settles the hosts that are half done")

    def _end_as_by_ctrl_c(self) -> Any:
        """A job that is cancelled is told by SIGTERM; core would leave without a word. Returns what was there before."""
        if threading.current_thread() is not threading.main_thread():
            return None
        main = os.getpid()

        def end(number: int, frame: Any) -> None:
            interrupt = signal.getsignal(signal.SIGINT)  # core's own from 2.18 on: it tells the workers
            if os.getpid() == main and callable(interrupt):
                interrupt(signal.SIGINT, frame)
            else:
                signal.signal(number, signal.SIG_DFL)
                os.kill(os.getpid(), number)

        return signal.signal(signal.SIGTERM, end)

    def _execute_meta(self, task: Any, play_context: Any, iterator: Any, target_host: Any) -> Any:
        answer = super()._execute_meta(task, play_context, iterator, target_host)
        if task.args.get("_raw_params") == "refresh_inventory":
            self._core.recognise_hosts()
        return answer

    def _queue_task(self, host: Any, task: Any, task_vars: dict[str, Any], play_context: Any) -> None:
        if self._core.is_unneeded(task, task_vars):
            self._core.pass_over(host.get_name())
        else:
            super()._queue_task(host, task, task_vars, play_context)

    def get_hosts_left(self, iterator: Any) -> list[Any]:
        """The seam: whoever is in this list may receive tasks. What was decided is in the ledger before it is done."""
        if self._asking and self._inputs.verb == "upgrade":
            _light.prepare()
        self._asking = True
        hosts = self._driver.hosts_left()
        if self._journal is not None:
            self._journal.flush()
            _anchor.drop(self._journal.head)
        return self._core.as_list(hosts)

    # --- what people read ---

    def _tell(self, event: Event) -> None:
        if event.kind == "asked":
            self._asked()
        if self._journal is not None:
            self._journal.hear(event)
        line = _story.event_line(event, self._driver.conductor, self._driver.runs)
        if line and self._inputs.verb == "upgrade":
            self._say(line)

    def _asked(self) -> None:
        conductor, runs = self._driver.conductor, self._driver.runs
        if self._inputs.verb == "status":
            lines = self._remembered(runs)
            display.display("\n".join([*lines, *_status.status_lines(self._inputs.plan, self._standing, runs, is_gone, self._commands)]))
        elif self._inputs.verb == "plan":
            lines = _story.plan_lines(self._inputs.plan, runs, conductor.states(), self._commands)
            lines += [_story.digest_line(self._inputs.plan, self._digest, self._commands), *_story.fork_lines(self._inputs.plan, self._core.width)]
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
            host: {"state": str(state), "why": self._driver.runs[host].why or self._driver.runs[host].dark,
                   "installed": self._driver.runs[host].record.get("installed")}
            for host, state in self._driver.conductor.states().items()
        }  # fmt: skip
        halt = self._driver.conductor.halt
        return {
            "verb": self._inputs.verb,
            "plan": {**as_data(self._inputs.plan), "digest": self._digest},
            "hosts": hosts,
            "halted": halt.value if halt else None,
            "reason": dict(zip(("kind", "value"), map(str, self._reason), strict=True)) if self._reason else None,
            **(_status.status_data(self._standing) if self._inputs.verb == "status" else {}),
        }

    def _last_words(self) -> None:
        if self._inputs.verb == "upgrade":
            lines = _story.verdict_lines(self._driver.conductor, self._driver.runs, self._commands, self._exit_code)
            display.display("\n" + "\n".join(lines))

    def _say(self, line: str) -> None:
        display.display(f"{time.strftime('%H:%M:%S')} {line}")
