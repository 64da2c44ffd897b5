# Copyright: onprem.rollout contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Action plugin drill: the module of this name, with the release reduced to its identity. See the module's docs."""

from __future__ import annotations

from typing import Any

from ansible_collections.onprem.rollout.plugins.plugin_utils._action import HostAction, with_identity


class ActionModule(HostAction):
    verb = "drill"

    def arguments(self, given: dict[str, Any]) -> dict[str, Any]:
        return with_identity(super().arguments(given))
