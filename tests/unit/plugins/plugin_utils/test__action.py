# Copyright: onprem.rollout contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

from __future__ import annotations

import hashlib
import os
import time
from types import SimpleNamespace
from typing import Any

import pytest
from ansible.errors import AnsibleActionFail

from ansible_collections.onprem.rollout.plugins.action import archive, begin, commit, health, restore, retry
from ansible_collections.onprem.rollout.plugins.plugin_utils import _anchor, _light
from ansible_collections.onprem.rollout.plugins.plugin_utils._action import renew
from ansible_collections.onprem.rollout.plugins.plugin_utils._holder import holder
from ansible_collections.onprem.rollout.plugins.plugin_utils._ledger import Head
from ansible_collections.onprem.rollout.plugins.plugin_utils._policy import release_digest

RELEASE = {
    "name": "shop",
    "version": "2.0",
    "artifacts": [{"path": "/a", "sha256": "a" * 64, "size": 1}],
    "variables": {"password": "secret"},
}
IDENTITY = {"name": "shop", "version": "2.0", "digest": release_digest(RELEASE)}


class Connection:
    """Counts how often it is reset."""

    _shell = SimpleNamespace(tmpdir=None)

    def __init__(self, transport: str = "ssh") -> None:
        self.transport = transport
        self.resets = 0

    def reset(self) -> None:
        self.resets += 1


def make(module: Any, arguments: dict[str, Any]) -> tuple[Any, list[dict[str, Any]]]:
    """An action plugin whose module run is only remembered."""
    calls: list[dict[str, Any]] = []

    class Recorded(module.ActionModule):  # type: ignore[misc, name-defined]
        def _execute_module(self, **call: Any) -> dict[str, Any]:
            calls.append(call)
            return {"changed": True, "outcome": "done"}

    task = SimpleNamespace(args=arguments, async_val=0, check_mode=False, diff=False)
    return Recorded(task, Connection(), SimpleNamespace(), None, None, None), calls


