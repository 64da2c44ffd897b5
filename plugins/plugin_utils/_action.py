# Copyright: onprem.rollout contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""What the action plugins of the host transaction have in common: they run the module of their name, and say for whom."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from ansible.plugins.action import ActionBase

from ansible_collections.onprem.rollout.plugins.plugin_utils import _anchor, _light
from ansible_collections.onprem.rollout.plugins.plugin_utils._holder import holder
from ansible_collections.onprem.rollout.plugins.plugin_utils._policy import release_digest


class HostAction(ActionBase):
    """Run the module C(onprem.rollout.<verb>) on the host with O(holder) set to this run.

    fresh: over a new connection, because one kept from before the change may outlive a broken network path, or hang in it.
    anchored: the host keeps the head of the ledger.
    """

    verb: str
    fresh = False
    anchored = False

    def run(self, tmp: Any = None, task_vars: dict[str, Any] | None = None) -> dict[str, Any]:
        result: dict[str, Any] = super().run(tmp, task_vars)
        if self.fresh:
            renew(self._connection, _light.can_be_light(self))
        arguments = self.arguments({"holder": holder((task_vars or {}).get("inventory_hostname", ""), task_vars), **self._task.args})
        result.update(_light.run(self, self.verb, arguments, task_vars or {}))
        return result

    def arguments(self, given: dict[str, Any]) -> dict[str, Any]:
        """The module's arguments; an O(holder) that the task gives stays, so that a test can be somebody else."""
        head = _anchor.current()
        return {"anchor": head._asdict(), **given} if self.anchored and head.number else given


def renew(connection: Any, once: bool) -> None:
    """What runs next makes a connection of its own. If that is one command, it costs less to go past the shared one of OpenSSH than to end it."""
    if connection.transport == "ssh" and once:
        connection.set_option("ssh_args", f"-o ControlMaster=no -o ControlPath=none {connection.get_option('ssh_args')}")
    elif connection.transport != "local":  # up to core 2.18 that one warns that it has nothing to reset
        connection.reset()


def with_identity(given: dict[str, Any]) -> dict[str, Any]:
    """The host keeps who the release is, not its artifacts and variables, which may hold secrets."""
    release = given.get("release")
    if isinstance(release, Mapping):
        digest = release.get("digest") or release_digest(release)
        floor = {key: release[key] for key in ("epoch", "vulnerable") if release.get(key)}
        given["release"] = {"name": release.get("name"), "version": release.get("version"), "digest": digest, **floor}
    return given
