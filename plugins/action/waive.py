# Copyright: onprem.rollout contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Action plugin waive: signs a waiver on the controller. See the module's docs."""

from __future__ import annotations

import os
import time
import uuid
from typing import Any

from ansible.errors import AnsibleActionFail
from ansible.plugins.action import ActionBase
from ansible.utils.display import Display

from ansible_collections.onprem.rollout.plugins.plugin_utils import _ledgers, _signatures, _waivers
from ansible_collections.onprem.rollout.plugins.plugin_utils._policy import Problem, parse_release, release_digest
from ansible_collections.onprem.rollout.plugins.plugin_utils._verbs import end_of

display = Display()


class ActionModule(ActionBase):
    _requires_connection = False

    def run(self, tmp: Any = None, task_vars: dict[str, Any] | None = None) -> dict[str, Any]:
        result: dict[str, Any] = super().run(tmp, task_vars)
        _validation, options = self.validate_argument_spec(
            {
                "directory": {"type": "path", "required": True},
                "release": {"type": "dict", "required": True},
                "hosts": {"type": "list", "elements": "str", "required": True},
                "why": {"type": "str", "required": True},
                "expires": {"type": "str", "required": True},
                "key": {"type": "path", "required": True},
                "by": {"type": "str", "default": ""},
            }
        )
        problems = problems_of(options, time.time())
        if problems:
            rows = [f"  {number}. {problem}" for number, problem in enumerate(problems, 1)]
            raise AnsibleActionFail("\n".join(["Nothing was waived:", *rows]))
        release = options["release"]
        waiver = {
            "id": uuid.uuid4().hex,
            "by": options["by"] or _ledgers.user(task_vars or {}),
            "why": " ".join(options["why"].split()),
            "expires": options["expires"],
            "hosts": options["hosts"],
            "release": {"name": release["name"], "version": release["version"], "digest": release_digest(release)},
        }
        path = os.path.join(options["directory"], f"{waiver['id']}.json")
        if not self._task.check_mode:
            try:
                _waivers.write(path, waiver, options["key"])
            except _signatures.CannotAsk as error:
                raise AnsibleActionFail(f"{error}. Nothing was waived") from error
        display.display(
            f"{release['name']} {release['version']} may go below the floor of {', '.join(options['hosts'])}, once, until {options['expires']}: {path}"
        )
        return {**result, "changed": True, "waiver": waiver, "path": path}


def problems_of(options: dict[str, Any], now: float) -> list[Problem]:
    _release, problems = parse_release(options["release"])
    if not options["why"].strip():
        problems.append(Problem("rollout_why", options["why"], "say why: the ledger and the host keep it"))
    if not options["hosts"]:
        problems.append(Problem("hosts", [], "name the hosts"))
    why, end = end_of(options["expires"])
    if why or end <= now:
        problems.append(Problem("rollout_expires", options["expires"], why or "is past; write when it ends"))
    return problems
