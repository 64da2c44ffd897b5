#!/usr/bin/python
# Copyright: onprem.rollout contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

DOCUMENTATION = r"""
module: verify
short_description: Proves that the snapshots of a host could be restored
version_added: 0.1.0
author: onprem.rollout contributors
description:
  - Reads every content that the snapshots of a host name and compares it with its SHA-256.
  - A snapshot that is damaged is remembered as such. It is never last known good, and later snapshots read again what they would have shared with it.
  - Fails if anything is damaged, with what is lost.
extends_documentation_fragment:
  - onprem.rollout.attributes
  - onprem.rollout.transaction
attributes:
  check_mode:
    support: full
    details: Reads the same and remembers nothing.
  diff_mode:
    support: N/A
    details: The module changes nothing but what the host remembers of its snapshots.
options:
  snapshot:
    description: The id of one snapshot. Without it all are verified.
    type: str
seealso:
  - module: onprem.rollout.host_info
"""

EXAMPLES = r"""
- name: Prove that this host could be restored
  onprem.rollout.verify:
"""

RETURN = r"""
snapshots:
  description: Each snapshot's C(id) and C(problems), what of it is damaged or lost. Empty C(problems) are a proof that it can be restored.
  returned: success, or if one is damaged
  type: list
  elements: dict
  sample: [{"id": "20250131T235959Z-1f2e3d4c", "problems": []}]
last_known_good:
  description: The id of the snapshot that is last known good now.
  returned: success, or if one is damaged
  type: str
reason:
  description: One word for machines, such as V(damaged), V(snapshot), V(locked) or V(record).
  returned: failure
  type: str
"""


from typing import Any, Dict

from ansible.module_utils.basic import AnsibleModule

from ansible_collections.onprem.rollout.plugins.module_utils._errors import Outcome, RolloutError, finish
from ansible_collections.onprem.rollout.plugins.module_utils._retention import verify
from ansible_collections.onprem.rollout.plugins.module_utils._store import local

ARGUMENTS: Dict[str, Any] = {
    "argument_spec": {
        "state_dir": {"type": "path", "default": "/var/lib/onprem-rollout"},
        "snapshot": {"type": "str"},
    },
    "supports_check_mode": True,
}


def run(module: AnsibleModule) -> Outcome:
    result = verify(local(module.params["state_dir"]), module.params["snapshot"], module.check_mode)
    damaged = ["{id}: {0}".format("; ".join(each["problems"][:10]), **each) for each in result["snapshots"] if each["problems"]]
    if damaged:
        raise RolloutError(
            "These snapshots could not be restored: {0}. Bring the lost files back from a backup or another host; the next snapshot keeps them again.".format(
                ", ".join(damaged)
            ),
            "damaged",
            **result,
        )
    return False, result, {}


def main() -> None:
    finish(AnsibleModule(**ARGUMENTS), run)


if __name__ == "__main__":
    main()
