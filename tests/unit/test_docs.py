# Copyright: onprem.rollout contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""What the docs say is what the code does."""

from __future__ import annotations

import re
import sys
from pathlib import Path

import pytest
import yaml

from ansible_collections.onprem.rollout.plugins.plugin_utils._policy import Ring, parse_release, parse_rings

sys.path.insert(0, str(Path(__file__).parent))
import docs_tables

REPO = Path(__file__).resolve().parents[2]


def test_the_drawn_state_machines_are_those_of_the_code():
    text = docs_tables.CONCEPTS.read_text()
    assert text == docs_tables.redrawn(text), "run python tests/unit/docs_tables.py"


def test_the_inventory_in_the_readme_is_the_example():
    readme = re.search(r"```yaml\n(.*?)```", (REPO / "README.md").read_text(), re.DOTALL)[1]
    assert yaml.safe_load(readme) == yaml.safe_load((REPO / "inventories/example/hosts.yml").read_text())
    assert len(readme.splitlines()) == 12


def test_the_examples_are_valid():
    rings, problems = parse_rings(yaml.safe_load((REPO / "inventories/example/hosts.yml").read_text())["all"]["vars"]["rollout_rings"])
    release, more = parse_release(yaml.safe_load((REPO / "inventories/release.yml").read_text())["rollout_release"])
    assert (problems, more, len(rings), release.version) == ([], [], 3, "2.0")


@pytest.mark.parametrize("option", sorted(Ring.__dataclass_fields__))
def test_every_option_of_a_ring_is_documented(option):
    assert f"| `{option}` |" in docs_tables.CONCEPTS.read_text()


@pytest.mark.parametrize("name, rule", [("max_failures", "failures > max_failures")])
def test_operators_are_written_out(name, rule):
    for path in ("docs/concepts.md", "plugins/plugin_utils/_policy.py"):
        assert rule in (REPO / path).read_text(), f"{path} does not say how {name} is compared"
