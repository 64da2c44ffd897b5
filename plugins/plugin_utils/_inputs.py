# Copyright: onprem.rollout contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Everything a rollout is told, read and checked as a whole before any host is touched.

Reads inventory variables through L(_core.Core) and artifacts from the controller's disk; decides nothing.
Ranges of C(rollout_pin) are read by packaging, which ansible-core itself depends on.
"""

from __future__ import annotations

import hashlib
import os
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Protocol

from packaging.specifiers import InvalidSpecifier, SpecifierSet
from packaging.version import InvalidVersion, Version

from ansible_collections.onprem.rollout.plugins.module_utils import _checks
from ansible_collections.onprem.rollout.plugins.plugin_utils._plan import Member, Plan, make_plan
from ansible_collections.onprem.rollout.plugins.plugin_utils._policy import (
    Problem,
    Release,
    Ring,
    parse_release,
    parse_rings,
)

ARCHIVE = "onprem.rollout.archive"
NO_RELEASE = Release("", "", ())


class Source(Protocol):
    """What is needed of core; see L(_core.Core)."""

    @property
    def hosts(self) -> list[str]: ...
    @property
    def limited(self) -> bool: ...
    def play_problems(self) -> list[Problem]: ...
    def variables(self, host: str) -> dict[str, Any]: ...
    def template(self, value: Any, variables: Mapping[str, Any]) -> Any: ...
    def members(self, pattern: str) -> list[str]: ...
    def role_problem(self, name: str) -> str | None: ...


@dataclass(frozen=True, slots=True)
class Inputs:
    verb: str
    plan: Plan
    release: Mapping[str, Any]
    json_file: str
    reconnect_timeout: float


def read(source: Source) -> tuple[Inputs, list[Problem]]:
    """Read and check all input. The first host's variables speak for what holds for the whole rollout."""
    problems = source.play_problems()
    if not source.hosts:
        problems.append(Problem("hosts", [], "no host of the inventory takes part; check the play's hosts and --limit"))
        return Inputs("upgrade", Plan(NO_RELEASE, ()), {}, "", 0.0), problems
    shared = source.variables(source.hosts[0])

    def value(name: str, default: Any) -> Any:
        return source.template(shared[name], shared) if name in shared else default

    verb = str(value("rollout_verb", "upgrade"))
    declared = "rollout_rings" in shared
    rings, found = parse_rings(value("rollout_rings", None))
    problems += found
    raw_release = value("rollout_release", None)
    release: Release | None = NO_RELEASE
    if verb != "status" or raw_release is not None:
        release, found = parse_release(raw_release)
        problems += found
    members, found = read_hosts(source, rings, verb, (release or NO_RELEASE).version)
    problems += found
    default_ring = str(value("rollout_default_ring", "standard"))
    plan, found = make_plan(release or NO_RELEASE, rings, members, default_ring, declared and not source.limited and verb != "status")
    problems += found
    if verb != "status" and release is not None:
        problems += release_problems(release, str(value("rollout_payload", ARCHIVE)))
    json_file = str(value("rollout_json", ""))
    if json_file and not os.access(os.path.dirname(os.path.abspath(json_file)), os.W_OK):
        problems.append(Problem("rollout_json", json_file, "its directory on the controller does not exist or cannot be written"))
    timeout = value("rollout_reconnect_timeout", 300)
    if not str(timeout).isdigit():
        problems.append(Problem("rollout_reconnect_timeout", timeout, "write seconds from 0 on"))
        timeout = 300
    data = raw_release if isinstance(raw_release, Mapping) else {}
    return Inputs(verb, plan, data, json_file, float(timeout)), problems


def read_hosts(source: Source, rings: tuple[Ring, ...], verb: str, version: str) -> tuple[list[Member], list[Problem]]:
    """Each host's rings, hold and pin, and whether what it is to be snapshotted and checked by can be right."""
    claimed: dict[str, list[str]] = {}
    for ring in rings:
        for host in source.members(ring.hosts):
            claimed.setdefault(host, []).append(ring.name)
    members: list[Member] = []
    problems: list[Problem] = []
    seen: set[tuple[int, int]] = set()
    roles: set[tuple[str, str]] = set()
    for host in source.hosts:
        variables = source.variables(host)
        names = claimed.get(host, [])
        own = variables.get("rollout_ring")
        if own is not None:
            own = str(source.template(own, variables))
            names = names if own in names else [*names, own]
        pinned, problem = _pin(variables.get("rollout_pin"), version, source, variables)
        problems += [Problem(f"host {host}, rollout_pin", variables.get("rollout_pin"), problem)] if problem else []
        members.append(Member(host, tuple(names), _hold(variables.get("rollout_hold"), source, variables) or pinned))
        if verb != "status":
            for name in ("rollout_payload", "rollout_drain", "rollout_rejoin"):
                role = str(source.template(variables.get(name) or "", variables))
                if role and (name, role) not in roles:
                    roles.add((name, role))
                    problems += role_problems(role, f"host {host}, {name}", source)
        paths, checks = variables.get("rollout_paths"), variables.get("rollout_checks")
        if verb != "status" and (id(paths), id(checks)) not in seen:
            seen.add((id(paths), id(checks)))
            problems += path_problems(paths, f"host {host}, rollout_paths")
            problems += check_problems(checks, f"host {host}, rollout_checks")
    return members, problems


