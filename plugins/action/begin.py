# Copyright: onprem.rollout contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Action plugin begin: the module of this name, with the release reduced to its identity. See the module's docs."""

from __future__ import annotations

from typing import Any

from ansible.utils.display import Display

from ansible_collections.onprem.rollout.plugins.plugin_utils import _waivers
from ansible_collections.onprem.rollout.plugins.plugin_utils._action import HostAction, with_identity

display = Display()


class ActionModule(HostAction):
    verb = "begin"
    anchored = True
    _host = ""

    def run(self, tmp: Any = None, task_vars: dict[str, Any] | None = None) -> dict[str, Any]:
        self._host = str((task_vars or {}).get("inventory_hostname", ""))
        result = super().run(tmp, task_vars)
        if result.get("outcome") == "skipped":
            host, release = (task_vars or {}).get("inventory_hostname"), self._task.args.get("release") or {}
            display.display(f"{host}: runs {release.get('name')} {release.get('version')} already, nothing to do")
        return result

    def arguments(self, given: dict[str, Any]) -> dict[str, Any]:
        waiver = _waivers.of(self._host)
        return with_identity(super().arguments({**({"waiver": dict(waiver)} if waiver else {}), **given}))
