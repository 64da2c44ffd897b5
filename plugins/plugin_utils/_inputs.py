# Copyright: onprem.rollout contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Everything a rollout is told, read and checked as a whole before any host is touched.

Reads inventory variables through L(_core_input.PlayInput) and artifacts from the controller's disk; decides nothing.
Ranges of C(rollout_pin) are read by packaging, which ansible-core itself depends on.
"""

from __future__ import annotations

import os
import time
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field, replace
from typing import Any

from packaging.specifiers import InvalidSpecifier, SpecifierSet
from packaging.version import InvalidVersion, Version

from ansible_collections.onprem.rollout.plugins.plugin_utils import _artifact, _floors, _gates, _ledgers
from ansible_collections.onprem.rollout.plugins.plugin_utils._gate import Gate
from ansible_collections.onprem.rollout.plugins.plugin_utils._gate_window import WindowGate, future_problem, together_problem
from ansible_collections.onprem.rollout.plugins.plugin_utils._given import (
    LEASE,
    WHOLE,
    Source,
    check_problems,
    domains,
    filled,
    path_problems,
    scalar_problems,
    switch,
    told_apart,
    traits_of,
)
from ansible_collections.onprem.rollout.plugins.plugin_utils._payloads import ARCHIVE, BUILT_IN, payload_problems, setting
from ansible_collections.onprem.rollout.plugins.plugin_utils._plan import Member, Plan, first, make_plan, spread_notes
from ansible_collections.onprem.rollout.plugins.plugin_utils._policy import (
    Artifact,
    Problem,
    Release,
    Ring,
    limit,
    limit_by_cause,
    parse_release,
    parse_rings,
    parse_spread,
)
from ansible_collections.onprem.rollout.plugins.plugin_utils._slices import slice_problems
from ansible_collections.onprem.rollout.plugins.plugin_utils._tailored import Tailor, parse_tailored

ENGINES = ("staged", "linear")
NO_UPGRADE = ("status", "recover")  # nothing is rolled out, so that no release is needed
LIMITS = {"max_failures": limit, "max_unreachable": limit_by_cause, "max_unhealthy": limit}
NOT_OPTED_IN = "candidate: not opted in"
DEFAULT_ROLES = {"rollout_payload": ARCHIVE}
NO_RELEASE = Release("", "", ())


@dataclass(frozen=True, slots=True)
class Inputs:
    verb: str
    plan: Plan
    release: Mapping[str, Any]
    json_file: str
    reconnect_timeout: float
    retry_failed: frozenset[str] = frozenset()
    lease: float = LEASE
    notes: tuple[str, ...] = ()
    ledger: str = ""
    audit: bool = False
    gates: Mapping[str, tuple[Gate, ...]] = field(default_factory=dict)
    replan: bool = False
    max_wait: float = 1800.0
    supersede_wait: float = 1800.0
    force: str = ""
    vulnerable: tuple[str, ...] = ()
    waivers: tuple[str, str] = ("", "")


def read(source: Source, engine: str = "staged") -> tuple[Inputs, list[Problem]]:
    """Read and check all input. The first host's variables speak for what holds for the whole rollout. engine: the one at work."""
    problems = source.play_problems()
    if not source.hosts:
        problems.append(Problem("hosts", [], "no host of the inventory takes part; check the play's hosts and --limit"))
        return Inputs("upgrade", Plan(NO_RELEASE, ()), {}, "", 0.0), problems
    shared = source.variables(source.hosts[0])

    def value(name: str, default: Any) -> Any:
        return filled(source, shared[name], shared, name, problems, default) if name in shared else default

    verb = str(value("rollout_verb", "upgrade"))
    problems += engine_problems(value("rollout_engine", engine), engine) if verb == "upgrade" else []
    upgrades = verb not in NO_UPGRADE
    problems += slice_problems(shared) if upgrades else []
    raw_rings = value("rollout_rings", None)
    declared = raw_rings is not None
    spread = parse_spread(value("rollout_spread", []), "rollout_spread", problems)
    rings, found = parse_rings(raw_rings, spread=spread)
    problems += found
    if verb == "status":
        rings = tuple(replace(ring, spread=()) for ring in rings)  # nobody changes, so nobody needs a place
    raw_release = value("rollout_release", None)
    release: Release | None = NO_RELEASE
    if upgrades or raw_release is not None:
        release, found = parse_release(raw_release)
        problems += found
    data = raw_release if isinstance(raw_release, Mapping) else {}
    vulnerable = value("rollout_vulnerable", [])
    problems += _floors.problems(data, vulnerable) if data and upgrades else []
    waivers, found = waiver_places(str(value("rollout_waivers", "")), str(value("rollout_waiver_signers", "")))
    problems += found
    tailored, found = parse_tailored(data)
    problems += found
    members, found = read_hosts(source, rings, verb, release or NO_RELEASE, Tailor({} if found or not upgrades or release is None else data))
    problems += found
    if upgrades and members and all(member.hold == NOT_OPTED_IN for member in members):
        problems.append(Problem("rollout_release.candidate", True, "no host takes it: set rollout_early_access: true for those that shall"))
    lease = min((member.lease for member in members if not member.hold), default=LEASE)
    default_ring = str(value("rollout_default_ring", "standard"))
    plan, found = make_plan(release or NO_RELEASE, rings, members, default_ring, declared and not source.limited and upgrades)
    limits: dict[str, Any] = {name: read(value(f"rollout_{name}", None), f"rollout_{name}", problems) for name, read in LIMITS.items()}
    common = value("rollout_gates", None)
    problems += soak_problems(plan, lease) if upgrades and engine == "linear" else []
    plan = replace(plan, gates=tuple(common) if isinstance(common, list) else (), **limits)
    problems += found
    if upgrades and release is not None:
        own = [(f"rollout_release.artifacts[{index}]", artifact) for index, artifact in enumerate(release.artifacts)]
        problems += artifact_problems(own + tailored)
    json_file = str(value("rollout_json", ""))
    if json_file and not os.access(os.path.dirname(os.path.abspath(json_file)), os.W_OK):
        problems.append(Problem("rollout_json", json_file, "its directory on the controller does not exist or cannot be written"))
    timeout = value("rollout_reconnect_timeout", 300)
    if not WHOLE.match(str(timeout)):
        problems.append(Problem("rollout_reconnect_timeout", timeout, "write seconds from 0 on"))
        timeout = 300
    ledger = value("rollout_ledger", _ledgers.default_place())
    problem = _ledgers.place_problem(ledger)
    problems += [Problem("rollout_ledger", _ledgers.shown(ledger), problem)] if problem else []
    waits = {}
    for name in ("rollout_max_wait", "rollout_supersede_wait"):
        waits[name] = value(name, 1800)
        if not WHOLE.match(str(waits[name])):
            problems.append(Problem(name, waits[name], "write seconds from 0 on"))
            waits[name] = 1800
    force = [what for what in ("restore", "commit") if verb == "recover" and switch(source, shared, f"rollout_force_{what}", "", problems)]
    if len(force) > 1:
        problems.append(Problem("rollout_force_commit", True, "and rollout_force_restore: true contradict each other; give one of them"))
    retry = frozenset(member.name for member in members if member.retry_failed)
    inputs = Inputs(
        verb, plan, data, json_file, float(timeout), retry, lease, group_notes(source, rings) + spread_notes(plan),
        ledger=str(ledger), max_wait=float(waits["rollout_max_wait"]), supersede_wait=float(waits["rollout_supersede_wait"]),
        audit=switch(source, shared, "rollout_audit", "", problems),
        replan=switch(source, shared, "rollout_replan", "", problems), force="".join(force),
        gates=_gates_of(rings, common, problems) if upgrades else {},
        vulnerable=tuple(map(str, vulnerable)) if isinstance(vulnerable, list) else (), waivers=waivers,
    )  # fmt: skip
    return inputs, problems


