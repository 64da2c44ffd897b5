# Copyright: onprem.rollout contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""What people read: the plan, one line for each thing that happens, and the verdict with the command to go on.

Pure: strings from data. Every text that came from a host or a user is made safe to print first.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from ansible_collections.onprem.rollout.plugins.plugin_utils._budget import ByCause
from ansible_collections.onprem.rollout.plugins.plugin_utils._causes import WORDS, Cause
from ansible_collections.onprem.rollout.plugins.plugin_utils._commands import Commands
from ansible_collections.onprem.rollout.plugins.plugin_utils._conductor import Conductor
from ansible_collections.onprem.rollout.plugins.plugin_utils._orders import Event
from ansible_collections.onprem.rollout.plugins.plugin_utils._plan import Plan, blast_radius
from ansible_collections.onprem.rollout.plugins.plugin_utils._policy import Ring
from ansible_collections.onprem.rollout.plugins.plugin_utils._spread import at_once, rounds
from ansible_collections.onprem.rollout.plugins.plugin_utils._states import IN_CHANGE, Halt, State

HALTS = {
    Halt.FAILURES: "failures > max_failures",
    Halt.UNREACHABLE: "unreachable hosts > max_unreachable, which says nothing of the release: nobody was sent back for it",
    Halt.DARK: "hosts that went dark in change > max_unreachable",
    Halt.RESTORE_FAILED: "a host could not be proven healthy after its restore",
    Halt.LOST: "a host that an earlier run left half done did not come back while it was settled",
    Halt.UNFIT: "hosts that are to take part cannot keep a snapshot; nobody was changed",
    Halt.OUTAGE: "an artifact could not be fetched; that is an outage and no verdict on the release, which nobody was sent back for",
    Halt.UNJUDGED: "an outage that took too long; nothing is known of the release, so nobody was sent back and nobody counts as failed",
    Halt.UNHEALTHY: "too much of the fleet is not healthy, before or after a wave; nobody was sent back for it",
    Halt.ABORTED: "this run of ansible-playbook failed, see the error above",
    Halt.GATE: "a gate says that it may not go on",
    Halt.STALLED: "no host came any further for longer than progress_deadline",
    Halt.STOPPED: "an operator aborted it",
    Halt.SUPERSEDED: "another version took its place",
    Halt.WAITING: "it waits",
    Halt.UNPROVEN: "no host of the wave proved the release, so it goes no further",
}
SAY_WHICH = (Halt.FAILURES, Halt.UNREACHABLE, Halt.DARK, Halt.UNJUDGED, Halt.UNHEALTHY)
NO_COMMANDS = Commands()
LONGEST = 4000  # characters of what a gate says: each approval that does not count, and why


def clean(text: Any, length: int = 400) -> str:
    """One printable line: control characters and direction marks of a hostile host become visible."""
    line = " ".join(str(text).split())
    safe = "".join(char if char.isprintable() else f"\\x{ord(char):02x}" for char in line)
    return safe if len(safe) <= length else safe[: length - 1] + "…"


def count(number: int, noun: str) -> str:
    return f"{number} {noun}{'' if number == 1 else 's'}"


def span(seconds: float) -> str:
    """R(90) is R("1 min 30 s")."""
    if seconds < 90:
        return f"{seconds:.3g} s"
    minutes, rest = divmod(round(seconds), 60)
    return f"{minutes} min {rest} s" if minutes < 90 else f"{minutes // 60} h {minutes % 60} min"


def size(number: float) -> str:
    for unit in ("B", "KiB", "MiB", "GiB", "TiB"):
        if number < 1024 or unit == "TiB":
            return f"{number:.0f} {unit}" if unit == "B" else f"{number:.1f} {unit}"
        number /= 1024
    return ""


def names(hosts: Sequence[str], most: int = 8) -> str:
    shown = ", ".join(clean(host, 60) for host in hosts[:most])
    return shown if len(hosts) <= most else f"{shown} and {len(hosts) - most} more"


def headline(plan: Plan) -> str:
    worst, total = blast_radius(plan), len(plan.hosts)
    share = f" ({round(100 * worst / total)} %)" if total else ""
    return (
        f"{plan.release.label}: {count(total, 'host')} in {count(len(plan.rings), 'ring')} and {count(plan.wave_count, 'wave')}; "
        f"at most {count(worst, 'host')}{share} run it before a verdict"
    )


