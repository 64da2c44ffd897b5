# Copyright: onprem.rollout contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Where hosts stand and what they take: failure domains, and releases tailored to groups and architectures."""

from __future__ import annotations

import hashlib
import io
import tarfile
from itertools import combinations
from pathlib import Path

import pytest
import yaml

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


def tarball(path: Path, text: str) -> dict:
    """An artifact with one file in it, as a release names it."""
    with tarfile.open(path, "w:gz") as tar:
        member = tarfile.TarInfo("version")
        member.size = len(text)
        tar.addfile(member, io.BytesIO(text.encode()))
    content = path.read_bytes()
    return {"path": str(path), "size": len(content), "sha256": hashlib.sha256(content).hexdigest()}


def test_groups_and_architectures_take_their_own_artifacts_and_bad_ones_are_found_first(fleet, tmp_path):
    hosts = fleet(early=1, standard=2)
    for host in hosts.hosts:
        (hosts.app(host) / "current").unlink()
    release = {
        "name": "shop",
        "version": "2.0",
        "artifacts": [tarball(tmp_path / "shop.tar.gz", "2 for all")],
        "tailored": [
            {"when": {"group": "rollout_early"}, "artifacts": [tarball(tmp_path / "shop-early.tar.gz", "2 for early")]},
            {"when": {"arch": "arm64"}, "artifacts": [tarball(tmp_path / "shop-arm64.tar.gz", "2 for arm64")]},
        ],
    }
    given = {
        "rollout_payload": "onprem.rollout.archive",
        "archive_dest": "{{ app }}",
        "rollout_release": release,
        "hostvars": {"standard0": {"rollout_arch": "aarch64"}, "standard1": {"rollout_arch": "x86_64"}},
    }
    plan = hosts.run("onprem.rollout.plan", **given)
    assert plan.rc == 2, plan.out
    assert "1 host takes shop-arm64.tar.gz (arch arm64): standard0" in plan.out
    assert plan.data["plan"]["tailored"]["shop.tar.gz (the release as it is)"] == ["standard1"]
    (tmp_path / "shop-arm64.tar.gz").rename(tmp_path / "away")
    refused = hosts.run(**given)
    assert refused.rc == 1
    assert "rollout_release.tailored[1].artifacts[0].path" in refused.out
    unknown = hosts.run(**{**given, "hostvars": {}})
    assert "host standard0, standard1: rollout_release.tailored[1] asks for the arch" in unknown.out
    assert not any(hosts.record(host) for host in hosts.hosts)
    (tmp_path / "away").rename(tmp_path / "shop-arm64.tar.gz")
    result = hosts.run(**given)
    assert (result.rc, set(result.states.values())) == (0, {"committed"}), result.out
    installed = {host: (hosts.app(host) / "current" / "version").read_text() for host in hosts.hosts}
    assert installed == {"early0": "2 for early", "standard0": "2 for arm64", "standard1": "2 for all"}
    assert len({hosts.record(host)["installed"]["digest"] for host in hosts.hosts}) == 1
    assert set(hosts.run(**given).states.values()) == {"skipped"}


@pytest.mark.parametrize("strategy", ["onprem.rollout.staged", "ansible.builtin.linear"])
def test_a_payload_of_ones_own_reads_what_its_host_takes(fleet, strategy):
    hosts = fleet(early=1, standard=1)
    artifact = {"url": "https://depot/shop.tar.gz", "size": 9, "sha256": "0" * 64}
    release = {
        "name": "shop",
        "version": "2.0",
        "artifacts": [artifact],
        "variables": {"shop_port": 80},
        "tailored": [
            {"when": {"os": "Plan9"}, "variables": {"shop_port": 9}},
            {
                "when": {"group": "rollout_early", "os": "Linux"},
                "artifacts": [{**artifact, "url": "https://depot/early.tar.gz"}],
                "variables": {"shop_port": 8080},
            },
        ],
    }
    facts = {"hosts": "all", "gather_facts": True, "gather_subset": ["!all", "platform"], "tasks": []}
    path = hosts.root / "play.yml"
    path.write_text(
        yaml.safe_dump([facts, {"hosts": "all", "strategy": strategy, "gather_facts": False, "tasks": [{"import_role": {"name": "onprem.rollout.upgrade"}}]}])
    )
    result = hosts.run(str(path), rollout_payload="tells", rollout_release=release, rollout_verb="upgrade")
    assert result.rc == 0, result.out
    assert {host: hosts.version(host) for host in hosts.hosts} == {"early0": "2.0 early.tar.gz 8080", "standard0": "2.0 shop.tar.gz 80"}
    assert len({hosts.record(host)["installed"]["digest"] for host in hosts.hosts}) == 1
