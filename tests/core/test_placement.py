# Copyright: onprem.rollout contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Where hosts stand and what they take: failure domains, and releases tailored to groups and architectures."""

from __future__ import annotations

from itertools import combinations

RULES = [{"by": "rack", "max": 1}, {"by": "ha_pair", "max": 1}]
PLACES = {
    "standard0": {"rack": "r1", "ha_pair": "a"},
    "standard1": {"rack": "r1", "ha_pair": "b"},
    "standard2": {"rack": "{{ 'r' ~ 2 }}", "ha_pair": "a"},
    "standard3": {"rack": "r3", "ha_pair": "c"},
}


def test_hosts_of_one_failure_domain_change_one_after_the_other_and_others_together(fleet):
    hosts = fleet(standard=4)
    rings = [{"name": "standard", "serial": ["100%"], "concurrency": 3}]
    result = hosts.run(rollout_payload="naps", nap=1, rollout_rings=rings, rollout_spread=RULES, hostvars=PLACES)
    assert (result.rc, set(result.states.values())) == (0, {"committed"}), result.out
    times = {host: [float((hosts.root / "hosts" / host / name).read_text()) for name in ("began", "ended")] for host in hosts.hosts}
    together = {(one, other) for one, other in combinations(hosts.hosts, 2) if times[one][0] < times[other][1] and times[other][0] < times[one][1]}
    assert not together & {("standard0", "standard1"), ("standard0", "standard2")}
    assert together
    assert result.data["plan"]["rings"][0]["spread"] == RULES


def test_a_host_without_a_place_is_refused_before_anybody_is_touched_and_the_plan_says_so_too(fleet):
    hosts = fleet(standard=4)
    for playbook in ("onprem.rollout.plan", "onprem.rollout.upgrade"):
        result = hosts.run(playbook, rollout_spread=RULES, hostvars={**PLACES, "standard1": {}})
        assert result.rc == 1
        assert "host standard1, rack: has no value" in result.out
        assert "host standard1, ha_pair: has no value" in result.out
    assert all(hosts.untouched(host) for host in hosts.hosts)
