# Copyright: onprem.rollout contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""What the verb status answers: why nothing happens, then rings, waves and hosts; for people and as data. Pure."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

from ansible_collections.onprem.rollout.plugins.plugin_utils._commands import Commands
from ansible_collections.onprem.rollout.plugins.plugin_utils._ledger import stamp
from ansible_collections.onprem.rollout.plugins.plugin_utils._plan import Plan
from ansible_collections.onprem.rollout.plugins.plugin_utils._reasons import NEEDS_SOMEBODY, IsGone, Reasons, way_on
from ansible_collections.onprem.rollout.plugins.plugin_utils._standing import Standing
from ansible_collections.onprem.rollout.plugins.plugin_utils._story import (
    LONGEST,
    NO_COMMANDS,
    alarm_lines,
    causes_line,
    clean,
    count,
    half_done,
    installed,
    names,
)

STATES = {"": "not begun", "judged": "passed"}


def first_lines(rollout: str, why: Reasons, plan: str, commands: Commands = NO_COMMANDS) -> list[str]:
    """The answer in its first line, what else holds, and the commands to go on. plan: the digest of the newest run's, if there was one."""
    (kind, text), *more = why.items()
    lines = [f"rollout{' ' if rollout else ''}{clean(rollout)}: {kind}: {clean(text, LONGEST)}"]
    lines += [f"  also {kind}: {clean(text, LONGEST)}" for kind, text in more]
    lines += way_on(why, commands)
    return [*lines, f"plan of its newest run: {plan}"] if plan else lines


def status_lines(plan: Plan, standing: Standing, runs: Mapping[str, Any], is_gone: IsGone, commands: Commands = NO_COMMANDS) -> list[str]:
    """What every host runs and what its record says, by the waves of the newest run, the worst of each first.

    is_gone: whether a holder is known to have ended.
    """
    told = {host: _host_status(run, is_gone) for host, run in runs.items()}
    ranks = [told[host][0] for host in plan.hosts] + [2 for _host in plan.held]
    head = {0: "all hosts are settled", 1: "all hosts are settled, some take no part", 2: "some hosts take no part", 3: "a transaction is open",
            4: "some hosts could not be asked", 5: "HELD hosts need an operator", 6: "INCONSISTENT hosts need an operator"}[max(ranks, default=0)]  # fmt: skip
    lines = [*alarm_lines(runs, commands), f"status: {head}", *causes_line(runs)]
    left = dict.fromkeys(plan.hosts)
    for ring, number, state, hosts in _waves(standing):
        here = [host for host in hosts if host in left]
        for host in here:
            del left[host]
        lines.append(f"ring {clean(ring)}, wave {number}/{len(standing.waves[ring])}: {state}; {count(len(hosts), 'host')}")
        lines += _host_lines(here, told)
    for planned in plan.rings:
        here = [host for host in planned.hosts if host in left]
        if here:
            lines += [f"ring {planned.ring.name}{', in no wave of the newest run' if standing.waves else ''}: {count(len(here), 'host')}"]
            lines += _host_lines(here, told)
    return lines + [f"held by you: {clean(host)}: {clean(why)}: {told[host][1]}" for host, why in plan.held.items()]


def status_data(standing: Standing) -> dict[str, Any]:
    """The same of the rollout, as JSON-ready data."""
    run, last = standing.run, standing.last
    waves = [{"ring": ring, "wave": number, "state": state, "hosts": list(hosts)} for ring, number, state, hosts in _waves(standing)]
    told = {"by": run.who, "since": stamp(run.at), "last": stamp(last.at), "at_work": standing.at_work} if run and last else None
    return {"rollout": standing.rollout or None, "run": told, "waves": waves}


def reason_data(why: Reasons) -> dict[str, Any] | None:
    """The answer, and what else holds, as JSON-ready data; None of a run that is not asked for it."""
    if not why:
        return None
    (kind, text), *more = why.items()
    return {"kind": str(kind), "value": text, "also": [{"kind": str(kind), "value": text} for kind, text in more]}


def wanted(why: Reasons, standing: Standing, runs: Mapping[str, Any]) -> str:
    """ok, or failed when nothing goes on before somebody looks at it; a run of some hosts that brought those to it did what it was told."""
    well = standing.end is not None and standing.end.data.get("how") == "ok"
    stopped = next(iter(why), None) in NEEDS_SOMEBODY and not well
    return "failed" if stopped or any(run.inconsistent or run.kept for run in runs.values()) else "ok"


def _waves(standing: Standing) -> Iterator[tuple[str, int, str, list[str]]]:
    """Ring, number, state and hosts of every wave of the newest run."""
    for ring, waves in standing.waves.items():
        for number, hosts in enumerate(waves, 1):
            state = standing.wave_states.get((ring, number), "")
            yield ring, number, STATES.get(state, state), hosts


def _host_lines(hosts: list[str], told: Mapping[str, tuple[int, str]]) -> list[str]:
    return [f"  {clean(host)}: {told[host][1]}" for host in sorted(hosts, key=lambda host: -told[host][0])]


def _host_status(run: Any, is_gone: IsGone) -> tuple[int, str]:
    if run.dark or (run.why and not run.heard):
        return 4, f"could not be asked: {clean(run.dark or run.why, 200)}"
    transaction = run.record.get("transaction") or {}
    release, phase = transaction.get("release") or {}, transaction.get("phase")
    text = f"runs {installed(run.record)}{_failed_releases(run.record)}"
    if phase == "inconsistent":
        return 6, f"{text}; INCONSISTENT: {clean(transaction.get('reason'))}"
    if phase == "held":
        return 5, f"{text}; HELD on {clean(release.get('name'))} {clean(release.get('version'))}: {clean(run.kept)}"
    if phase in (None, "committed", "restored") and run.record.get("drained"):
        return 3, f"{text}; {half_done(run.record)}"
    if phase == "restored":
        return 0, f"{text}; {clean(release.get('name'))} {clean(release.get('version'))} was restored: {clean(transaction.get('reason'), 160)}"
    if phase not in (None, "committed"):
        evicted = transaction.get("evicted") or {}
        holder = evicted.get("holder") or transaction.get("holder") or {}
        who = _run(holder)
        if evicted:
            who = f"left half done by {who}, from whom {_run(evicted.get('by') or {})} took it: the next upgrade restores it first"
        else:
            who = f"left half done by {who}, which has ended: the next upgrade restores it first" if is_gone(holder) else f"held by {who}"
        return 3, f"{text}; {phase} to {clean(release.get('version'))} since {clean(transaction.get('began'))}, {who}"
    return 0, text


def _run(holder: Mapping[str, Any]) -> str:
    job = f", job {clean(holder['job'])}" if holder.get("job") else ""
    return f"{clean(holder.get('user'))} on {clean(holder.get('controller'))}, pid {clean(holder.get('pid'))}{job}"


def _failed_releases(record: Mapping[str, Any]) -> str:
    """What the host does not take again."""
    failed = [item.get("release") or {} for item in record.get("failed") or []]
    shown = names([f"{item.get('name')} {item.get('version')}" for item in failed], 3)
    return f"; failed here, not tried again: {shown}" if failed else ""
