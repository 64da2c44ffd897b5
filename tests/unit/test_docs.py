# Copyright: onprem.rollout contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""What the docs say is what the code does."""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path

import pytest
import yaml

from ansible_collections.onprem.rollout.plugins.plugin_utils._gate import Situation, Verdict
from ansible_collections.onprem.rollout.plugins.plugin_utils._gates import TYPES
from ansible_collections.onprem.rollout.plugins.plugin_utils._gates import parse as parse_gates
from ansible_collections.onprem.rollout.plugins.plugin_utils._policy import Ring, parse_release, parse_rings
from ansible_collections.onprem.rollout.plugins.plugin_utils._reasons import Reason

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


GATES = REPO / "docs/gates.md"


def gate_examples():
    return [yaml.safe_load(block)["rollout_gates"] for block in re.findall(r"```yaml\n(.*?)```", GATES.read_text(), re.DOTALL)]


@pytest.mark.parametrize("example", gate_examples(), ids=lambda example: example[0]["type"])
def test_every_gate_of_the_examples_is_valid_and_gives_an_answer(example, tmp_path, monkeypatch):
    """On a controller that has the files of which the examples speak."""
    (tmp_path / "allowed_signers").write_text("")
    monkeypatch.setenv("PATH", f"{Path(sys.executable).parent}:/usr/bin:/bin")
    here = {"/etc/onprem-rollout/allowed_signers": str(tmp_path / "allowed_signers"), "/srv/approvals": str(tmp_path)}
    raw = [{option: here.get(str(value), value) for option, value in item.items()} for item in example]
    gates, problems = parse_gates(raw, "rollout_gates")
    assert problems == []
    for gate in gates:
        answer = gate.ask(Situation("abc", "shop-2.0", "early", 1, ("shop1",), "ada on ctl1", 1.8e9, ()))
        assert answer.verdict in (Verdict.HOLD, Verdict.PASS), answer
        getattr(gate, "close", lambda: None)()


@pytest.mark.parametrize("module", TYPES.values(), ids=TYPES)
def test_every_option_of_a_gate_is_documented_and_no_other(module):
    section = re.search(rf"## `{module.TYPE}`.*?(?=\n## |\Z)", GATES.read_text(), re.DOTALL)[0]
    assert sorted([*re.findall(r"^\| `(\w+)` \|", section, re.MULTILINE), "name", "type"]) == sorted(module.OPTIONS)
    assert any(item["type"] == module.TYPE for example in gate_examples() for item in example)


OPERATORS = [
    ("_gate_approval.py", "situation.now > end", "expired when now > expires"),
    ("_gate_window.py", "opens <= now < closes - window.cutoff", "closed when now >= end - cutoff"),
    ("_gate_window.py", "self._begins(freeze) <= now < self._thaws(freeze)", "from <= now < to"),
    ("_gate_command.py", "self.clock() < run.ends", "when it ran >= timeout"),
]


@pytest.mark.parametrize("path, code, text", OPERATORS)
def test_the_operators_of_gates_are_written_out_as_they_are(path, code, text):
    assert code in (REPO / "plugins/plugin_utils" / path).read_text()
    assert text in GATES.read_text()


def test_an_approval_that_is_signed_as_the_docs_say_counts(tmp_path):
    text, namespace = re.search(r"echo '(.*?)' > bob.json\nssh-keygen -Y sign -n (\S+)", GATES.read_text()).groups()
    for argv in (["-q", "-t", "ed25519", "-N", "", "-f", "key"], ["-q", "-Y", "sign", "-n", namespace, "-f", "key", "bob.json"]):
        (tmp_path / "bob.json").write_text(text + "\n")
        subprocess.run(["ssh-keygen", *argv], cwd=tmp_path, check=True)
    (tmp_path / "allowed").write_text(f"bob@example.org {(tmp_path / 'key.pub').read_text()}")
    (gate,), problems = parse_gates([{"type": "approval", "allowed_signers": str(tmp_path / "allowed"), "files": str(tmp_path)}], "rollout_gates")
    answer = gate.ask(Situation("<digest>", "shop-2.0", "early", 1, ("shop1",), "ada on ctl1", 1.79e9, ()))
    assert (problems, answer.verdict, answer.why) == ([], Verdict.PASS, "plan <digest> is approved by bob@example.org (CHG-4711)")


def test_every_reason_is_documented():
    text = (docs_tables.CONCEPTS.parent / "operating.md").read_text()
    assert [reason.value for reason in Reason if f"| `{reason.value}` |" not in text] == []


@pytest.mark.parametrize("verb", ["hold", "resume", "abort", "promote", "approve", "audit"])
def test_every_verb_of_the_docs_is_a_playbook(verb):
    playbooks = docs_tables.CONCEPTS.parents[1] / "playbooks"
    assert (playbooks / f"{verb}.yml").is_file()
    assert f"onprem.rollout.{verb} " in (docs_tables.CONCEPTS.parent / "operating.md").read_text()
