# Copyright: onprem.rollout contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Callback plugin waves: conducts a rollout whose tasks ansible-core's own strategy runs; see DOCUMENTATION."""

from __future__ import annotations

DOCUMENTATION = r"""
name: waves
type: aggregate
short_description: Conducts a rollout of the engine linear
version_added: 0.1.0
author: onprem.rollout contributors
description:
  - With C(rollout_engine=linear) the playbook C(onprem.rollout.upgrade) loads it by itself; nothing is to be enabled.
  - Before each batch it waits for what the plan and the operators want, and lets the batch begin or not. Before its commits it lets it soak.
    It writes the ledger and the verdict.
  - It stays away from all other plays.
seealso:
  - plugin: onprem.rollout.staged
    plugin_type: strategy
"""

from typing import Any

from ansible.errors import AnsibleError
from ansible.plugins.callback import CallbackBase
from ansible.utils.display import Display

from ansible_collections.onprem.rollout.plugins.plugin_utils import _linear
from ansible_collections.onprem.rollout.plugins.plugin_utils._core_input import PlayInput
from ansible_collections.onprem.rollout.plugins.plugin_utils._report import verb_of

display = Display()

PART = "__rollout_part"  # a variable of the plays that are ours


class CallbackModule(CallbackBase):
    CALLBACK_VERSION = 2.0
    CALLBACK_TYPE = "aggregate"
    CALLBACK_NAME = "onprem.rollout.waves"
    CALLBACK_NEEDS_ENABLED = False

    def __init__(self) -> None:
        super().__init__()
        self._engine: _linear.Engine | None = None
        self._earlier: list[_linear.Engine] = []

    def v2_playbook_on_play_start(self, play: Any) -> None:
        part = play.vars.get(PART)
        if part is None:
            return
        try:
            core = PlayInput(play, play.get_variable_manager(), play.get_variable_manager()._inventory, play.get_loader())
            if part == "ask":
                self._earlier += [self._engine] if self._engine else []
                self._engine = _linear.begin(core)
            elif self._engine is not None:
                self._engine.begin_batch(part, core.hosts)
        except AnsibleError as error:
            self._leave(str(error))
        except Exception as error:  # core would only warn, and go on
            self._leave(f"{type(error).__name__}: {error}")

    def _leave(self, why: str) -> None:
        """Nobody is in change between two batches, so the run ends here, as it does for any error outside of a task."""
        display.error(why, wrap_text=False)
        raise SystemExit(1)

    def v2_playbook_on_task_start(self, task: Any, is_conditional: bool) -> None:
        if self._engine is not None and verb_of(task) == "commit":
            self._engine.before_commits()

    def v2_runner_on_ok(self, result: Any) -> None:
        self._hear("ok", result)

    def v2_runner_on_failed(self, result: Any, ignore_errors: bool = False) -> None:
        self._hear("ignored" if ignore_errors else "failed", result)

    def v2_runner_on_unreachable(self, result: Any) -> None:
        self._hear("unreachable", result)

    def v2_runner_on_skipped(self, result: Any) -> None:
        self._hear("skipped", result)

    def _hear(self, kind: str, result: Any) -> None:
        if self._engine is not None:
            self._engine.hear(kind, result)

    def v2_playbook_on_stats(self, stats: Any) -> None:
        codes = [engine.end() for engine in (*self._earlier, self._engine) if engine]
        self._engine, self._earlier = None, []
        if codes and codes[-1] is not None:
            raise SystemExit(codes[-1])
