# Copyright: onprem.rollout contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""What each host takes of a release that is tailored to groups, operating systems and architectures.

Pure: no Ansible, no disk, no clock. The first entry of C(rollout_release.tailored) that matches a host counts: its artifacts replace
those of the release, its variables are merged over those of the release. A host that none matches takes the release as it is,
if that has artifacts of its own or no entry has any.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

from ansible_collections.onprem.rollout.plugins.plugin_utils._policy import (
    RING_NAME,
    TOLD,
    Artifact,
    Problem,
    parse_artifact,
    release_digest,
)

WHERE = "rollout_release.tailored"
SAME_ARCH = {"amd64": "x86_64", "arm64": "aarch64"}
TRAITS = {"group": "", "os": "rollout_os", "arch": "rollout_arch"}  # each with the host variable that sets it
OPTIONS = ("when", "artifacts", "variables")

Traits = Mapping[str, frozenset[str]]


def traits(groups: Iterable[Any], os: Any = "", arch: Any = "", facts: Any = None) -> Traits:
    """What a host is: its groups, and the names of its operating system and architecture, none where they are not known."""
    facts = facts if isinstance(facts, Mapping) else {}
    found = {key: str(facts[key]).lower() for key in ("distribution", "os_family", "system") if facts.get(key)}
    major = str(facts.get("distribution_major_version") or "")
    systems = {str(os).lower()} if os else {*found.values(), *(f"{name} {major}" for key, name in found.items() if major and key != "system")}
    machine = str(arch or facts.get("architecture") or "").lower()
    return {
        "group": frozenset(map(str, groups)),
        "os": frozenset(systems),
        "arch": frozenset({SAME_ARCH.get(machine, machine)} if machine else ()),
    }


def wanted(when: Mapping[str, Any], trait: str) -> list[str]:
    """The values of which a host must have one, each as L(traits) writes it."""
    raw = when[trait]
    values = [raw] if isinstance(raw, str) else raw
    if trait == "group":
        return list(values)
    return [SAME_ARCH.get(value.lower(), value.lower()) if trait == "arch" else value.lower() for value in values]


def choose(release: Mapping[str, Any], host: Traits) -> tuple[int | None, str]:
    """The entry that counts for a host, None for the release as it is; or why that cannot be told."""
    entries = release.get("tailored") or []
    for index, entry in enumerate(entries):
        when = entry.get("when") or {}
        unknown = [trait for trait in when if trait != "group" and not host[trait]]
        if not all(trait in unknown or host[trait] & set(wanted(when, trait)) for trait in when):
            continue
        if not unknown:
            return index, ""
        return None, f"[{index}] asks for the {unknown[0]}, which is not known: set {TRAITS[unknown[0]]}, or gather its facts in an earlier play"
    if entries and not release.get("artifacts") and any(entry.get("artifacts") for entry in entries):
        return None, " has no entry that matches, and the release has no artifacts of its own: add an entry, or one without when as the last"
    return None, ""


def resolved(release: Mapping[str, Any], host: Traits) -> dict[str, Any]:
    """What one host takes: the release without C(tailored), with the C(digest) of the whole. A ValueError says why that cannot be told."""
    index, problem = choose(release, host)
    if problem:
        raise ValueError(f"{WHERE}{problem}")
    taken = {key: value for key, value in release.items() if key != "tailored"}
    taken["digest"] = release_digest(release)
    if index is not None:
        entry = release["tailored"][index]
        taken["artifacts"] = entry.get("artifacts", release.get("artifacts") or [])
        taken["variables"] = {**(release.get("variables") or {}), **(entry.get("variables") or {})}
    return taken


def described(release: Mapping[str, Any], index: int | None) -> str:
    """What hosts of an entry take, for people; of variables only the names, as their values may be secret."""
    entry = release["tailored"][index] if index is not None else {}
    artifacts = entry.get("artifacts", release.get("artifacts") or [])
    what = ", ".join(str(item.get("path") or item.get("url")).rstrip("/").rpartition("/")[2] for item in artifacts) or "no artifact"
    variables = f" with {', '.join(map(str, entry['variables']))}" if entry.get("variables") else ""
    if index is None:
        return f"{what} (the release as it is)"
    when = entry.get("when") or {}
    matched = ", ".join(f"{trait} {' or '.join([when[trait]] if isinstance(when[trait], str) else when[trait])}" for trait in when) or "all others"
    return f"{what}{variables} ({matched})"


