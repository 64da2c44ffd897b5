# Copyright: onprem.rollout contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""The plan: which host is upgraded in which wave of which ring.

Pure: no Ansible, no disk, no clock. The same policy, release and hosts give the same plan, always.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field, replace
from typing import Any

from ansible_collections.onprem.rollout.plugins.plugin_utils._policy import TOLD, Problem, Release, Ring
from ansible_collections.onprem.rollout.plugins.plugin_utils._spread import Domain, Domains, at_once


@dataclass(frozen=True, slots=True)
class Member:
    """A host as the inventory declares it.

    rings: the names of every ring that claims it; more than one is a problem, none means the default ring.
    hold: why the customer wants it left alone, or None.
    retry_failed: a release that failed on it before is tried again.
    lease: for how many seconds a run has it when nothing more is heard of that run.
    domains: the failure domains that it is in.
    takes: what of a tailored release it takes, in words.
    """

    name: str
    rings: tuple[str, ...] = ()
    hold: str | None = None
    retry_failed: bool = False
    lease: float = 1800.0
    domains: tuple[Domain, ...] = ()
    takes: str = ""


@dataclass(frozen=True, slots=True)
class RingPlan:
    ring: Ring
    waves: tuple[tuple[str, ...], ...]

    @property
    def hosts(self) -> tuple[str, ...]:
        return tuple(host for wave in self.waves for host in wave)


@dataclass(frozen=True, slots=True)
class Plan:
    """rings in the order they are upgraded; held hosts with their reason take no part.

    domains: the failure domains of every host that is in any that a ring has a rule for.
    takes: of a tailored release, in words, with the hosts.
    max_failures, max_unreachable, max_unhealthy: of the whole rollout; a number, a percentage of its hosts, None for no limit. As in L(_policy.Ring).
    gates: of all rings, as written.
    """

    release: Release
    rings: tuple[RingPlan, ...]
    held: Mapping[str, str] = field(default_factory=dict)
    domains: Domains = field(default_factory=dict)
    takes: Mapping[str, tuple[str, ...]] = field(default_factory=dict)
    max_failures: int | str | None = None
    max_unreachable: int | str | Mapping[str, int | str | None] | None = None
    max_unhealthy: int | str | None = None
    gates: tuple[Any, ...] = ()

    @property
    def hosts(self) -> tuple[str, ...]:
        return tuple(host for ring in self.rings for host in ring.hosts)

    @property
    def wave_count(self) -> int:
        return sum(len(ring.waves) for ring in self.rings)


def make_plan(release: Release, rings: Iterable[Ring], members: Iterable[Member], default_ring: str, declared: bool) -> tuple[Plan, list[Problem]]:
    """Put every member into a wave.

    declared: the customer wrote the rings, so a ring that nobody is in is a mistake; of the default rings it is not.
    """
    rings = tuple(rings)
    members = tuple(members)
    problems = _membership_problems(rings, members, default_ring, declared)
    if problems:
        return Plan(release, ()), problems
    by_ring: dict[str, list[str]] = {ring.name: [] for ring in rings}
    held: dict[str, str] = {}
    for member in members:
        if member.hold is not None:
            held[member.name] = member.hold
        else:
            by_ring[member.rings[0] if member.rings else default_ring].append(member.name)
    planned = tuple(RingPlan(ring, waves(rotate(by_ring[ring.name], release), ring.serial)) for ring in rings if by_ring[ring.name])
    domains = {member.name: member.domains for member in members if member.domains}
    takes: dict[str, list[str]] = {}
    for member in members:
        if member.takes and member.hold is None:
            takes.setdefault(member.takes, []).append(member.name)
    return Plan(release, planned, held, domains, {what: tuple(hosts) for what, hosts in takes.items()}), []


def _membership_problems(rings: tuple[Ring, ...], members: tuple[Member, ...], default_ring: str, declared: bool) -> list[Problem]:
    names = {ring.name for ring in rings}
    allowed = f"allowed: {', '.join(sorted(names))}"
    problems = []
    unmarked = [member.name for member in members if not member.rings]
    if unmarked and default_ring not in names:
        problems.append(Problem("rollout_default_ring", default_ring, f"{unmarked[0]} and {len(unmarked) - 1} more need it; {allowed}"))
    for member in members:
        if len(member.rings) > 1:
            both = " and ".join(member.rings)
            problems.append(Problem(f"host {member.name}", member.rings, f"is in the rings {both}; leave it in one of them"))
        problems.extend(Problem(f"host {member.name}, rollout_ring", ring, f"no such ring; {allowed}") for ring in member.rings if ring not in names)
    problems += _spread_problems(rings, members, default_ring)
    if not members:
        problems.append(Problem("hosts", [], "no host of the inventory takes part; check the play's hosts and --limit"))
    elif declared:
        taken = {ring for member in members for ring in member.rings or (default_ring,)}
        problems.extend(
            Problem(f"ring {ring.name}", ring.hosts, "nobody is in this ring; put hosts into it or take it out of rollout_rings")
            for ring in rings
            if ring.name not in taken
        )
    return problems


