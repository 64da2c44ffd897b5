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

from typing import Any

from ansible.errors import AnsibleError
from ansible.plugins.strategy.host_pinned import StrategyModule as HostPinned
from ansible.utils.display import Display

from ansible_collections.onprem.rollout.plugins.plugin_utils import _core, _light
from ansible_collections.onprem.rollout.plugins.plugin_utils._account import INTERRUPTED, Account
from ansible_collections.onprem.rollout.plugins.plugin_utils._conductor import Conductor
from ansible_collections.onprem.rollout.plugins.plugin_utils._core import Core
from ansible_collections.onprem.rollout.plugins.plugin_utils._driver import Driver
from ansible_collections.onprem.rollout.plugins.plugin_utils._interrupt import Interrupt
from ansible_collections.onprem.rollout.plugins.plugin_utils._plan import without_soaks
from ansible_collections.onprem.rollout.plugins.plugin_utils._stage import WorkerDied

display = Display()

ATTEMPTS = 3


class StrategyModule(Account, HostPinned):
    _core: Core
    _driver: Driver
    _asking = False

    def run(self, iterator: Any, play_context: Any) -> int:
        self.play_context = play_context
        self._take_in(Core(self, iterator), "staged")
        conductor = Conductor(without_soaks(self._inputs.plan) if self._core.check_mode else self._inputs.plan)
        self._begin(conductor)
        decisions = self._decisions
        attend = (lambda: decisions.attend(self._driver.asked)) if decisions else None
        self._driver = Driver(conductor, self._core, self._release, self._tell, self._settings, look_only=not self._changes, attend=attend)
        self._core.listen(self._driver.report, self._last_words)
        self._announce(self._core.width)
        interrupt = Interrupt()
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
            self._close()
            interrupt.forget()
        self._driver.withdraw_rest()
        self._core.restrict(self._core.hosts)
        wanted = self._wanted
        code = self._core.exit_code(code, wanted)
        self._exit_code = 2 if wanted == "halted" else code
        self._note_end(wanted)
        self._core.publish("onprem_rollout", self._summary())
        if self._inputs.json_file:
            self._write_json(self._inputs.json_file)
        return code

    def _run_to_the_end(self, iterator: Any, play_context: Any) -> Any:
        """Core ends a whole run for an error in one included file or a killed worker. Then the hosts in change still get their rescue."""
        why = ""
        for _attempt in range(ATTEMPTS):
            try:
                return super().run(iterator, play_context)
            except (AnsibleError, WorkerDied) as error:
                why = str(error)
            self._core.give_up_tasks()
            if not self._changes:
                raise AnsibleError(f"the hosts could not be asked: {why}. Nothing was changed: run it again")
            display.error(why)
            self._driver.abort(f"the run failed: {why}")
        raise AnsibleError(f"{why}; given up after {ATTEMPTS} times. The next upgrade settles the hosts that are half done")

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

    def add_tqm_variables(self, variables: dict[str, Any], play: Any) -> None:
        add = super().add_tqm_variables
        variables.update(self._core.lists_of_hosts(lambda lists: add(lists, play)))

    def get_hosts_left(self, iterator: Any) -> list[Any]:
        """The seam: whoever is in this list may receive tasks. What was decided is in the ledger before it is done."""
        if self._asking and self._changes:
            _light.prepare()
            _core.prepare()
        self._asking = True
        hosts = self._driver.hosts_left()
        self._write_down()
        return self._core.as_list(hosts)
