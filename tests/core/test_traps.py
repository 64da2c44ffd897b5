# Copyright: onprem.rollout contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Every trap of ansible-core that the strategy must not fall into, on the ansible-core that runs pytest."""

from __future__ import annotations

import json

import pytest
import yaml

WAVES = [{"name": "early", "serial": [1]}, {"name": "standard", "serial": ["50%"]}]


def playbook(fleet, name: str, **keywords) -> str:
    """A play of the user's own around the role."""
    play = {
        "name": "Upgrade by hand",
        "hosts": "all",
        "gather_facts": False,
        "strategy": "onprem.rollout.staged",
        "tasks": [{"ansible.builtin.import_role": {"name": "onprem.rollout.upgrade"}}],
        **keywords,
    }
    path = fleet.root / f"{name}.yml"
    path.write_text(yaml.safe_dump([play]))
    return str(path)


def test_a_failed_restore_inside_nested_roles_is_not_taken_for_a_good_host(fleet):
    """Trap 1: is_failed() of a host whose rescue failed and whose always ran, inside include_role, says no."""
    hosts = fleet(early=1, standard=2)
    nested = playbook(hosts, "nested", tasks=[{"ansible.builtin.include_role": {"name": "onprem.rollout.upgrade"}}])
    result = hosts.run(nested, rollout_payload="spoils_restore", rollout_rejoin="marks_rejoin")
    assert result.rc == 2, result.out
    assert result.states == {"early0": "restore_failed", "standard0": "held", "standard1": "held"}
    assert hosts.record("early0")["transaction"]["phase"] == "inconsistent"
    assert all(hosts.untouched(host) for host in ("standard0", "standard1"))


def test_handlers_of_the_payload_run_before_its_health_is_judged(fleet):
    """Trap 2: core runs handlers after the block, which would be after the commit."""
    hosts = fleet(early=1, standard=1)
    must_be_new = [{"name": "new", "type": "command", "argv": ["grep", "-qE", "^(1.0|2.0)$", "{{ app }}/version"], "deadline": 1}]
    result = hosts.run(rollout_payload="notifies", rollout_checks=must_be_new)
    assert result.rc == 0, result.out
    assert {hosts.version(host) for host in hosts.hosts} == {"2.0"}
    lines = result.out
    assert lines.index("Switch") < lines.index("Prove the host healthy")


@pytest.mark.parametrize("ending", ["end_play", "end_batch", "end_host"])
def test_a_payload_that_ends_the_play_is_not_a_success(fleet, ending):
    """Trap 4: end_play completes every host that the inventory shows, and the exit code would be 0."""
    hosts = fleet(early=1, standard=4)
    result = hosts.run(rollout_rings=WAVES, rollout_payload="ends", ending=ending)
    assert result.rc == 2, result.out
    assert result.states["early0"] == "restored"
    assert all(hosts.is_as_before(host) for host in hosts.hosts)
    assert [state for host, state in result.states.items() if host != "early0"] == ["held"] * 4
    assert "ended the play before the host was proven healthy" in result.out


def test_a_throttled_payload_survives_a_shrinking_list(fleet):
    """Trap 5: up to 2.20 free keeps its cursor when the list gets shorter after a throttle, and raises IndexError."""
    hosts = fleet(standard=6)
    result = hosts.run(rollout_rings=[{"name": "standard", "serial": [4, 2]}], rollout_payload="throttles")
    assert (result.rc, set(result.states.values())) == (0, {"committed"}), result.out


def test_keywords_that_fight_waves_are_refused(fleet):
    """Trap 6: each is named; that each alone is enough, and others are not, is in the unit tests of _keywords."""
    hosts = fleet(early=1, standard=2)
    keywords = {"serial": 2, "any_errors_fatal": True, "max_fail_percentage": 0, "ignore_errors": True}
    result = hosts.run(playbook(hosts, "fights", **keywords))
    assert result.rc == 1
    assert [keyword for keyword in keywords if f"play 'Upgrade by hand', {keyword}" not in result.out] == [], result.out
    assert all(hosts.untouched(host) for host in hosts.hosts)


@pytest.mark.parametrize("option", ["--tags=x", "--skip-tags=x", "--start-at-task=Payload"])
def test_options_that_tear_a_transaction_apart_are_refused(fleet, option):
    hosts = fleet(standard=1)
    result = hosts.run("onprem.rollout.upgrade", option)
    assert result.rc != 0
    assert option.split("=")[0] in result.out
    assert hosts.untouched("standard0")


def test_a_limit_neither_skips_the_verdict_nor_touches_others(fleet):
    """Trap 7: with --limit a play on localhost is skipped and exits with 0; there is none here."""
    hosts = fleet(early=2, standard=2)
    bad = hosts.run("onprem.rollout.upgrade", "--limit", "early1", broken=hosts.hosts)
    assert (bad.rc, bad.states) == (2, {"early1": "restored"}), bad.out
    good = hosts.run("onprem.rollout.upgrade", "--limit", "early1", rollout_retry_failed=True)
    assert (good.rc, good.states) == (0, {"early1": "committed"}), good.out
    assert all(hosts.untouched(host) for host in ("early0", "standard0", "standard1"))


