# Copyright: onprem.rollout contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""What the built-in payloads need to be told, judged before any host is touched."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from typing import Any

from ansible_collections.onprem.rollout.plugins.module_utils import _podman, _services
from ansible_collections.onprem.rollout.plugins.plugin_utils._given import Source
from ansible_collections.onprem.rollout.plugins.plugin_utils._policy import Problem, Release

ARCHIVE, CONTAINER = "onprem.rollout.archive", "onprem.rollout.container"
Strings = Sequence[str] | None
UNKNOWN = None  # of a template that only the host can fill in; not judged here
FILES = {"quadlet": "/etc/containers/systemd/{}.container", "unit": "/etc/systemd/system/{}.service"}
BUILT_IN: dict[str, tuple[str, ...]] = {
    ARCHIVE: ("archive_dest", "rollout_paths"),
    CONTAINER: ("container_image", "container_name", "container_runner", "rollout_paths", "rollout_services"),
}


def setting(role: str, source: Source, variables: Mapping[str, Any], name: str, more: Mapping[str, Any]) -> tuple[Any, ...]:
    """The values of BUILT_IN on a host, lists as tuples. Variables of the release, C(more), win, as they do on the host."""
    given = {"container_name": name, "container_runner": "auto", **variables, **more}
    found: list[Any] = []
    for option in BUILT_IN[role]:
        try:
            value = source.template(given.get(option), variables)
            found.append(tuple(str(item) for item in value) if isinstance(value, list) else str(value or ""))
        except (ValueError, TypeError):
            found.append(UNKNOWN)
    return tuple(found)


def payload_problems(release: Release, payloads: Mapping[tuple[Any, ...], str], tailored: bool) -> list[Problem]:
    """payloads: the role with its setting(), each with its first host. tailored: whether every host takes an artifact is judged there."""
    problems: list[Problem] = []
    for (role, *values), host in payloads.items():
        judge = _archive if role == ARCHIVE else _container
        problems += judge(f"host {host}, ", *values)
    if not (release.artifacts or tailored) and any(role == ARCHIVE for role, *_values in payloads):
        problems.append(Problem("rollout_release.artifacts", [], f"{ARCHIVE} installs an artifact; name one with path or url, sha256 and size"))
    return problems


def _archive(where: str, dest: str | None, paths: Strings) -> list[Problem]:
    if dest == "":
        return [Problem(f"{where}archive_dest", dest, f"{ARCHIVE} needs the directory to install into")]
    return _uncovered(f"{where}archive_dest", dest, paths)


def _container(
    where: str, image: str | None, name: str | None, runner: str | None, paths: Sequence[str] | None, services: Sequence[str] | None
) -> list[Problem]:
    problems: list[Problem] = []
    if image is not UNKNOWN and not _podman.REFERENCE.match(image):
        problems.append(Problem(f"{where}container_image", image, f"{CONTAINER} needs an image with its digest: {_podman.remedy(image)}"))
    if runner is not UNKNOWN and runner not in ("auto", *FILES):
        problems.append(Problem(f"{where}container_runner", runner, "write auto, quadlet or unit"))
    if name is UNKNOWN:
        return problems
    if not _podman.NAME.match(name):
        return [*problems, Problem(f"{where}container_name", name, "write letters and digits, with single . _ or - in between")]
    for each, path in FILES.items():
        if runner in ("auto", each):
            problems += _uncovered(f"{where}rollout_paths", path.format(name), paths)
    if services is not UNKNOWN and f"{name}.service" not in [_services.full(service) for service in services]:
        problems.append(Problem(f"{where}rollout_services", list(services), f"{name}.service is not in it, so a restore would not restart it; add it there"))
    return problems


def _uncovered(where: str, path: str | None, paths: Strings) -> list[Problem]:
    """A problem when no snapshot would have what the payload changes."""
    if path is UNKNOWN or paths is UNKNOWN:
        return []
    place = os.path.normpath(path)
    tops = [os.path.normpath(top) for top in paths]
    if any(place == top or place.startswith(top.rstrip("/") + "/") for top in tops):
        return []
    return [Problem(where, path, "is in none of rollout_paths, so that nothing of it could be restored; add it there")]
