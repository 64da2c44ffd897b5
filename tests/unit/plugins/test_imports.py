# Copyright: onprem.rollout contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Imports go one way: strategy, callback, action, modules -> adapters -> the pure core. And core's internals stay in two files."""

from __future__ import annotations

import ast
from pathlib import Path

import pytest

PLUGINS = Path(__file__).resolve().parents[3] / "plugins"
PURE = {
    "_audit", "_batches", "_budget", "_causes", "_commands", "_conductor", "_crosscheck", "_fleet", "_gate", "_halting", "_keywords", "_ledger", "_orders",
    "_plan", "_policy", "_proofs", "_reasons", "_replan", "_settling", "_slices", "_spread", "_standing", "_states", "_status", "_story", "_tailored", "_verbs",
    "_waverun",
}  # fmt: skip
PURE_STDLIB = {
    "__future__", "collections", "collections.abc", "dataclasses", "datetime", "enum", "hashlib", "heapq", "itertools", "json", "re", "shlex", "typing",
}  # fmt: skip
OURS = "ansible_collections.onprem.rollout.plugins."
# What a plugin of each kind is made of in every collection; anything else of core's belongs into _core.py and _core_input.py.
PUBLIC = {
    "ansible.errors",
    "ansible.utils.display",
    "ansible.plugins.action",
    "ansible.plugins.strategy.host_pinned",
    "ansible.plugins.callback",
    "ansible.plugins.lookup",
    "ansible.plugins.callback.default",
    "ansible.constants",
    "ansible",
    "ansible.module_utils.basic",
    "ansible.module_utils.common.arg_spec",
    "ansible.module_utils.common.text.converters",
}


def imports(path: Path) -> set[str]:
    found = set()
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            found |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            base = "." * node.level + (node.module or "")
            package = node.module in ("ansible", None) or base.endswith(("plugin_utils", "module_utils"))
            found |= {f"{base}.{alias.name}" if package else base for alias in node.names}
    return found


def files(folder: str) -> list[Path]:
    return sorted((PLUGINS / folder).rglob("*.py"))


@pytest.mark.parametrize("name", sorted(PURE))
def test_the_pure_core_knows_no_ansible_no_disk_and_no_clock(name):
    for module in imports(PLUGINS / "plugin_utils" / f"{name}.py"):
        ours = module.removeprefix(OURS + "plugin_utils.")
        assert module in PURE_STDLIB or ours.partition(".")[0] in PURE, f"{name} imports {module}"


@pytest.mark.parametrize("path", files("module_utils"), ids=lambda path: path.name)
def test_what_travels_to_a_host_imports_nothing_of_the_controller(path):
    for module in imports(path):
        assert "plugin_utils" not in module.replace("module_utils", ""), f"{path.name} imports {module}"
        assert not module.startswith("ansible.") or module.startswith("ansible.module_utils"), f"{path.name} imports {module}"


@pytest.mark.parametrize("path", [path for path in files(".") if not path.name.startswith("_core")], ids=lambda path: path.name)
def test_only_two_files_touch_the_internals_of_core(path):
    used = {module for module in imports(path) if module == "ansible" or module.startswith("ansible.")}
    assert used <= PUBLIC, f"{path.name}: move what needs {used - PUBLIC} into _core.py or _core_input.py"


@pytest.mark.parametrize("folder", ["plugin_utils", "module_utils"])
def test_adapters_do_not_import_plugins(folder):
    for path in files(folder):
        for module in imports(path):
            for kind in ("strategy", "action", "modules", "callback"):
                assert not module.startswith(OURS + kind + "."), f"{path.name} imports {module}"


def test_no_file_is_longer_than_a_room():
    places = [PLUGINS.parent / name for name in ("plugins", "roles", "playbooks", "molecule", "tests")]
    rooms = [path for place in places for kind in ("*.py", "*.yml") for path in place.rglob(kind)]
    assert [str(path.relative_to(PLUGINS.parent)) for path in rooms if len(path.read_text().splitlines()) > 400] == []


YAML = sorted([*(PLUGINS.parent / "roles").rglob("*.yml"), *(PLUGINS.parent / "playbooks").rglob("*.yml")])


@pytest.mark.parametrize("path", YAML, ids=lambda path: str(path.relative_to(PLUGINS.parent)))
def test_nothing_prompts(path):
    """Trap 8: pause goes on silently without a terminal and hangs under ansible-runner."""
    text = path.read_text()
    assert "pause" not in text
    assert "vars_prompt" not in text