def test_a_host_keeps_the_head_of_the_ledger_of_its_newest_step(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(_anchor, "_head", Head(7, "ab"))
    kept = {}
    for module in (begin, health, commit, restore):
        plugin, calls = make(module, {"state_dir": "/srv/state"})
        plugin.run(task_vars={})
        kept[module.__name__.rpartition(".")[2]] = calls[0]["module_args"].get("anchor")
    known = {"number": 7, "sha256": "ab"}
    assert kept == {"begin": known, "health": None, "commit": known, "restore": known}


VERBS = [(begin, "begin", 0), (health, "health", 0), (commit, "commit", 1), (restore, "restore", 1)]


@pytest.mark.parametrize("module, verb, resets", VERBS)
def test_the_module_of_the_same_name_runs_for_this_run(module: Any, verb: str, resets: int) -> None:
    plugin, calls = make(module, {"state_dir": "/srv/state"})
    result = plugin.run(None, {"inventory_hostname": "web1"})
    assert calls == [
        {
            "module_name": f"onprem.rollout.{verb}",
            "module_args": {"state_dir": "/srv/state", "holder": holder("web1")},
            "task_vars": {"inventory_hostname": "web1"},
        }
    ]
    assert calls[0]["module_args"]["holder"]["pid"] == os.getppid()
    assert result["outcome"] == "done"
    assert plugin._connection.resets == resets


@pytest.mark.parametrize("module, verb, resets", VERBS)
def test_a_holder_of_the_task_stays_and_the_task_is_not_changed(module: Any, verb: str, resets: int) -> None:
    given = {"holder": {"run": "another"}}
    plugin, calls = make(module, given)
    plugin.run(None, {})
    assert calls[0]["module_args"]["holder"] == {"run": "another"}
    assert given == {"holder": {"run": "another"}}


def test_one_command_goes_past_the_shared_connection_and_keeps_the_options_of_the_user() -> None:
    options = {"ssh_args": "-C -o ControlMaster=auto -o ControlPersist=60s"}
    connection = SimpleNamespace(transport="ssh", set_option=options.__setitem__, get_option=options.__getitem__)
    renew(connection, True)
    assert options["ssh_args"] == "-o ControlMaster=no -o ControlPath=none -C -o ControlMaster=auto -o ControlPersist=60s"


def test_a_local_connection_is_not_reset() -> None:
    plugin, calls = make(restore, {})
    plugin._connection = Connection("local")
    plugin.run(None, {})
    assert len(calls) == 1
    assert plugin._connection.resets == 0


RELEASES = [(RELEASE, IDENTITY), ({**RELEASE, "digest": IDENTITY["digest"]}, IDENTITY), (IDENTITY, IDENTITY), ("2.0", "2.0"), (None, None)]


@pytest.mark.parametrize("given, sent", RELEASES)
def test_the_host_is_told_who_the_release_is_and_no_more(given: Any, sent: Any) -> None:
    plugin, calls = make(begin, {"release": given})
    plugin.run(None, {})
    assert calls[0]["module_args"]["release"] == sent


def test_a_worker_that_outlived_its_run_installs_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    plugin, calls = make(archive, {"dest": "/opt/shop"})
    monkeypatch.setattr(plugin, "_remove_tmp_path", lambda path: None)
    parents = iter([4711, 1])
    monkeypatch.setattr(os, "getppid", lambda: next(parents))
    with pytest.raises(AnsibleActionFail, match="settles this host; nothing was installed"):
        plugin.run(None, {})
    assert calls == []


@pytest.mark.parametrize(
    "failure, later",
    [
        ({"rc": 21}, True),
        ({"rc": 1}, False),
        ({"msg": "no rc"}, False),
        ({"results": [{"rc": 0}, {"rc": 21, "failed": True}]}, True),
        ({"results": [{"rc": 1, "failed": True}, {"rc": 21, "failed": True}]}, False),
        ({"results": []}, False),
    ],
)
def test_only_exit_21_asks_for_later(failure: dict[str, Any], later: bool) -> None:
    assert retry.asks_for_later(failure) is later


def test_a_failure_that_asks_for_nothing_stays_what_it_was() -> None:
    plugin, calls = make(retry, {"transaction": "t1", "failure": {"rc": 2, "msg": "boom", "reason": "sick"}})
    assert plugin.run(None, {"inventory_hostname": "web1"}) == {"rc": 2, "msg": "boom", "reason": "sick", "failed": True}
    assert calls == []


def test_a_failure_without_a_result_is_none_that_asks_for_later() -> None:
    plugin, calls = make(retry, {"transaction": "t1", "failure": {}})
    result = plugin.run(None, {"inventory_hostname": "web1"})
    assert (result["failed"], result["unexplained"], calls) == (True, True, [])


@pytest.mark.parametrize("transaction, fails", [("t1", True), ("an earlier one", False)])
def test_the_limit_counts_from_the_first_time_in_this_transaction(transaction: str, fails: bool) -> None:
    last = {"transaction": transaction, "first": time.monotonic() - 100}
    plugin, calls = make(retry, {"transaction": "t1", "failure": {"rc": 21, "msg": "busy"}, "last": last, "wait": 60, "limit": 120})
    plugin._task.get_play = lambda: SimpleNamespace(strategy="onprem.rollout.staged")
    result = plugin.run(None, {"inventory_hostname": "web1"})
    assert bool(result.get("failed")) is fails
    assert len(calls) == (0 if fails else 1)
    if fails:
        assert result["msg"].endswith("so it counts as failed: busy")


@pytest.mark.parametrize("size, asked", [(1 << 17, 0), ((1 << 17) + 1, 1)])
def test_a_host_is_asked_for_an_artifact_only_where_that_can_spare_more_than_it_costs(tmp_path, monkeypatch, size, asked) -> None:
    artifact = tmp_path / "shop.tar.gz"
    artifact.write_bytes(bytes(size))
    digest = hashlib.sha256(bytes(size)).hexdigest()
    plugin, _calls = make(archive, {"path": str(artifact), "size": size, "sha256": digest, "dest": "/opt/shop", "version": "2.0"})
    commands: list[str] = []
    sent: list[Any] = []
    plugin._low_level_execute_command = lambda command: commands.append(command) or {"rc": 1}
    plugin._remove_tmp_path = lambda _path: None
    monkeypatch.setattr(_light, "possible", lambda *_call: True)
    monkeypatch.setattr(_light, "run", lambda *call: sent.append(call[-1]) or {"changed": True})
    plugin.run(None, {})
    assert (len(commands), sent) == (asked, [("src", bytes(size))])
