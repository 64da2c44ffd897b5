# Copyright: onprem.rollout contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

from __future__ import annotations

import pytest

from ansible_collections.onprem.rollout.plugins.plugin_utils import _inputs
from ansible_collections.onprem.rollout.plugins.plugin_utils._policy import Problem
from ansible_collections.onprem.rollout.tests.unit.plugins.plugin_utils.inventories import CONTAINED, WITH_ARTIFACT, Inventory, problems_of


def test_good_input_becomes_a_plan():
    inventory = Inventory({"a": {}, "b": {"rollout_hold": "audit"}, "c": {"rollout_ring": "critical"}}, {"rollout_early": ["a"]})
    inputs, problems = _inputs.read(inventory)
    assert problems == []
    assert [(ring.ring.name, ring.hosts) for ring in inputs.plan.rings] == [("early", ("a",)), ("critical", ("c",))]
    assert inputs.plan.held == {"b": "audit"}
    assert (inputs.verb, inputs.reconnect_timeout) == ("upgrade", 300)


HOLDS = [
    (1, True), (0, False),     (True, True), ("yes", True), ("true", True), (False, False), ("false", False), ("", False), (None, False),
    ("audit", "audit"), ("{{ why }}", "said so"),
]  # fmt: skip


@pytest.mark.parametrize("raw, expected", HOLDS)
def test_hold(raw, expected):
    inputs, _problems = _inputs.read(Inventory({"a": {"rollout_hold": raw, "why": "said so"}, "b": {}}))
    reason = inputs.plan.held.get("a")
    assert (reason is not None) if isinstance(expected, bool) and expected else (reason == (expected or None))


PINS = [("<2", "pinned to <2"), (">=2,<3", None), ("2.0", None), ("1.4", "pinned to 1.4"), ("==2.*", None), (" ~=2.0 ", None), (1.4, "pinned to 1.4")]


@pytest.mark.parametrize("pin, reason", PINS)
def test_pin(pin, reason):
    inputs, problems = _inputs.read(Inventory({"a": {"rollout_pin": pin}, "b": {}}))
    assert (inputs.plan.held.get("a"), problems) == (reason, [])


def test_a_version_that_has_no_order_can_only_be_pinned_exactly():
    inventory = Inventory({"a": {"rollout_pin": "spring-x"}, "b": {"rollout_pin": "<2"}})
    inventory.shared["rollout_release"] = {"name": "shop", "version": "spring-x", "artifacts": []}
    assert [problem.where for problem in _inputs.read(inventory)[1]] == ["host b, rollout_pin"]


