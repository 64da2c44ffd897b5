# Copyright: onprem.rollout contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Action plugin commit: the module of this name, run over a new connection. See the module's docs."""

from __future__ import annotations

from typing import Any

from ansible_collections.onprem.rollout.plugins.plugin_utils import _withheld
from ansible_collections.onprem.rollout.plugins.plugin_utils._action import HostAction


class ActionModule(HostAction):
    verb = "commit"
    fresh = True
    anchored = True

    def run(self, tmp: Any = None, task_vars: dict[str, Any] | None = None) -> dict[str, Any]:
        withheld = _withheld.reason((task_vars or {}).get("inventory_hostname", ""))
        if withheld:
            return {"failed": True, "blameless": True, "msg": withheld}
        return super().run(tmp, task_vars)
