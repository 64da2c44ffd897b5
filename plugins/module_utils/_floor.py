# Copyright: onprem.rollout contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Below what a host must not go. Pure.

C(record["floors"]) has, by the name of a release, the highest C(epoch) that was committed here, the C(version) that raised it and when
(C(at)), and the ranges of versions that are C(vulnerable). The host keeps and judges this by itself, so no controller can forget it.

A release here has C(name), C(version), and, where they are not 0 and none, C(epoch) and C(vulnerable).
"""

from typing import Any, Dict, List, Optional

from ._ranges import Range

Floors = Dict[str, Dict[str, Any]]
Release = Dict[str, Any]


def sound(floors: Any) -> bool:
    """Whether this is what was written, as far as its shape tells."""
    return isinstance(floors, dict) and all(
        isinstance(floor, dict)
        and isinstance(floor.get("epoch", 0), int)
        and isinstance(floor.get("vulnerable", []), list)
        and all(isinstance(text, str) for text in floor.get("vulnerable", []))
        for floor in floors.values()
    )


def judge(floors: Optional[Floors], release: Release) -> str:
    """Why the release must not run here; empty when it may. What cannot be told counts as vulnerable."""
    floor = (floors or {}).get(release["name"]) or {}
    if _epoch(release) < _epoch(floor):
        return "its epoch is {0}, and {1} {2}, committed here on {3}, has epoch {4}: everything older is unsafe".format(
            _epoch(release), release["name"], floor.get("version"), floor.get("at"), _epoch(floor)
        )
    return _vulnerable(release["version"], _ranges(floor, release))


def unsafe(floors: Optional[Floors], running: Optional[Release], attempted: Release) -> str:
    """Why what a host runs after its restore is unsafe, as far as the release that it was to run tells; empty when it is not.

    running: None when nobody knows what it is, which is older than any release.
    """
    if _epoch(running or {}) < _epoch(attempted):
        return "{0} {1} has epoch {2}: everything older is unsafe".format(attempted["name"], attempted["version"], _epoch(attempted))
    ranges = _ranges((floors or {}).get(attempted["name"]) or {}, attempted)
    return _vulnerable(running["version"], ranges) if running and running["name"] == attempted["name"] else ""


def declared(floors: Optional[Floors], release: Release) -> Floors:
    """The floors, with what the release declares vulnerable. Nothing that was declared before is forgotten."""
    return _with(floors, release, {"vulnerable": _ranges(_floor(floors, release), release)}) if release.get("vulnerable") else dict(floors or {})


def raised(floors: Optional[Floors], release: Release, at: str) -> Floors:
    """The floors once the release is committed. A higher epoch replaces the ranges that older releases declared: they are below it."""
    if _epoch(release) <= _epoch(_floor(floors, release)):
        return declared(floors, release)
    known = release.get("vulnerable") or _floor(floors, release).get("vulnerable") or []
    return _with(floors, release, {"epoch": _epoch(release), "version": release["version"], "at": at, "vulnerable": list(known)})


def _floor(floors: Optional[Floors], release: Release) -> Dict[str, Any]:
    return (floors or {}).get(release["name"]) or {}


def _with(floors: Optional[Floors], release: Release, changes: Dict[str, Any]) -> Floors:
    return dict(floors or {}, **{release["name"]: dict(_floor(floors, release), **changes)})


def _epoch(of: Dict[str, Any]) -> int:
    return int(of.get("epoch") or 0)


def _ranges(floor: Dict[str, Any], release: Release) -> List[str]:
    known = list(floor.get("vulnerable") or [])
    return known + [text for text in release.get("vulnerable") or [] if text not in known]


def _vulnerable(version: str, ranges: List[str]) -> str:
    for text in ranges:
        try:
            if version in Range(text):
                return "{0} is in the range {1}, which is declared vulnerable".format(version, text)
        except ValueError as error:
            return "nobody can tell whether {0} is in the range {1}, which is declared vulnerable: {2}".format(version, text, error)
    return ""
