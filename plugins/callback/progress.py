# Copyright: onprem.rollout contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Callback plugin: one line for each event that matters; see DOCUMENTATION."""

from __future__ import annotations

DOCUMENTATION = r"""
name: progress
type: stdout
short_description: Shows a rollout as one line for each event that matters
version_added: 0.1.0
author: onprem.rollout contributors
description:
  - Leaves out tasks that went well, so that the lines of P(onprem.rollout.staged#strategy) can be read as they come.
  - Every failure and every unreachable host is shown, in one line. With C(-v) everything is shown as by P(ansible.builtin.default#callback).
extends_documentation_fragment:
  - ansible.builtin.default_callback
  - ansible.builtin.result_format_callback
requirements:
  - set as stdout_callback in ansible.cfg or by E(ANSIBLE_STDOUT_CALLBACK)
"""

from typing import Any

from ansible import constants as C
from ansible.plugins.callback.default import CallbackModule as Default

from ansible_collections.onprem.rollout.plugins.plugin_utils._story import clean


class CallbackModule(Default):
    CALLBACK_VERSION = 2.0
    CALLBACK_TYPE = "stdout"
    CALLBACK_NAME = "onprem.rollout.progress"

    @property
    def _loud(self) -> bool:
        return bool(self._display.verbosity)

    def v2_runner_on_failed(self, result: Any, ignore_errors: bool = False) -> None:
        if self._loud:
            super().v2_runner_on_failed(result, ignore_errors=ignore_errors)
        elif not ignore_errors:
            self._line("failed", result, C.COLOR_ERROR)

    def v2_runner_on_unreachable(self, result: Any) -> None:
        if self._loud:
            super().v2_runner_on_unreachable(result)
        else:
            self._line("unreachable", result, C.COLOR_UNREACHABLE)

    def _line(self, what: str, result: Any, color: str) -> None:
        data = result.result if hasattr(result, "result") else result._result
        host = result.host if hasattr(result, "host") else result._host
        self._display.display(f"           {what}: {clean(host.get_name())}: {result.task_name}: {clean(data.get('msg', ''))}", color=color)

    def v2_runner_on_ok(self, result: Any) -> None:
        if self._loud:
            super().v2_runner_on_ok(result)

    def v2_runner_on_skipped(self, result: Any) -> None:
        if self._loud:
            super().v2_runner_on_skipped(result)

    def v2_runner_item_on_ok(self, result: Any) -> None:
        if self._loud:
            super().v2_runner_item_on_ok(result)

    def v2_runner_item_on_skipped(self, result: Any) -> None:
        if self._loud:
            super().v2_runner_item_on_skipped(result)

    def v2_playbook_on_task_start(self, task: Any, is_conditional: bool) -> None:
        if self._loud:
            super().v2_playbook_on_task_start(task, is_conditional)

    def v2_playbook_on_handler_task_start(self, task: Any) -> None:
        if self._loud:
            super().v2_playbook_on_handler_task_start(task)

    def v2_playbook_on_include(self, included_file: Any) -> None:
        if self._loud:
            super().v2_playbook_on_include(included_file)

    def v2_playbook_on_play_start(self, play: Any) -> None:
        if self._loud:
            super().v2_playbook_on_play_start(play)

    def v2_playbook_on_stats(self, stats: Any) -> None:
        if self._loud:
            super().v2_playbook_on_stats(stats)
