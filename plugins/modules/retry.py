#!/usr/bin/python
# Copyright: onprem.rollout contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

DOCUMENTATION = r"""
module: retry
short_description: Keeps a host for a payload that asks to be run again later
version_added: 0.1.0
author: onprem.rollout contributors
description:
  - A payload whose task ends with exit code 21 asks to be run again later, such as while a database is being migrated by somebody else.
  - This extends the lease of the transaction, so that no other run settles the host in the meantime.
  - Under P(onprem.rollout.staged#strategy) the host gets no task for O(wait) seconds and no fork waits with it. Under other strategies this task waits.
  - Fails as the payload did if that was no exit code 21, or if O(limit) seconds are over.
  - The role P(onprem.rollout.upgrade#role) uses it in a C(rescue) around the payload.
extends_documentation_fragment:
  - onprem.rollout.attributes
  - onprem.rollout.attributes.action
  - onprem.rollout.transaction
  - onprem.rollout.transaction.holder
attributes:
  check_mode:
    support: full
    details: The lease is not extended.
  diff_mode:
    support: none
    details: There is nothing to show.
options:
  transaction:
    description: The id of the transaction, by which O(last) is known to belong to it.
    type: str
    required: true
  failure:
    description: The result of the task that failed, C(ansible_failed_result).
    type: dict
    default: {}
  last:
    description: What this task returned when the payload failed the last time, if it did.
    type: dict
    default: {}
  wait:
    description: After how many seconds the payload is run again.
    type: float
    default: 60
  limit:
    description: For how many seconds, counted from the first time, the payload may ask for it.
    type: float
    default: 1800
seealso:
  - module: onprem.rollout.begin
"""

EXAMPLES = r"""
- name: Keep the host until the payload is run again
  onprem.rollout.retry:
    transaction: "{{ begun.transaction }}"
    failure: "{{ ansible_failed_result }}"
    last: "{{ later | default({}) }}"
  register: later
"""

RETURN = r"""
first:
  description: When the payload asked for it the first time, in seconds of the controller's monotonic clock.
  returned: success
  type: float
transaction:
  description: The id of the transaction.
  returned: success
  type: str
unexplained:
  description: The payload failed without a result, so what this task says is not why.
  returned: failure without O(failure)
  type: bool
wait:
  description: How many seconds the strategy is to wait. 0 if this task has waited.
  returned: success
  type: float
"""


from typing import Any, Dict

from ansible.module_utils.basic import AnsibleModule

from ansible_collections.onprem.rollout.plugins.module_utils._errors import Outcome, finish
from ansible_collections.onprem.rollout.plugins.module_utils._store import local
from ansible_collections.onprem.rollout.plugins.module_utils._transaction import retrying

ARGUMENTS: Dict[str, Any] = {
    "argument_spec": {
        "state_dir": {"type": "path", "default": "/var/lib/onprem-rollout"},
        "holder": {"type": "dict", "default": {}},
        "transaction": {"type": "str", "required": True},
        "failure": {"type": "dict", "default": {}},
        "last": {"type": "dict", "default": {}},
        "wait": {"type": "float", "default": 60},
        "limit": {"type": "float", "default": 1800},
    },
    "supports_check_mode": True,
}


def run(module: AnsibleModule) -> Outcome:
    retrying(local(module.params["state_dir"]), module.params["holder"], check_mode=module.check_mode, wait=module.params["wait"])
    return False, {}, {}


def main() -> None:
    finish(AnsibleModule(**ARGUMENTS), run)


if __name__ == "__main__":
    main()