def waiver_places(directory: str, signers: str) -> tuple[tuple[str, str], list[Problem]]:
    """The directory of waivers and the file of those who may sign them, on the controller; both or neither."""
    problems = []
    if bool(directory) != bool(signers):
        lacking = "rollout_waiver_signers" if directory else "rollout_waivers"
        problems.append(Problem(lacking, "", "give the directory rollout_waivers and the file rollout_waiver_signers, or neither"))
    if directory and not os.path.isdir(os.path.expanduser(directory)):
        problems.append(Problem("rollout_waivers", directory, f"make this directory; relative paths are looked for in {os.getcwd()}"))
    if signers and not os.path.isfile(os.path.expanduser(signers)):
        problems.append(Problem("rollout_waiver_signers", signers, f"is no file of allowed signers; relative paths are looked for in {os.getcwd()}"))
    return (os.path.abspath(os.path.expanduser(directory)), os.path.abspath(os.path.expanduser(signers))) if directory and signers else ("", ""), problems


def engine_problems(chosen: Any, at_work: str) -> list[Problem]:
    """Whether the engine is the one that was chosen."""
    if chosen not in ENGINES:
        return [Problem("rollout_engine", chosen, f"no such engine; allowed: {', '.join(ENGINES)}")]
    if chosen != at_work:
        remedy = f"this play is of the engine {at_work}, which is chosen before the inventory is read: give it with --extra-vars rollout_engine={chosen}"
        return [Problem("rollout_engine", chosen, remedy)]
    return []


