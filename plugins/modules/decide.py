#!/usr/bin/python
# Copyright: onprem.rollout contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Documentation of the action plugin decide, which runs on the controller."""

DOCUMENTATION = r"""
module: decide
short_description: Writes what an operator decided to the ledger of a rollout
version_added: 0.1.0
author: onprem.rollout contributors
description:
  - Writes one event to the ledger on the controller. No host is asked or touched.
  - A rollout that is at work hears it within 2 seconds, whichever terminal or job it runs in, if it uses the same ledger.
  - What is decided already is not decided again; then nothing changes.
  - Refused, with nothing written, when there is no such ledger, or nothing to abort or promote.
  - The playbooks C(onprem.rollout.hold) and its siblings call it.
attributes:
  check_mode:
    description: Can run in check mode and return what would be written without writing it.
    support: full
options:
  verb:
    description:
      - V(hold) stops the rollout between hosts. Hosts in change go on to their end, and nobody new is let in, in later runs neither.
      - V(resume) lets a held rollout go on.
      - V(abort) ends the run at work; O(then) says what becomes of hosts that are not committed.
      - V(promote) ends the soak at work. Every host is still checked once more before its commit.
      - V(approve) approves a plan.
      - V(unlock) writes nothing. It says which run has the rollout; hosts are taken from runs by M(onprem.rollout.unlock).
    type: str
    choices: [approve, hold, resume, abort, promote, unlock]
    required: true
  ledger:
    description: The ledger, as C(rollout_ledger). By default C(onprem-rollout/ledger.jsonl) below E(XDG_STATE_HOME) or C(~/.local/state).
    type: str
    default: ""
  rollout:
    description: The name and version of the release, such as C(shop-2.0). By default the rollout that began last.
    type: str
    default: ""
  why:
    description: Why, for those who read the ledger and for the rollout's output.
    type: str
    default: ""
  then:
    description: For V(abort), whether hosts that are upgraded and not committed go back to what they ran, or, if they are healthy, commit.
    type: str
    choices: [restore, keep]
    default: restore
  plan:
    description: For V(approve), the digest of the plan. By default that of the rollout's newest run.
    type: str
    default: ""
  expires:
    description: For V(approve), until when it holds, such as C(2026-11-30T18:00:00Z). By default it does not expire.
    type: str
    default: ""
  key:
    description:
      - For V(approve), a private SSH key of the controller without a passphrase, or a public key whose private half an SSH agent has.
      - The approval is signed with it, as C(ssh-keygen -Y sign -n onprem-rollout) does, for gates with C(allowed_signers).
    type: path
    default: ""
notes:
  - It needs no connection; with C(run_once) one host of the inventory stands for all.
"""

EXAMPLES = r"""
- name: Stop the rollout between hosts
  onprem.rollout.decide:
    verb: hold
    why: the shop has a sale today
  run_once: true
"""

RETURN = r"""
rollout:
  description: The rollout that was decided on.
  type: str
  returned: success
msg:
  description: What was decided, or why there was nothing to do.
  type: str
  returned: success
"""
