#!/usr/bin/python
# Copyright: onprem.rollout contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

DOCUMENTATION = r"""
module: drill
short_description: Compares a host before and after a rehearsed upgrade and restore
version_added: 0.1.0
author: onprem.rollout contributors
description:
  - With O(stage=before) it keeps what every file below O(paths) and every one of O(services) is, and the host record as it is.
  - With O(stage=after), when the host was upgraded and restored, it compares. Type, content, mode, owner, time, links, extended attributes.
  - Then the record is put back as it was but for the result of the drill, and the drill's snapshot is dropped.
  - It looks with code of its own, not with that of the restore.
extends_documentation_fragment:
  - onprem.rollout.attributes
  - onprem.rollout.attributes.action
  - onprem.rollout.transaction
  - onprem.rollout.transaction.holder
attributes:
  check_mode:
    support: none
    details: A drill changes the host and puts it back.
  diff_mode:
    support: none
    details: RV(drill) names what differs.
options:
  stage:
    description: Whether the drill begins or ends.
    type: str
    choices: [before, after]
    required: true
  release:
    description: The release, as for M(onprem.rollout.begin).
    type: dict
    required: true
  paths:
    description: Absolute paths, as for M(onprem.rollout.begin).
    type: list
    elements: str
    default: []
  exclude:
    description: Patterns of what is not compared, as for M(onprem.rollout.begin).
    type: list
    elements: str
    default: []
  cross_mounts:
    description: Whether other file systems below O(paths) are compared too, as for M(onprem.rollout.begin).
    type: bool
    default: false
  packages:
    description: Packages, as for M(onprem.rollout.begin). If there are any, all packages of the host are compared.
    type: list
    elements: str
    default: []
  package_manager:
    description: As for M(onprem.rollout.begin); V(apt) or V(dnf).
    type: str
    choices: [auto, apt, dnf]
    default: auto
  services:
    description: Systemd units, as for M(onprem.rollout.begin).
    type: list
    elements: str
    default: []
  irreversible:
    description: What the change cannot undo, as for M(onprem.rollout.begin). Such a host is refused.
    type: str
    default: ""
  transaction:
    description: The id of the transaction that was rehearsed. Empty if it did not begin.
    type: str
    default: ""
  problem:
    description: What went wrong on the way, if anything did.
    type: str
    default: ""
seealso:
  - module: onprem.rollout.begin
  - module: onprem.rollout.restore
"""

EXAMPLES = r"""
- name: Look at the host before anything is changed
  onprem.rollout.drill:
    stage: before
    release: "{{ rollout_release }}"
    paths: [/opt/shop]
"""

RETURN = r"""
outcome:
  description: V(begun), V(passed) or V(failed).
  returned: success
  type: str
  sample: passed
paths:
  description: How many files, directories and links were looked at.
  returned: if O(stage=before)
  type: int
drill:
  description: Whether it was C(ok), C(seconds), the first 50 C(differences) and their C(count), and the C(problem) if there was one.
  returned: if O(stage=after)
  type: dict
"""


from typing import Any, Dict

from ansible.module_utils.basic import AnsibleModule

from ansible_collections.onprem.rollout.plugins.module_utils import _drill
from ansible_collections.onprem.rollout.plugins.module_utils._errors import Outcome, finish
from ansible_collections.onprem.rollout.plugins.module_utils._store import local

ARGUMENTS: Dict[str, Any] = {
    "argument_spec": {
        "state_dir": {"type": "path", "default": "/var/lib/onprem-rollout"},
        "holder": {"type": "dict", "default": {}},
        "stage": {"type": "str", "choices": ["before", "after"], "required": True},
        "release": {"type": "dict", "required": True},
        "paths": {"type": "list", "elements": "str", "default": []},
        "exclude": {"type": "list", "elements": "str", "default": []},
        "cross_mounts": {"type": "bool", "default": False},
        "packages": {"type": "list", "elements": "str", "default": []},
        "package_manager": {"type": "str", "choices": ["auto", "apt", "dnf"], "default": "auto"},
        "services": {"type": "list", "elements": "str", "default": []},
        "irreversible": {"type": "str", "default": ""},
        "transaction": {"type": "str", "default": ""},
        "problem": {"type": "str", "default": ""},
    },
}


def run(module: AnsibleModule) -> Outcome:
    options = dict(module.params, state_dir=local(module.params["state_dir"]))
    return _drill.begin(options) if options["stage"] == "before" else _drill.end(options)


def main() -> None:
    finish(AnsibleModule(**ARGUMENTS), run)


if __name__ == "__main__":
    main()