def parse_tailored(release: Any) -> tuple[list[tuple[str, Artifact]], list[Problem]]:
    """The artifacts of all entries, each with where it stands, and what is wrong with the entries."""
    raw = release.get("tailored", []) if isinstance(release, Mapping) else []
    if not isinstance(raw, list):
        return [], [Problem(WHERE, raw, "write a list of entries, each with when, and artifacts or variables")]
    problems: list[Problem] = []
    artifacts: list[tuple[str, Artifact]] = []
    for index, entry in enumerate(raw):
        where = f"{WHERE}[{index}]"
        if not isinstance(entry, Mapping) or not set(entry) & {"artifacts", "variables"}:
            problems.append(Problem(where, entry, "an entry is a mapping with when, and artifacts or variables"))
            continue
        problems += [Problem(f"{where}.{key}", entry[key], f"no such option; allowed: {', '.join(OPTIONS)}") for key in entry if key not in OPTIONS]
        problems += _when_problems(entry.get("when", {}), f"{where}.when", index == len(raw) - 1)
        items = entry.get("artifacts", [])
        if not isinstance(items, list):
            problems.append(Problem(f"{where}.artifacts", items, "write a list"))
            items = []
        for number, item in enumerate(items):
            place = f"{where}.artifacts[{number}]"
            artifact = parse_artifact(item, place, problems)
            artifacts += [(place, artifact)] if artifact else []
        variables = entry.get("variables", {})
        if not isinstance(variables, Mapping) or not all(isinstance(name, str) and RING_NAME.match(name) for name in variables):
            problems.append(Problem(f"{where}.variables", variables, "write a mapping; name a variable by letters, digits and underscores"))
    return artifacts, problems


def _when_problems(when: Any, where: str, last: bool) -> list[Problem]:
    if not isinstance(when, Mapping):
        return [Problem(where, when, f"write a mapping of {', '.join(TRAITS)}")]
    if not when:
        return [] if last else [Problem(where, when, "matches every host, so that no entry after it is ever taken; write it last")]
    problems = []
    for trait, raw in when.items():
        values = [raw] if isinstance(raw, str) else raw
        if trait not in TRAITS:
            problems.append(Problem(f"{where}.{trait}", raw, f"no such condition; allowed: {', '.join(TRAITS)}"))
        elif not isinstance(values, list) or not values or not all(isinstance(value, str) and value for value in values):
            problems.append(Problem(f"{where}.{trait}", raw, "write a text, or a list of texts of which one must fit"))
    return problems


class Tailor:
    """Tells for every host what it takes, and collects the hosts that can take nothing."""

    def __init__(self, release: Mapping[str, Any]) -> None:
        self._release = release if release.get("tailored") else {}
        self._wrong: dict[str, list[str]] = {}

    def __bool__(self) -> bool:
        """Whether the release is tailored."""
        return bool(self._release)

    def fit(self, name: str, host: Traits, needs: str) -> str:
        """What the host takes, in words. needs: why it must have an artifact, or nothing."""
        if not self._release:
            return ""
        index, problem = choose(self._release, host)
        if not problem and needs and not resolved(self._release, host).get("artifacts"):
            problem = f" gives it no artifact, and {needs}"
        if problem:
            self._wrong.setdefault(problem, []).append(name)
        return "" if problem else described(self._release, index)

    def variables(self, host: Traits, own: Mapping[str, Any]) -> Mapping[str, Any]:
        """The variables that the host is given with the release; own: those of the release."""
        index, problem = choose(self._release, host)
        return own if problem or index is None else resolved(self._release, host)["variables"]

    def problems(self, names: Any) -> list[Problem]:
        """names: puts many hosts in few words."""
        return [Problem(f"host {names(hosts)}", TOLD, f"{WHERE}{problem}") for problem, hosts in self._wrong.items()]
