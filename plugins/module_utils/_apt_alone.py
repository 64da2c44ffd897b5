# Copyright: onprem.rollout contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Whether packages change alone, by what they say about themselves.

Most releases of a service need nothing that the host does not have. To see that costs a hundredth of what apt takes to
simulate the change on a host that knows sixty thousand packages. In any doubt the answer is no, and apt is asked.
"""

import re
from typing import Any, Callable, Dict, List, Tuple

from ._dpkg import paragraph

RELATION = re.compile(r"([a-z0-9][a-z0-9+.-]*)(?::any)?(?:\s*\(\s*(<<|<=|=|>=|>>)\s*(\S+?)\s*\))?\Z")
NEEDS = ("Pre-Depends", "Depends", "Recommends")
AVOIDS = ("Breaks", "Conflicts")
WORDS = {"<<": "lt", "<=": "le", "=": "eq", ">=": "ge", ">>": "gt"}
Question = Tuple[str, str, str]
Compare = Callable[[List[Question]], List[bool]]


def alone(names: List[str], texts: List[str], packages: Dict[str, Dict[str, Any]], compare: Compare) -> bool:
    """Whether nothing but the named packages changes when what the C(texts) describe is installed. C(texts): of apt-cache show."""
    described = [dict(paragraph(text)) for text in texts if text.strip()]
    if sorted({fields.get("Package", "") for fields in described}) != sorted(names):
        return False
    for key, facts in packages.items():
        if key not in names and set(names).intersection(facts["needs"] + facts["avoids"]):
            return False
    installed = {key: facts["version"] for key, facts in packages.items() if facts["state"] == "installed" and key not in names}
    provided = {name for key in installed for name in packages[key]["provides"]}
    asked = []  # type: List[Question]
    for fields in described:
        for field in NEEDS:
            for clause in _clauses(fields.get(field, "")):
                if not _met(clause, installed, provided, asked):
                    return False
        for field in AVOIDS:
            for clause in _clauses(fields.get(field, "")):
                match = RELATION.match(clause)
                if match is None or (match.group(1) in provided and not _avoided(match.groups(), installed, asked)):
                    return False
    return all(compare(asked))


def _clauses(value: str) -> List[str]:
    return [" ".join(clause.split()) for clause in value.split(",") if clause.strip()]


def _met(clause: str, installed: Dict[str, str], provided: Any, asked: List[Question]) -> bool:
    """Whether the first alternative that is there meets the clause; a version is left to be C(asked) about."""
    for alternative in clause.split("|"):
        match = RELATION.match(alternative.strip())
        if match is None:
            return False
        name, relation, version = match.groups()
        if relation is None and name in provided:
            return True
        if name in installed:
            asked.append((installed[name], WORDS[relation], version))
            return True
    return False


def _avoided(relation: Tuple[Any, ...], installed: Dict[str, str], asked: List[Question]) -> bool:
    """Whether what is not wanted is there only in another version; that is left to be C(asked) about."""
    opposite = {"<<": "ge", "<=": "gt", "=": "ne", ">=": "lt", ">>": "le"}
    name, sign, version = relation
    if sign is None or name not in installed:
        return False
    asked.append((installed[name], opposite[sign], version))
    return True
