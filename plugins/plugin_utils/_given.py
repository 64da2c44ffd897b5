# Copyright: onprem.rollout contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""What a host is given: its variables, filled in and judged before any host is touched."""

from __future__ import annotations

import os
import re
from collections.abc import Callable, Iterable, Mapping
from typing import Any, Protocol

from ansible_collections.onprem.rollout.plugins.module_utils import _checks, _services
from ansible_collections.onprem.rollout.plugins.plugin_utils import _provider
from ansible_collections.onprem.rollout.plugins.plugin_utils._policy import TOLD, Problem
from ansible_collections.onprem.rollout.plugins.plugin_utils._tailored import Traits, traits

LEASE = 1800.0
TRIES = 40  # core nests every try in the one before
WHOLE = re.compile(r"[0-9]+\Z")  # what int() reads, unlike isdigit(), which also takes "²"
OWN = ("rollout_ring", "rollout_hold", "rollout_pin", "rollout_early_access", "rollout_retry_failed", "rollout_os", "rollout_arch")
# The least that may be written, and the default.
NUMBERS = {
    "rollout_payload_timeout": (1, 600),
    "rollout_step_timeout": (1, 300),
    "rollout_lease": (1, int(LEASE)),
    "rollout_keep": (1, 3),
    "rollout_keep_days": (0, 0),
    "rollout_keep_bytes": (0, 0),
    "rollout_min_free": (0, 1 << 26),
    "rollout_revert_after": (0, 600),
    "rollout_retry_wait": (1, 60),
    "rollout_retry_for": (0, 1800),
    "rollout_quarantine_for": (0, 604800),
}
CHOICES: dict[str, tuple[Any, ...]] = {
    "rollout_immutable": ("refuse", "lift"),
    "rollout_cross_mounts": (False, True),
    "rollout_package_manager": ("auto", "apt", "dnf"),
    "rollout_provider": ("files", "btrfs", "command"),
}
SAME: dict[str, Callable[[str], str]] = {"rollout_packages": lambda item: item.partition("=")[0], "rollout_services": _services.full}


class Source(Protocol):
    """What is needed of core; see L(_core_input.PlayInput)."""

    @property
    def hosts(self) -> list[str]: ...
    @property
    def limited(self) -> bool: ...
    def play_problems(self) -> list[Problem]: ...
    def variables(self, host: str) -> dict[str, Any]: ...
    def template(self, value: Any, variables: Mapping[str, Any]) -> Any: ...
    def members(self, pattern: str) -> list[str]: ...
    def group_names(self) -> list[str]: ...
    def role_problem(self, name: str) -> str | None: ...


def told_apart(source: Source, variables: Mapping[str, Any]) -> tuple[Any, ...]:
    """What tells apart the values of two hosts: who they are, or what they are where that is a template. Most hosts share all of them."""

    def known(value: Any) -> Any:
        if not (isinstance(value, str) and "{{" in value):
            return id(value)
        unfilled: list[Problem] = []
        return repr(filled(source, value, variables, "", unfilled, None)) + "".join(problem.remedy for problem in unfilled)

    return tuple((name, known(variables[name])) for name in sorted(variables) if name.startswith("rollout_") and name not in OWN)


def filled(source: Source, raw: Any, variables: Mapping[str, Any], where: str, problems: list[Problem], default: Any) -> Any:
    """The value with its templates filled in; one that cannot be is a problem like any other."""
    try:
        return source.template(raw, variables)
    except ValueError as error:
        problems.append(Problem(where, raw, str(error)))
        return default


def switch(source: Source, variables: Mapping[str, Any], name: str, where: str, problems: list[Problem]) -> bool:
    """A variable that is on or off; extra vars of the form key=value are text."""
    value = filled(source, variables.get(name, False), variables, f"{where}{name}", problems, False)
    word = str(value).strip().lower()
    if word not in ("true", "false", "yes", "no"):
        problems.append(Problem(f"{where}{name}", value, "write true or false"))
    return word in ("true", "yes")


