# Copyright: onprem.rollout contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""What the customer declared: rings and the release, read from plain data.

Pure: no Ansible, no disk, no clock. Nothing here raises on bad input. Every parser returns what it could read and a
list of L(Problem), so that a caller can show all problems of all sources at once before any host is touched:

    rings, problems = parse_rings(variables.get("rollout_rings"))
    release, more = parse_release(variables.get("rollout_release"))
    if problems + more: refuse

A value whose problem was reported is replaced by its default; never run a policy that has problems.
"""

from __future__ import annotations

import hashlib
import json
import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field, replace
from typing import Any

from ansible_collections.onprem.rollout.plugins.plugin_utils._causes import Cause

ON_FAILURE = ("restore_wave", "restore_host", "hold")
COMMIT_SCOPES = ("host", "wave", "ring", "rollout")
RING_NAME = re.compile(r"^[A-Za-z_][A-Za-z0-9_]*$")
VERSION = re.compile(r"^[A-Za-z0-9][A-Za-z0-9.+~_-]*$")
SHA256 = re.compile(r"^[0-9a-f]{64}$")
WHOLE = re.compile(r"[0-9]+\Z")
TOLD = object()
TOO_MANY = 'write a whole number from 0 on, or a percentage up to "100%"; the rollout is halted when there are more'
PERCENT = re.compile(r"^([0-9]+)%$")


@dataclass(frozen=True, slots=True)
class Problem:
    """One thing wrong with the input: where it stands, its value (L(TOLD) when the remedy names it), and what to write instead."""

    where: str
    value: Any
    remedy: str

    def __str__(self) -> str:
        return f"{self.where}: {self.remedy}" if self.value is TOLD else f"{self.where}: {self.value!r}: {self.remedy}"


@dataclass(frozen=True, slots=True)
class Spread:
    """Never more than C(max) hosts with the same value of the host variable C(by) are in change at once."""

    by: str
    max: int


@dataclass(frozen=True, slots=True)
class Ring:
    """Hosts of one risk class and how they are upgraded.

    serial: wave sizes, each a number of hosts (>= 1) or a percentage of the ring such as "10%"; the last one repeats.
    concurrency: how many hosts of a wave may be in change at once; None means all of the wave.
    max_failures: the rollout is halted when failures > max_failures in the ring; a number, or a percentage of its hosts, rounded down.
    max_wave_failures: the same for each of its waves; None for no limit.
    max_unreachable: the same for hosts that could not be reached before their change; or a limit for each L(_causes.Cause).
    progress_deadline: seconds; the rollout is halted when hosts are in change and none came any further for > progress_deadline. 0 is no limit.
    soak: seconds a wave must stay healthy before it is committed.
    soak_interval: seconds after which a host that soaks is checked again; 0 is never.
    require_drill: a host of this ring, or of one before it, must have passed a drill of the release.
    gates: what each of its waves waits for, as written; L(_gates.parse) reads it.
    spread: the failure domains of which only so many hosts may be in change at once.
    """

    name: str
    hosts: str
    serial: tuple[int | str, ...] = ("100%",)
    concurrency: int | None = None
    max_failures: int | str = 0
    max_wave_failures: int | str | None = None
    max_unreachable: int | str | Mapping[str, int | str | None] | None = None
    soak: float = 0.0
    soak_interval: float = 60.0
    progress_deadline: float = 0.0
    commit: str = "wave"
    on_failure: str = "restore_wave"
    require_drill: bool = False
    gates: tuple[Any, ...] = ()
    spread: tuple[Spread, ...] = ()


@dataclass(frozen=True, slots=True)
class Artifact:
    """A file of a release: a path on the controller or a URL the hosts fetch, its SHA-256 and its size in bytes."""

    location: str
    is_url: bool
    sha256: str
    size: int


@dataclass(frozen=True, slots=True)
class Release:
    """What is rolled out. irreversible: what it changes that no restore can undo, or nothing.
    candidate: goes only to hosts that opted in. epoch: raised when older releases become unsafe."""

    name: str
    version: str
    artifacts: tuple[Artifact, ...]
    variables: Mapping[str, Any] = field(default_factory=dict)
    irreversible: str = ""
    candidate: bool = False
    epoch: int = 0

    @property
    def label(self) -> str:
        return f"{self.name} {self.version}"


DEFAULT_RINGS = (
    Ring("early", "rollout_early", (1, "50%", "100%")),
    Ring("standard", "rollout_standard", ("10%", "50%", "100%")),
    Ring("critical", "rollout_critical", (1, "25%")),
)
DEFAULT_SERIAL = {ring.name: ring.serial for ring in DEFAULT_RINGS}


def parse_rings(raw: Any, where: str = "rollout_rings", spread: tuple[Spread, ...] = ()) -> tuple[tuple[Ring, ...], list[Problem]]:
    """Read O(rollout_rings). None gives the three default rings. spread: of rings that say nothing of their own."""
    if raw is None:
        return tuple(replace(ring, spread=spread) for ring in DEFAULT_RINGS), []
    if not isinstance(raw, list) or not raw:
        return DEFAULT_RINGS, [Problem(where, raw, "write a list of rings, each with at least a name, or leave it out")]
    problems: list[Problem] = []
    rings: list[Ring] = []
    for index, item in enumerate(raw):
        ring = _parse_ring(item, f"{where}[{index}]", spread, problems)
        if ring is None:
            continue
        if any(ring.name == other.name for other in rings):
            problems.append(Problem(f"{where}[{index}].name", ring.name, "is used twice; give every ring its own name"))
            continue
        rings.append(ring)
    return tuple(rings), problems


def _parse_ring(raw: Any, where: str, spread: tuple[Spread, ...], problems: list[Problem]) -> Ring | None:
    if not isinstance(raw, Mapping):
        problems.append(Problem(where, raw, "a ring is a mapping with at least a name"))
        return None
    known = set(Ring.__dataclass_fields__)
    for option in raw:
        if option not in known:
            problems.append(Problem(f"{where}.{option}", raw[option], f"no such option; allowed: {', '.join(sorted(known))}"))
    name = raw.get("name")
    if not isinstance(name, str) or not RING_NAME.match(name):
        problems.append(Problem(f"{where}.name", name, "write a name of letters, digits and underscores"))
        return None
    hosts = raw.get("hosts", f"rollout_{name}")
    if not isinstance(hosts, str) or not hosts.strip():
        problems.append(Problem(f"{where}.hosts", hosts, "write a host pattern, such as the name of a group"))
        hosts = f"rollout_{name}"
    return Ring(
        name=name,
        hosts=hosts,
        serial=_serial(raw.get("serial", DEFAULT_SERIAL.get(name, ("100%",))), f"{where}.serial", problems),
        concurrency=_concurrency(raw.get("concurrency"), f"{where}.concurrency", problems),
        max_failures=limit(raw.get("max_failures", 0), f"{where}.max_failures", problems) or 0,
        max_wave_failures=limit(raw.get("max_wave_failures"), f"{where}.max_wave_failures", problems),
        max_unreachable=limit_by_cause(raw.get("max_unreachable"), f"{where}.max_unreachable", problems),
        progress_deadline=_seconds(raw.get("progress_deadline", 0), f"{where}.progress_deadline", problems),
        soak=_seconds(raw.get("soak", 0), f"{where}.soak", problems),
        soak_interval=_seconds(raw.get("soak_interval", 60), f"{where}.soak_interval", problems),
        commit=_choice(raw.get("commit", "wave"), COMMIT_SCOPES, f"{where}.commit", problems),
        on_failure=_choice(raw.get("on_failure", "restore_wave"), ON_FAILURE, f"{where}.on_failure", problems),
        require_drill=_flag(raw.get("require_drill", False), f"{where}.require_drill", problems),
        gates=_gates(raw.get("gates"), f"{where}.gates", problems),
        spread=parse_spread(raw["spread"], f"{where}.spread", problems) if "spread" in raw else spread,
    )


def parse_spread(raw: Any, where: str, problems: list[Problem]) -> tuple[Spread, ...]:
    """Read O(rollout_spread) or the option of a ring: a list of rules, each with C(by) and C(max)."""
    if not isinstance(raw, list):
        problems.append(Problem(where, raw, "write a list of rules such as {by: rack, max: 1}"))
        return ()
    rules: list[Spread] = []
    for index, item in enumerate(raw):
        place = f"{where}[{index}]"
        if not isinstance(item, Mapping) or set(item) != {"by", "max"}:
            problems.append(Problem(place, item, "write by, the name of a host variable, and max, such as {by: rack, max: 1}"))
            continue
        by, most = item["by"], _whole(item["max"])
        if not isinstance(by, str) or not RING_NAME.match(by):
            problems.append(Problem(f"{place}.by", by, "write the name of a host variable, such as rack"))
        elif any(by == rule.by for rule in rules):
            problems.append(Problem(f"{place}.by", by, "has a rule already; leave one of them"))
        elif most is None or most < 1:
            problems.append(Problem(f"{place}.max", item["max"], f"write how many hosts of one {by} may be in change at once, a whole number from 1 on"))
        else:
            rules.append(Spread(by, most))
    return tuple(rules)


def _gates(raw: Any, where: str, problems: list[Problem]) -> tuple[Any, ...]:
    if raw is None:
        return ()
    if not isinstance(raw, list):
        problems.append(Problem(where, raw, "write a list of gates, each with a type"))
        return ()
    return tuple(raw)


def _serial(raw: Any, where: str, problems: list[Problem]) -> tuple[int | str, ...]:
    items = list(raw) if isinstance(raw, (list, tuple)) else [raw]
    if not items:
        problems.append(Problem(where, raw, "write at least one wave size"))
    for item in items:
        if not _is_size(item):
            problems.append(Problem(where, item, 'a wave size is a number of hosts from 1 on, or a percentage from "1%" to "100%"'))
    sizes = tuple(int(item) if WHOLE.match(str(item)) else str(item) for item in items if _is_size(item))
    return sizes or ("100%",)


def _is_size(item: Any) -> bool:
    if isinstance(item, bool):
        return False
    if isinstance(item, int) or (isinstance(item, str) and WHOLE.match(item)):
        return int(item) >= 1
    percent = PERCENT.match(item) if isinstance(item, str) else None
    return percent is not None and 1 <= int(percent[1]) <= 100


def _concurrency(raw: Any, where: str, problems: list[Problem]) -> int | None:
    if raw is None:
        return None
    number = _whole(raw)
    if number is None or number < 1:
        problems.append(Problem(where, raw, "write how many hosts may be in change at once, from 1 on, or leave it out"))
        return None
    return number


def limit(raw: Any, where: str, problems: list[Problem]) -> int | str | None:
    """How many hosts may fail or be missing: a number from 0 on, a percentage, or None for any number."""
    if raw is None:
        return None
    percent = PERCENT.match(raw) if isinstance(raw, str) else None
    number = _whole(raw)
    if percent and int(percent[1]) <= 100:
        return str(raw)
    if number is None or number < 0:
        counted = f"max_{where.rpartition('max_')[2]}"
        problems.append(Problem(where, raw, f'write a whole number from 0 on, or a percentage up to "100%"; more than {counted} is too many'))
        return 0
    return number


def limit_by_cause(raw: Any, where: str, problems: list[Problem]) -> int | str | Mapping[str, int | str | None] | None:
    """Read O(rollout_max_unreachable) or the option of a ring: one limit, or one for each cause."""
    if not isinstance(raw, Mapping):
        return limit(raw, where, problems)
    causes = [str(cause) for cause in Cause]
    unknown = [name for name in raw if name not in causes]
    if unknown or not raw:
        problems.append(Problem(where, dict(raw), f"write a limit for one or more of {', '.join(causes)}, or one limit for all that are unreachable before"))
    return {str(name): limit(raw[name], f"{where}.{name}", problems) for name in raw if name not in unknown}


def _seconds(raw: Any, where: str, problems: list[Problem]) -> float:
    units = {"": 1, "s": 1, "m": 60, "h": 3600, "d": 86400}
    match = re.match(r"^([0-9]+(?:\.[0-9]+)?)([smhd]?)$", str(raw)) if not isinstance(raw, bool) else None
    if match is None:
        problems.append(Problem(where, raw, 'write seconds from 0 on, or a number with s, m, h or d, such as "10m"'))
        return 0.0
    return float(match[1]) * units[match[2]]


def _choice(raw: Any, allowed: tuple[str, ...], where: str, problems: list[Problem]) -> str:
    if raw in allowed:
        return str(raw)
    problems.append(Problem(where, raw, f"allowed: {', '.join(allowed)}"))
    return allowed[0]


def _flag(raw: Any, where: str, problems: list[Problem]) -> bool:
    if not isinstance(raw, bool):
        problems.append(Problem(where, raw, "write true or false"))
    return raw is True


def _whole(raw: Any) -> int | None:
    if isinstance(raw, bool) or not isinstance(raw, (int, str)) or not re.match(r"^-?[0-9]+$", str(raw)):
        return None
    return int(raw)


def parse_release(raw: Any, where: str = "rollout_release") -> tuple[Release | None, list[Problem]]:
    """Read O(rollout_release). Each artifact needs exactly one of path and url, a sha256 and a size. C(tailored) is read by L(_tailored)."""
    if not isinstance(raw, Mapping):
        return None, [Problem(where, raw, "give the release as extra vars: -e @release.yml with name, version and artifacts")]
    problems: list[Problem] = []
    known = ("name", "version", "artifacts", "variables", "irreversible", "candidate", "epoch", "vulnerable", "tailored")
    for option in raw:
        if option not in known:
            problems.append(Problem(f"{where}.{option}", raw[option], f"no such option; allowed: {', '.join(known)}"))
    name, version = raw.get("name"), raw.get("version")
    if not isinstance(name, str) or not VERSION.match(name):
        problems.append(Problem(f"{where}.name", name, "write a name of letters, digits and . + ~ _ -"))
    if not isinstance(version, str) or not VERSION.match(version):
        problems.append(Problem(f"{where}.version", version, 'write a version as a quoted string, such as "2.0"'))
    artifacts = raw.get("artifacts", [])
    if not isinstance(artifacts, list):
        problems.append(Problem(f"{where}.artifacts", artifacts, "write a list"))
        artifacts = []
    variables = raw.get("variables", {})
    if not isinstance(variables, Mapping):
        problems.append(Problem(f"{where}.variables", variables, "write a mapping"))
        variables = {}
    irreversible = raw.get("irreversible", "")
    if not isinstance(irreversible, str):
        problems.append(Problem(f"{where}.irreversible", irreversible, "write what it cannot undo, as text, or leave it out"))
    candidate = raw.get("candidate", False)
    if not isinstance(candidate, bool):
        problems.append(Problem(f"{where}.candidate", candidate, "write true for a release that goes only to hosts with rollout_early_access, or leave it out"))
    epoch = _whole(raw.get("epoch", 0))
    if epoch is None or epoch < 0:
        problems.append(Problem(f"{where}.epoch", raw["epoch"], "write a whole number from 0 on; raise it when older releases become unsafe"))
    for variable in variables:
        if not isinstance(variable, str) or not RING_NAME.match(variable):
            problems.append(Problem(f"{where}.variables", variable, "name a variable by letters, digits and underscores"))
    parsed = [parse_artifact(item, f"{where}.artifacts[{index}]", problems) for index, item in enumerate(artifacts)]
    if problems:
        return None, problems
    found = tuple(item for item in parsed if item is not None)
    return Release(str(name), str(version), found, dict(variables), str(irreversible).strip(), bool(candidate), epoch or 0), []


def parse_artifact(raw: Any, where: str, problems: list[Problem]) -> Artifact | None:
    if not isinstance(raw, Mapping):
        problems.append(Problem(where, raw, "an artifact is a mapping with path or url, sha256 and size"))
        return None
    known = ("path", "url", "sha256", "size")
    before = len(problems)
    for option in raw:
        if option not in known:
            problems.append(Problem(f"{where}.{option}", raw[option], f"no such option; allowed: {', '.join(known)}"))
    locations = [key for key in ("path", "url") if raw.get(key)]
    if len(locations) != 1:
        problems.append(Problem(where, dict(raw), "write exactly one of path (on the controller) and url (fetched by the hosts)"))
    elif locations == ["url"] and not re.match(r"^(https?|file)://", str(raw["url"])):
        problems.append(Problem(f"{where}.url", raw["url"], "allowed: http://, https:// and file:// URLs"))
    sha256, size = raw.get("sha256"), _whole(raw.get("size"))
    if not isinstance(sha256, str) or not SHA256.match(sha256):
        problems.append(Problem(f"{where}.sha256", sha256, "write the 64 lower-case hex digits that sha256sum prints"))
    if size is None or size < 1:
        problems.append(Problem(f"{where}.size", raw.get("size"), "write the size in bytes, from 1 on"))
    if len(problems) > before:
        return None
    return Artifact(str(raw[locations[0]]), locations == ["url"], str(sha256), int(size or 0))


def release_digest(release: Mapping[str, Any]) -> str:
    """The identity of a release: SHA-256 over its name, its version, its artifacts' SHA-256, its variables, its epoch and how it is tailored, in hex.

    It is the same for every host, whatever that takes of the release. Where an artifact lies does not change what is installed, so a
    mirror does not make a new release; another configuration does.
    """

    def digests(part: Mapping[str, Any]) -> list[Any]:
        return [item.get("sha256") for item in part.get("artifacts") or []]

    variables, tailored = release.get("variables"), release.get("tailored")
    identity = [release.get("name"), release.get("version"), digests(release)] + ([variables] if variables else [])
    if release.get("epoch"):
        identity.append({"epoch": int(release["epoch"])})
    if tailored:
        identity.append({"tailored": [[entry.get("when"), digests(entry), entry.get("variables")] for entry in tailored]})
    canonical = json.dumps(identity, sort_keys=True, default=str)
    return hashlib.sha256(canonical.encode()).hexdigest()


def render(problems: Iterable[Problem]) -> str:
    """All problems as one message, numbered, one to a line."""
    rows = [f"  {number}. {problem}" for number, problem in enumerate(problems, 1)]
    count = f"{len(rows)} problem{'s' if len(rows) != 1 else ''}"
    return "\n".join([f"This rollout cannot start ({count}; no host was touched):", *rows])
