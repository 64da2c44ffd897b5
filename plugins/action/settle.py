# Copyright: onprem.rollout contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Action plugin settle: one raw command to ask, a module run only where something is half done. See the module's docs."""

from __future__ import annotations

import json
import re
import shlex
from collections.abc import Mapping
from typing import Any

from ansible.errors import AnsibleActionFail
from ansible.plugins.action import ActionBase

from ansible_collections.onprem.rollout.plugins.module_utils import _record
from ansible_collections.onprem.rollout.plugins.module_utils._errors import RolloutError
from ansible_collections.onprem.rollout.plugins.plugin_utils import _anchor, _ended, _holder
from ansible_collections.onprem.rollout.plugins.plugin_utils._story import clean, installed

# The nearest directory that exists is what would be written to; one that is there already must be ours.
ROOM = (
    'd={directory}; while ! [ -e "$d" ] && [ "$d" ]; do d=${{d%/*}}; done; d=${{d:-/}}; '
    'if [ -d "$d" ] && [ -w "$d" ] && [ -x "$d" ] && {{ [ "$d" != {directory} ] || [ -O "$d" ]; }}; then printf writable; '
    "else printf unwritable; fi; "
    "printf ' %s ' \"$(printf %s \"$d\" | tr ' \\n' '__')\"; df -Pk \"$d\" 2>/dev/null | tail -n 1 | tr -d '\\n'; echo"
)
FORWARD = ("prepared", "changing", "verifying", "awaiting_commit", "restoring")


class ActionModule(ActionBase):
    _requires_connection = True

    def run(self, tmp: Any = None, task_vars: dict[str, Any] | None = None) -> dict[str, Any]:
        result: dict[str, Any] = super().run(tmp, task_vars)
        _validation, arguments = self.validate_argument_spec(
            {
                "state_dir": {"type": "path", "default": "/var/lib/onprem-rollout"},
                "look": {"type": "bool", "default": False},
                "min_free": {"type": "int", "default": 0},
            }
        )
        run = _holder.holder((task_vars or {}).get("inventory_hostname", ""), task_vars)
        state_dir = arguments["state_dir"]
        record, now, room = self._read(state_dir, arguments["min_free"])
        result.update(changed=False, record=record, abandoned=None, settled=None, drained=False, unfit=room)
        transaction = record.get("transaction") or {}
        if transaction.get("phase") == "inconsistent":
            msg = (
                f"This host is inconsistent by transaction {clean(transaction.get('id'))} since {clean(transaction.get('updated'))}: "
                f"{clean(transaction.get('reason'))}. Its restore could not be proven and nobody touches it until an operator has looked. To try the "
                "restore again: ansible-playbook onprem.rollout.recover, limited to it, with rollout_force_restore: true"
            )
            return {**result, "failed": True, "msg": msg}
        if transaction.get("phase") == "held":
            msg = (
                f"This host is held: its change cannot be undone ({clean(transaction.get('irreversible'))}) and did not go through: "
                f"{clean(transaction.get('reason'))}. An operator decides: ansible-playbook onprem.rollout.recover, limited to it, with "
                "rollout_force_commit: true once it is well, or with rollout_force_restore: true"
            )
            return {**result, "failed": True, "msg": msg}
        half_done = transaction.get("phase") in FORWARD
        if not half_done and not record.get("drained"):
            return result
        holder = transaction.get("holder") or {}
        if is_held(transaction, now, run["run"]):
            return {"failed": True, "reason": "taken", "msg": held_by(transaction, now, self._rollout(task_vars or {}))}
        result.update(abandoned=transaction["id"] if half_done else None, drained=bool(record.get("drained")))
        if arguments["look"] or not half_done:
            return result
        result.update(changed=True, settled="to be restored first")
        if self._task.check_mode:
            return result
        evicted = transaction.get("evicted") or {}
        reason = f"left in phase {transaction['phase']} by {clean(_holder.describe(evicted.get('holder') or holder))}"
        reason += f", from whom {clean(_holder.describe(evicted['by']))} took the host" if evicted else ""
        head = _anchor.current()
        anchor = {"anchor": head._asdict()} if head.number else {}
        restored = self._execute_module(
            module_name="onprem.rollout.restore",
            module_args={"state_dir": state_dir, "holder": run, "transaction": transaction["id"], "reason": reason, **anchor},
            task_vars=task_vars,
        )
        if restored.get("failed"):
            return {**restored, "record": record, "msg": f"{reason}; its restore failed: {restored.get('msg') or 'the module ended with an exception'}"}
        record, now, room = self._read(state_dir, arguments["min_free"])
        if restored.get("outcome") == "held":
            return {**result, "failed": True, "record": record, "msg": f"{reason}; its change cannot be undone ({restored.get('irreversible')}): held"}
        result.update(record=record, unfit=room, settled=f"{restored.get('outcome')}: runs {installed(record)}")
        return result

    def _rollout(self, variables: Mapping[str, Any]) -> str:
        """The rollout of this run, as the ledger names it; nothing when it has no release."""
        release = self._templar.template(variables.get("rollout_release"))
        return f"{release.get('name')}-{release.get('version')}" if isinstance(release, Mapping) else ""

    def _read(self, state_dir: str, min_free: int) -> tuple[Mapping[str, Any], float, str]:
        """The record, the host's own clock and why it could not keep a snapshot, by one raw command.

        A record that cannot be read is never taken for none.
        """
        directory, record = shlex.quote(state_dir), shlex.quote(f"{state_dir}/record.json")
        command = (
            f"date +%s; {ROOM.format(directory=directory)}; if [ -e {record} ]; then cat {record}; "
            f"elif [ -e {directory} ] && ! [ -x {directory} ]; then echo 'permission denied' >&2; exit 13; else echo absent; fi"
        )
        answer = self._low_level_execute_command(command, sudoable=True)
        first, room, text = [*str(answer.get("stdout", "")).strip().split("\n", 2), "", ""][:3]
        try:
            if answer.get("rc") != 0:
                raise ValueError(f"rc {answer.get('rc')}: {answer.get('stderr') or answer.get('stdout')}")
            record_read = {} if text == "absent" else _record.judged(_record.path_of(state_dir), json.loads(text))
            return record_read, float(first), unfit(state_dir, room, min_free)
        except RolloutError as error:
            raise AnsibleActionFail(clean(error)) from None
        except ValueError as error:
            raise AnsibleActionFail(
                f"The record {state_dir}/record.json cannot be read: {clean(error)}. Log in as a user who may (become: true), or look at the file"
            ) from None


