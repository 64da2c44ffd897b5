# Copyright: onprem.rollout contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""What the role upgrade decides in its own expressions."""

from __future__ import annotations

from pathlib import Path

import pytest
import yaml
from jinja2.nativetypes import NativeEnvironment

ROLE = Path(__file__).parents[3] / "roles/upgrade"
HOOK = {"__upgrade_begin": {"transaction": "t"}, "__upgrade_hook": "t"}
CASES = [
    *[({"__upgrade_failure": {"msg": "m", "reason": reason}}, False) for reason in ("fetch", "no_space", "locked", "not_ours")],
    ({"__upgrade_failure": {"msg": "m", "reason": "sick"}}, True),
    ({"__upgrade_failure": {"msg": "m"}}, True),
    ({"__upgrade_failure": {"msg": "m", "blameless": True}}, False),
    ({"__upgrade_failure": {"msg": "m"}, **HOOK}, False),
    ({}, False),
]


@pytest.mark.parametrize("known, blamed", CASES, ids=[str(case[0]) for case in CASES])
def test_the_release_is_blamed_only_for_what_it_did(known, blamed):
    expression = yaml.safe_load((ROLE / "vars/main.yml").read_text())["__upgrade_blames_release"]
    assert NativeEnvironment().from_string(expression).render(known) is blamed
