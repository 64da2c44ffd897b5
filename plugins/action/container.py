# Copyright: onprem.rollout contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Action plugin container: verifies an image archive of the controller, brings it to hosts that lack the image, and runs the module."""

from __future__ import annotations

import shlex
from typing import Any

from ansible_collections.onprem.rollout.plugins.module_utils import _podman
from ansible_collections.onprem.rollout.plugins.module_utils._errors import Refused
from ansible_collections.onprem.rollout.plugins.plugin_utils._delivery import ArtifactAction


class ActionModule(ArtifactAction):
    verb = "container"

    def _has(self, arguments: dict[str, Any]) -> bool:
        """Whether podman on the host has the image."""
        try:
            image = _podman.at(_podman.parse(str(arguments.get("image", ""))))
        except Refused:
            return True  # the module says why, and that needs no transfer
        return bool(self._low_level_execute_command(f"podman image exists {shlex.quote(image)}").get("rc") == 0)
