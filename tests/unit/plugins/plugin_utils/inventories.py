# Copyright: onprem.rollout contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Inventories as core would tell of them."""

from __future__ import annotations

from dataclasses import dataclass, field

from ansible_collections.onprem.rollout.plugins.plugin_utils import _inputs
from ansible_collections.onprem.rollout.plugins.plugin_utils._payloads import BUILT_IN, CONTAINER
from ansible_collections.onprem.rollout.plugins.plugin_utils._policy import Problem

CHECKS = [{"name": "web", "type": "tcp", "port": 80}]
SHARED = {
    "rollout_release": {"name": "shop", "version": "2.0", "artifacts": []},
    "rollout_payload": "my.payload",
    "rollout_paths": ["/opt/shop"],
    "rollout_checks": CHECKS,
}
WITH_ARTIFACT = {"name": "shop", "version": "2.0", "artifacts": [{"url": "https://depot/shop.tar.gz", "sha256": "0" * 64, "size": 9}]}


@dataclass
class Inventory:
    """What core would tell: hosts with their variables, and who matches which pattern."""

    hostvars: dict[str, dict]
    groups: dict[str, list[str]] = field(default_factory=dict)
    shared: dict = field(default_factory=lambda: dict(SHARED))
    roles: tuple[str, ...] = ("my.payload", *BUILT_IN)
    limited: bool = False
    problems: tuple[Problem, ...] = ()

    @property
    def hosts(self):
        return list(self.hostvars)

    def play_problems(self):
        return list(self.problems)

    def variables(self, host):
        return {**self.shared, **self.hostvars[host]}

    def template(self, value, variables):
        if value == "{{ nowhere }}":
            raise ValueError("cannot be templated: 'nowhere' is undefined")
        return variables[value[3:-3]] if isinstance(value, str) and value.startswith("{{ ") else value

    def members(self, pattern):
        if pattern == "~([":
            raise ValueError("is no host pattern: unterminated character set")
        return self.groups.get(pattern, [])

    def group_names(self):
        return list(self.groups)

    def role_problem(self, name):
        return None if name in self.roles else f"the role {name!r} was not found"


def problems_of(**changes):
    fields = {key: changes.pop(key) for key in ("hostvars", "groups", "limited", "problems") if key in changes}
    inventory = Inventory(**{"hostvars": {"a": {}, "b": {}}, **fields})
    inventory.shared.update(changes)
    return [(problem.where, str(problem)) for problem in _inputs.read(inventory)[1]]


IMAGE = "registry.example.com/shop@sha256:" + "0" * 64
CONTAINED = {
    "rollout_payload": CONTAINER,
    "rollout_paths": ["/etc/containers/systemd", "/etc/systemd/system/shop.service"],
    "rollout_services": ["shop"],
    "container_image": IMAGE,
}
