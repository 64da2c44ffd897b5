# Copyright: onprem.rollout contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Action plugin traffic: the module of this name, run for this ansible-playbook. See the module's docs."""

from __future__ import annotations

from ansible_collections.onprem.rollout.plugins.plugin_utils._action import HostAction


class ActionModule(HostAction):
    verb = "traffic"