def fork_lines(plan: Plan, forks: int) -> list[str]:
    """A word when Ansible's forks let fewer hosts change at once than the policy does."""
    wanted = max((at_once(ring.ring, wave, plan.domains) for ring in plan.rings for wave in ring.waves), default=0)
    return [f"note: forks={forks} lets {count(forks, 'host')} change at once where the policy lets {wanted}"] if 0 < forks < wanted else []


def plan_lines(plan: Plan, runs: Mapping[str, Any], states: Mapping[str, State], commands: Commands = NO_COMMANDS) -> list[str]:
    """The plan: waves and their hosts, what is snapshotted, room, expected time, and what takes no part."""
    lines = [*alarm_lines(runs, commands), headline(plan)]
    for ring in plan.rings:
        policy = ring.ring
        how = [f"concurrency {policy.concurrency or 'the whole wave'}", f"halts when failures > {policy.max_failures}"]
        how += [f"or in a wave > {policy.max_wave_failures}"] if policy.max_wave_failures is not None else []
        how += _unreachable_limits(policy.max_unreachable)
        how += [f"soak {span(policy.soak)}{_checked_every(policy)}"] if policy.soak else []
        how += [f"progress deadline {span(policy.progress_deadline)}"] if policy.progress_deadline else []
        how += ["requires a drill"] if policy.require_drill else []
        how += [f"gates {', '.join(clean(gate.get('name') or gate.get('type')) for gate in policy.gates)}"] if policy.gates else []
        how += [f"at most {rule.max} of a {rule.by} at once" for rule in policy.spread]
        how += [f"commit by {policy.commit}", f"on failure {policy.on_failure}"]
        lines.append(f"ring {policy.name}: {count(len(ring.hosts), 'host')}; {', '.join(how)}")
        for number, wave in enumerate(ring.waves, 1):
            lines.append(f"  wave {number}/{len(ring.waves)}: {', '.join(_with_state(host, runs, states) for host in wave)}")
    lines += [f"holds before and after a wave when unhealthy hosts of the fleet > {plan.max_unhealthy}"] if plan.max_unhealthy is not None else []
    lines += [f"{count(len(hosts), 'host')} take{'s' if len(hosts) == 1 else ''} {clean(what)}: {names(hosts)}" for what, hosts in plan.takes.items()]
    lines += held_lines(plan)
    lines += _estimate_lines(plan, runs)
    return [*lines, _to_do(plan, runs, states)]


def _unreachable_limits(limit: ByCause) -> list[str]:
    if isinstance(limit, Mapping):
        return [f"or {WORDS[cause]} > {limit[cause]}" for cause in Cause if limit.get(cause) is not None]
    return [f"or unreachable > {limit}"] if limit is not None else []


def unreachable_by_cause(runs: Mapping[str, Any]) -> dict[str, int]:
    """How many hosts could not be reached, also if only for a while, by L(_causes.Cause)."""
    return {str(cause): sum(1 for run in runs.values() if run.cause is cause) for cause in Cause}


def causes_line(runs: Mapping[str, Any]) -> list[str]:
    """How many hosts could not be reached by which cause, if any."""
    counts = unreachable_by_cause(runs)
    said = [f"{WORDS[cause]}: {counts[cause]}" for cause in Cause if counts[cause]]
    return [f"  by cause: {', '.join(said)}"] if said else []


def _checked_every(ring: Ring) -> str:
    return f", checked every {span(ring.soak_interval)}" if 0 < ring.soak_interval < ring.soak else ""


def digest_line(plan: Plan, digest: str, commands: Commands) -> str:
    """What approvals name, with the command where one is needed."""
    asked = any(isinstance(gate, Mapping) and gate.get("type") == "approval" for ring in plan.rings for gate in (*plan.gates, *ring.ring.gates))
    return f"plan: {digest}" + (f"; to approve it: {commands.other('approve', '-e', f'rollout_plan={digest}')}" if asked else "")


def _to_do(plan: Plan, runs: Mapping[str, Any], states: Mapping[str, State]) -> str:
    doing = sum(1 for state in states.values() if state is State.WAITING)
    settling = sum(1 for run in runs.values() if half_done(run.record))
    unasked = sum(1 for run in runs.values() if run.dark)
    said = [f"{count(doing, 'host')} to upgrade"] if doing else []
    said += [f"{count(settling, 'host')} to settle first"] if settling else []
    said += [f"{count(unasked, 'host')} could not be reached"] if unasked else []
    refused = [host for host in plan.hosts if states[host] is State.REFUSED]
    said += [f"{count(len(refused), 'host')} would be refused, see above: {names(refused)}"] if refused else []
    if said:
        return f"to do: {', '.join(said)}"
    if not plan.hosts:
        return f"nothing to do: you hold every host ({len(plan.held)})"
    return f"nothing to do: every host that takes part runs {plan.release.label}"