def _hold(raw: Any, source: Source, variables: Mapping[str, Any]) -> str | None:
    value = source.template(raw, variables) if raw is not None else False
    if isinstance(value, str) and value.strip().lower() not in ("", "true", "yes", "false", "no"):
        return value
    on = value is True or (isinstance(value, str) and value.strip().lower() in ("true", "yes"))
    return "rollout_hold is set in the inventory" if on else None


def _pin(raw: Any, version: str, source: Source, variables: Mapping[str, Any]) -> tuple[str | None, str]:
    """Why a pinned host does not take the version, if it does not; and what is wrong with its pin, if anything is."""
    if raw is None or not version:
        return None, ""
    pin = str(source.template(raw, variables)).strip()
    if pin == version:
        return None, ""
    try:
        fits = SpecifierSet(pin if pin[:1] in "<>=!~" else f"=={pin}").contains(Version(version), prereleases=True)
    except InvalidSpecifier:
        return None, 'write a version, such as "1.4", or a range, such as ">=1.4,<2" or "==1.*"'
    except InvalidVersion:
        return None, f"the version {version} of the release has no order; pin to exactly one version"
    return (None if fits else f"pinned to {pin}"), ""


def path_problems(paths: Any, where: str) -> list[Problem]:
    """What is certainly wrong with snapshot paths before they are templated on the host."""
    if not isinstance(paths, list) or not paths:
        return [Problem(where, paths, "list the files and directories that an upgrade changes: without them nothing could be restored")]
    problems = []
    for path in paths:
        if isinstance(path, str) and "{{" in path:
            continue
        if not isinstance(path, str) or not path.startswith("/"):
            problems.append(Problem(where, path, "write an absolute path"))
        elif os.path.normpath(path).strip("/") == "":
            problems.append(Problem(where, path, "the whole system cannot be a snapshot path; list what the upgrade changes"))
        elif ".." in path.split("/"):
            problems.append(Problem(where, path, "write it without .."))
    return problems


def check_problems(checks: Any, where: str) -> list[Problem]:
    if not isinstance(checks, list) or not checks:
        return [Problem(where, checks, "declare at least one check: without one nobody can tell a good release from a bad one")]
    return [Problem(where, "", text) for text in _checks.validate(checks)]


def role_problems(role: str, where: str, source: Source) -> list[Problem]:
    why = source.role_problem(role)
    return [] if why is None else [Problem(where, role, f"this role cannot be loaded: {why}")]


def release_problems(release: Release, payload: str) -> list[Problem]:
    problems: list[Problem] = []
    if payload == ARCHIVE and not release.artifacts:
        problems.append(Problem("rollout_release.artifacts", [], f"{ARCHIVE} installs an artifact; name one with path or url, sha256 and size"))
    for index, artifact in enumerate(release.artifacts):
        if not artifact.is_url:
            where = f"rollout_release.artifacts[{index}].path"
            problems += artifact_problems(artifact.location, artifact.sha256, artifact.size, where)
    return problems


def artifact_problems(path: str, sha256: str, size: int, where: str) -> list[Problem]:
    """An artifact on the controller must be there, as long as it says and with the digest it says."""
    try:
        found = os.stat(path).st_size
        if found != size:
            return [Problem(where, path, f"has {found} bytes, the release says {size}; build it again or correct the release")]
        digest = file_digest(path)
    except OSError as error:
        place = f"looked in {os.getcwd()}" if not os.path.isabs(path) else "looked at that very path"
        return [Problem(where, path, f"cannot be read: {error.strerror}; {place}")]
    if digest != sha256:
        return [Problem(where, path, f"has the SHA-256 {digest}, the release says {sha256}; do not install it before you know why")]
    return []


def file_digest(path: str) -> str:
    digest = hashlib.sha256()
    with open(path, "rb") as file:
        while chunk := file.read(1 << 20):
            digest.update(chunk)
    return digest.hexdigest()