PROGRAMS = {action: ["true"] for action in ("take", "restore", "drop", "verify")}
BAD = [
    ({"hostvars": {"a": {"rollout_pin": "about 2"}}}, "host a, rollout_pin"),
    ({"rollout_paths": ["relative"]}, "host a, rollout_paths"),
    ({"rollout_paths": ["/"]}, "host a, rollout_paths"),
    ({"rollout_paths": ["//."]}, "host a, rollout_paths"),
    ({"rollout_paths": ["/a/../b"]}, "host a, rollout_paths"),
    ({"rollout_paths": "/opt"}, "host a, rollout_paths"),
    ({"rollout_checks": []}, "host a, rollout_checks"),
    ({"rollout_checks": [{"type": "telepathy"}]}, "host a, rollout_checks"),
    ({"rollout_payload": "nobody"}, "host a, rollout_payload"),
    ({"rollout_drain": "nobody"}, "host a, rollout_drain"),
    ({"hostvars": {"a": {}, "b": {"rollout_rejoin": "nobody"}}}, "host b, rollout_rejoin"),
    ({"rollout_json": "/nowhere/at/all.json"}, "rollout_json"),
    ({"rollout_payload": _inputs.ARCHIVE, "archive_dest": "/opt/shop"}, "rollout_release.artifacts"),
    ({"rollout_payload_timeout": "10m"}, "host a, rollout_payload_timeout"),
    ({"rollout_step_timeout": "5m"}, "host a, rollout_step_timeout"),
    ({"rollout_step_timeout": 20}, "host a, rollout_step_timeout"),
    ({"rollout_revert_after": "10m"}, "host a, rollout_revert_after"),
    ({"rollout_revert_after": 30}, "host a, rollout_revert_after"),
    ({"rollout_keep": "many"}, "host a, rollout_keep"),
    ({"rollout_keep_days": -1}, "host a, rollout_keep_days"),
    ({"rollout_exclude": "*.pid"}, "host a, rollout_exclude"),
    ({"rollout_immutable": "ignore"}, "host a, rollout_immutable"),
    ({"rollout_cross_mounts": "perhaps"}, "host a, rollout_cross_mounts"),
    ({"rollout_provider": "zfs"}, "host a, rollout_provider"),
    ({"rollout_provider": "btrfs", "rollout_cross_mounts": True}, "host a, rollout_cross_mounts"),
    ({"rollout_provider": "command", "rollout_provider_commands": PROGRAMS, "rollout_exclude": ["*.pid"]}, "host a, rollout_exclude"),
    ({"rollout_provider": "command", "rollout_provider_commands": ["lvcreate"]}, "host a, rollout_provider_commands"),
    ({"rollout_provider": "command", "rollout_provider_commands": dict(PROGRAMS, drop="lvremove")}, "host a, rollout_provider_commands"),
    ({"rollout_provider": "command", "rollout_provider_commands": dict(PROGRAMS, undo=["true"])}, "host a, rollout_provider_commands"),
    ({"rollout_provider": "command", "rollout_provider_commands": dict(PROGRAMS, timeout=300)}, "host a, rollout_provider_commands"),
    ({"rollout_min_free": -1}, "host a, rollout_min_free"),
    ({"rollout_services": "shop.service"}, "host a, rollout_services"),
    ({"rollout_services": ["shop", "shop.service"]}, "host a, rollout_services"),
    ({"rollout_packages": "shop"}, "host a, rollout_packages"),
    ({"rollout_package_manager": "yum"}, "host a, rollout_package_manager"),
    ({"rollout_packages": ["shop", "shop=2.0"]}, "host a, rollout_packages"),
    ({"rollout_restart": "systemctl restart shop"}, "host a, rollout_restart"),
    ({"hostvars": {"a": {}, "b": {"rollout_release": {"name": "other", "version": "1.9"}}}}, "host b, rollout_release"),
    ({"awx_job_slice_count": 2}, "awx_job_slice_count"),
    ({"rollout_lease": 600}, "host a, rollout_lease"),
    ({"rollout_lease": "30m"}, "host a, rollout_lease"),
    ({"rollout_keep": "²"}, "host a, rollout_keep"),
    ({"rollout_rings": [{"name": "standard", "serial": "²"}]}, "rollout_rings[0].serial"),
    ({"rollout_reconnect_timeout": "²"}, "rollout_reconnect_timeout"),
    ({"rollout_rings": [{"name": "standard"}, {"name": "early", "hosts": "~(["}], "hostvars": {"a": {"rollout_ring": "early"}, "b": {}}}, "ring early, hosts"),
    ({"rollout_rings": [{"name": "standard", "hosts": "typo"}]}, "ring standard, hosts"),
    ({"rollout_payload": _inputs.ARCHIVE, "archive_dest": "/srv/shop", "rollout_release": WITH_ARTIFACT}, "host a, archive_dest"),
    ({"rollout_payload": _inputs.ARCHIVE, "archive_dest": "/opt/shopping", "rollout_release": WITH_ARTIFACT}, "host a, archive_dest"),
    ({"hostvars": {"a": {}, "b": {"rollout_payload": _inputs.ARCHIVE, "archive_dest": "/opt/shop/app"}}}, "rollout_release.artifacts"),
    ({**CONTAINED, "container_image": "registry.example.com/shop:2.0"}, "host a, container_image"),
    ({**CONTAINED, "container_image": None}, "host a, container_image"),
    ({**CONTAINED, "container_name": "shop --rm"}, "host a, container_name"),
    ({**CONTAINED, "container_runner": "compose"}, "host a, container_runner"),
    ({**CONTAINED, "rollout_paths": ["/etc/containers/systemd"]}, "host a, rollout_paths"),
    ({**CONTAINED, "rollout_paths": ["/etc/systemd/system"], "container_runner": "quadlet"}, "host a, rollout_paths"),
    ({**CONTAINED, "rollout_services": ["shop.socket"]}, "host a, rollout_services"),
    ({"rollout_release": {"name": "shop", "version": "2.0", "variables": {"my-var": 1}}}, "rollout_release.variables"),
    ({"rollout_reconnect_timeout": "soon"}, "rollout_reconnect_timeout"),
    ({"hostvars": {"a": {"rollout_ring": "night"}}}, "host a, rollout_ring"),
    ({"groups": {"rollout_early": ["a"], "rollout_critical": ["a"]}}, "host a"),
    ({"rollout_rings": [{"name": "standard"}, {"name": "night"}]}, "ring night"),
    ({"rollout_spread": "rack"}, "rollout_spread"),
    ({"rollout_spread": [{"by": "rack", "max": 0}]}, "rollout_spread[0].max"),
    ({"rollout_spread": [{"by": "rack", "max": 1}]}, "host a, b, rack"),
    ({"rollout_spread": [{"by": "rack", "max": 1}], "hostvars": {"a": {"rack": "r1"}, "b": {"rack": ""}}}, "host b, rack"),
    ({"rollout_spread": [{"by": "rack", "max": 1}], "hostvars": {"a": {"rack": 7}, "b": {"rack": ["r1"]}}}, "host b, rack"),
    ({"rollout_spread": [{"by": "rack", "max": 1}], "hostvars": {"a": {"rack": "r1"}, "b": {"rack": "{{ nowhere }}"}}}, "host b, rack"),
    ({"rollout_rings": [{"name": "standard", "spread": [{"by": "rack", "max": 1}]}], "hostvars": {"a": {"rack": 7}, "b": {}}}, "host b, rack"),
    ({"hostvars": {}}, "hosts"),
    ({"problems": (Problem("play", "serial", "no"),)}, "play"),
]


