#!/usr/bin/python
# Copyright: onprem.rollout contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

DOCUMENTATION = r"""
module: restore
short_description: Restores a host to what it was when its transaction began
version_added: 0.1.0
author: onprem.rollout contributors
description:
  - Ends what the payload left running, puts the packages and the files of the snapshot back, brings the services to their state of then,
    and proves the result by comparing packages and files and running the health checks.
  - Only what differs is touched. The module can be repeated after any interruption.
  - A host whose restore could not be proven becomes C(inconsistent) and is not touched again unless O(force=true).
extends_documentation_fragment:
  - onprem.rollout.attributes
  - onprem.rollout.attributes.action
  - onprem.rollout.transaction
  - onprem.rollout.transaction.holder
  - onprem.rollout.transaction.anchor
attributes:
  check_mode:
    support: full
    details: Compares the packages and the files. It cannot tell whether the health checks would pass.
  diff_mode:
    support: full
    details: Lists each path with what is done to it.
options:
  transaction:
    description:
      - The id of the transaction to restore, whoever holds it. Nothing is done if the host is in another one, which with O(force=true) is an error.
      - Without it only a transaction of this run is restored.
    type: str
  reason:
    description: Why the host is restored, for the record and the history.
    type: str
    default: ""
  failed:
    description:
      - Whether the release failed on this host by itself. The host then remembers it, and M(onprem.rollout.begin) refuses to try it again.
      - Leave it off when the host goes back with its wave, or after an outage, which is no verdict on the release.
    type: bool
    default: false
  force:
    description:
      - Also restore an inconsistent host, or one that is held because its change was declared irreversible.
      - Without O(transaction) this host must be one of these, or have a transaction of this run.
    type: bool
    default: false
seealso:
  - module: onprem.rollout.begin
  - module: onprem.rollout.host_info
"""

EXAMPLES = r"""
- name: Restore the host
  onprem.rollout.restore:
    reason: "{{ ansible_failed_result.msg | default('the payload failed') }}"

- name: Restore an inconsistent host after it was repaired
  onprem.rollout.restore:
    transaction: 0f8c2a5be1d94c7e8a6b1c2d3e4f5a6b
    force: true
"""

RETURN = r"""
outcome:
  description:
    - V(restored) if the host is proven to be what it was, now or by an earlier restore.
    - V(committed) if its transaction was committed before, and nothing was done.
    - V(held) if its change was declared irreversible. The host was left as it is, for an operator to decide.
    - V(untouched) if there is no transaction of this run, or not the named one.
    - V(restore_failed) if the module failed and the host is now inconsistent, V(inconsistent) if it was so before.
  returned: success, or if the restore failed
  type: str
  sample: restored
transaction:
  description: The id of the transaction, null if RV(outcome=untouched).
  returned: success, or if the restore failed
  type: str
irreversible:
  description: What the change cannot undo.
  returned: if RV(outcome=held)
  type: str
proven:
  description: Whether the host was healthy on the release, and is held for the sake of others.
  returned: if RV(outcome=held)
  type: bool
files:
  description: How many paths were C(replaced), C(created), C(removed), or got their C(metadata) back, and the first 50 C(paths).
  returned: success, or if the restore failed
  type: dict
  sample: {"replaced": 1, "created": 0, "removed": 2, "metadata": 3, "paths": ["/opt/shop/current"]}
packages:
  description: The packages that were brought back, a line for each version or mark, or in check mode would be.
  returned: success, or if the restore failed
  type: list
  elements: str
  sample: ["package shop: 2.0 -> 1.0"]
checks:
  description: The result of each health check after the restore.
  returned: success, or if the restore failed
  type: list
  elements: dict
quarantined:
  description: >-
    What makes the host unsafe on what it runs now (C(why)), C(since) when, and C(until) when it should run something else, as M(onprem.rollout.begin) was
    told. Null when nothing does.
  returned: success
  type: dict
remembered:
  description: Whether this host remembers that the release failed here, so that M(onprem.rollout.begin) refuses it until it is built anew or forced.
  returned: success, or if the restore failed
  type: bool
seconds:
  description: How long it took.
  returned: success, or if the restore failed
  type: float
reason:
  description: One word for machines, such as V(restore_failed), V(inconsistent), V(locked), V(record) or V(schema).
  returned: failure
  type: str
"""


from typing import Any, Dict

from ansible.module_utils.basic import AnsibleModule

from ansible_collections.onprem.rollout.plugins.module_utils._errors import Outcome, finish
from ansible_collections.onprem.rollout.plugins.module_utils._restore import restore
from ansible_collections.onprem.rollout.plugins.module_utils._store import local

ARGUMENTS: Dict[str, Any] = {
    "argument_spec": {
        "state_dir": {"type": "path", "default": "/var/lib/onprem-rollout"},
        "holder": {"type": "dict", "default": {}},
        "anchor": {"type": "dict"},
        "transaction": {"type": "str"},
        "reason": {"type": "str", "default": ""},
        "failed": {"type": "bool", "default": False},
        "force": {"type": "bool", "default": False},
    },
    "supports_check_mode": True,
}


def run(module: AnsibleModule) -> Outcome:
    params = module.params
    return restore(
        local(params["state_dir"]),
        params["holder"].get("run"),
        transaction=params["transaction"],
        reason=params["reason"],
        force=params["force"],
        failed=params["failed"],
        anchor=params["anchor"],
        check_mode=module.check_mode,
    )


def main() -> None:
    finish(AnsibleModule(**ARGUMENTS), run)


if __name__ == "__main__":
    main()
