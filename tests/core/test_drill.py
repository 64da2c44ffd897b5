# Copyright: onprem.rollout contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Drills: upgrade, restore, compare, and no trace but the result."""

from __future__ import annotations

from pathlib import Path

import pytest
from conftest import tree

DRILL = "onprem.rollout.drill"


def state(hosts, host: str) -> dict:
    """The files of the state directory but the record, and the locks with their pids."""
    found = tree(Path(hosts.root) / "hosts" / host / "state")
    return {path: facts[0::2] for path, facts in found.items() if facts[2] and path not in ("record.json", "lock", "timer.lock")}


def test_a_drill_leaves_no_trace_but_its_result(fleet):
    hosts = fleet(early=2)
    assert hosts.run(rollout_release={"name": "shop", "version": "1.5", "artifacts": []}).rc == 0
    before, record, kept = tree(hosts.app("early0")), hosts.record("early0"), state(hosts, "early0")
    result = hosts.run(DRILL, "-e", "drill_hosts=early0", rollout_keep=1)
    assert result.rc == 0, result.out
    assert "DRILL PASSED: shop 2.0 on early0" in " ".join(result.out.split())
    assert tree(hosts.app("early0")) == before
    now = state(hosts, "early0")
    assert {path: facts for path, facts in now.items() if kept.get(path) != facts} == {}
    assert kept.keys() == now.keys()
    after = hosts.record("early0")
    (drill,) = after.pop("drills")
    assert after == record
    assert (drill["ok"], drill["differences"], drill["release"]["version"]) == (True, [], "2.0")
    assert "drills" not in hosts.record("early1")
    assert hosts.run().rc == 0
    assert [item["ok"] for item in hosts.record("early0")["drills"]] == [True]


def test_a_drill_that_finds_a_difference_is_loud_and_names_the_paths(fleet):
    hosts = fleet(standard=1)
    spoil = ["sh", "-c", "echo spoilt > {{ app }}/config/shop.ini; touch {{ app }}/left"]
    result = hosts.run(DRILL, "--limit", "standard0", rollout_restart=spoil)
    assert result.rc == 2, result.out
    text = " ".join(result.out.split())
    assert "DRILL FAILED: shop 2.0 on standard0" in text
    for part in ("app/config/shop.ini: mtime, content", "app/left: was not there"):
        assert part in text
    drill = hosts.record("standard0")["drills"][-1]
    assert (drill["ok"], drill["count"] >= 2) == (False, True)


@pytest.mark.parametrize(
    "variables, says",
    [
        ({"broken": ["standard0"]}, "This host is not healthy"),
        ({"rollout_min_free": 1 << 60}, "Too little disk"),
    ],
    ids=["sick after it", "refused"],
)
def test_a_release_that_fails_fails_its_drill_and_the_host_is_as_before(fleet, variables, says):
    hosts = fleet(standard=1)
    result = hosts.run(DRILL, "--limit", "standard0", **variables)
    assert result.rc == 2, result.out
    assert says in hosts.record("standard0")["drills"][-1]["problem"]
    assert hosts.is_as_before("standard0")
    assert (hosts.record("standard0")["transaction"], hosts.record("standard0").get("failed")) == (None, None)


def test_a_restore_that_fails_in_a_drill_is_not_hidden(fleet):
    hosts = fleet(standard=1)
    result = hosts.run(DRILL, "--limit", "standard0", rollout_payload="spoils_restore")
    assert result.rc == 2, result.out
    record = hosts.record("standard0")
    assert (record["transaction"]["phase"], record["drills"][-1]["ok"]) == ("inconsistent", False)


def test_only_named_hosts_that_can_come_back_are_drilled(fleet):
    hosts = fleet(standard=1)
    assert "Name the hosts" in " ".join(hosts.run(DRILL).out.split())
    cannot = hosts.run(DRILL, "--limit", "standard0", rollout_irreversible="schema 7", rollout_accept_irreversible=True)
    assert (cannot.rc, "cannot be undone: schema 7" in " ".join(cannot.out.split())) == (2, True), cannot.out
    assert hosts.untouched("standard0")


def test_a_ring_may_require_a_drill(fleet):
    hosts = fleet(early=1, critical=1)
    rings = {"rollout_rings": [{"name": "early"}, {"name": "critical", "require_drill": True}]}
    plan = hosts.run("onprem.rollout.plan", **rings)
    assert "requires a drill" in plan.out
    assert "critical0 (refused: ring critical requires a drill of this release" in plan.out
    refused = hosts.run(**rings)
    assert (refused.rc, refused.states) == (2, {"early0": "committed", "critical0": "refused"}), refused.out
    assert refused.out.index("critical0: refused") < refused.out.index("early0: in change")
    assert hosts.untouched("critical0")
    assert hosts.run(DRILL, "--limit", "critical0", broken=["critical0"], **rings).rc == 2
    assert hosts.run(**rings).states["critical0"] == "refused"
    assert hosts.run(DRILL, "--limit", "critical0", **rings).rc == 0
    passed = hosts.run(**rings)
    assert (passed.rc, passed.states) == (0, {"early0": "skipped", "critical0": "committed"}), passed.out
