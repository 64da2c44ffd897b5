# Copyright: onprem.rollout contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""What is rolled out: who takes which release, its artifacts, archives and containers."""

from __future__ import annotations

import hashlib

import pytest

from ansible_collections.onprem.rollout.plugins.plugin_utils import _inputs
from ansible_collections.onprem.rollout.tests.unit.plugins.plugin_utils.inventories import CONTAINED, IMAGE, SHARED, WITH_ARTIFACT, Inventory, problems_of


@pytest.mark.parametrize("content, found", [(None, 1), (b"abcd", 1), (b"abd", 1), (b"abc", 0)])
def test_artifacts_on_the_controller_are_what_the_release_says(tmp_path, content, found):
    path = tmp_path / "shop.tar.gz"
    if content is not None:
        path.write_bytes(content)
    artifact = {"path": str(path), "sha256": hashlib.sha256(b"abc").hexdigest(), "size": 3}
    problems = problems_of(rollout_release={"name": "shop", "version": "2.0", "artifacts": [artifact]})
    assert [where for where, _text in problems] == ["rollout_release.artifacts[0].path"] * found


def test_a_candidate_goes_only_to_hosts_that_opted_in():
    inventory = Inventory({"a": {"rollout_early_access": "true"}, "b": {}, "c": {"rollout_hold": "audit"}})
    inventory.shared["rollout_release"] = {**SHARED["rollout_release"], "candidate": True}
    inputs, problems = _inputs.read(inventory)
    assert (problems, inputs.plan.hosts) == ([], ("a",))
    assert inputs.plan.held == {"b": "candidate: not opted in", "c": "audit"}


def test_a_candidate_that_nobody_takes_is_a_mistake():
    problems = problems_of(rollout_release={**SHARED["rollout_release"], "candidate": True})
    assert [where for where, _text in problems] == ["rollout_release.candidate"]


def test_who_opted_in_takes_other_releases_too():
    assert _inputs.read(Inventory({"a": {"rollout_early_access": True}, "b": {}}))[0].plan.hosts == ("b", "a")


def test_what_cannot_be_undone_is_named_with_its_hosts_once_for_each_reason():
    cannot = {"rollout_irreversible": "schema 7"}
    inventory = Inventory({"a": cannot, "b": {}, "c": cannot, "d": {**cannot, "rollout_accept_irreversible": True}, "e": {**cannot, "rollout_hold": True}})
    problems = _inputs.read(inventory)[1]
    assert [(problem.where, problem.value) for problem in problems] == [("host a, c, rollout_irreversible", "schema 7")]
    assert _inputs.read(Inventory({"a": {"rollout_irreversible": True}}))[1][0].where == "host a, rollout_irreversible"


@pytest.mark.parametrize(
    "changes, where",
    [
        ({"rollout_retry_wait": 3000}, "rollout_retry_wait"),
        ({"rollout_retry_wait": 5, "rollout_retry_for": 201}, "rollout_retry_for"),
        ({"rollout_retry_wait": 0}, "rollout_retry_wait"),
    ],
)
def test_waits_for_a_payload_that_cannot_be(changes, where):
    assert f"host a, {where}" in [place for place, _text in problems_of(**changes)]
    assert problems_of(rollout_retry_wait=5, rollout_retry_for=200) == []


@pytest.mark.parametrize(
    "changes",
    [
        {},
        {"container_image": "{{ nowhere }}"},
        {"container_image": "", "rollout_release": {"name": "shop", "version": "2.0", "variables": {"container_image": IMAGE}}},
        {"rollout_paths": ["/etc/systemd/system"], "container_runner": "unit"},
        {"container_name": "till", "rollout_services": ["till.service"], "rollout_paths": ["/etc"]},
    ],
)
def test_a_container_that_a_restore_can_put_back(changes):
    assert problems_of(**{**CONTAINED, **changes}) == []


