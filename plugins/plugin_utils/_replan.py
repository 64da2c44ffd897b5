# Copyright: onprem.rollout contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""What changed in the inputs of a rollout since its last run. Pure."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from ansible_collections.onprem.rollout.plugins.plugin_utils._plan import Plan, as_data

SHOWN = 8


def inputs_of(plan: Plan, release: str) -> dict[str, Any]:
    """What a rollout is made from, as the ledger keeps it: the release's digest, and each ring's policy and hosts."""
    rings = {ring["name"]: {option: value for option, value in ring.items() if option not in ("name", "waves")} for ring in as_data(plan)["rings"]}
    waves = [[ring.ring.name, [list(wave) for wave in ring.waves]] for ring in plan.rings]  # the ledger sorts keys
    limits = {"gates": as_data(plan)["gates"], "max_failures": plan.max_failures, "max_unreachable": plan.max_unreachable, "max_unhealthy": plan.max_unhealthy}
    return {"release": release, "rings": rings, "waves": waves, "held": sorted(plan.held), "limits": limits}


def changes(before: Mapping[str, Any], now: Mapping[str, Any], limited: bool) -> list[str]:
    """One line for each thing that is another one now. With a limit it is no news that hosts, and rings of nobody, are missing.

    Hosts that the customer holds, or holds no longer, may go and come at any time.
    """
    lines = []
    free = {*before.get("held", []), *now["held"]}
    if before.get("release") != now["release"]:
        lines.append("the release is another one of the same version: its artifacts, variables or description changed")
    for name, value in now["limits"].items():
        old = before.get("limits", {}).get(name)
        lines += [f"rollout_{name} was {old}, is {value}"] if old != value else []
    old_rings, new_rings = before.get("rings", {}), now["rings"]
    old_hosts, new_hosts = ({ring: [host for wave in waves for host in wave] for ring, waves in each.get("waves", [])} for each in (before, now))
    for ring in sorted({*old_rings, *new_rings}):
        if ring not in new_rings:
            lines += [] if limited or free.issuperset(old_hosts.get(ring, [])) else [f"ring {ring} is gone"]
            continue
        if ring not in old_rings:
            lines += [] if limited or free.issuperset(new_hosts[ring]) else [f"ring {ring} is new"]
            continue
        for option in sorted({*old_rings[ring], *new_rings[ring]}):
            old, new = old_rings[ring].get(option), new_rings[ring].get(option)
            lines += [f"ring {ring}: {option} was {old}, is {new}"] if old != new else []
        came = sorted({*new_hosts[ring]} - {*old_hosts.get(ring, [])} - free)
        went = sorted({*old_hosts.get(ring, [])} - {*new_hosts[ring]} - free)
        lines += [f"ring {ring}: {_names(came)} came in"] if came and not limited else []
        lines += [f"ring {ring}: {_names(went)} went out"] if went and not limited else []
    return lines


def _names(hosts: Sequence[str]) -> str:
    return ", ".join(hosts[:SHOWN]) + (f" and {len(hosts) - SHOWN} more" if len(hosts) > SHOWN else "")
