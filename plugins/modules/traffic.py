#!/usr/bin/python
# Copyright: onprem.rollout contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

DOCUMENTATION = r"""
module: traffic
short_description: Notes in the host record whether a host is out of traffic
version_added: 0.1.0
author: onprem.rollout contributors
description:
  - Run it with O(drained=true) before a host is taken out of traffic, and with O(drained=false) after it was brought back.
  - A run that dies in between leaves the note, and the next run brings the host back into traffic first, whatever else its record says.
  - M(onprem.rollout.commit) removes the note too, as a host has rejoined before it commits.
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
  drained:
    description: Whether the host is, or may be from now on, out of traffic.
    type: bool
    required: true
seealso:
  - module: onprem.rollout.begin
  - module: onprem.rollout.restore
"""

EXAMPLES = r"""
- name: Note that the host is about to be out of traffic
  onprem.rollout.traffic:
    drained: true
"""

RETURN = r"""
drained:
  description: Whether the host may be out of traffic.
  returned: success
  type: bool
reason:
  description: One word for machines, such as V(not_ours), V(locked), V(record) or V(schema).
  returned: failure
  type: str
"""


from typing import Any, Dict

from ansible.module_utils.basic import AnsibleModule

from ansible_collections.onprem.rollout.plugins.module_utils._errors import Outcome, finish
from ansible_collections.onprem.rollout.plugins.module_utils._store import local
from ansible_collections.onprem.rollout.plugins.module_utils._traffic import note

ARGUMENTS: Dict[str, Any] = {
    "argument_spec": {
        "state_dir": {"type": "path", "default": "/var/lib/onprem-rollout"},
        "holder": {"type": "dict", "default": {}},
        "drained": {"type": "bool", "required": True},
    },
    "supports_check_mode": True,
}


def run(module: AnsibleModule) -> Outcome:
    params = module.params
    return note(local(params["state_dir"]), params["holder"], params["drained"], module.check_mode)


def main() -> None:
    finish(AnsibleModule(**ARGUMENTS), run)


if __name__ == "__main__":
    main()