def _spread_problems(rings: tuple[Ring, ...], members: tuple[Member, ...], default_ring: str) -> list[Problem]:
    """Hosts that cannot be placed: their ring has a rule for a domain that they say nothing of."""
    without: dict[tuple[str, str], list[str]] = {}
    rules = {ring.name: ring.spread for ring in rings}
    for member in members:
        known = {by for by, _value in member.domains}
        ring = member.rings[0] if member.rings else default_ring
        for rule in rules.get(ring, ()) if member.hold is None else ():
            if rule.by not in known:
                without.setdefault((ring, rule.by), []).append(member.name)
    remedy = "has no value that is text or a number, and the ring {ring} is spread by it: set it in the inventory"
    return [Problem(f"host {first(hosts)}, {by}", TOLD, remedy.format(ring=ring)) for (ring, by), hosts in without.items()]


def first(hosts: list[str], most: int = 8) -> str:
    return ", ".join(hosts[:most]) + (f" and {len(hosts) - most} more" if len(hosts) > most else "")


def spread_notes(plan: Plan) -> tuple[str, ...]:
    """Rings whose concurrency is never reached. That is no mistake: the rules of spread are what is meant."""
    notes = []
    for ring in plan.rings:
        wanted = max(min(ring.ring.concurrency or 0, len(wave)) for wave in ring.waves)
        best = max(at_once(ring.ring, wave, plan.domains) for wave in ring.waves)
        if best < wanted:
            rules = ", ".join(f"{rule.max} of a {rule.by}" for rule in ring.ring.spread)
            notes.append(f"ring {ring.ring.name}: spread (at most {rules}) lets only {best} of its hosts change at once where concurrency lets {wanted}")
    return tuple(notes)


def rotate(hosts: Iterable[str], release: Release) -> list[str]:
    """Sort the hosts, then start at another one for every release: the same host is not always the canary."""
    ordered = sorted(hosts)
    if not ordered:
        return []
    seed = hashlib.sha256(f"{release.name}\0{release.version}".encode()).digest()
    start = int.from_bytes(seed[:8], "big") % len(ordered)
    return ordered[start:] + ordered[:start]


def waves(hosts: list[str], serial: Iterable[int | str]) -> tuple[tuple[str, ...], ...]:
    """Cut hosts into waves as Ansible's C(serial) does: percentages of all the hosts, rounded down, at least one."""
    sizes = list(serial)
    cut: list[tuple[str, ...]] = []
    position = 0
    while position < len(hosts):
        size = wave_size(sizes[min(len(cut), len(sizes) - 1)], len(hosts))
        cut.append(tuple(hosts[position : position + size]))
        position += size
    return tuple(cut)


def wave_size(size: int | str, hosts: int) -> int:
    """R("50%", 3) is 1: as ansible.utils.helpers.pct_to_int rounds."""
    if isinstance(size, str) and size.endswith("%"):
        return int((int(size[:-1]) / 100.0) * hosts) or 1
    return int(size)


def without_soaks(plan: Plan) -> Plan:
    """For check mode, in which nothing changes that could be watched."""
    return replace(plan, rings=tuple(replace(ring, ring=replace(ring.ring, soak=0.0)) for ring in plan.rings))


def as_data(plan: Plan) -> dict[str, Any]:
    """The plan as JSON-ready data."""
    return {
        "release": {"name": plan.release.name, "version": plan.release.version},
        "rings": [
            {
                "name": ring.ring.name,
                "concurrency": ring.ring.concurrency,
                "max_failures": ring.ring.max_failures,
                "max_wave_failures": ring.ring.max_wave_failures,
                "max_unreachable": ring.ring.max_unreachable,
                "soak": ring.ring.soak,
                "soak_interval": ring.ring.soak_interval,
                "progress_deadline": ring.ring.progress_deadline,
                "commit": ring.ring.commit,
                "on_failure": ring.ring.on_failure,
                "require_drill": ring.ring.require_drill,
                "gates": [gate_data(gate) for gate in ring.ring.gates],
                "spread": [{"by": rule.by, "max": rule.max} for rule in ring.ring.spread],
                "waves": [list(wave) for wave in ring.waves],
            }
            for ring in plan.rings
        ],
        "gates": [gate_data(gate) for gate in plan.gates],
        "max_failures": plan.max_failures,
        "max_unreachable": plan.max_unreachable,
        "max_unhealthy": plan.max_unhealthy,
        "held": dict(plan.held),
        "tailored": {what: list(hosts) for what, hosts in plan.takes.items()},
        "blast_radius": blast_radius(plan),
    }


def gate_data(gate: Any) -> Any:
    """A gate as JSON-ready data that may be shown: what a program is told by its environment may be secret."""
    if isinstance(gate, Mapping) and isinstance(gate.get("env"), Mapping):
        gate = {**gate, "env": {str(name): hashlib.sha256(str(value).encode()).hexdigest() for name, value in gate["env"].items()}}
    return json.loads(json.dumps(gate, default=str))


def digest(plan: Plan, release: str) -> str:
    """What approvals are bound to: who is upgraded in which wave by which policy, and the digest of the release."""
    text = json.dumps([release, as_data(plan)], sort_keys=True, separators=(",", ":"))
    return hashlib.sha256(text.encode()).hexdigest()


def blast_radius(plan: Plan) -> int:
    """The most hosts that can run the release before a verdict stops it: the largest wave."""
    return max((len(wave) for ring in plan.rings for wave in ring.waves), default=0)
