# Copyright: onprem.rollout contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Why something or nothing happens in a rollout: a closed set of reasons, of which the first that holds is the answer. Pure."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from enum import Enum
from typing import Any

from ansible_collections.onprem.rollout.plugins.plugin_utils._commands import Commands
from ansible_collections.onprem.rollout.plugins.plugin_utils._ledger import Entry, stamp
from ansible_collections.onprem.rollout.plugins.plugin_utils._standing import Standing, by_whom, told
from ansible_collections.onprem.rollout.plugins.plugin_utils._story import clean, count, names

IsGone = Callable[[Mapping[str, Any]], bool]
HALF_DONE = ("prepared", "changing", "verifying", "awaiting_commit", "restoring")


class Reason(str, Enum):
    """In the order in which they are the answer: what lets nobody believe the rest, what needs somebody, what stops it, what it does."""

    LEDGER = "ledger"
    SUPERSEDED = "superseded"
    DIED = "died"
    HALTED = "halted"
    OUTAGE = "outage"
    HELD = "held"
    WAITING = "waiting"
    GATE = "gate"
    SOAKING = "soaking"
    RUNNING = "running"
    ELSEWHERE = "elsewhere"
    NOT_EVERYWHERE = "not_everywhere"
    DONE = "done"
    NOT_STARTED = "not_started"

    def __str__(self) -> str:
        return self.value


NEEDS_SOMEBODY = frozenset({Reason.HALTED, Reason.DIED, Reason.NOT_EVERYWHERE, Reason.LEDGER})
Reasons = Mapping[Reason, str]


def reasons(standing: Standing, is_gone: IsGone) -> dict[Reason, str]:
    """All that hold by the ledger, with a sentence for people, the answer first. is_gone: whether the process of a run is known to have ended."""
    found: dict[Reason, str] = {}
    run, end = standing.run, standing.end
    if standing.superseded:  # the rest is about the other version now
        left = f"; its run by {run.who} goes back and ends" if run and end is None and not is_gone(run.data) else ""
        return {Reason.SUPERSEDED: f"superseded {by_whom(standing.superseded)}{left}"}
    if standing.hold:
        found[Reason.HELD] = f"held since {stamp(standing.hold.at)} by {told(standing.hold)}"
    if run is None:
        found[Reason.NOT_STARTED] = "no run of it is in the ledger"
    elif end is None and is_gone(run.data):
        at = standing.recovered
        settled = f"; recover settled hosts of it at {stamp(at.at)}, by {at.data.get('by')}" if at else ", perhaps with hosts half done"
        found[Reason.DIED] = f"the run of {run.who} ended without a word, last heard of {stamp((standing.last or run).at)}{settled}"
    elif end is None:
        found.update(_at_work(standing, run))
    else:
        found.update([_ended(standing, end)])
    return ordered(found)


def ordered(found: Reasons) -> dict[Reason, str]:
    return {each: found[each] for each in Reason if each in found}


def by_hosts(records: Mapping[str, Mapping[str, Any]], standing: Standing, is_gone: IsGone, now: float) -> dict[Reason, str]:
    """What hosts say of other runs than the newest of the ledger, which may be lost, or another one: one that is at work, or that died.

    now: by this machine's clock; a lease is by the host's.
    """
    busy = standing.at_work and standing.run is not None and not is_gone(standing.run.data)
    known = (standing.run.data.get("run") if standing.run else "") or "of nobody"
    alive: dict[str, list[str]] = {}
    dead: dict[str, list[str]] = {}
    for host, record in records.items():
        transaction = record.get("transaction") or {}
        holder = transaction.get("holder") or {}
        if transaction.get("phase") not in HALF_DONE or transaction.get("evicted") or str(holder.get("run", "")).startswith(f"{known}#"):
            continue
        ended = is_gone(holder) or float(transaction.get("lease_until") or 0) <= now
        (dead if ended else alive).setdefault(f"rollout {clean(transaction.get('rollout'))} of {_whose(holder)}", []).append(host)
    found = {}
    if alive:
        found[Reason.ELSEWHERE] = f"by the hosts, {_hosts_of(alive)} in change; to see more, give its release and its rollout_ledger"
    if dead and not busy:
        found[Reason.DIED] = f"by the hosts, {_hosts_of(dead)} half done, and has ended, or its lease has"
    return found