def domains(source: Source, rules: Iterable[str], variables: Mapping[str, Any], host: str, problems: list[Problem]) -> tuple[tuple[str, str], ...]:
    """The failure domains of a host: each host variable of the rules that it has, with its value as text."""
    found = []
    for by in rules:
        value = filled(source, variables.get(by), variables, f"host {host}, {by}", problems, "unreadable")
        if isinstance(value, (str, int, float)) and not isinstance(value, bool) and str(value).strip():
            found.append((by, str(value).strip()))
    return tuple(found)


def traits_of(source: Source, variables: Mapping[str, Any], host: str, problems: list[Problem]) -> Traits:
    """What a host is, as far as its inventory and the facts gathered before tell it."""
    os, arch = (filled(source, variables.get(name) or "", variables, f"host {host}, {name}", problems, "") for name in ("rollout_os", "rollout_arch"))
    return traits(variables.get("group_names") or (), os, arch, variables.get("ansible_facts"))


def scalar_problems(source: Source, variables: Mapping[str, Any], where: str) -> list[Problem]:
    """Numbers and lists that every host is given, checked before one of them is touched."""
    problems: list[Problem] = []

    def value(name: str, default: Any) -> Any:
        return filled(source, variables.get(name, default), variables, f"{where}{name}", problems, default)

    numbers = {}
    for name, (least, default) in NUMBERS.items():
        given = value(name, default)
        right = not isinstance(given, bool) and WHOLE.match(str(given)) and int(str(given)) >= least
        if not right:
            problems.append(Problem(f"{where}{name}", given, f"write a whole number from {least} on, without a unit"))
        numbers[name] = int(str(given)) if right else default
    for name, allowed in CHOICES.items():
        given = value(name, allowed[0])
        if given not in allowed:
            problems.append(Problem(f"{where}{name}", given, f"write {' or '.join(str(item).lower() for item in allowed)}"))
    for name in ("rollout_packages", "rollout_services", "rollout_restart", "rollout_exclude"):
        given = value(name, []) or []
        if not isinstance(given, list) or not all(isinstance(item, str) for item in given):
            problems.append(Problem(f"{where}{name}", given, "write a list of strings"))
        elif name in SAME:
            names = [SAME[name](item) for item in given]
            problems += [Problem(f"{where}{name}", given, f"names {one} twice; leave one of them") for one in sorted(set(names)) if names.count(one) > 1]
    problems += _provider.problems({name: value(name, default) for name, default in _provider.TOLD.items()}, where)
    checks = value("rollout_checks", [])
    deadlines = [deadline_of(check) for check in checks if isinstance(check, Mapping)] if isinstance(checks, list) else []
    return problems + relation_problems(numbers, max(deadlines, default=0.0), where)


def relation_problems(numbers: Mapping[str, int], longest: float, where: str) -> list[Problem]:
    """Times of one host that cut each other off. C(numbers) has the keys of NUMBERS, C(longest) is the longest deadline of its checks."""
    lease, payload, wait = (numbers[f"rollout_{name}"] for name in ("lease", "payload_timeout", "retry_wait"))
    wrong = {
        "rollout_lease": lease <= payload and f"must be longer than rollout_payload_timeout ({payload} s), or another run may settle the host in mid-payload",
        "rollout_retry_wait": wait >= lease and f"must be shorter than rollout_lease ({lease} s), or another run may settle the host",
        "rollout_retry_for": numbers["rollout_retry_for"] > TRIES * wait and f"must be at most {TRIES} times rollout_retry_wait ({wait} s)",
        "rollout_step_timeout": longest >= numbers["rollout_step_timeout"]
        and f"must be longer than the longest deadline of rollout_checks ({longest:g} s), which it would cut off",
        "rollout_revert_after": 0 < numbers["rollout_revert_after"] <= longest
        and f"must be longer than the longest deadline of rollout_checks ({longest:g} s), or the host restores itself while it is checked; 0 for no timer",
    }
    return [Problem(f"{where}{name}", numbers[name], remedy) for name, remedy in wrong.items() if remedy]


def deadline_of(check: Mapping[str, Any]) -> float:
    try:
        return float(check.get("deadline", 30))
    except (TypeError, ValueError):
        return 0.0  # a template, or reported by the checks' own validation


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
    return [Problem(where, TOLD, text) for text in _checks.validate(checks)]
