#!/usr/bin/python
# Copyright: onprem.rollout contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

DOCUMENTATION = r"""
module: commit
short_description: Commits a host transaction
version_added: 0.1.0
author: onprem.rollout contributors
description:
  - Runs the health checks of the transaction once more, then makes its release the installed one and its snapshot last known good.
  - A committed host is never restored automatically.
  - Fails, and leaves the host revertible, if the host is not healthy, or if its transaction is not one of this run in phase C(awaiting_commit).
extends_documentation_fragment:
  - onprem.rollout.attributes
  - onprem.rollout.attributes.action
  - onprem.rollout.transaction
  - onprem.rollout.transaction.holder
  - onprem.rollout.transaction.anchor
attributes:
  check_mode:
    support: full
    details:
      - The health checks are run, including those of type command. Nothing is written.
      - Without a transaction of this run, as after a M(onprem.rollout.begin) in check mode, it says what a commit after it would do.
  diff_mode:
    support: full
options:
  lease:
    description: For how many seconds from now no other run may restore this host, if it cannot be committed yet. 0 leaves the lease as it is.
    type: int
    default: 0
  transaction:
    description: The id of a held transaction, which an operator commits after making the host well. Without it only a transaction of this run is committed.
    type: str
seealso:
  - module: onprem.rollout.begin
  - module: onprem.rollout.health
  - module: onprem.rollout.restore
"""

EXAMPLES = r"""
- name: Commit the host
  onprem.rollout.commit:
"""

RETURN = r"""
outcome:
  description: V(committed), also if it was committed before.
  returned: success
  type: str
  sample: committed
transaction:
  description: The id of the transaction.
  returned: success
  type: str
phase:
  description: The phase of the transaction in the record.
  returned: success, or if the phase or the health did not allow it
  type: str
  sample: committed
installed:
  description: The release that is now installed, with its C(name), C(version) and C(digest).
  returned: success
  type: dict
last_known_good:
  description: The id of the snapshot that is now last known good.
  returned: success
  type: str
checks:
  description: The result of each health check.
  returned: success, or if the host is no longer healthy
  type: list
  elements: dict
reason:
  description: One word for machines, such as V(no_transaction), V(not_ours), V(phase), V(sick), V(locked), V(record) or V(schema).
  returned: failure
  type: str
"""


from typing import Any, Dict

from ansible.module_utils.basic import AnsibleModule

from ansible_collections.onprem.rollout.plugins.module_utils._commit import commit
from ansible_collections.onprem.rollout.plugins.module_utils._errors import Outcome, finish
from ansible_collections.onprem.rollout.plugins.module_utils._store import local

ARGUMENTS: Dict[str, Any] = {
    "argument_spec": {
        "state_dir": {"type": "path", "default": "/var/lib/onprem-rollout"},
        "holder": {"type": "dict", "default": {}},
        "anchor": {"type": "dict"},
        "lease": {"type": "int", "default": 0},
        "transaction": {"type": "str"},
    },
    "supports_check_mode": True,
}


def run(module: AnsibleModule) -> Outcome:
    params = module.params
    return commit(
        local(params["state_dir"]),
        params["holder"],
        params["lease"],
        module.check_mode,
        transaction=params["transaction"],
        anchor=params["anchor"],
    )


def main() -> None:
    finish(AnsibleModule(**ARGUMENTS), run)


if __name__ == "__main__":
    main()
