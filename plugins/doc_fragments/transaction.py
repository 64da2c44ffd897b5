# Copyright: onprem.rollout contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Options that the modules of the host transaction share."""


class ModuleDocFragment:
    DOCUMENTATION = r"""
options:
  state_dir:
    description:
      - Where this host keeps its record, its snapshots and its lock.
      - It must belong to the user that runs the module, as the record holds commands that are run when the host is restored.
    type: path
    default: /var/lib/onprem-rollout
"""

    HOLDER = r"""
options:
  holder:
    description:
      - The run that works on this host, with at least the key C(run).
      - Leave it out. The action plugin sets it to the current run of ansible-playbook.
    type: dict
    default: {}
"""

    ANCHOR = r"""
options:
  anchor:
    description:
      - The C(number) and the C(sha256) of the last line of the controller's ledger. The host keeps those of its newest step, so that a ledger
        that was edited or cut off is provable from the hosts.
      - Leave it out. The action plugin sets it in a run that has a ledger.
    type: dict
"""
