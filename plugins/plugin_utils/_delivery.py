# Copyright: onprem.rollout contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""What the actions of the built-in payloads share: an artifact of the controller is verified, brought to hosts that lack it, and installed by the module."""

from __future__ import annotations

import os
from abc import abstractmethod
from pathlib import Path
from typing import Any

from ansible import constants
from ansible.errors import AnsibleActionFail, AnsibleError
from ansible.plugins.action import ActionBase

from ansible_collections.onprem.rollout.plugins.plugin_utils import _artifact, _light

INLINE = 1 << 20  # bytes of an artifact that go to the host with the module instead of by a transfer of their own
SMALL = 1 << 17  # bytes of one that is sent without asking first whether the host has it: the question costs more


class ArtifactAction(ActionBase):
    """verb: the module."""

    verb = ""
    _requires_connection = True
    _supports_async = False

    @abstractmethod
    def _has(self, arguments: dict[str, Any]) -> bool:
        """Whether the host needs no artifact, by at most one raw command; when in doubt no, the module looks again."""

    def run(self, tmp: Any = None, task_vars: dict[str, Any] | None = None) -> dict[str, Any]:
        result: dict[str, Any] = super().run(tmp, task_vars)
        arguments = dict(self._task.args)
        path = arguments.pop("path", None)
        parent = os.getppid()
        attachment = None
        try:
            if path:
                source = self._verified(str(path), arguments)
                inline = os.path.getsize(source) <= INLINE and _light.possible(self, self.verb, arguments, task_vars or {})
                asks = not inline or os.path.getsize(source) > SMALL
                if not self._task.check_mode and not (asks and self._has(arguments)):
                    if inline:
                        attachment = ("src", Path(source).read_bytes())
                    else:
                        arguments["src"] = self._transfer(source)
            # Since ansible-core 2.18 workers have a session of their own: one may outlive a killed ansible-playbook in a
            # long transfer, and would then change a host that the next run has settled already.
            if os.getppid() != parent:
                raise AnsibleActionFail("The ansible-playbook of this task is gone. The next run settles this host; nothing was installed.")
            result.update(_light.run(self, self.verb, arguments, task_vars or {}, attachment))
        finally:
            self._remove_tmp_path(self._connection._shell.tmpdir)
        return result

    def _verified(self, path: str, arguments: dict[str, Any]) -> str:
        """Where the artifact is on the controller, once its size and its SHA-256 were found to be as declared."""
        for other in ("src", "url"):
            if arguments.get(other):
                raise AnsibleActionFail(f"{self.verb}: both path ({path}) and {other} ({arguments[other]}) are given; give one of them")
        try:
            size = int(arguments.get("size", ""))
        except (TypeError, ValueError):
            raise AnsibleActionFail(f"{self.verb}: size: {arguments.get('size')!r}: write the size of {path} in bytes, as wc -c prints it") from None
        source = self._find(path)
        problem = _artifact.problem(source, size, str(arguments.get("sha256", "")), constants.DEFAULT_LOCAL_TMP)
        if problem:
            raise AnsibleActionFail(f"{problem}. This host was not changed.")
        return source

    def _find(self, path: str) -> str:
        expanded = os.path.expanduser(path)
        if os.path.exists(expanded) or os.path.isabs(expanded):
            return os.path.abspath(expanded)
        try:
            return str(self._find_needle("files", expanded))
        except AnsibleError:
            raise AnsibleActionFail(
                f"The artifact {path} is not on the controller, neither in {os.getcwd()} nor in files/ of the role or the playbook. "
                "Write an absolute path. This host was not changed."
            ) from None

    def _transfer(self, source: str) -> str:
        """Bring the artifact to a temporary directory of the host, which run() removes."""
        directory = self._make_tmp_path()
        target: str = self._connection._shell.join_path(directory, "artifact")
        self._transfer_file(source, target)
        self._fixup_perms2((directory, target))
        return target
