# Copyright: onprem.rollout contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""What the tasks of a play report, in the same shape from every version of core. Callbacks get it as C(_result) up to 2.18, later as C(result)."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

from ansible.plugins.callback import CallbackBase

from ansible_collections.onprem.rollout.plugins.module_utils._fence import VARIABLE

PREFIX = "onprem.rollout."
ASKED = "__onprem_rollout_asked"
INCLUDES = ("include_role", "include_tasks")


class Report:
    """The result of one task on one host, in the same shape from every version of core."""

    def __init__(self, kind: str, result: Any) -> None:
        self.host: str = (result.host if hasattr(result, "host") else result._host).get_name()
        self.data: Mapping[str, Any] = result.result if hasattr(result, "result") else result._result
        task = result.task if hasattr(result, "task") else result._task
        self.kind = "ignored" if kind == "unreachable" and task.ignore_unreachable else kind
        self.task: str = task.get_name()
        self.verb = verb_of(task)
        self.asked = bool((task.vars or {}).get(ASKED))
        self.payload: str = "" if not in_payload(task) else "include" if str(task.action).rpartition(".")[2] in INCLUDES else "task"


def in_payload(task: Any) -> bool:
    """Every task of a payload inherits the variable by which a restore finds the processes that it left."""
    return any(isinstance(item, Mapping) and VARIABLE in item for item in task.environment or [])


def verb_of(task: Any) -> str:
    """R("commit") for a task of our C(commit), R("") for a task of anybody else."""
    action = getattr(task, "resolved_action", None) or task.action
    return str(action)[len(PREFIX) :] if str(action).startswith(PREFIX) else ""


class Listener(CallbackBase):
    """Hands every task's result, and the end of the run, to the strategy."""

    CALLBACK_VERSION = 2.0
    CALLBACK_TYPE = "aggregate"
    CALLBACK_NAME = "onprem.rollout.listener"

    def __init__(self, report: Callable[[Report], None], last_words: Callable[[], None]) -> None:
        super().__init__()
        self._report = report
        self._last_words = last_words

    def v2_runner_on_ok(self, result: Any) -> None:
        self._report(Report("ok", result))

    def v2_runner_on_failed(self, result: Any, ignore_errors: bool = False) -> None:
        self._report(Report("ignored" if ignore_errors else "failed", result))

    def v2_runner_on_unreachable(self, result: Any) -> None:
        self._report(Report("unreachable", result))

    def v2_runner_on_skipped(self, result: Any) -> None:
        self._report(Report("skipped", result))

    def v2_playbook_on_stats(self, stats: Any) -> None:
        self._last_words()