def soak_problems(plan: Plan, lease: float) -> list[Problem]:
    """The engine linear cannot ask a host that soaks, which is what renews its lease."""
    remedy = f"with the engine linear a soak must be shorter than half of rollout_lease ({lease:g} s), or a host that soaks may restore itself"
    return [Problem(f"ring {ring.ring.name}, soak", ring.ring.soak, remedy) for ring in plan.rings if ring.ring.soak >= lease / 2]


def _gates_of(rings: tuple[Ring, ...], common: Any, problems: list[Problem]) -> dict[str, tuple[Gate, ...]]:
    """The gates of each ring: those of all rings first."""
    shared, found = _gates.parse(common, "rollout_gates")
    problems += found
    gates = {}
    for index, ring in enumerate(rings):
        own, found = _gates.parse(list(ring.gates), f"rollout_rings[{index}].gates")
        problems += found
        for name in sorted({gate.name for gate in shared} & {gate.name for gate in own}):
            problems.append(Problem(f"rollout_rings[{index}].gates", name, "is the name of a gate in rollout_gates too; give every gate its own"))
        if shared or own:
            gates[ring.name] = (*shared, *own)
    for index, ring in enumerate(rings):
        awaited = [later.name for later in rings[index:] if later.name in gates and (later is ring or ring.commit == "rollout")]
        if awaited and ring.commit in ("ring", "rollout"):
            remedy = f"hosts cannot stay uncommitted while a gate of the ring {awaited[0]} waits for people or a time: write host or wave"
            problems.append(Problem(f"rollout_rings[{index}].commit", ring.commit, remedy))
    problems += _schedule_problems(gates)
    return gates


def _schedule_problems(gates: Mapping[str, tuple[Gate, ...]]) -> list[Problem]:
    """Windows that nobody is ever let in by, alone or together with the others of their ring."""
    now = time.time()
    windows = [[gate for gate in of_ring if isinstance(gate, WindowGate)] for of_ring in gates.values()]
    alone = {gate.where: future_problem(gate, now) for together in windows for gate in together}
    sound = {tuple(gate.where for gate in together): together for together in windows if not any(alone[gate.where] for gate in together)}
    found = [together_problem(together, now) for together in sound.values() if len(together) > 1]
    return [problem for problem in (*alone.values(), *found) if problem]


