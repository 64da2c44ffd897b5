#!/usr/bin/python
# Copyright: onprem.rollout contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

DOCUMENTATION = r"""
module: unlock
short_description: Says which run holds a host, and takes the host from it
version_added: 0.1.0
author: onprem.rollout contributors
description:
  - Says who holds this host, from where, and for how long its lease goes on.
  - With O(evict=true), takes the host from a run whose lease has ended or whose process is known to be gone, or, with O(force=true), from any.
  - What was decided is written to the ledger first, and who took the host from whom, when and why is kept in the host record.
  - Nothing is restored. What that run left half done is settled by the next upgrade, as after a crash, and the revert timer goes on.
  - The run that had the host is refused at its next step there, so it neither commits nor restores it. But a task that is at work on the host goes on. End
    that run first.
extends_documentation_fragment:
  - onprem.rollout.attributes
  - onprem.rollout.attributes.action
  - onprem.rollout.transaction
  - onprem.rollout.transaction.holder
attributes:
  check_mode:
    support: full
  diff_mode:
    support: full
options:
  evict:
    description: Take the host from the run that holds it. O(why) must be given.
    type: bool
    default: false
  force:
    description: Take it even if the run may be at work. Implies O(evict).
    type: bool
    default: false
  why:
    description: Why, for those who read the ledger and the host record.
    type: str
    default: ""
  ledger:
    description: The ledger, as C(rollout_ledger). By default C(onprem-rollout/ledger.jsonl) below E(XDG_STATE_HOME) or C(~/.local/state).
    type: str
    default: ""
  transaction:
    description: The id of the transaction that is taken. Leave it out. The action plugin sets it to the one that it asked about.
    type: str
    default: ""
  gone:
    description: A run that is known to have ended. Leave it out. The action plugin knows it of runs of its own machine.
    type: str
    default: ""
seealso:
  - module: onprem.rollout.settle
"""

EXAMPLES = r"""
- name: Say who holds the host
  onprem.rollout.unlock:

- name: Take the host from a run that is gone
  onprem.rollout.unlock:
    evict: true
    why: its controller burnt down
"""

RETURN = r"""
held:
  description: Whether a run holds this host.
  returned: success
  type: bool
outcome:
  description: V(free) if nobody holds the host, V(held) if somebody does, V(evicted) if it was taken from them.
  returned: success
  type: str
  sample: held
holder:
  description: The run that holds the host.
  returned: success
  type: dict
rollout:
  description: The rollout of the host's transaction.
  returned: success
  type: str
release:
  description: The release of the host's transaction, in words.
  returned: success
  type: str
transaction:
  description: The id of the host's transaction.
  returned: success
  type: str
phase:
  description: The phase of the host's transaction.
  returned: success
  type: str
began:
  description: When it began.
  returned: success
  type: str
lease_left:
  description: For how many seconds no other run may take the host.
  returned: success
  type: int
evicted:
  description: From which C(holder) the host was taken, C(by) whom, C(at) what time, C(why), and whether that was C(forced).
  returned: success
  type: dict
reason:
  description: One word for machines, such as V(held), V(changed), V(locked), V(record) or V(schema).
  returned: failure
  type: str
"""


from typing import Any, Dict

from ansible.module_utils.basic import AnsibleModule

from ansible_collections.onprem.rollout.plugins.module_utils._errors import Outcome, finish
from ansible_collections.onprem.rollout.plugins.module_utils._store import local
from ansible_collections.onprem.rollout.plugins.module_utils._unlock import look, unlock

ARGUMENTS: Dict[str, Any] = {
    "argument_spec": {
        "state_dir": {"type": "path", "default": "/var/lib/onprem-rollout"},
        "holder": {"type": "dict", "default": {}},
        "evict": {"type": "bool", "default": False},
        "force": {"type": "bool", "default": False},
        "why": {"type": "str", "default": ""},
        "ledger": {"type": "str", "default": ""},
        "transaction": {"type": "str", "default": ""},
        "gone": {"type": "str", "default": ""},
    },
    "supports_check_mode": True,
}


def run(module: AnsibleModule) -> Outcome:
    params = module.params
    state_dir = local(params["state_dir"])
    if not (params["evict"] or params["force"]):
        told = look(state_dir)
        return False, dict(told, outcome="held" if told["held"] else "free"), {}
    return unlock(state_dir, params["holder"], params["transaction"], params["why"], params["force"], params["gone"], module.check_mode)


def main() -> None:
    finish(AnsibleModule(**ARGUMENTS), run)


if __name__ == "__main__":
    main()