def test_where_an_archive_goes_is_judged_on_every_host_and_told_once_for_each_place():
    dests = {"a": "/opt/shop/app", "b": "/srv/shop", "c": "/srv/shop", "d": "/srv/other", "e": ""}
    inventory = Inventory({host: {"place": dest} for host, dest in dests.items()})
    inventory.shared.update({"rollout_payload": _inputs.ARCHIVE, "archive_dest": "{{ place }}", "rollout_release": WITH_ARTIFACT})
    problems = _inputs.read(inventory)[1]
    assert [(problem.where, problem.value) for problem in problems] == [
        ("host b, archive_dest", "/srv/shop"),
        ("host d, archive_dest", "/srv/other"),
        ("host e, archive_dest", ""),
    ]


TAILORED = {
    "name": "shop",
    "version": "2.0",
    "tailored": [{"when": {"group": "web"}, **{key: WITH_ARTIFACT[key] for key in ("artifacts",)}}, {"when": {"os": "Debian"}, "variables": {"port": 1}}],
}


def test_the_plan_tells_who_takes_what_of_a_tailored_release():
    hostvars = {"a": {"group_names": ["web"]}, "b": {"rollout_os": "{{ system }}", "system": "Debian"}, "c": {"rollout_hold": True}}
    inventory = Inventory(hostvars, shared={**SHARED, "rollout_release": TAILORED})
    inputs, problems = _inputs.read(inventory)
    assert problems == []
    assert inputs.plan.takes == {"shop.tar.gz (group web)": ("a",), "no artifact with port (os Debian)": ("b",)}


def test_hosts_that_can_take_nothing_are_named():
    hostvars = {"a": {"group_names": ["web"]}, "b": {}, "c": {"ansible_facts": {"os_family": "RedHat"}}, "d": {"rollout_hold": True}}
    inventory = Inventory(hostvars, shared={**SHARED, "rollout_release": TAILORED})
    assert [(problem.where, str(problem).partition("tailored")[2][:24]) for problem in _inputs.read(inventory)[1]] == [
        ("host b", "[1] asks for the os, whi"),
        ("host c", " has no entry that match"),
    ]
    inventory = Inventory({"a": {"rollout_os": "Debian", "rollout_payload": _inputs.ARCHIVE, "archive_dest": "/opt/shop"}}, shared=inventory.shared)
    assert [problem.where for problem in _inputs.read(inventory)[1]] == ["host a"]


@pytest.mark.parametrize("content, found", [(None, 1), (b"abcd", 1), (b"abd", 1), (b"abc", 0)])
def test_artifacts_of_entries_are_checked_on_the_controller_too(tmp_path, content, found):
    path = tmp_path / "shop.tar.gz"
    if content is not None:
        path.write_bytes(content)
    artifact = {"path": str(path), "sha256": hashlib.sha256(b"abc").hexdigest(), "size": 3}
    problems = problems_of(rollout_release={"name": "shop", "version": "2.0", "tailored": [{"artifacts": [artifact]}]})
    assert [where for where, _text in problems] == ["rollout_release.tailored[0].artifacts[0].path"] * found


def test_bad_entries_are_told_once_and_not_for_every_host():
    problems = problems_of(rollout_release={"name": "shop", "version": "2.0", "tailored": [{"when": {"colour": "red"}, "variables": {}}]})
    assert [where for where, _text in problems] == ["rollout_release.tailored[0].when.colour"]


def test_what_a_container_is_told_is_judged_with_the_variables_that_its_host_takes():
    tailored = [{"when": {"arch": arch}, "variables": {"container_image": image}} for arch, image in (("arm64", IMAGE), ("s390x", "shop:2.0"))]
    hostvars = {"a": {"rollout_arch": "aarch64"}, "b": {"rollout_arch": "s390x"}, "c": {"rollout_arch": "x86_64"}}
    release = {"name": "shop", "version": "2.0", "tailored": tailored}
    problems = problems_of(**{**CONTAINED, "container_image": "", "rollout_release": release, "hostvars": hostvars})
    assert [where for where, _text in problems] == ["host b, container_image", "host c, container_image"]
