# Copyright: onprem.rollout contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""A light run really starts Python and gives what the module gives; and it is left where it could differ."""

from __future__ import annotations

import subprocess
import sys
from types import SimpleNamespace
from typing import Any

import pytest

from ansible_collections.onprem.rollout.plugins.plugin_utils import _light
from ansible_collections.onprem.rollout.plugins.plugin_utils._holder import holder

HOST = {"ansible_python_interpreter": sys.executable}


class Action:
    """The parts of ActionBase that a light run uses; commands run in a real shell, module runs are remembered."""

    before = b""

    def __init__(self, pipelining: bool = True, shell: str = "sh", **task: Any) -> None:
        self.pipelining = pipelining
        self.modules: list[str] = []
        self._task = SimpleNamespace(**{"check_mode": False, "delegate_to": None, "async_val": 0, **task})
        self._connection = SimpleNamespace(_shell=SimpleNamespace(SHELL_FAMILY=shell))
        self._templar = SimpleNamespace(template=lambda value: value)

    def _is_pipelining_enabled(self, style: str) -> bool:
        return self.pipelining

    def _compute_environment_string(self) -> str:
        return "ONPREM_ROLLOUT=abc"

    def _low_level_execute_command(self, command: str, in_data: bytes) -> dict[str, Any]:
        in_data = self.before + in_data
        done = subprocess.run(["sh", "-c", command], input=in_data, capture_output=True, timeout=60)
        return {"rc": done.returncode, "stdout": done.stdout.decode(), "stderr": done.stderr.decode()}

    def _execute_module(self, module_name: str, **_call: Any) -> dict[str, Any]:
        self.modules.append(module_name)
        return {"changed": False}


def begin_arguments(tmp_path, **changes: Any) -> dict[str, Any]:
    app = tmp_path / "app"
    app.mkdir(exist_ok=True)
    (app / "version").write_text("1.0")
    return {
        "state_dir": str(tmp_path / "state"),
        "holder": holder("web1"),
        "rollout": "shop-2.0",
        "release": {"name": "shop", "version": "2.0", "digest": "d" * 64},
        "paths": [str(app)],
        "checks": [{"name": "version", "type": "file", "path": str(app / "version")}],
        "min_free": "0",
        "revert_after": "0",
        **changes,
    }


def test_a_transaction_from_begin_to_commit(tmp_path):
    action = Action()
    begun = _light.run(action, "begin", begin_arguments(tmp_path, revert_after="60"), HOST)
    assert (begun["outcome"], begun["changed"], begun["revert"]["armed"]) == ("begun", True, True), begun
    mine = {"state_dir": str(tmp_path / "state"), "holder": holder("web1")}
    healthy = _light.run(action, "health", {**mine, "in_transaction": True, "checks": begin_arguments(tmp_path)["checks"]}, HOST)
    assert healthy["phase"] == "awaiting_commit", healthy
    committed = _light.run(action, "commit", mine, HOST)
    assert committed["outcome"] == "committed", committed
    assert action.modules == []


SHOW_LOADED = b"""
import atexit, sys
def show():
    from importlib.util import _LazyModule
    print(*sorted(name.rpartition("module_utils.")[2] for name, module in sys.modules.items() if type(module) is not _LazyModule), file=sys.stderr)
atexit.register(show)
"""


def test_a_host_reads_and_compiles_only_what_a_step_uses(tmp_path, monkeypatch):
    answers = []
    action = Action()
    action.before = SHOW_LOADED
    monkeypatch.setattr(_light, "read", answers.append)
    _light.run(action, "begin", begin_arguments(tmp_path), HOST)
    loaded = answers[0]["stderr"].split()
    assert {"_begin", "_program", "_snapshot", "json"} <= set(loaded)
    assert not {"_console", "_btrfs", "_compare", "_putback", "_hooks", "_apt", "http.client", "urllib.request", "ssl", "importlib.resources"} & set(loaded)


