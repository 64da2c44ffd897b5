# Copyright: onprem.rollout contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Action plugin unlock: asks the host who holds it, writes to the ledger that it is taken, and takes it. See the module's docs."""

from __future__ import annotations

import os
from collections.abc import Mapping
from typing import Any

from ansible.errors import AnsibleActionFail
from ansible.utils.display import Display

from ansible_collections.onprem.rollout.plugins.modules.unlock import ARGUMENTS
from ansible_collections.onprem.rollout.plugins.plugin_utils import _holder, _ledgers, _light
from ansible_collections.onprem.rollout.plugins.plugin_utils._action import HostAction
from ansible_collections.onprem.rollout.plugins.plugin_utils._evict import refusal, said
from ansible_collections.onprem.rollout.plugins.plugin_utils._ledger import BrokenChain, Event, LedgerError

display = Display()


class ActionModule(HostAction):
    verb = "unlock"

    def run(self, tmp: Any = None, task_vars: dict[str, Any] | None = None) -> dict[str, Any]:
        result: dict[str, Any] = super(HostAction, self).run(tmp, task_vars)
        variables = task_vars or {}
        _validation, options = self.validate_argument_spec(ARGUMENTS["argument_spec"])
        host = str(variables.get("inventory_hostname", ""))
        told = _light.run(self, self.verb, {"state_dir": options["state_dir"]}, variables)
        if told.get("failed"):
            return {**result, **told}
        display.display(f"{host}: {said(told)}")
        if not told["held"] or not (options["evict"] or options["force"]):
            return {**result, **told, "msg": said(told)}
        gone = _holder.is_gone(told["holder"])
        problem = refusal(told, options["why"], options["force"])
        if problem:
            raise AnsibleActionFail(problem)
        data = {"by": _ledgers.user(variables), "why": options["why"], "host": host, "from": _holder.describe(told["holder"]),
                "transaction": told["transaction"], "phase": told["phase"], "forced": told["lease_left"] > 0 and not gone}  # fmt: skip
        if not self._task.check_mode:
            self._remember(options["ledger"], Event("unlock", str(told["rollout"]), data), variables)
        arguments = {key: options[key] for key in ("state_dir", "why", "force")}
        arguments.update(evict=True, transaction=told["transaction"], gone=told["holder"].get("run", "") if gone else "")
        arguments["holder"] = _holder.holder(host, variables)
        result.update(_light.run(self, self.verb, arguments, variables))
        if result.get("outcome") == "evicted":
            display.display(f"{host}: taken from {data['from']} by {data['by']}: {data['why']}. The next upgrade settles what was left half done")
        return result

    def _remember(self, place: str, event: Event, variables: Mapping[str, Any]) -> None:
        place = place or _ledgers.default_place()
        problem = _ledgers.place_problem(place)
        if problem:
            raise AnsibleActionFail(f"rollout_ledger: {_ledgers.shown(place)!r}: {problem}")
        ledger = _ledgers.open_ledger(place, _ledgers.who(variables, os.getppid()))
        try:
            ledger.append([event])
        except (LedgerError, BrokenChain) as error:
            raise AnsibleActionFail(f"{ledger.name}: {error}. The host was not taken from anybody") from error
