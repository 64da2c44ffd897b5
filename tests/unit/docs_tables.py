# Copyright: onprem.rollout contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Draws the state machines of docs/concepts.md from the code's own tables: `python tests/unit/docs_tables.py` rewrites them."""

from __future__ import annotations

import sys
from pathlib import Path

from ansible_collections.onprem.rollout.plugins.module_utils._record import PHASES
from ansible_collections.onprem.rollout.plugins.plugin_utils._states import OUTCOMES, TRANSITIONS

CONCEPTS = Path(__file__).resolve().parents[2] / "docs" / "concepts.md"


def machine(edges: list[tuple[str, str]]) -> str:
    return "\n".join(["```mermaid", "stateDiagram-v2", *(f"    {before} --> {after}" for before, after in edges), "```"])


def drawings() -> dict[str, str]:
    outcomes = "\n".join(["| outcome | the host |", "|---|---|", *(f"| `{state}` | {text} |" for state, text in OUTCOMES.items())])
    hosts = [("[*]", "waiting")] + [(str(before), str(after)) for before, afters in TRANSITIONS.items() for after in sorted(afters)]
    phases = [("[*]", "prepared")] + [(before, after) for before, afters in PHASES.items() for after in afters]
    return {"hosts": machine(hosts), "outcomes": outcomes, "phases": machine(phases)}


def redrawn(text: str) -> str:
    for name, drawing in drawings().items():
        begin, end = f"<!-- drawn: {name} -->\n", f"<!-- end: {name} -->"
        head, _begin, rest = text.partition(begin)
        _old, _end, tail = rest.partition(end)
        text = f"{head}{begin}{drawing}\n{end}{tail}"
    return text


if __name__ == "__main__":
    CONCEPTS.write_text(redrawn(CONCEPTS.read_text()))
    sys.exit(0)