def test_a_failure_comes_back_as_a_result(tmp_path):
    result = _light.run(Action(), "begin", begin_arguments(tmp_path, paths=["relative"]), HOST)
    assert (result["failed"], result["refused"], result["reason"]) == (True, True, "bad_path")


def test_a_negative_time_is_refused(tmp_path):
    result = _light.run(Action(), "begin", begin_arguments(tmp_path, revert_after="-1"), HOST)
    assert (result["refused"], result["msg"]) == (True, "revert_after: -1: write seconds, from 0 on. Nothing was touched.")
    assert not (tmp_path / "state").exists()


def test_check_mode_reaches_the_host(tmp_path):
    result = _light.run(Action(check_mode=True), "begin", begin_arguments(tmp_path), HOST)
    assert result["outcome"] == "begun", result
    assert not (tmp_path / "state").exists()


def test_arguments_are_validated_by_the_modules_own_specification(tmp_path):
    result = _light.run(Action(), "begin", begin_arguments(tmp_path, min_free="much", colour="red"), HOST)
    assert result["failed"]
    assert "min_free" in result["msg"] or "colour" in result["msg"]


DIFFERENT = [
    ("no pipelining", {"pipelining": False}, HOST, {}),
    ("no shell of its kind", {"shell": "powershell"}, HOST, {}),
    ("delegated", {"delegate_to": "web2"}, HOST, {}),
    ("asynchronous", {"async_val": 60}, HOST, {}),
    ("interpreter unknown", {}, {}, {}),
    ("interpreter to be discovered", {}, {"ansible_python_interpreter": "auto_silent"}, {}),
    ("interpreter that is a command", {}, {"ansible_python_interpreter": "/usr/bin/env python3"}, {}),
    ("a path of the host's home", {}, HOST, {"state_dir": "~/state"}),
    ("a path of the host's environment", {}, HOST, {"state_dir": "$HOME/state"}),
]


@pytest.mark.parametrize("name, how, variables, changes", DIFFERENT, ids=[case[0] for case in DIFFERENT])
def test_the_module_is_run_where_a_light_run_could_differ(tmp_path, name, how, variables, changes):
    action = Action(**how)
    _light.run(action, "begin", begin_arguments(tmp_path, **changes), variables)
    assert action.modules == ["onprem.rollout.begin"]


def test_a_discovered_interpreter_is_used(tmp_path):
    action = Action()
    _light.run(action, "begin", begin_arguments(tmp_path), {"ansible_facts": {"discovered_interpreter_python": sys.executable}})
    assert action.modules == []


def test_a_file_can_come_along_and_leaves_no_name(tmp_path):
    import hashlib
    import io
    import tarfile

    packed = io.BytesIO()
    with tarfile.open(fileobj=packed, mode="w:gz") as archive:
        member = tarfile.TarInfo("version")
        member.size = 3
        archive.addfile(member, io.BytesIO(b"2.0"))
    content = packed.getvalue()
    arguments = {"dest": str(tmp_path / "shop"), "version": "2.0", "size": len(content), "sha256": hashlib.sha256(content).hexdigest()}
    result = _light.run(Action(), "archive", arguments, HOST, ("src", content))
    assert result.get("changed"), result
    assert (tmp_path / "shop" / "current" / "version").read_text() == "2.0"


ANSWERS = [
    ({"rc": 0, "stdout": 'noise\n{"changed": true}\n'}, {"changed": True}),
    ({"rc": 137, "stdout": "", "stderr": "Killed"}, "(rc 137): Killed"),
    ({"rc": 1, "stdout": "", "stderr": "Traceback:\nMemoryError"}, "(rc 1): MemoryError"),
    ({"rc": 0, "stdout": "[1]"}, "(rc 0): [1]"),
]


@pytest.mark.parametrize("answer, expected", ANSWERS)
def test_what_the_host_prints_is_read(answer, expected):
    result = _light.read(answer)
    assert result == expected if isinstance(expected, dict) else (result["failed"] and expected in result["msg"])
