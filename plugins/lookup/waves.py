# Copyright: onprem.rollout contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Lookup plugin waves: what a play of the engine linear is to do; see DOCUMENTATION."""

from __future__ import annotations

DOCUMENTATION = r"""
name: waves
short_description: Says who is changed in which batch, to the plays of the engine linear
version_added: 0.1.0
author: onprem.rollout contributors
description:
  - The playbook C(onprem.rollout.upgrade) uses it in C(hosts) and C(serial) of its plays when C(rollout_engine) is V(linear).
  - It answers only while that playbook runs; elsewhere every answer is empty, and nobody is changed.
options:
  _terms:
    description:
      - V(settle) are hosts that an earlier run left half done, V(change) those that the release goes to, in the order of the plan;
        V(settle_sizes) and V(change_sizes) are the numbers for C(serial). V(go) is whether the batch at work may begin.
      - V(speakers) are the hosts that speak for the rollout when it is over, V(failed) whether they do so by failing, V(why) what such
        a host says, and V(summary) is what C(rollout_json) holds.
    type: list
    elements: str
    required: true
seealso:
  - plugin: onprem.rollout.waves
    plugin_type: callback
"""

EXAMPLES = r"""
- name: Change hosts wave by wave
  hosts: "{{ query('onprem.rollout.waves', 'change') }}"
  serial: "{{ query('onprem.rollout.waves', 'change_sizes') }}"
"""

RETURN = r"""
_raw:
  description: Names of hosts, numbers of hosts, one boolean, one text, or one dictionary.
  type: list
"""

from typing import Any

from ansible.plugins.lookup import LookupBase

from ansible_collections.onprem.rollout.plugins.plugin_utils import _linear


class LookupModule(LookupBase):
    def run(self, terms: list[str], variables: dict[str, Any] | None = None, **kwargs: Any) -> list[Any]:
        engine = _linear.current()
        if engine is None:
            return []
        return [answer for term in terms for answer in ([engine.why((variables or {})["inventory_hostname"])] if term == "why" else engine.ask(term))]