def half_done(record: Mapping[str, Any]) -> str:
    """What the next upgrade does with the host before anything else, or nothing."""
    phase = (record.get("transaction") or {}).get("phase")
    if phase not in (None, "committed", "restored", "inconsistent", "held"):
        return f"left in phase {clean(phase)}: the next upgrade restores it first"
    return "may be out of traffic: the next upgrade brings it back first" if record.get("drained") else ""


def alarm_lines(runs: Mapping[str, Any], commands: Commands) -> list[str]:
    """Hosts whose state nobody knows, before anything else, and what an operator does about them."""
    hosts = [host for host, run in runs.items() if run.inconsistent]
    lines = [f"!! INCONSISTENT: {clean(host)}: {clean(runs[host].inconsistent)}{_away(runs[host])}" for host in hosts]
    if hosts:
        limit = ",".join(clean(host, 60) for host in hosts[:8])
        lines.append("!! Nobody touches such a host until an operator says so: mend what its reason names, then")
        lines.append(f"!!   {commands.other('recover', '--limit', limit, '-e', 'rollout_force_restore=true')}")
    hosts = [host for host, run in runs.items() if run.kept]
    lines += [f"!! HELD: {clean(host)}: {clean(runs[host].kept)}{_away(runs[host])}" for host in hosts]
    if hosts:
        limit = ",".join(clean(host, 60) for host in hosts[:8])
        lines.append("!! An operator decides: make it well and commit it, or have its files put back all the same with rollout_force_restore=true")
        lines.append(f"!!   {commands.other('recover', '--limit', limit, '-e', 'rollout_force_commit=true')}")
    hosts = [host for host, run in runs.items() if run.quarantined]
    return lines + [f"!! QUARANTINED: {clean(host)} runs what is unsafe, to be mended until {quarantine(runs[host].quarantined)}" for host in hosts]


def _away(run: Any) -> str:
    return "; it is out of traffic" if run.drained or run.record.get("drained") else ""


def quarantine(found: Mapping[str, Any]) -> str:
    return f"{clean(found.get('until'))}: {clean(found.get('why'))}"


def _with_state(host: str, runs: Mapping[str, Any], states: Mapping[str, State]) -> str:
    state = states[host]
    if state is State.WAITING:
        said = [installed(runs[host].record)] if runs[host].record.get("installed") else []
        said += [half_done(runs[host].record)] if half_done(runs[host].record) else []
        return f"{clean(host)} ({'; '.join(said)})" if said else clean(host)
    detail = "runs it already" if state is State.SKIPPED else f"{state}: {clean(runs[host].why or runs[host].dark, 300)}"
    return f"{clean(host)} ({detail})"


