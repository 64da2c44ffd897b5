#!/usr/bin/python
# Copyright: onprem.rollout contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

DOCUMENTATION = r"""
module: host_info
short_description: Reads the host record
version_added: 0.1.0
author: onprem.rollout contributors
description:
  - Reads what a host says about itself. What release is installed, which transaction is in progress, which snapshots there are.
  - Estimates what a snapshot of O(paths) would hold.
  - Changes nothing and takes no lock.
extends_documentation_fragment:
  - onprem.rollout.attributes
  - onprem.rollout.transaction
attributes:
  check_mode:
    support: full
    details: The module never changes anything.
  diff_mode:
    support: N/A
    details: The module never changes anything.
options:
  paths:
    description: Absolute paths, as for M(onprem.rollout.begin), whose size is estimated.
    type: list
    elements: str
    default: []
  min_free:
    description: How many bytes must stay free after a snapshot of O(paths); see RV(unfit). 0 does not look.
    type: int
    default: 0
seealso:
  - module: onprem.rollout.begin
"""

EXAMPLES = r"""
- name: Ask the host
  onprem.rollout.host_info:
    paths: [/opt/shop]
  register: host

- name: Show what is installed
  ansible.builtin.debug:
    msg: "{{ host.record.installed.version | default('nothing') }}"
"""

RETURN = r"""
record:
  description:
    - The host record. Its C(installed) release, C(last_known_good) snapshot, C(transaction) and C(history).
    - C(failed) lists the releases that failed on this host, each with C(release), C(reason), C(at) and C(times).
    - It holds the options of the transaction, among them the checks, which may be confidential.
  returned: success
  type: dict
in_progress:
  description: Whether a transaction is open that can be committed or restored. An inconsistent one is not.
  returned: success
  type: bool
snapshots:
  description:
    - Each snapshot's C(id), C(files), C(bytes) and C(created), oldest first, and the bytes that were C(stored) for it alone.
    - Its C(provider), see the option of M(onprem.rollout.begin). C(damaged) lists what M(onprem.rollout.verify) found lost.
  returned: success
  type: list
  elements: dict
undropped:
  description: The snapshots that could not be dropped, and why, as sentences. It is tried again whenever snapshots are dropped.
  returned: success
  type: list
  elements: str
free_bytes:
  description: Free bytes on the file system of O(state_dir), for unprivileged writers.
  returned: success
  type: int
unfit:
  description: Why this host could not keep a snapshot of O(paths) with O(min_free) bytes left, empty when it could or O(min_free) is 0.
  returned: success
  type: str
estimate:
  description: How many C(files) and C(bytes) are below O(paths).
  returned: success
  type: dict
systemd:
  description: Whether systemd runs this host.
  returned: success
  type: bool
python:
  description: The version of Python that ran the module.
  returned: success
  type: str
"""

import platform

from ansible.module_utils.basic import AnsibleModule

from ansible_collections.onprem.rollout.plugins.module_utils import _providers, _record, _services, _snapshot
from ansible_collections.onprem.rollout.plugins.module_utils._errors import Outcome, finish
from ansible_collections.onprem.rollout.plugins.module_utils._store import free_bytes, local, unfit


def run(module: AnsibleModule) -> Outcome:
    state_dir = local(module.params["state_dir"])
    record = _record.load(state_dir)
    found = _record.open_transaction(record)
    size = _snapshot.estimate(state_dir, _snapshot.resolve(module.params["paths"], state_dir))
    result = {
        "record": record,
        "in_progress": found is not None and found["phase"] != "inconsistent",
        "snapshots": _snapshot.summaries(state_dir),
        "undropped": _providers.undropped(state_dir),
        "free_bytes": free_bytes(state_dir),
        "unfit": unfit(state_dir, size.needed + module.params["min_free"]) if module.params["min_free"] else "",
        "estimate": {"files": size.files, "bytes": size.bytes},
        "systemd": _services.present(),
        "python": platform.python_version(),
    }
    return False, result, {}


def main() -> None:
    module = AnsibleModule(
        argument_spec={
            "state_dir": {"type": "path", "default": "/var/lib/onprem-rollout"},
            "paths": {"type": "list", "elements": "str", "default": []},
            "min_free": {"type": "int", "default": 0},
        },
        supports_check_mode=True,
    )
    finish(module, run)


if __name__ == "__main__":
    main()
