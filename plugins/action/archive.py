# Copyright: onprem.rollout contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Action plugin archive: verifies an artifact of the controller, brings it to hosts that lack it, and runs the module."""

from __future__ import annotations

import json
import os
import shlex
from typing import Any

from ansible_collections.onprem.rollout.plugins.module_utils._releases import Releases
from ansible_collections.onprem.rollout.plugins.plugin_utils._delivery import ArtifactAction


class ActionModule(ArtifactAction):
    verb = "archive"

    def _has(self, arguments: dict[str, Any]) -> bool:
        """Whether the host has this release unpacked."""
        version, dest = str(arguments.get("version", "")), str(arguments.get("dest", ""))
        if not Releases.named(version) or not os.path.isabs(dest):
            return False
        releases = Releases(dest)
        answer = self._low_level_execute_command(f"test -d {shlex.quote(releases.path(version))} && cat {shlex.quote(releases.marker_path(version))}")
        try:
            marker = json.loads(answer.get("stdout") or "null") if answer.get("rc") == 0 else None
            wanted = (arguments.get("sha256"), int(arguments.get("strip") or 0))
        except ValueError:
            return False
        return isinstance(marker, dict) and (marker.get("sha256"), marker.get("strip")) == wanted
