# Copyright: onprem.rollout contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Every role: what meta/argument_specs.yml says is what defaults/main.yml does, and the README names all of it."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import yaml

ROLES = Path(__file__).parents[3] / "roles"
NAMES = sorted(path.name for path in ROLES.iterdir() if path.is_dir())


def read(path: Path) -> Any:
    return yaml.safe_load(path.read_text()) if path.exists() else None


def options(role: str) -> dict[str, dict[str, Any]]:
    """The options of all entry points; one that several have must be the same in each."""
    found: dict[str, dict[str, Any]] = {}
    for entry in read(ROLES / role / "meta/argument_specs.yml")["argument_specs"].values():
        for name, option in (entry.get("options") or {}).items():
            assert found.setdefault(name, option) == option, f"{name} differs between entry points"
    return found


def test_there_are_roles() -> None:
    assert NAMES


@pytest.mark.parametrize("role", NAMES)
def test_specs_equal_defaults(role: str) -> None:
    specified = {name: option["default"] for name, option in options(role).items() if "default" in option}
    assert specified == (read(ROLES / role / "defaults/main.yml") or {})


@pytest.mark.parametrize("role", NAMES)
def test_what_is_required_has_no_default_and_what_is_not_has_one(role: str) -> None:
    for name, option in options(role).items():
        assert option.get("required", False) != ("default" in option), name


@pytest.mark.parametrize("role", NAMES)
def test_options_are_named_after_the_role_and_explained(role: str) -> None:
    for name, option in options(role).items():
        assert name.startswith(f"{role}_")
        assert option.get("description"), name
        assert option.get("type"), name


@pytest.mark.parametrize("role", NAMES)
def test_every_entry_point_is_explained_and_is_a_file(role: str) -> None:
    for entry, spec in read(ROLES / role / "meta/argument_specs.yml")["argument_specs"].items():
        assert spec.get("short_description"), entry
        assert (ROLES / role / "tasks" / f"{entry}.yml").exists()


@pytest.mark.parametrize("role", NAMES)
def test_readme_names_every_variable(role: str) -> None:
    text = (ROLES / role / "README.md").read_text()
    assert [name for name in options(role) if f"`{name}`" not in text] == []