@pytest.mark.parametrize("changes, where", BAD, ids=[f"{where} {changes!r:.60}" for changes, where in BAD])
def test_bad_input(changes, where):
    assert [found for found, _text in problems_of(**changes)] == [where]


def test_a_limited_run_does_not_miss_the_rings_outside_its_limit():
    assert problems_of(limited=True, rollout_rings=[{"name": "standard"}, {"name": "night"}]) == []


def test_what_all_hosts_share_is_reported_once():
    assert len(problems_of(rollout_paths=["relative"])) == 1


def test_a_number_of_one_host_is_judged_though_it_shares_everything_else():
    hostvars = {
        "a": {},
        "b": {"rollout_keep": "many"},
        "c": {"rollout_lease": "{{ short }}", "short": 300},
        "d": {"rollout_lease": "{{ short }}", "short": 3600},
    }
    assert [where for where, _text in problems_of(hostvars=hostvars)] == ["host b, rollout_keep", "host c, rollout_lease"]


def test_where_packages_are_what_changes_no_paths_are_needed():
    assert problems_of(rollout_paths=[], rollout_packages=["shop"]) == []
    assert len(problems_of(rollout_paths=[])) == 1


def test_templates_are_left_for_the_host():
    assert problems_of(rollout_paths=["{{ app }}"], rollout_checks=[{"type": "tcp", "port": "{{ port }}"}]) == []


def test_a_list_that_is_one_template_is_read():
    assert problems_of(rollout_paths="{{ base }}", base=["/opt"]) == []
    assert [where for where, _text in problems_of(rollout_paths="{{ base }}", base=["opt"])] == ["host a, rollout_paths"]


def test_what_cannot_be_templated_is_a_problem_among_the_others():
    found = [where for where, _text in problems_of(rollout_rings="{{ nowhere }}", rollout_keep=0)]
    assert found == ["rollout_rings", "host a, rollout_keep"]


def test_status_needs_neither_release_nor_payload():
    inventory = Inventory({"a": {}}, shared={"rollout_verb": "status"})
    inputs, problems = _inputs.read(inventory)
    assert (problems, inputs.verb) == ([], "status")


@pytest.mark.parametrize("name", ["rollout_early_access", "rollout_retry_failed", "rollout_accept_irreversible"])
def test_a_switch_is_on_or_off(name):
    problems = _inputs.read(Inventory({"a": {name: "perhaps"}, "b": {}}))[1]
    assert [(problem.where, problem.value) for problem in problems] == [(f"host a, {name}", "perhaps")]


def test_the_shortest_lease_tells_when_hosts_that_wait_prove_themselves_again():
    leases = {"a": {}, "b": {"rollout_lease": "{{ short }}", "short": 900}, "c": {"rollout_lease": 700, "rollout_hold": True}}
    inputs, problems = _inputs.read(Inventory(leases))
    assert (problems, inputs.lease) == ([], 900.0)


def test_problems_of_checks_name_their_value_once():
    assert [text for _where, text in problems_of(rollout_checks=[{"type": "telepathy"}])] == [
        "host a, rollout_checks: checks[0].type: 'telepathy': allowed: http, tcp, systemd, command, file"
    ]


def test_failure_domains_are_read_from_the_inventory_with_their_templates():
    hostvars = {"a": {"rack": "{{ row }}", "row": "r7"}, "b": {"rack": 7}, "c": {"rack": " r7 ", "rollout_hold": True}, "d": {"rollout_hold": True}}
    inventory = Inventory(hostvars)
    inventory.shared.update(rollout_spread=[{"by": "rack", "max": 1}], rollout_rings=[{"name": "standard", "serial": [9], "concurrency": 9}])
    inputs, problems = _inputs.read(inventory)
    assert problems == []
    assert inputs.plan.domains == {"a": (("rack", "r7"),), "b": (("rack", "7"),), "c": (("rack", "r7"),)}
    assert inputs.notes == ()
    inventory.hostvars["b"]["rack"] = "r7"
    assert _inputs.read(inventory)[0].notes == ("ring standard: spread (at most 1 of a rack) lets only 1 of its hosts change at once where concurrency lets 2",)


