# Copyright: onprem.rollout contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Action plugin retry: lets a payload that asks for it be run again later. See the module's docs."""

from __future__ import annotations

import os
import time
from collections.abc import Mapping
from typing import Any

from ansible.errors import AnsibleActionFail

from ansible_collections.onprem.rollout.plugins.plugin_utils import _light
from ansible_collections.onprem.rollout.plugins.plugin_utils._action import HostAction
from ansible_collections.onprem.rollout.plugins.plugin_utils._holder import holder
from ansible_collections.onprem.rollout.plugins.plugin_utils._story import span

LATER = 21  # what a payload exits with when it is to be run again later
STAGED = "onprem.rollout.staged"


class ActionModule(HostAction):
    verb = "retry"

    def run(self, tmp: Any = None, task_vars: dict[str, Any] | None = None) -> dict[str, Any]:
        result: dict[str, Any] = super(HostAction, self).run(tmp, task_vars)
        arguments = dict(self._task.args)
        failure, last = dict(arguments.pop("failure", None) or {}), arguments.pop("last", None) or {}
        wait, limit = float(arguments.pop("wait", 60)), float(arguments.pop("limit", 1800))
        if not failure:
            return {"failed": True, "unexplained": True, "msg": "The payload failed, and Ansible kept no result of it: see the error above"}
        if not asks_for_later(failure):
            return {**failure, "failed": True}
        now = time.monotonic()
        first = float(last["first"]) if last.get("transaction") == arguments.get("transaction") and "first" in last else now
        if now - first + wait > limit:
            msg = f"The payload asked to be run again later (exit {LATER}), for {span(limit)} by now, so it counts as failed: {failure.get('msg')}"
            return {**failure, "failed": True, "msg": msg}
        run = holder((task_vars or {}).get("inventory_hostname", ""), task_vars)
        kept = _light.run(self, self.verb, {"holder": run, **arguments, "wait": wait}, task_vars or {})
        result.update(kept, first=first, transaction=arguments.get("transaction"), wait=wait)
        if not kept.get("failed") and self._task.get_play().strategy != STAGED:
            self._sleep(wait)
            result["wait"] = 0.0
        return result

    def _sleep(self, wait: float) -> None:
        """Only under a strategy that cannot hold one host back; and not longer than ansible-playbook lives."""
        parent, until = os.getppid(), time.monotonic() + wait
        while time.monotonic() < until:
            time.sleep(min(0.25, max(until - time.monotonic(), 0)))
            if os.getppid() != parent:
                raise AnsibleActionFail("The ansible-playbook of this task is gone. The next run settles this host; the payload is not run again.")


def asks_for_later(failure: Mapping[str, Any]) -> bool:
    """Whether a failed task, or every failed item of a loop, exited with LATER."""
    items = [item for item in failure.get("results") or [] if isinstance(item, Mapping) and item.get("failed")]
    return all(item.get("rc") == LATER for item in items) if items else failure.get("rc") == LATER
