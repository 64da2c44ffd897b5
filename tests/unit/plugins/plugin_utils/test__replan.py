# Copyright: onprem.rollout contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

from __future__ import annotations

import json
from datetime import date

import pytest

from ansible_collections.onprem.rollout.plugins.plugin_utils._plan import Plan, RingPlan, digest
from ansible_collections.onprem.rollout.plugins.plugin_utils._policy import Release, Ring
from ansible_collections.onprem.rollout.plugins.plugin_utils._replan import changes, inputs_of


def inputs(release="d1", **rings):
    planned = tuple(RingPlan(Ring(name, name, **options), (tuple(hosts),)) for name, (hosts, options) in rings.items())
    return json.loads(json.dumps(inputs_of(Plan(Release("shop", "2.0", ()), planned), release)))  # as it comes back from the ledger


BEFORE = inputs(early=(["a"], {}), standard=(["b", "c"], {}))
CASES = [
    ("nothing", inputs(early=(["a"], {}), standard=(["b", "c"], {})), False, []),
    ("release", inputs("d2", early=(["a"], {}), standard=(["b", "c"], {})), False, ["the release is another one of the same version"]),
    ("policy", inputs(early=(["a"], {"max_failures": 2}), standard=(["b", "c"], {})), False, ["ring early: max_failures was 0, is 2"]),
    ("moved", inputs(early=(["a", "b"], {}), standard=(["c"], {})), False, ["ring early: b came in", "ring standard: b went out"]),
    ("rings", inputs(early=(["a"], {}), night=(["b"], {})), False, ["ring night is new", "ring standard is gone"]),
    ("limited", inputs(standard=(["c"], {})), True, []),
    ("limited policy", inputs(standard=(["c"], {"soak": 5.0})), True, ["ring standard: soak was 0.0, is 5.0"]),
]


@pytest.mark.parametrize("now, limited, said", [case[1:] for case in CASES], ids=[case[0] for case in CASES])
def test_changes(now, limited, said):
    found = changes(BEFORE, now, limited)
    assert len(found) == len(said)
    assert all(line.startswith(start) for line, start in zip(found, said, strict=True))


def test_who_is_held_may_go_and_come():
    for rings, held in (({"early": (["a"], {}), "standard": (["b"], {})}, ["c"]), ({"standard": (["b", "c"], {})}, ["a"])):
        now = {**inputs(**rings), "held": held}
        assert changes(BEFORE, now, False) == changes(now, BEFORE, False) == []


def test_gates_of_all_rings_are_part_of_the_plan_and_what_their_programs_are_told_is_not_shown():
    plan = Plan(Release("shop", "2.0", ()), (), gates=({"type": "command", "argv": ["ask"], "env": {"TOKEN": "s3cret"}, "since": date(2030, 1, 2)},))
    (line,) = changes(json.loads(json.dumps(inputs_of(Plan(Release("shop", "2.0", ()), ()), "d1"))), inputs_of(plan, "d1"), False)
    assert line.startswith("rollout_gates was []")
    assert "2030-01-02" in line
    assert "s3cret" not in line
    assert digest(plan, "d1") != digest(Plan(Release("shop", "2.0", ()), ()), "d1")


def test_many_hosts_are_counted():
    line = changes(BEFORE, inputs(early=(["a", *(f"h{number}" for number in range(10))], {}), standard=(["b", "c"], {})), False)
    assert line == ["ring early: h0, h1, h2, h3, h4, h5, h6, h7 and 2 more came in"]