def _estimate_lines(plan: Plan, runs: Mapping[str, Any]) -> list[str]:
    facts = {host: runs[host].facts for host in plan.hosts if runs[host].facts}
    snapshots = [run.get("estimate") or {} for run in facts.values()]
    lines = []
    if snapshots:
        largest = max(int(each.get("bytes") or 0) for each in snapshots)
        files = max(int(each.get("files") or 0) for each in snapshots)
        tightest = min(facts, key=lambda host: int(facts[host].get("free_bytes") or 0))
        free = size(int(facts[tightest].get("free_bytes") or 0))
        lines.append(f"snapshot: up to {count(files, 'file')}, {size(largest)} a host; least room: {free} on {clean(tightest)}")
    took = sorted(seconds for run in runs.values() for seconds in past_seconds(run.record))
    if took:
        median = took[len(took) // 2]
        in_turn = sum(rounds(ring.ring, wave, plan.domains) for ring in plan.rings for wave in ring.waves)
        soak = sum(ring.ring.soak * len(ring.waves) for ring in plan.rings)
        lines.append(f"expected: about {span(in_turn * median + soak)} (a host took {span(median)} before; soaking {span(soak)})")
    else:
        lines.append("expected time: unknown, no host has been upgraded before")
    return lines


def past_seconds(record: Mapping[str, Any]) -> list[float]:
    return [float(item["seconds"]) for item in record.get("history") or [] if item.get("outcome") == "committed" and "seconds" in item]


def installed(record: Mapping[str, Any]) -> str:
    release = record.get("installed") or {}
    return clean(f"{release.get('name')} {release.get('version')}") if release else "an unknown version (no rollout yet)"


def held_lines(plan: Plan) -> list[str]:
    """Who takes no part, and why. Hosts that did not opt in to a candidate are many, and on one line."""
    lines = [f"held by you: {clean(host)}: {clean(reason)}" for host, reason in plan.held.items() if not reason.startswith("candidate:")]
    others = [host for host, reason in plan.held.items() if reason.startswith("candidate:")]
    if others:
        lines.append(f"candidate: not opted in: {count(len(others), 'host')}: {names(others)}")
    return lines


def event_line(event: Event, conductor: Conductor, runs: Mapping[str, Any]) -> str | None:
    """One line for what matters while it happens, or None."""
    host, detail = clean(event.host), clean(event.detail, LONGEST if event.kind in ("gate", "decided") else 400)
    where = f"{event.ring} wave {event.wave}/{_wave_count(conductor.plan, event.ring)}" if event.ring else ""
    if event.kind == "wave":
        if event.detail == "filling":
            return f"{where}: {names(_wave_hosts(conductor.plan, event))}"
        return f"{where}: {'passed' if conductor.halt is None else 'stopped'}" if event.detail == "judged" else None
    if event.kind == "ended":
        return _ended_line(host, event, runs)
    if event.kind == "outage":
        stays = "no verdict on the release: nobody new is let in, and whom it strikes stays as it is and is checked again until it is over"
        return f"OUTAGE: {host}: {detail}; {stays}" if detail else "the outage is over"
    return {
        "settled": f"  {host}: was left half done by an earlier run, now {detail}",
        "admitted": f"  {host}: in change",
        "later": f"  {host}: its payload asks to be run again later (exit 21), in {span(float(event.detail or 0))}" if event.kind == "later" else None,
        "parked": f"  {host}: upgraded and healthy, waits for its wave",
        "failing": f"  {host}: FAILED: {detail}" if detail != "its wave is reverted" else f"  {host}: goes back, because {detail}",
        "soak": f"{where}: soaks for {span(float(event.detail or 0))}" if event.kind == "soak" else None,
        "halted": f"HALTED in {where}" if detail != Halt.WAITING.value else f"{where}: this run waits no longer",
        "asks": f"  {host}: {detail}; is it an outage? Others are asked whether it fails there too",
        "waived": f"  {host}: below its floor, but let in by the waiver {detail}",
        "decided": detail,
        "gate": f"{where}: {detail}",
    }.get(event.kind)


def _ended_line(host: str, event: Event, runs: Mapping[str, Any]) -> str | None:
    if event.state is State.HELD:
        return f"  {host}: HELD on the new release: {clean(runs[event.host].kept)}" if runs[event.host].kept else None
    if event.state is State.RESTORED:
        return f"  {host}: restored: {_proof(runs[event.host])}"
    return f"  {host}: {str(event.state).replace('_', ' ')}{': ' + clean(event.detail) if event.detail else ''}"


def _wave_count(plan: Plan, ring: str) -> int:
    return next((len(each.waves) for each in plan.rings if each.ring.name == ring), 0)


def _wave_hosts(plan: Plan, event: Event) -> tuple[str, ...]:
    return next(each.waves[event.wave - 1] for each in plan.rings if each.ring.name == event.ring)


def verdict_lines(conductor: Conductor, runs: Mapping[str, Any], commands: Commands, exit_code: int, superseded: str = "") -> list[str]:
    """The last lines of a rollout: how it ended, which host, which check, what was restored, how to go on. superseded: by which version, when and by whom."""
    by_state: dict[State, list[str]] = {}
    for host, state in conductor.states().items():
        by_state.setdefault(state, []).append(host)
    label = conductor.plan.release.label
    if not conductor.finished:
        lines = [f"ROLLOUT INTERRUPTED: {label}: hosts in change have their own record; the next upgrade settles them first"]
    elif conductor.halt is Halt.WAITING and not exit_code:
        lines = [f"ROLLOUT WAITS: {label}: {clean(conductor.paused, LONGEST)}", f"  to go on when that is over: {commands.same()}"]
    elif conductor.halt is Halt.SUPERSEDED:
        lines = [f"ROLLOUT SUPERSEDED: {label}: {clean(superseded)}; what was not committed went back, committed hosts stay"]
    elif conductor.halt is not None:
        which = f" ({conductor.exceeded})" if conductor.exceeded and conductor.halt in SAY_WHICH else ""
        lines = [f"ROLLOUT HALTED: {label}: {HALTS[conductor.halt]}{which}"]
    elif exit_code:
        lines = [f"ROLLOUT DONE, NOT EVERYWHERE: {label}"]
    elif set(by_state) <= {State.SKIPPED}:
        lines = [f"ROLLOUT DONE: {label}: nothing to do, every host runs it already"]
    else:
        lines = [f"ROLLOUT DONE: {label}"]
    lines = [*alarm_lines(runs, commands), *lines, *_open_lines(by_state, runs)]
    for state in (State.RESTORE_FAILED, State.LOST, State.RESTORED, State.REFUSED, State.UNREACHABLE):
        lines += [f"  {str(state).replace('_', ' ')}: {clean(host)}: {_why(runs[host], state)}" for host in by_state.get(state, [])[:20]]
        if len(by_state.get(state, [])) > 20:
            lines.append(f"  {str(state).replace('_', ' ')}: and {len(by_state[state]) - 20} more; see status")
    lines += causes_line(runs)
    lines += [f"  held by you, but still half done: {clean(host)}: {clean(run.unsettled)}" for host, run in runs.items() if run.unsettled]
    lines += [f"  out of traffic: {clean(host)}: {_way_back(run)}" for host, run in runs.items() if run.drained]
    uncommitted = [host for host in by_state.get(State.HELD, []) if runs[host].begun and runs[host].outcome is None]
    if uncommitted:
        by_state[State.HELD] = [host for host in by_state[State.HELD] if host not in set(uncommitted)]
        lines.append(f"  uncommitted, put back by its revert timer or the next upgrade: {count(len(uncommitted), 'host')}: {names(uncommitted)}")
    for state, text in ((State.HELD, "held"), (State.COMMITTED, "committed"), (State.SKIPPED, "ran it already")):
        if by_state.get(state):
            lines.append(f"  {text}: {count(len(by_state[state]), 'host')}: {names(by_state[state])}")
    if exit_code:
        lines.append(f"  to see more: {commands.other('status')}")
        lines += _go_on_lines(runs, commands.same(), bool(superseded))
    lines.append(f"  exit code: {exit_code}")
    return lines


def _go_on_lines(runs: Mapping[str, Any], same: str, superseded: bool) -> list[str]:
    if superseded:
        return [f"  to go on, all the same, which supersedes the other version: {same} -e rollout_replan=true"]
    if not any(run.blamed for run in runs.values()):
        return [f"  to go on, with the cause mended: {same}"]
    return [f"  to go on, with a new build as the release: {same}", f"  or with the same one, where it failed too: {same} -e rollout_retry_failed=true"]


def _way_back(run: Any) -> str:
    if run.kept or run.inconsistent:
        return "an operator decides about it, see above, and recover brings it back"
    if run.stranded:
        return "an earlier run left it so, and no rejoin role is set (rollout_rejoin) that would bring it back"
    return "the next upgrade brings it back first"


def _open_lines(by_state: Mapping[State, Sequence[str]], runs: Mapping[str, Any]) -> list[str]:
    """What an interrupted run leaves behind."""
    restoring = [host for host in by_state.get(State.RESTORING, []) if runs[host].begun]
    change = [host for state in IN_CHANGE | {State.PARKED} for host in by_state.get(state, []) if host not in restoring]
    settling = [host for host, run in runs.items() if run.settling and host in by_state.get(State.WAITING, [])]
    waiting = [host for host in by_state.get(State.WAITING, []) if host not in settling]
    lines = [f"  still being put back, settled by the next upgrade: {clean(host)}: {clean(runs[host].why)}" for host in restoring]
    for hosts, text in ((change, "in change, settled by the next upgrade"), (settling, "half done, settled by the next upgrade"), (waiting, "not started")):
        lines += [f"  {text}: {count(len(hosts), 'host')}: {names(sorted(hosts))}"] if hosts else []
    return lines


def _why(run: Any, state: State) -> str:
    if state is not State.RESTORED:
        return clean(run.why or run.dark)
    return f"{clean(run.why)}; {_proof(run)}"


def _proof(run: Any) -> str:
    files = run.facts.get("files") or {}
    put_back = sum(int(files.get(kind) or 0) for kind in ("replaced", "created", "removed", "metadata"))
    checks = ", ".join(clean(check.get("name"), 40) for check in run.facts.get("checks") or [] if check.get("ok"))
    if not checks:
        return "it had been put back before, or nothing had been changed yet"
    return f"{count(put_back, 'path')} put back in {span(float(run.facts.get('seconds') or 0))}, proven by {checks}"