def test_status_needs_no_failure_domains():
    inventory = Inventory({"a": {}}, shared={"rollout_verb": "status", "rollout_spread": [{"by": "rack", "max": 1}]})
    assert _inputs.read(inventory)[1] == []


def test_groups_that_look_like_rings_are_named():
    inventory = Inventory({"a": {}, "b": {}}, {"rollout_early": ["a"], "rollout_criticl": ["b"], "web": ["a"]})
    inputs, problems = _inputs.read(inventory)
    assert problems == []
    assert inputs.notes == ("the group rollout_criticl belongs to no ring; its hosts count as unmarked",)


@pytest.mark.parametrize(
    "chosen, at_work, said",
    [
        ("staged", "staged", ""),
        ("linear", "linear", ""),
        ("warp", "staged", "no such engine; allowed: staged, linear"),
        ("linear", "staged", "--extra-vars rollout_engine=linear"),
    ],
)
def test_the_engine_is_the_one_that_was_chosen(chosen, at_work, said):
    problems = _inputs.engine_problems(chosen, at_work)
    assert [said in str(problem) for problem in problems] == ([True] if said else [])


def test_an_engine_of_the_inventory_comes_too_late():
    assert [where for where, _text in problems_of(rollout_engine="linear")] == ["rollout_engine"]


def test_a_soak_of_the_engine_linear_leaves_the_lease_time():
    inventory = Inventory({"a": {"rollout_lease": 700}})
    inventory.shared["rollout_rings"] = [{"name": "standard", "soak": 350}]
    assert [problem.where for problem in _inputs.read(inventory, "linear")[1]] == ["ring standard, soak"]
    inventory.shared["rollout_rings"] = [{"name": "standard", "soak": 349}]
    assert _inputs.read(inventory, "linear")[1] == []


BOARD = [{"type": "approval"}]
UNCOMMITTED = [
    ({"commit": "rollout"}, {"gates": BOARD}, {}, ["rollout_rings[0].commit"]),
    ({"commit": "ring"}, {"gates": BOARD}, {}, []),
    ({"gates": BOARD}, {"commit": "rollout"}, {}, []),
    ({"commit": "ring", "gates": BOARD}, {}, {}, ["rollout_rings[0].commit"]),
    ({"commit": "ring"}, {"commit": "rollout"}, {"rollout_gates": BOARD}, ["rollout_rings[0].commit", "rollout_rings[1].commit"]),
    ({"commit": "rollout"}, {"commit": "rollout"}, {}, []),
]


@pytest.mark.parametrize("first, second, more, where", UNCOMMITTED)
def test_nobody_stays_uncommitted_while_people_are_awaited(first, second, more, where):
    rings = [{"name": "early", **first}, {"name": "standard", **second}]
    found = problems_of(rollout_rings=rings, groups={"rollout_early": ["a"], "rollout_standard": ["b"]}, **more)
    assert [place for place, _text in found] == where
    assert all("cannot stay uncommitted while a gate of the ring" in text for _place, text in found)


SUNDAYS, TUESDAYS, MORNINGS, PAST = (
    {"type": "window", "name": rule, "rrule": rule, "duration": "4h"}
    for rule in ("FREQ=WEEKLY;BYDAY=SU", "FREQ=WEEKLY;BYDAY=TU", "FREQ=DAILY;BYHOUR=3", "FREQ=DAILY;UNTIL=20200101T000000")
)
SCHEDULES = [
    ([SUNDAYS], [TUESDAYS], []),
    ([SUNDAYS, MORNINGS], [TUESDAYS, MORNINGS], []),
    ([SUNDAYS, TUESDAYS], [], [("rollout_rings[0].gates[0]", "never open at the same time")]),
    ([PAST], [PAST, SUNDAYS], [("rollout_rings[0].gates[0]", "has no window after"), ("rollout_rings[1].gates[0]", "has no window after")]),
]


@pytest.mark.parametrize("early, standard, said", SCHEDULES)
def test_a_policy_that_no_schedule_can_satisfy_is_refused(early, standard, said):
    rings = [{"name": "early", "gates": early}, {"name": "standard", "gates": standard}]
    found = problems_of(rollout_rings=rings, groups={"rollout_early": ["a"], "rollout_standard": ["b"]})
    assert [where for where, _text in found] == [where for where, _text in said]
    assert all(text in full for (_where, text), (_place, full) in zip(said, found, strict=True))
