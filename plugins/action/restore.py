# Copyright: onprem.rollout contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Action plugin restore: the module of this name, run over a new connection. See the module's docs."""

from __future__ import annotations

from ansible_collections.onprem.rollout.plugins.plugin_utils._action import HostAction


class ActionModule(HostAction):
    verb = "restore"
    fresh = True
    anchored = True