def unfit(state_dir: str, room: str, min_free: int) -> str:
    """Why the host could not keep a snapshot, by what L(ROOM) printed: whether it can write, where, and a line of df."""
    verdict, place, *df = [*room.split(), "", ""]
    if verdict == "unwritable":
        return (
            f"The state directory {state_dir} cannot be used: {clean(place)} is not a directory that this user owns and may write. Set rollout_state_dir to "
            "one, or use become"
        )
    shares = [index for index, word in enumerate(df) if re.match(r"[0-9]+%\Z", word)]
    free = int(df[shares[0] - 1]) * 1024 if shares else min_free
    return f"Too little disk at {state_dir}: {min_free} bytes are to stay free (rollout_min_free), {free} are" if free < min_free else ""


def held_by(transaction: Mapping[str, Any], now: float, rollout: str) -> str:
    """Who has the host, and what to do. The same rollout would have been refused by its ledger, if the two shared one."""
    holder = transaction.get("holder") or {}
    apart = holder.get("run") and transaction.get("rollout") == rollout
    return (
        f"This host is held by rollout {clean(transaction.get('rollout'))} of {clean(_holder.describe(holder))}, in phase {transaction.get('phase')}, "
        f"for another {max(0, round(float(transaction.get('lease_until', 0)) - now))} s. "
        + ("That is this rollout: if it is alive, the two have ledgers of their own, so give both the same rollout_ledger. " if apart else "")
        + "Wait for it, end it, or, if it is dead, take the host from it with onprem.rollout.unlock"
    )


def is_held(transaction: Mapping[str, Any], now: float, run: str) -> bool:
    """Another run that may still be alive holds the host. A run of this machine is known to live or not; of others the ledger tells, or the lease."""
    holder = transaction.get("holder") or {}
    if holder.get("run") == run or transaction.get("evicted") or _holder.is_gone(holder) or _ended.has_ended(holder):
        return False
    return _holder.is_alive(holder) or float(transaction.get("lease_until", 0)) > now
