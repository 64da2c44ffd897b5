# Copyright: onprem.rollout contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""What a play, its inventory and the command line tell a rollout: the part of ansible-core's internals that no strategy is needed for."""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any

from ansible import constants as C
from ansible import context
from ansible.errors import AnsibleError
from ansible.playbook.role import Role
from ansible.playbook.role.include import RoleInclude
from ansible.template import Templar

from ansible_collections.onprem.rollout.plugins.plugin_utils._keywords import INSTEAD, keyword_problems, option_problems
from ansible_collections.onprem.rollout.plugins.plugin_utils._policy import Problem

LISTS = ("ansible_play_hosts_all", "ansible_play_hosts", "ansible_play_batch", "play_hosts")
ANYBODY = ["onprem.rollout.anybody"]


class Variables:
    """The variable manager of core, whose lists of the play's hosts are made when they change, and not anew for every task.

    Each is as long as the fleet, and to copy one touches the memory of every name, which a fork had just shared with a worker.
    """

    def __init__(self, manager: Any, play: Any, hosts: list[str]) -> None:
        self._manager = manager
        self._play = play
        self._hosts = hosts
        self._made_of: tuple[Any, ...] = ()
        self._lists: dict[str, Any] = {}
        self._in_vars: dict[str, Any] = {}

    def __getattr__(self, name: str) -> Any:
        return getattr(self._manager, name)

    def get_vars(
        self, play: Any = None, host: Any = None, task: Any = None, _hosts: list[str] | None = None, _hosts_all: list[str] | None = None, **options: Any
    ) -> dict[str, Any]:
        if play is not self._play:
            return self._found(play, host, task, _hosts, _hosts_all, options)
        hosts, every = _hosts or self._hosts, _hosts_all or self._hosts
        made_of = hosts, len(hosts), every, len(every), tuple(play._removed_hosts)
        if self._made_of != made_of:
            values = self._found(play, host, task, hosts, every, options)
            self._lists, self._in_vars = [{name: place[name] for name in LISTS} for place in (values, values["vars"])]
            self._made_of = made_of
            return values
        values = self._found(play, host, task, ANYBODY, ANYBODY, options)
        values.update(self._lists)
        place = values.get("vars")
        while place:  # the variable of this name holds all variables, from 2.20 on another of its kind too
            place.update(self._in_vars)
            place = place.get("vars")
        return values

    def _found(self, play: Any, host: Any, task: Any, hosts: list[str] | None, every: list[str] | None, options: dict[str, Any]) -> dict[str, Any]:
        found: dict[str, Any] = self._manager.get_vars(play=play, host=host, task=task, _hosts=hosts, _hosts_all=every, **options)
        return found


class PlayInput:
    """The hosts of a play by their names, in its order, and what is known of them before any task."""

    def __init__(self, play: Any, variable_manager: Any, inventory: Any, loader: Any) -> None:
        self._play = play
        self._inventory = inventory
        self._loader = loader
        self._hosts: dict[str, Any] = {host.get_name(): host for host in inventory.get_hosts(play.hosts, order=play.order)}
        self._variable_manager = Variables(variable_manager, play, list(self._hosts))

    @property
    def hosts(self) -> list[str]:
        return list(self._hosts)

    @property
    def forks(self) -> int:
        """How many hosts core works on at the same time, if there are so many."""
        return min(int(context.CLIARGS.get("forks") or 1), len(self._hosts))

    @property
    def check_mode(self) -> bool:
        return bool(context.CLIARGS.get("check"))

    @property
    def playbooks(self) -> list[str]:
        return list(context.CLIARGS.get("args") or [])

    @property
    def limited(self) -> bool:
        return bool(self._inventory._subset)

    def play_problems(self) -> list[Problem]:
        """Play keywords and options that fight a rollout."""
        keywords = {keyword: getattr(self._play, keyword) for keyword in INSTEAD}
        return keyword_problems(self._play.get_name(), keywords, C.ANY_ERRORS_FATAL) + option_problems(context.CLIARGS)

    def variables(self, host: str) -> dict[str, Any]:
        """The host's variables, not templated."""
        values: dict[str, Any] = self._variable_manager.get_vars(play=self._play, host=self._hosts[host])
        return values

    def template(self, value: Any, variables: Mapping[str, Any]) -> Any:
        """The value with its templates filled in; a ValueError says why that is not possible."""
        try:
            return Templar(loader=self._loader, variables=variables).template(value)
        except AnsibleError as error:
            raise ValueError(f"cannot be templated: {error}") from error

    def members(self, pattern: str) -> list[str]:
        """The hosts of the whole inventory that match, --limit or not; a ValueError says why the pattern is none."""
        if pattern.isidentifier() and pattern not in self._inventory.groups and pattern not in ("all", "ungrouped"):
            return [pattern] if pattern in self._inventory.hosts else []
        try:
            return [host.get_name() for host in self._inventory.get_hosts(pattern, ignore_limits=True, ignore_restrictions=True)]
        except (AnsibleError, re.error) as error:
            raise ValueError(f"is no host pattern: {error}") from error

    def group_names(self) -> list[str]:
        return list(self._inventory.groups)

    def role_problem(self, name: str) -> str | None:
        """Why the role cannot be loaded, or None."""
        try:
            include = RoleInclude.load(
                name,
                play=self._play,
                variable_manager=self._variable_manager,
                loader=self._loader,
                collection_list=None,
            )
            role = Role.load(include, play=self._play)
            role.compile(play=self._play)
        except AnsibleError as error:
            return str(error)
        return None if role.get_task_blocks() or role.get_direct_dependencies() else "it has no tasks/main.yml, or nothing in it"