def read_hosts(source: Source, rings: tuple[Ring, ...], verb: str, release: Release, tailor: Tailor) -> tuple[list[Member], list[Problem]]:
    """Each host's rings, hold, pin and part of the release, and whether what it is to be snapshotted and checked by can be right."""
    claimed: dict[str, list[str]] = {}
    upgrades = verb not in NO_UPGRADE
    members: list[Member] = []
    problems: list[Problem] = []
    for ring in rings:
        for host in _ring_hosts(source, ring, verb, problems):
            claimed.setdefault(host, []).append(ring.name)
    judged: dict[tuple[Any, ...], Any] = {}
    roles: set[tuple[str, str]] = set()
    irreversible: dict[str, list[str]] = {}
    payloads: dict[tuple[Any, ...], str] = {}
    shared = source.variables(source.hosts[0])
    rules = {rule.by: None for ring in rings for rule in ring.spread}
    for host in source.hosts:
        variables = source.variables(host)
        names = claimed.get(host, [])
        own = variables.get("rollout_ring")
        if own is not None:
            own = str(filled(source, own, variables, f"host {host}, rollout_ring", problems, names[0] if names else ""))
            names = names if own in names else [*names, own]
        pin = filled(source, variables.get("rollout_pin"), variables, f"host {host}, rollout_pin", problems, None)
        pinned, problem = _pin(pin, release.version)
        problems += [Problem(f"host {host}, rollout_pin", pin, problem)] if problem else []
        hold = _hold(filled(source, variables.get("rollout_hold"), variables, f"host {host}, rollout_hold", problems, None))
        retry_failed = switch(source, variables, "rollout_retry_failed", f"host {host}, ", problems)
        opted_in = switch(source, variables, "rollout_early_access", f"host {host}, ", problems)
        waits = NOT_OPTED_IN if release.candidate and not opted_in else None
        lease = str(filled(source, variables.get("rollout_lease", LEASE), variables, f"host {host}, rollout_lease", problems, LEASE))
        placed = domains(source, rules, variables, host, problems)
        kept_out = hold or pinned or waits
        is_what = traits_of(source, variables, host, problems) if tailor else {}
        takes = "" if kept_out or not tailor else tailor.fit(host, is_what, _needs(source, variables))
        members.append(Member(host, tuple(names), kept_out, retry_failed, float(lease) if WHOLE.match(lease) else LEASE, placed, takes))
        reason = _irreversible(source, variables, release, f"host {host}, ", problems)
        if reason and upgrades and not members[-1].hold:
            irreversible.setdefault(reason, []).append(host)
        if upgrades:
            for name in ("rollout_payload", "rollout_drain", "rollout_rejoin", "rollout_quarantine"):
                role = str(filled(source, variables.get(name) or DEFAULT_ROLES.get(name, ""), variables, f"host {host}, {name}", problems, ""))
                if role in BUILT_IN and name == "rollout_payload":
                    payloads.setdefault((role, *setting(role, source, variables, release.name, tailor.variables(is_what, release.variables))), host)
                if role and (name, role) not in roles:
                    roles.add((name, role))
                    problems += role_problems(role, f"host {host}, {name}", source)
            if variables.get("rollout_release") != shared.get("rollout_release"):
                problems.append(Problem(f"host {host}, rollout_release", variables.get("rollout_release"), "a rollout has one release: give it as extra vars"))
        if upgrades and (given := told_apart(source, variables)) not in judged:
            judged[given] = variables  # kept, so that no id comes again
            for name, judge in (("rollout_paths", path_problems), ("rollout_checks", check_problems)):
                raw, where = variables.get(name), f"host {host}, {name}"
                if raw == [] and judge is path_problems and variables.get("rollout_packages"):
                    continue  # a package may be all that an upgrade changes
                whole = isinstance(raw, str) and "{{" in raw  # templates inside a list are left for the host
                problems += judge(filled(source, raw, variables, where, problems, ["{{ }}"]) if whole else raw, where)
            problems += scalar_problems(source, variables, f"host {host}, ")
    problems += payload_problems(release, payloads, bool(tailor)) + tailor.problems(first)
    for reason, hosts in irreversible.items():
        where = f"host {first(hosts)}, rollout_irreversible"
        remedy = "this cannot be undone: set rollout_accept_irreversible: true to go on; a host where it fails is then held for an operator, not restored"
        problems.append(Problem(where, reason, remedy))
    return members, problems


