# Copyright: onprem.rollout contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""What a snapshot provider is told, checked before any host is touched. The host checks again what only it can know."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from ansible_collections.onprem.rollout.plugins.module_utils import _hooks
from ansible_collections.onprem.rollout.plugins.plugin_utils._policy import Problem

TOLD: dict[str, Any] = {
    "rollout_provider": "files",
    "rollout_provider_commands": {},
    "rollout_cross_mounts": False,
    "rollout_exclude": [],
    "rollout_step_timeout": 300,
}
MISFITS = {"rollout_cross_mounts": ("btrfs", "command"), "rollout_exclude": ("command",)}


def problems(told: Mapping[str, Any], where: str) -> list[Problem]:
    """What the programs of the provider command lack, and what does not go together with a provider. C(told) has the keys of TOLD."""
    provider, step = told["rollout_provider"], str(told["rollout_step_timeout"])
    found = [
        Problem(f"{where}{name}", told[name], f"does not go together with rollout_provider: {provider}; take one away")
        for name, providers in MISFITS.items()
        if provider in providers and told[name]
    ]
    if provider != "command":
        return found
    commands, name = told["rollout_provider_commands"], f"{where}rollout_provider_commands"
    found += [Problem(name, "", text) for text in _hooks.problems(commands)]
    timeout = str(commands.get("timeout", _hooks.TIMEOUT)) if isinstance(commands, Mapping) else ""
    if timeout.isdigit() and step.isdigit() and int(timeout) >= int(step):
        found.append(Problem(name, f"timeout: {timeout}", f"must be shorter than rollout_step_timeout ({step} s), which would cut the programs off"))
    return found