def _hosts_of(runs: Mapping[str, list[str]]) -> str:
    return "; ".join(f"{whose} has {count(len(hosts), 'host')} ({names(sorted(hosts))})" for whose, hosts in sorted(runs.items()))


def _whose(holder: Mapping[str, Any]) -> str:
    job = f", job {clean(holder['job'])}" if holder.get("job") else ""
    return f"{clean(holder.get('user'))} on {clean(holder.get('controller'))}, pid {clean(holder.get('pid'))}{job}"


def way_on(found: Reasons, commands: Commands) -> list[str]:
    """The commands to go on with, for people."""
    steps = {
        Reason.LEDGER: ("to see where it breaks", commands.other("audit")),
        Reason.DIED: ("to settle what is half done, and go no further", commands.other("recover")),
        Reason.HELD: ("to end the hold", commands.other("resume")),
    }
    lines = [f"  {what}: {command}" for reason, (what, command) in steps.items() if reason in found]
    stopped = {Reason.DIED, Reason.HALTED, Reason.WAITING, Reason.NOT_EVERYWHERE} & set(found)
    at_work = {Reason.OUTAGE, Reason.GATE, Reason.SOAKING, Reason.RUNNING} & set(found)
    return [*lines, f"  to go on, with its release (-e @...): {commands.other('upgrade')}"] if stopped and not at_work else lines


def _ended(standing: Standing, end: Entry) -> tuple[Reason, str]:
    how, when = end.data.get("how"), stamp(end.at)
    last = f"the last run{', of some hosts only (--limit),' if standing.limited else ''}"
    if how == "ok" and standing.everywhere:
        return Reason.DONE, f"every host that takes part has it since {when}"
    if how == "ok":
        return Reason.NOT_EVERYWHERE, f"{last} brought them to it at {when}; the others wait for a run without a limit"
    if how == "waiting":
        return Reason.WAITING, f"{last} waited until {when}: {end.data.get('paused')}"
    if how in ("halted", "interrupted"):
        return Reason.HALTED, f"{last} was {how} at {when}{': ' + end.data['why'] if end.data.get('why') else ''}"
    return Reason.NOT_EVERYWHERE, f"{last} ended at {when}, and some hosts are left"


def _at_work(standing: Standing, run: Entry) -> dict[Reason, str]:
    by = f"by {run.who}{', of some hosts only (--limit)' if standing.limited else ''}, last heard of {stamp((standing.last or run).at)}"
    gate, wave, halted, found = standing.gate, standing.wave, standing.halted, {}
    if halted:
        ends = Reason.WAITING if halted.data.get("why") == "waiting" else Reason.HALTED
        found[ends] = f"{halted.data.get('why')} in {_place(halted)}; hosts in change go on to their end, {by}"
    if standing.outage:
        found[Reason.OUTAGE] = f"an outage since {stamp(standing.outage.at)}: {standing.outage.data['why']}"
    if gate:
        found[Reason.GATE] = f"{_place(gate)} waits since {stamp(gate.at)}: {gate.data.get('why')}"
    if wave and str(wave.data["state"]).startswith("soaks"):
        found[Reason.SOAKING] = f"{_place(wave)} {wave.data['state']} since {stamp(wave.at)}"
    elif not (gate or halted):
        found[Reason.RUNNING] = f"{_place(wave) if wave else 'the hosts are asked'}, {by}"
    return found


def _place(entry: Entry) -> str:
    return f"{entry.data.get('ring')} wave {entry.data.get('wave')}"
