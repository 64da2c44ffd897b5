#!/usr/bin/python
# Copyright: onprem.rollout contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Documentation of the action plugin settle, which runs on the controller."""

DOCUMENTATION = r"""
module: settle
short_description: Asks a host what it runs and settles what an earlier run left half done
version_added: 0.1.0
author: onprem.rollout contributors
description:
  - Reads the host record with one raw command, which costs a fraction of a module run.
  - A transaction whose controller died is restored at once when that controller was this machine, and otherwise when its lease has ended.
  - A host that another living run holds, and a host that is inconsistent, are refused with the reason.
options:
  state_dir:
    description: Where the host keeps its record and its snapshots.
    type: path
    default: /var/lib/onprem-rollout
  look:
    description: Only ask, and say in RV(abandoned) what would have to be settled.
    type: bool
    default: false
  min_free:
    description: How many bytes must be free for a snapshot; see RV(unfit).
    type: int
    default: 0
attributes:
  check_mode:
    description: Says what would be restored and does not do it.
    support: full
  diff_mode:
    description: Shows nothing; the restore module does.
    support: none
  action:
    description: Runs on the controller.
    support: full
extends_documentation_fragment: []
seealso:
  - module: onprem.rollout.restore
  - module: onprem.rollout.host_info
"""

EXAMPLES = r"""
- name: Ask the host what it runs and settle what is half done
  onprem.rollout.settle:
"""

RETURN = r"""
record:
  description: The host record, empty on a host that was never upgraded.
  returned: success
  type: dict
abandoned:
  description: The id of the transaction that an earlier run left half done, or nothing.
  returned: success
  type: str
drained:
  description: Whether an earlier run may have left the host out of traffic.
  returned: success
  type: bool
unfit:
  description: Why the host could not keep a snapshot, because O(state_dir) cannot be written or has less than O(min_free) bytes; or empty.
  returned: success
  type: str
settled:
  description: How a half-done transaction was settled, or nothing.
  returned: success
  type: str
  sample: "restored: runs shop 1.0"
reason:
  description: V(taken) when another run that may be alive holds the host.
  returned: failure
  type: str
"""
