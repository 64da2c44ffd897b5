# Copyright: onprem.rollout contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Action plugin decide: writes what an operator decided to the ledger, on the controller. See the module's docs."""

from __future__ import annotations

import os
from collections.abc import Mapping
from typing import Any

from ansible.errors import AnsibleActionFail
from ansible.plugins.action import ActionBase
from ansible.utils.display import Display

from ansible_collections.onprem.rollout.plugins.plugin_utils import _gate_approval, _ledgers
from ansible_collections.onprem.rollout.plugins.plugin_utils._ledger import BrokenChain, Entry, Event, Ledger, LedgerError, stamp
from ansible_collections.onprem.rollout.plugins.plugin_utils._standing import VERBS, Standing, settled

display = Display()


class ActionModule(ActionBase):
    _requires_connection = False

    def run(self, tmp: Any = None, task_vars: dict[str, Any] | None = None) -> dict[str, Any]:
        result: dict[str, Any] = super().run(tmp, task_vars)
        _validation, options = self.validate_argument_spec(
            {
                "verb": {"type": "str", "choices": list(VERBS), "required": True},
                "ledger": {"type": "str", "default": ""},
                "rollout": {"type": "str", "default": ""},
                "why": {"type": "str", "default": ""},
                "then": {"type": "str", "choices": ["restore", "keep"], "default": "restore"},
                "plan": {"type": "str", "default": ""},
                "expires": {"type": "str", "default": ""},
                "key": {"type": "path", "default": ""},
            }
        )
        place = options["ledger"] or _ledgers.default_place()
        problem = _ledgers.place_problem(place)
        if problem:
            raise AnsibleActionFail(f"rollout_ledger: {_ledgers.shown(place)!r}: {problem}")
        ledger = _ledgers.open_ledger(place, _ledgers.who(task_vars or {}, os.getppid()))
        try:
            return {**result, **self._decide(ledger, options, _ledgers.user(task_vars or {}))}
        except (LedgerError, BrokenChain) as error:
            raise AnsibleActionFail(f"{ledger.name}: {error}. Nothing was decided") from error

    def _decide(self, ledger: Ledger, options: Mapping[str, Any], user: str) -> dict[str, Any]:
        verb, entries = options["verb"], list(ledger.entries())
        rollout = options["rollout"] or newest(entries)
        if verb == "unlock":
            return who_has(ledger, rollout, entries)
        if not rollout:
            raise AnsibleActionFail(f"{ledger.name} knows of no rollout. Give the release, or the right rollout_ledger")
        standing = Standing(rollout)
        for entry in entries:
            standing.hear(entry)
        nothing = settled(verb, standing)
        said = f"{rollout} {nothing}" if nothing else f"{rollout}: {verb}, by {user}{': ' + options['why'] if options['why'] else ''}"
        if not nothing and not self._task.check_mode:
            ledger.append([Event(verb, rollout, data_of(options, standing, user))])
        display.display(said)
        return {"changed": not nothing, "rollout": rollout, "msg": said}


def who_has(ledger: Ledger, rollout: str, entries: list[Entry]) -> dict[str, Any]:
    """Say who has the rollout. Nobody need be told to give it back: that ends with the run's process."""
    standing = Standing(rollout)
    for entry in entries:
        standing.hear(entry)
    who = f"{standing.run.who}, since {stamp(standing.run.at)}" if standing.run and standing.at_work else "a run that has not said who it is"
    taken = bool(rollout) and ledger.lease(rollout).taken()
    said = f"rollout {rollout}: run by {who}; it is free when that run ends" if taken else f"rollout {rollout}: no run has it"
    said = said if rollout else f"{ledger.name} knows of no rollout"
    display.display(said)
    return {"changed": False, "rollout": rollout, "msg": said}


def newest(entries: list[Entry]) -> str:
    """The rollout that began last."""
    return next((entry.rollout for entry in reversed(entries) if entry.kind == "started"), "")


def data_of(options: Mapping[str, Any], standing: Standing, user: str) -> dict[str, Any]:
    data = {"by": user, "why": options["why"]}
    if options["verb"] == "abort":
        data["then"] = options["then"]
    if options["verb"] == "approve":
        plan = options["plan"] or standing.plan
        if not plan:
            raise AnsibleActionFail(f"{standing.rollout} has no plan yet that could be approved. Give rollout_plan, as the verb plan prints it")
        expires = options["expires"] or None
        data.update(plan=plan, remark=options["why"], expires=expires)
        if options["key"]:
            text = _gate_approval.approval_text(plan, user, options["why"], expires)
            try:
                data.update(text=text, signature=_gate_approval.sign(text, options["key"]))
            except _gate_approval.CannotAsk as error:
                raise AnsibleActionFail(f"{error}. Nothing was decided") from error
    return data