def test_the_role_is_correct_under_plain_linear_with_serial(fleet):
    """Trap 9: nothing that keeps a host safe lives in the strategy."""
    hosts = fleet(standard=4)
    linear = playbook(hosts, "linear", strategy="ansible.builtin.linear", serial=[1, 2])
    result = hosts.run(linear, broken=["standard1"])
    for host in hosts.hosts:
        if host == "standard1":
            assert hosts.is_as_before(host)
            assert hosts.record(host)["transaction"]["phase"] == "restored"
        else:
            assert hosts.version(host) == "2.0"
            assert hosts.record(host)["transaction"]["phase"] == "committed"
    assert "failed=0" in result.out


def test_plays_after_a_halted_rollout_do_not_run_and_do_not_hide_it(fleet):
    hosts = fleet(early=1, standard=1)
    path = hosts.root / "site.yml"
    after = {"hosts": "all", "gather_facts": False, "tasks": [{"ansible.builtin.debug": {"msg": "AFTERWARDS"}}]}
    path.write_text(yaml.safe_dump([{"import_playbook": "onprem.rollout.upgrade"}, after]))
    halted = hosts.run(str(path), broken=hosts.hosts)
    assert halted.rc == 2, halted.out
    assert "AFTERWARDS" not in halted.out
    done = hosts.run(str(path), rollout_retry_failed=True)
    assert (done.rc, "AFTERWARDS" in done.out) == (0, True), done.out


def test_tasks_of_the_user_before_the_role_keep_to_the_waves(fleet):
    hosts = fleet(early=1, standard=3)
    touch = {"ansible.builtin.copy": {"content": "x", "dest": "{{ root }}/early_bird", "mode": "0644"}}
    path = playbook(hosts, "pre", pre_tasks=[touch])
    result = hosts.run(path, rollout_rings=WAVES, broken=hosts.hosts)
    assert result.rc == 2, result.out
    birds = [host for host in hosts.hosts if (hosts.root / "hosts" / host / "early_bird").exists()]
    assert birds == ["early0"]


def test_a_payload_that_refreshes_the_inventory_is_installed_everywhere_and_reverted_everywhere(fleet):
    """Core makes every host anew, with another id, and loads includes for nobody."""
    hosts = fleet(early=1, standard=2)
    good = hosts.run(rollout_payload="refreshes")
    assert (good.rc, set(good.states.values())) == (0, {"committed"}), good.out
    assert {hosts.version(host) for host in hosts.hosts} == {"2.0"}
    newer = {"name": "shop", "version": "2.1", "artifacts": []}
    rings = [{"name": "early"}, {"name": "standard", "serial": ["100%"]}]
    bad = hosts.run(rollout_payload="refreshes", rollout_release=newer, broken=["standard1"], rollout_rings=rings)
    assert (bad.rc, bad.states) == (2, {"early0": "committed", "standard0": "restored", "standard1": "restored"}), bad.out
    assert [hosts.version(host) for host in hosts.hosts] == ["2.1", "2.0", "2.0"]


def test_a_payload_that_ran_no_task_is_not_committed(fleet):
    hosts = fleet(early=1, standard=1)
    result = hosts.run(rollout_payload="idle")
    assert (result.rc, result.states) == (2, {"early0": "restored", "standard0": "held"}), result.out
    assert "the payload ran no task" in result.out


def test_a_task_sees_the_hosts_of_its_play_as_under_any_strategy(fleet):
    """They are not made anew for every task, which costs core more the larger the fleet is: but as soon as a host has failed."""
    hosts = fleet(standard=3)
    lists = "{{ [ansible_play_hosts_all, ansible_play_hosts, ansible_play_batch, ansible_current_hosts, ansible_failed_hosts] | to_json }}"
    see = {"ansible.builtin.copy": {"content": lists, "dest": "{{ root }}/seen", "mode": "0644"}}
    fail = {"ansible.builtin.fail": {"msg": "on purpose"}, "when": "inventory_hostname == 'standard0'"}
    result = hosts.run(playbook(hosts, "seen", pre_tasks=[see, fail]), rollout_rings=[{"name": "standard", "serial": [2, 1]}])
    assert result.states == {"standard0": "refused", "standard1": "committed", "standard2": "committed"}, result.out
    first, last = (json.loads((hosts.root / f"hosts/{host}/seen").read_text()) for host in ("standard0", "standard1"))  # of wave 1, of wave 2
    left = ["standard1", "standard2"]
    assert (first, last) == ([hosts.hosts, hosts.hosts, hosts.hosts, hosts.hosts, []], [hosts.hosts, left, left, left, ["standard0"]])
