# Copyright: onprem.rollout contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Action plugin decide: writes what an operator decided to the ledger, on the controller. See the module's docs."""

from __future__ import annotations

import os
import time
from collections.abc import Mapping
from typing import Any

from ansible.errors import AnsibleActionFail
from ansible.plugins.action import ActionBase
from ansible.utils.display import Display

from ansible_collections.onprem.rollout.plugins.plugin_utils import _gate_approval, _holder, _ledgers, _signatures
from ansible_collections.onprem.rollout.plugins.plugin_utils._ledger import BrokenChain, Event, Ledger, LedgerError, stamp
from ansible_collections.onprem.rollout.plugins.plugin_utils._standing import VERBS, Standing, by_whom, lately, settled, standing_of
from ansible_collections.onprem.rollout.plugins.plugin_utils._verbs import approval_problems, approved, refusal

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
        verb, missing = options["verb"], _ledgers.missing(ledger)
        if missing and (verb != "unlock" or options["ledger"]):  # hosts may be taken away though the ledger is lost
            raise AnsibleActionFail(f"rollout_ledger: {ledger.name}: {missing}. Nothing was decided")
        standing = lately(ledger.newest_first(bare="host"), options["rollout"]) or Standing(options["rollout"])
        if verb == "unlock":
            return who_has(ledger, standing)
        if options["plan"] and options["plan"] not in standing.plans:
            standing = standing_of(ledger.entries(), standing.rollout) or standing
        rollout, nothing = standing.rollout, settled(verb, standing, options["then"])
        nothing = nothing or (approved(options, standing, user, time.time()) if verb == "approve" else "")
        refused = "" if nothing else refusal(verb, standing, lambda run: _has_ended(run, ledger, standing.release), options["then"])
        if not rollout:
            raise AnsibleActionFail(f"{ledger.name} knows of no rollout. Give the release, or the right rollout_ledger")
        if refused:
            raise AnsibleActionFail(f"{refused}. Nothing was decided")
        said = f"{rollout} {nothing}" if nothing else f"{rollout}: {verb} at {stamp(time.time())}, by {user}{': ' + options['why'] if options['why'] else ''}"
        said += "" if standing.run else " (no run of it yet)"
        event = None if nothing else Event(verb, rollout, data_of(options, standing, user))
        if event and self._task.check_mode:
            said = f"CHECK MODE: nothing is decided; {said}"
        elif event:
            ledger.append([event])
        display.display(said)
        return {"changed": not nothing, "rollout": rollout, "msg": said}


def _has_ended(run: Mapping[str, Any], ledger: Ledger, release: str) -> bool:
    """Whether a run that did not say so ended: its process is gone, or nobody has the release and it is not known to live."""
    return _holder.is_gone(run) or not (ledger.lease(release).taken() or _holder.is_alive(run))


def who_has(ledger: Ledger, standing: Standing) -> dict[str, Any]:
    """Say who has the rollout. Nobody need be told to give it back: that ends with the run's process."""
    rollout = standing.rollout
    who = f"{standing.run.who}, since {stamp(standing.run.at)}" if standing.run and standing.at_work else "a run that has not said who it is"
    taken = bool(rollout) and ledger.lease(standing.release).taken()
    said = f"rollout {rollout}: run by {who}; it is free when that run ends" if taken else f"rollout {rollout}: no run has it"
    said += f"; superseded {by_whom(standing.superseded)}" if standing.superseded else ""
    said = said if rollout else f"{ledger.name} knows of no rollout"
    display.display(said)
    return {"changed": False, "rollout": rollout, "msg": said}


def data_of(options: Mapping[str, Any], standing: Standing, user: str) -> dict[str, Any]:
    data = {"by": user, "why": options["why"]}
    if options["verb"] == "abort":
        data["then"] = options["then"]
    if options["verb"] == "approve":
        problems = approval_problems(options, standing, time.time())
        if problems:
            raise AnsibleActionFail("\n".join(["Nothing was decided:", *(f"  {number}. {problem}" for number, problem in enumerate(problems, 1))]))
        plan, expires = options["plan"] or standing.plan, options["expires"] or None
        data.update(plan=plan, remark=options["why"], expires=expires)
        if options["key"]:
            text = _gate_approval.approval_text(plan, user, options["why"], expires)
            try:
                data.update(text=text, signature=_signatures.sign(text, options["key"], _signatures.APPROVAL))
            except _signatures.CannotAsk as error:
                raise AnsibleActionFail(f"{error}. Nothing was decided") from error
    return data
