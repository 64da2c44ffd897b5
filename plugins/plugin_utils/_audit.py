# Copyright: onprem.rollout contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Whether the ledger is what was written: by its own chain, and by the heads that hosts keep of their newest begin, commit or restore. Pure."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

from ansible_collections.onprem.rollout.plugins.plugin_utils._ledger import START, BrokenChain, Entry, Head, anchor_problem, repair_of


def anchor_of(record: Mapping[str, Any]) -> Head | None:
    """The head that a host's record keeps; None when it was never changed by a run with a ledger."""
    anchor = (record.get("transaction") or {}).get("anchor") or {}
    number, sha256 = anchor.get("number"), anchor.get("sha256")
    return Head(number, sha256) if isinstance(number, int) and isinstance(sha256, str) else None


def audit(name: str, entries: Iterable[Entry], anchors: Mapping[str, Head]) -> tuple[bool, list[str]]:
    """Whether all is well, and the lines that say so. C(entries) may raise L(BrokenChain) where the chain ends."""
    wanted = {head.number for head in anchors.values()}
    heads: dict[int, str] = {}
    repairs: list[str] = []
    last, broken = START, ""
    try:
        for entry in entries:
            last = entry.head
            if entry.kind == "repaired":
                repairs.append(f"  {repair_of(entry)}")
            if last.number in wanted:
                heads[last.number] = last.sha256
    except BrokenChain as error:
        broken = str(error)
    problems = [f"{host} {problem}" for host, head in sorted(anchors.items()) if (problem := anchor_problem(head, heads))]
    if broken:
        problems = [f"the chain breaks: {broken}", *(problems if last.number else [])]
    if problems:
        return False, [f"audit: {name} is NOT what was written", *(f"  {problem}" for problem in problems), *repairs]
    proven = max(wanted, default=0)
    how_far = f"hosts prove all up to line {proven}" if proven else "no host proves any line"
    since = f"; that the {last.number - proven} after it are the last ones nobody can prove" if last.number > proven else ""
    return True, [
        f"audit: {name}: {last.number} events, the chain is whole; {len(anchors)} hosts agree",
        f"  head: {last.number} {last.sha256}",
        f"  {how_far}{since}",
        *repairs,
    ]