def _needs(source: Source, variables: Mapping[str, Any]) -> str:
    """Why the host must be given an artifact, or nothing; a role that cannot be templated is told of where it is judged."""
    payload = filled(source, variables.get("rollout_payload") or ARCHIVE, variables, "", [], "")
    return f"{ARCHIVE} installs one" if str(payload) == ARCHIVE else ""


def _irreversible(source: Source, variables: Mapping[str, Any], release: Release, where: str, problems: list[Problem]) -> str:
    """What the change of this host cannot undo, unless that is accepted."""
    raw = filled(source, variables.get("rollout_irreversible") or "", variables, f"{where}rollout_irreversible", problems, "")
    if not isinstance(raw, str):
        problems.append(Problem(f"{where}rollout_irreversible", raw, "write what the change cannot undo, as text"))
        return ""
    accepted = switch(source, variables, "rollout_accept_irreversible", where, problems)
    return "" if accepted else raw.strip() or release.irreversible


def _ring_hosts(source: Source, ring: Ring, verb: str, problems: list[Problem]) -> list[str]:
    try:
        found = source.members(ring.hosts)
    except ValueError as error:
        problems.append(Problem(f"ring {ring.name}, hosts", ring.hosts, str(error)))
        return []
    if not found and ring.hosts != f"rollout_{ring.name}" and verb not in NO_UPGRADE:
        problems.append(Problem(f"ring {ring.name}, hosts", ring.hosts, "matches no host of the inventory"))
    return found


def group_notes(source: Source, rings: tuple[Ring, ...]) -> tuple[str, ...]:
    """Groups that look like rings and are none; their hosts go to the default ring."""
    known = {f"rollout_{ring.name}" for ring in rings} | {ring.hosts for ring in rings}
    return tuple(
        f"the group {group} belongs to no ring; its hosts count as unmarked"
        for group in sorted(source.group_names())
        if group.startswith("rollout_") and group not in known
    )


def _hold(value: Any) -> str | None:
    if isinstance(value, str) and value.strip().lower() not in ("", "true", "yes", "false", "no"):
        return value
    on = value.strip().lower() in ("true", "yes") if isinstance(value, str) else bool(value)
    return "rollout_hold is set in the inventory" if on else None


def _pin(raw: Any, version: str) -> tuple[str | None, str]:
    """Why a pinned host does not take the version, if it does not; and what is wrong with its pin, if anything is."""
    if raw is None or not version:
        return None, ""
    pin = str(raw).strip()
    if pin == version:
        return None, ""
    try:
        fits = SpecifierSet(pin if pin[:1] in "<>=!~" else f"=={pin}").contains(Version(version), prereleases=True)
    except InvalidSpecifier:
        return None, 'write a version, such as "1.4", or a range, such as ">=1.4,<2" or "==1.*"'
    except InvalidVersion:
        return None, f"the version {version} of the release has no order; pin to exactly one version"
    return (None if fits else f"pinned to {pin}"), ""


def role_problems(role: str, where: str, source: Source) -> list[Problem]:
    why = source.role_problem(role)
    return [] if why is None else [Problem(where, role, f"this role cannot be loaded: {why}")]


def artifact_problems(artifacts: Iterable[tuple[str, Artifact]]) -> list[Problem]:
    """What is wrong with the files on the controller. artifacts: each with where it stands; what hosts fetch only they can tell."""
    problems: list[Problem] = []
    for where, artifact in artifacts:
        if not artifact.is_url:
            why = _artifact.problem(os.path.expanduser(artifact.location), artifact.size, artifact.sha256, None)
            problems += [Problem(f"{where}.path", artifact.location, f"{why}; relative paths are looked for in {os.getcwd()}")] if why else []
    return problems
