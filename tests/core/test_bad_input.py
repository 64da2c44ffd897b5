# Copyright: onprem.rollout contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Bad input is found before any host is touched, all of it at once, with value, place and remedy."""

from __future__ import annotations

import hashlib

import pytest


def release(path: str, **changes):
    return {"name": "shop", "version": "2.0", "artifacts": [{"path": path, "sha256": "0" * 64, "size": 10, **changes}]}


# Each value by itself is in the unit tests of _inputs, _policy and _checks; here core tells them, many of them at once.
CASES = [
    (
        "rings and release",
        {
            "rollout_rings": [
                {"name": "standard", "serial": [0, -1, "110%", "ten"]},
                {"name": "early", "commit": "never"},
                {"name": "early"},
            ],
            "rollout_release": {"name": "shop", "artifacts": [{"path": "shop.tar.gz"}]},
            "rollout_payload": "nobody.wrote.this",
            "rollout_checks": [{"type": "telepathy"}],
            "rollout_paths": ["opt/shop", "/", "/opt/../etc"],
        },
        [
            *("rollout_rings[0].serial: 0", "-1", "'110%'", "'ten'", "from 1 on", "rollout_rings[1].commit: 'never'", "is used twice"),
            *("rollout_release.version", "quoted string", "sha256sum", "nobody.wrote.this", "telepathy", "absolute path", "whole system", "without .."),
        ],
    ),
    (
        "membership, and nothing given",
        {
            "rollout_rings": [{"name": "early"}, {"name": "night"}, {"name": "standard"}],
            "hostvars": {"early0": {"rollout_ring": "standard"}, "standard0": {"rollout_ring": "dusk"}},
            "rollout_release": None,
            "rollout_checks": [],
            "rollout_paths": [],
        },
        [
            *("ring night", "nobody is in this ring", "host early0", "early and standard", "host standard0, rollout_ring", "dusk"),
            *("-e @release.yml", "at least one check", "nothing could be restored"),
        ],
    ),
    (
        "archive and container",
        {
            "rollout_payload": "onprem.rollout.archive",
            "rollout_release": release("nowhere.tar.gz"),
            "hostvars": {"standard0": {"rollout_payload": "onprem.rollout.container", "container_image": "registry.example.com/shop:2.0"}},
        },
        [
            *("nowhere.tar.gz", "No such file", "looked for in"),
            *("container_image: 'registry.example.com/shop:2.0'", "a tag may be another image tomorrow", "/etc/systemd/system/", "rollout_services"),
        ],
    ),
]


@pytest.mark.parametrize("name, variables, needed", CASES, ids=[case[0] for case in CASES])
def test_bad_input(fleet, name, variables, needed):
    hosts = fleet(early=1, standard=2)
    result = hosts.run(**variables)
    assert result.rc == 1, result.out
    text = " ".join(result.out.split())
    assert "This rollout cannot start" in text
    for part in needed:
        assert part in text, f"{part!r} is not in:\n{result.out}"
    assert all(hosts.untouched(host) for host in hosts.hosts)
    assert "Traceback" not in result.out


def test_an_artifact_that_is_too_short_or_another(fleet):
    hosts = fleet(standard=1)
    artifact = hosts.root / "shop.tar.gz"
    artifact.write_bytes(b"0123456789")
    short = hosts.run(rollout_release=release(str(artifact), size=11))
    assert "has 10 bytes, but its release declares 11" in " ".join(short.out.split())
    other = hosts.run(rollout_release=release(str(artifact)))
    assert hashlib.sha256(b"0123456789").hexdigest() in other.out.replace("\n", "").replace(" ", "")
    assert hosts.untouched("standard0")


def test_plan_finds_the_same_problems(fleet):
    hosts = fleet(early=1, standard=1)
    result = hosts.run("onprem.rollout.plan", **CASES[0][1])
    assert result.rc == 1
    text = " ".join(result.out.split())
    assert [part for part in CASES[0][2] if part not in text] == []


def test_hosts_that_cannot_keep_a_snapshot_are_found_before_anybody_is_changed(fleet):
    hosts = fleet(early=1, standard=2)
    (hosts.root / "a_file").write_text("in the way")
    unfit = {"standard0": {"rollout_state_dir": f"{hosts.root}/a_file/state"}, "standard1": {"rollout_min_free": 1 << 60}}
    plan = hosts.run("onprem.rollout.plan", hostvars=unfit)
    result = hosts.run(hostvars=unfit)
    assert (result.rc, result.states) == (2, {"early0": "held", "standard0": "refused", "standard1": "refused"}), result.out
    for out in (plan.out, result.out):
        text = " ".join(out.split())
        assert "a_file" in text
        assert "Too little disk" in text
    assert all(hosts.untouched(host) for host in hosts.hosts)


def test_a_path_that_does_not_exist_yet_is_absent_again_after_a_restore(fleet):
    hosts = fleet(standard=1)
    result = hosts.run(rollout_paths=["{{ app }}/version", "{{ app }}/added"], broken=["standard0"])
    assert (result.rc, result.states) == (2, {"standard0": "restored"}), result.out
    assert not (hosts.app("standard0") / "added").exists()
    assert hosts.version("standard0") == "1.0"
