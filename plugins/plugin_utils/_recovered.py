# Copyright: onprem.rollout contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""What the verb recover did with each host, and what is left open. Pure but for L(HostRun), which it reads."""

from __future__ import annotations

from collections.abc import Mapping
from enum import Enum
from typing import Any

from ansible_collections.onprem.rollout.plugins.plugin_utils._commands import Commands
from ansible_collections.onprem.rollout.plugins.plugin_utils._hostrun import RESTORE_OUTCOMES, HostRun
from ansible_collections.onprem.rollout.plugins.plugin_utils._states import State
from ansible_collections.onprem.rollout.plugins.plugin_utils._story import alarm_lines, clean, count, names


class End(str, Enum):
    """How a host ended: a closed set."""

    RESTORED = "restored"
    COMMITTED = "committed"
    REJOINED = "rejoined"
    NOTHING = "nothing_to_do"
    INCONSISTENT = "inconsistent"
    HELD = "held"
    TAKEN = "taken"
    OUT_OF_TRAFFIC = "out_of_traffic"
    FAILED = "failed"
    UNREACHABLE = "unreachable"

    def __str__(self) -> str:
        return self.value


SETTLED = (End.RESTORED, End.COMMITTED, End.REJOINED)
OPEN = (End.INCONSISTENT, End.HELD, End.TAKEN, End.OUT_OF_TRAFFIC, End.FAILED)
HEADS = {
    End.INCONSISTENT: "INCONSISTENT, an operator decides",
    End.HELD: "HELD, an operator decides",
    End.TAKEN: "left alone, a run that may be alive has it",
    End.OUT_OF_TRAFFIC: "still out of traffic",
    End.FAILED: "not settled",
    End.UNREACHABLE: "could not be asked",
}
WOULD = {End.RESTORED: "would be restored", End.COMMITTED: "would be committed", End.REJOINED: "would be brought back into traffic"}


def task_of(run: HostRun, force: str) -> str:
    """What is to be done with a host that was asked: restore, commit, rejoin, or nothing. force: what an operator says of those that wait for one."""
    if force:
        return force if run.inconsistent or run.kept else ""
    if run.dark or run.why or not run.half_done:
        return ""
    return "restore" if in_change(run) else "rejoin"


def in_change(run: HostRun) -> bool:
    return (run.record.get("transaction") or {}).get("phase") not in (None, "committed", "restored")


def note_forced(run: HostRun, outcome: str) -> None:
    """An operator's restore or commit went through; the record that was read before does not know."""
    transaction = run.record.get("transaction") or {}
    installed = {"installed": transaction.get("release")} if outcome == "committed" else {}
    run.record = {**run.record, **installed, "transaction": {**transaction, "phase": outcome}}
    run.outcome, run.why, run.unproven = RESTORE_OUTCOMES[outcome], "", False


def end_of(run: HostRun, task: str, away: bool, check_mode: bool = False) -> End:
    """How a host ended. task: what L(task_of) said; away: it could not be reached."""
    if run.dark:
        return End.FAILED if task or not away else End.UNREACHABLE
    if check_mode and task and not run.why:
        return {"commit": End.COMMITTED, "rejoin": End.REJOINED}.get(task, End.RESTORED)
    if run.inconsistent:
        return End.INCONSISTENT
    if run.kept:
        return End.HELD
    if run.why:
        return End.TAKEN if run.taken else End.FAILED
    if run.outcome is State.COMMITTED:
        return End.COMMITTED
    if task and run.drained:
        return End.OUT_OF_TRAFFIC
    if task:
        return End.REJOINED if task == "rejoin" else End.RESTORED
    return End.NOTHING


def report_lines(runs: Mapping[str, HostRun], ends: Mapping[str, End], found: Mapping[str, str], commands: Commands, check_mode: bool = False) -> list[str]:
    """The last lines: who needs an operator, with the command; then every host by how it ended. found: what each was found in that was settled."""
    lines = alarm_lines(runs, commands)
    settled = [host for host, end in ends.items() if end in SETTLED]
    left = [host for host, end in ends.items() if end in OPEN]
    unasked = [host for host, end in ends.items() if end is End.UNREACHABLE]
    verb = "would be settled" if check_mode else "settled"
    said = [f"{count(len(settled), 'host')} {verb}"] if settled else []
    said += [f"{count(len(left), 'host')} left open"] if left else []
    said += [f"{count(len(unasked), 'host')} could not be asked"] if unasked else []
    lines.append(f"RECOVER: {', '.join(said) or 'nothing to do: no host is half done'}")
    for host in settled:
        what = WOULD[ends[host]] if check_mode else ends[host]
        lines.append(f"  {what}: {clean(host)}: {clean(found.get(host, ''))}")
    for end, head in HEADS.items():
        lines += [f"  {head}: {clean(host)}: {clean(_why(runs[host]))}" for host, given in ends.items() if given is end]
    idle = [host for host, end in ends.items() if end is End.NOTHING]
    return lines + ([f"  nothing to do: {count(len(idle), 'host')}: {names(idle)}"] if idle and said else [])


def _why(run: HostRun) -> str:
    if run.drained and not (run.why or run.dark):
        return "it may be out of traffic, and no rejoin role is set (rollout_rejoin) that would bring it back"
    return run.inconsistent or run.kept or run.why or run.dark


def summary(runs: Mapping[str, HostRun], ends: Mapping[str, End]) -> dict[str, Any]:
    """The same as JSON-ready data."""
    return {
        host: {"state": str(end), "why": "" if end in (*SETTLED, End.NOTHING) else _why(runs[host]), "installed": runs[host].record.get("installed")}
        for host, end in ends.items()
    }
