# Copyright: onprem.rollout contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Variables as core gives them, of a real inventory and a real play; only how often the lists of all hosts are made differs."""

from __future__ import annotations

import pytest
from ansible.inventory.manager import InventoryManager
from ansible.parsing.dataloader import DataLoader
from ansible.playbook.play import Play
from ansible.vars.manager import VariableManager

from ansible_collections.onprem.rollout.plugins.plugin_utils._core_input import LISTS, PlayInput

NAMES = ["web1", "web2", "web3"]


class Made:
    def __init__(self, path) -> None:
        source = path / "hosts.ini"
        source.write_text("[shop]\nweb1 listens=80\nweb2 listens=81\nweb3 listens=82\n[others]\ndb1\n")
        loader = DataLoader()
        self.inventory = InventoryManager(loader=loader, sources=[str(source)])
        self.core = VariableManager(loader=loader, inventory=self.inventory, version_info={})
        self.play = Play.load({"name": "Shop", "hosts": "shop", "gather_facts": False, "vars": {"colour": "red"}}, self.core, loader)
        self.input = PlayInput(self.play, self.core, self.inventory, loader)
        self.variables = self.input._variable_manager

    def get(self, host: str, hosts: list[str], every: list[str]):
        return self.variables.get_vars(play=self.play, host=self.inventory.hosts[host], task=None, _hosts=hosts, _hosts_all=every)

    def of_core(self, host: str, hosts: list[str], every: list[str]):
        return self.core.get_vars(play=self.play, host=self.inventory.hosts[host], task=None, _hosts=hosts, _hosts_all=every)


@pytest.fixture
def made(tmp_path):
    return Made(tmp_path)


def test_every_host_has_the_variables_that_core_gives_it(made):
    for _time in range(2):
        for host in NAMES:
            assert made.get(host, NAMES[1:], NAMES) == made.of_core(host, NAMES[1:], NAMES)


def test_the_lists_are_made_once_for_all_hosts(made):
    one, other = (made.get(host, NAMES, NAMES) for host in NAMES[:2])
    assert (one["listens"], other["listens"]) == (80, 81)
    for name in LISTS:
        assert other[name] is one[name], name
        assert other["vars"][name] is one["vars"][name], name


def test_the_lists_follow_failures_and_hosts_that_join(made):
    hosts, every = list(NAMES), list(NAMES)
    made.get("web1", hosts, every)
    made.play._removed_hosts.append("web2")
    assert made.get("web1", hosts, every) == made.of_core("web1", hosts, every)
    assert made.get("web1", hosts, every)["ansible_play_hosts"] == ["web1", "web3"]
    made.play._removed_hosts.clear()
    every.append("web4")  # as add_host does
    assert made.get("web1", hosts, every)["ansible_play_hosts_all"] == [*NAMES, "web4"]
    assert made.get("web1", ["web3"], every)["ansible_play_batch"] == ["web3"]


def test_without_lists_they_are_those_of_the_play(made):
    values = made.input.variables("web3")
    assert (values["listens"], values["colour"]) == (82, "red")
    assert [values[name] for name in LISTS[:3]] == [NAMES, NAMES, NAMES]


def test_another_play_is_left_to_core(made):
    made.get("web1", NAMES, NAMES)
    other = Play.load({"name": "Others", "hosts": "others", "gather_facts": False}, made.core, made.input._loader)
    found = made.variables.get_vars(play=other, host=made.inventory.hosts["db1"])
    assert found == made.core.get_vars(play=other, host=made.inventory.hosts["db1"])
    assert found["ansible_play_hosts_all"] == ["db1"]


def test_everything_else_is_core_s_own(made):
    made.variables.set_nonpersistent_facts("web1", {"seen": True})
    assert made.get("web1", NAMES, NAMES)["seen"] is True
