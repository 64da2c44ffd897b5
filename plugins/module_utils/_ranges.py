# Copyright: onprem.rollout contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Ranges of versions in the notation C(vers:<scheme>/<constraint>|<constraint>...), and the order of versions in each scheme.

A host judges for itself whether a version may run, so this is standard library. Schemes, and where their order comes from:

    deb      Debian policy 5.6.12, as dpkg --compare-versions has it
    rpm      rpmvercmp of rpm 4.15 or newer, epochs, ~ and ^ included
    semver   Semantic Versioning 2.0.0; a leading v, and a minor or patch that is left out, are read as they are meant
    pypi     PEP 440

A version that its scheme cannot read has no order: that is a ValueError, and never an answer.
"""

import re
from itertools import zip_longest
from typing import Any, Callable, Dict, List, Tuple
from urllib.parse import unquote

Key = Any  # what the versions of one scheme are compared by
COMPARATORS = ("!=", "<=", ">=", "<", ">", "=")
VERS = re.compile(r"vers:([a-z0-9.+-]+)/(.+)\Z")
DEB = re.compile(r"(?:([0-9]+):)?([0-9][0-9A-Za-z.+~-]*(?=-)|[0-9][0-9A-Za-z.+~]*)(?:-([0-9A-Za-z.+~]+))?\Z")
RPM = re.compile(r"(?:([0-9]+):)?([0-9A-Za-z._+~^]+)(?:-([0-9A-Za-z._+~^]+))?\Z")
SEMVER = re.compile(r"v?([0-9]+)(?:\.([0-9]+))?(?:\.([0-9]+))?(?:-([0-9A-Za-z-]+(?:\.[0-9A-Za-z-]+)*))?(?:\+[0-9A-Za-z.-]+)?\Z")
PYPI = re.compile(
    r"v?(?:([0-9]+)!)?([0-9]+(?:\.[0-9]+)*)"
    r"(?:[-_.]?(alpha|beta|preview|pre|a|b|c|rc)[-_.]?([0-9]*))?"
    r"((?:-([0-9]+))|(?:[-_.]?(?:post|rev|r)[-_.]?([0-9]*)))?"
    r"([-_.]?dev[-_.]?([0-9]*))?(?:\+([a-z0-9]+(?:[-_.][a-z0-9]+)*))?\Z",
    re.IGNORECASE,
)
STAGES = {"a": 0, "alpha": 0, "b": 1, "beta": 1, "c": 2, "rc": 2, "pre": 2, "preview": 2}


class Range:
    """The versions that C(text) names. C(version in range) is a ValueError for one that has no order in its scheme."""

    def __init__(self, text: str) -> None:
        found = VERS.match(text)
        if found is None:
            raise ValueError('write a range such as "vers:deb/>=1.2|<1.4"')
        self.scheme, constraints = found.groups()
        if self.scheme not in SCHEMES:
            raise ValueError("{0} is no scheme whose order is known; allowed: {1}".format(self.scheme, ", ".join(sorted(SCHEMES))))
        self._key = SCHEMES[self.scheme]
        self._all = constraints == "*"
        rows = [] if self._all else [self._constraint(item) for item in constraints.split("|")]
        versions = [version for _comparator, version in rows]
        if any(left == right for at, left in enumerate(versions) for right in versions[:at]):
            raise ValueError("a version stands in it twice; leave one of them")
        self._rows = sorted(rows, key=lambda row: row[1])

    def _constraint(self, text: str) -> Tuple[str, Key]:
        comparator = next((item for item in COMPARATORS if text.startswith(item)), "")
        version = unquote(text[len(comparator) :])
        if version == "*":
            raise ValueError("* stands alone")
        return comparator or "=", self._key(version)

    def __contains__(self, version: str) -> bool:
        asked = self._key(version)
        if self._all:
            return True
        for comparator, bound in self._rows:
            if bound == asked:
                return comparator in ("=", "<=", ">=")
        bounds = [row for row in self._rows if row[0] not in ("=", "!=")]
        if bounds and bounds[0][0] in ("<", "<=") and asked < bounds[0][1]:
            return True
        if bounds and bounds[-1][0] in (">", ">=") and bounds[-1][1] < asked:
            return True
        pairs = (bounds[at : at + 2] for at in range(len(bounds) - 1))
        return any(left[0] in (">", ">=") and right[0] in ("<", "<=") and left[1] < asked < right[1] for left, right in pairs)


class Ordered:
    """A key whose order is a function of two that gives a number below, at or above 0."""

    def __init__(self, parts: Any, compare: Callable[[Any, Any], int]) -> None:
        self.parts = parts
        self.compare = compare

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Ordered) and self.compare(self.parts, other.parts) == 0

    def __lt__(self, other: "Ordered") -> bool:
        return self.compare(self.parts, other.parts) < 0

    __hash__ = None  # type: ignore[assignment]


def _match(pattern: "re.Pattern[str]", version: str, scheme: str) -> Any:
    found = pattern.match(version)
    if found is None:
        raise ValueError("{0} is no version of the scheme {1}".format(version, scheme))
    return found


def _number(text: str) -> int:
    return int(text or 0)


def _deb(version: str) -> Key:
    epoch, upstream, revision = _match(DEB, version, "deb").groups()
    return Ordered((_number(epoch), upstream, revision or "0"), _compare_deb)


def _compare_deb(left: Any, right: Any) -> int:
    return (left[0] > right[0]) - (left[0] < right[0]) or _compare_deb_part(left[1], right[1]) or _compare_deb_part(left[2], right[2])


def _compare_deb_part(left: str, right: str) -> int:
    """Texts and numbers in turn; in a text ~ comes before its end, letters before all else."""
    for (text, number), (other_text, other_number) in zip_longest(_deb_pieces(left), _deb_pieces(right), fillvalue=("", 0)):
        for one, other in zip_longest(map(_deb_weight, text), map(_deb_weight, other_text), fillvalue=0):
            if one != other:
                return one - other
        if number != other_number:
            return number - other_number
    return 0


def _deb_pieces(text: str) -> List[Tuple[str, int]]:
    return [(text, _number(number)) for text, number in re.findall(r"([^0-9]*)([0-9]*)", text) if text or number]


def _deb_weight(letter: str) -> int:
    return -1 if letter == "~" else ord(letter) + (0 if letter.isalpha() else 256)


def _rpm(version: str) -> Key:
    epoch, upstream, release = _match(RPM, version, "rpm").groups()
    return Ordered((_number(epoch), upstream, release or ""), _compare_rpm)


def _compare_rpm(left: Any, right: Any) -> int:
    """One without a release has any: C(1.2) is C(1.2-3), and also C(1.2-4)."""
    by_release = _compare_rpm_part(left[2], right[2]) if left[2] and right[2] else 0
    return (left[0] > right[0]) - (left[0] < right[0]) or _compare_rpm_part(left[1], right[1]) or by_release


def _compare_rpm_part(left: str, right: str) -> int:
    """Digits and letters in turn, separators left out; ~ comes before the end, ^ after it but before any more."""
    ours, theirs = (re.findall(r"[0-9]+|[A-Za-z]+|~|\^", text) for text in (left, right))
    for one, other in zip_longest(ours, theirs, fillvalue=""):
        if one == other:
            continue
        if "~" in (one, other):
            return -1 if one == "~" else 1
        if "^" in (one, other):
            return (1 if not other else -1) if one == "^" else (-1 if not one else 1)
        if not one or not other:
            return 1 if one else -1
        if one.isdigit() != other.isdigit():
            return 1 if one.isdigit() else -1
        if one.isdigit() and int(one) != int(other):
            return int(one) - int(other)
        if not one.isdigit():
            return 1 if one > other else -1
    return 0


def _semver(version: str) -> Key:
    major, minor, patch, pre = _match(SEMVER, version, "semver").groups()
    identifiers = [(0, int(item), "") if item.isdigit() else (1, 0, item) for item in (pre or "").split(".") if item]
    return (int(major), _number(minor), _number(patch), not pre, identifiers)


def _pypi(version: str) -> Key:
    """PEP 440: a development release before a pre-release before the release before a post-release; a local label after it."""
    epoch, release, stage, stage_number, post, post_dash, post_number, dev, dev_number, local = _match(PYPI, version.strip(), "pypi").groups()
    numbers = [int(item) for item in release.split(".")]
    while len(numbers) > 1 and numbers[-1] == 0:
        numbers.pop()
    at_stage = (STAGES[stage.lower()], _number(stage_number)) if stage else (-1, 0) if dev and not post else (3, 0)
    labels = [(1, int(item), "") if item.isdigit() else (0, 0, item) for item in re.split(r"[-_.]", local.lower())] if local else []
    return (
        _number(epoch),
        numbers,
        at_stage,
        _number(post_dash or post_number) if post else -1,
        _number(dev_number) if dev else float("inf"),
        labels,
    )


SCHEMES: Dict[str, Callable[[str], Key]] = {"deb": _deb, "rpm": _rpm, "semver": _semver, "pypi": _pypi}
