# Copyright: onprem.rollout contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""A plan as batches, for ansible-core's own strategy C(linear): all hosts of a batch end before the next batch begins. Pure.

Nothing of the plan is decided anew here: the batches are what the conductor lets in, one after the other, when every host is well.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable
from dataclasses import replace

from ansible_collections.onprem.rollout.plugins.plugin_utils._conductor import Conductor
from ansible_collections.onprem.rollout.plugins.plugin_utils._plan import Plan
from ansible_collections.onprem.rollout.plugins.plugin_utils._settling import Settling
from ansible_collections.onprem.rollout.plugins.plugin_utils._spread import at_once
from ansible_collections.onprem.rollout.plugins.plugin_utils._states import State

Batch = list[str]


def for_batches(plan: Plan) -> Plan:
    """The plan with what a batch cannot do, or does by itself, taken out: its hosts soak and commit together, and nobody is sent back for another one."""
    rings = (replace(ring, ring=replace(ring.ring, commit="host", on_failure="restore_host", soak=0.0, progress_deadline=0.0)) for ring in plan.rings)
    return replace(plan, rings=tuple(rings), max_unhealthy=None)


def batches(plan: Plan, waiting: Collection[str]) -> list[Batch]:
    """Who is let in together, of the hosts that wait. A whole wave, if neither concurrency nor spread says less."""
    conductor = Conductor(for_batches(plan))
    for host in plan.hosts:
        if host not in waiting:
            conductor.ended(host, State.SKIPPED, 0.0)
    found = []
    while not conductor.finished:
        batch = conductor.tick(0.0).admit
        found += [batch] if batch else []
        commit(conductor, batch, 0.0)
        conductor.events.clear()
    return found


def commit(conductor: Conductor, hosts: Iterable[str], now: float) -> None:
    """A batch is over, and these hosts of it have committed. Nobody new is let in by that: who is waits for the whole batch."""
    paused, conductor.paused = conductor.paused, "a batch ends"
    for host in hosts:
        conductor.parked(host, now)
    for host in conductor.tick(now).commit:
        conductor.ended(host, State.COMMITTED, now)
    conductor.paused = paused


def settling(plan: Plan, half_done: Iterable[str]) -> list[Batch]:
    """Half-done hosts that are settled together; see L(_settling.Settling)."""
    rules, rest = Settling(plan), list(half_done)
    found: list[Batch] = []
    while rest:
        batch: Batch = []
        for host in rest:
            if rules.may_join(host, batch):
                batch.append(host)
        rest = [host for host in rest if host not in batch]
        found.append(batch)
    return found


def lacks(plan: Plan) -> list[str]:
    """What of this plan batches do otherwise, for people."""
    rings = [ring.ring for ring in plan.rings]
    window = any(at_once(ring.ring, wave, plan.domains) < len(wave) for ring in plan.rings for wave in ring.waves)
    lines = [
        "verbs are heard and gates are asked between batches; a host that goes dark in change is not waited for, its revert timer puts it back",
        "a check that fails sends its host back, or has it refused before its change: it is not run on other hosts, which would tell an outage",
    ]
    if window:
        lines.insert(0, "there is no sliding window: all hosts of a batch, as many as may be in change at once, end before the next batch begins")
    if any(ring.commit != "host" for ring in rings):
        lines.insert(0, "no wave goes back as a whole: each host commits by itself as soon as it is healthy, and stays when another one fails")
    if any(ring.soak for ring in rings):
        lines.append("each batch soaks for itself, and is checked again only when it commits")
    if any(ring.progress_deadline for ring in rings):
        lines.append("progress_deadline is not watched; every task, handlers too, has a time limit of its own")
    if plan.max_unhealthy is not None:
        lines.append("max_unhealthy is not watched: nobody looks at the health of the whole fleet")
    return [f"engine linear: {line}" for line in lines]
