#!/usr/bin/python
# Copyright: onprem.rollout contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Documentation of the action plugin waive, which runs on the controller."""

DOCUMENTATION = r"""
module: waive
short_description: Signs a permission for hosts to go below their floor, once
version_added: 0.1.0
author: onprem.rollout contributors
description:
  - Writes a waiver and its signature into a directory on the controller. No host is asked or touched.
  - A rollout of that very release lets those hosts below their floor while the waiver holds, if it is told of the directory
    (C(rollout_waivers)) and the key is one of its C(rollout_waiver_signers), and if somebody else launched it. Each host takes it once.
  - It is revoked by writing its id into the file C(revoked) of O(directory), or by taking the key out of C(rollout_waiver_signers).
attributes:
  check_mode:
    description: Can run in check mode and return what would be written without writing it.
    support: full
options:
  directory:
    description: A directory on the controller. It is made, C(0700), if it is not there.
    type: path
    required: true
  release:
    description: The release, as C(rollout_release). The waiver is for this very build, by its digest.
    type: dict
    required: true
  hosts:
    description: The hosts by their names in the inventory, one by one.
    type: list
    elements: str
    required: true
  why:
    description: Why. It must be given; the ledger and the host's record keep it.
    type: str
    required: true
  expires:
    description: When it ends, ISO 8601 with the offset, such as V(2026-12-01T06:00:00+01:00). Expired when now >= O(expires). It must be in the future.
    type: str
    required: true
  key:
    description: The path of a private key without a passphrase, or of a public key whose private half is in an agent. Needs OpenSSH 8.1 or newer.
    type: path
    required: true
  by:
    description: Who signs, as C(rollout_waiver_signers) names them. By default the user at work.
    type: str
    default: ""
"""

EXAMPLES = r"""
- name: Let shop3 go back to 1.9
  onprem.rollout.waive:
    directory: /srv/waivers
    release: "{{ rollout_release }}"
    hosts: [shop3.example.com]
    why: CHG-4711, the new till firmware is late
    expires: "2026-12-01T06:00:00+01:00"
    key: ~/.ssh/id_ed25519
    by: bob@example.org
"""

RETURN = r"""
waiver:
  description: What was signed.
  returned: success
  type: dict
path:
  description: Where it was written; the signature is beside it.
  returned: success
  type: str
"""
