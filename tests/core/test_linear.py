# Copyright: onprem.rollout contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""The engine `linear` where it is another one than `staged`; what holds for both is in the other files, see WITH_LINEAR in conftest.py."""

from __future__ import annotations

import shutil

import pytest
from conftest import REPO

TOGETHER = [{"name": "standard", "serial": ["100%"]}]
SSH = {
    "ansible_connection": "{{ 'ssh' if (root ~ '/dark') is exists else 'local' }}",
    "ansible_host": "127.0.0.1",
    "ansible_port": 1,
    "ansible_ssh_common_args": "-oConnectTimeout=2",
}


@pytest.fixture
def engine():
    return "linear"


def test_who_is_healthy_commits_and_stays_and_that_is_said_at_the_start(fleet):
    hosts = fleet(standard=5)
    rings = [{"name": "standard", "serial": [4, 1], "concurrency": 2}]
    first = hosts.in_line("standard")[:4]
    result = hosts.run(rollout_rings=rings, broken=[first[1]])
    assert result.rc == 2, result.out
    assert [result.states[host] for host in first] == ["committed", "restored", "held", "held"]
    assert hosts.is_as_before(first[1])
    before_anything = result.out[: result.out.index("TASK [")]
    for needed in ("no wave goes back as a whole", "there is no sliding window"):
        assert needed in before_anything
    recap = {line.split()[0]: line for line in result.out.splitlines() if " failed=" in line}
    assert [host for host, line in recap.items() if "failed=0" not in line] == [first[1]]
    assert [event.data["how"] for event in hosts.ledger() if event.kind == "finished"] == ["halted"]


def test_a_batch_that_goes_dark_as_a_whole_has_a_verdict_and_the_next_run_of_either_engine_puts_it_back(fleet):
    hosts = fleet(early=1, standard=1)
    result = hosts.run(rollout_payload="goes_dark", **SSH)
    assert (result.rc, result.states) == (2, {"early0": "lost", "standard0": "held"}), result.out
    assert "ROLLOUT HALTED" in result.out
    assert [event.data["how"] for event in hosts.ledger() if event.kind == "finished"] == ["halted"]
    assert hosts.record("early0")["transaction"]["phase"] == "changing"
    (hosts.root / "hosts" / "early0" / "dark").unlink()
    hosts.engine = "staged"
    again = hosts.run(**SSH)
    assert (again.rc, set(again.states.values())) == (0, {"committed"}), again.out
    assert "early0: was left half done by an earlier run, now restored" in again.out


def test_hosts_that_cannot_be_reached_are_left_out(fleet):
    hosts = fleet(standard=2)
    (hosts.root / "hosts" / "standard1").mkdir(exist_ok=True)
    (hosts.root / "hosts" / "standard1" / "dark").touch()
    result = hosts.run(rollout_rings=TOGETHER, **SSH)
    assert (result.rc, result.states) == (4, {"standard0": "committed", "standard1": "unreachable"}), result.out


def test_an_error_that_core_ends_the_run_for_is_told_and_settled_by_the_next_run(fleet):
    hosts = fleet(early=1, standard=1)
    result = hosts.run(rollout_payload="aborts", how="syntax")
    assert result.rc == 4, result.out
    assert "ROLLOUT INTERRUPTED" in result.out
    assert "in change, settled by the next upgrade: 1 host: early0" in result.out
    assert [event.data["how"] for event in hosts.ledger() if event.kind == "finished"] == ["failed"]
    again = hosts.run()
    assert (again.rc, set(again.states.values())) == (0, {"committed"}), again.out


def test_the_verbs_that_look_say_the_same(fleet):
    hosts = fleet(early=1, standard=2)
    (hosts.app("standard1") / "version").write_text("sick\n")
    assert hosts.run(rollout_rings=[{"name": "early"}, {"name": "standard", "serial": [1]}]).rc == 2
    for verb in ("plan", "audit"):
        seen = []
        for engine in ("linear", "staged"):
            hosts.engine = engine
            seen.append(hosts.run(f"onprem.rollout.{verb}"))
        assert seen[0].rc == seen[1].rc, seen[0].out
        assert seen[0].data == seen[1].data
        told = [line for line in seen[1].out.splitlines() if line.startswith(("shop 2.0", "rollout", "status:", "  head", "to do"))]
        assert [line for line in told if line not in seen[0].out] == []


@pytest.mark.parametrize("given, said", [("warp", "no such engine; allowed: staged, linear"), ("linear", "--extra-vars rollout_engine=linear")])
def test_an_engine_that_cannot_be_is_refused(fleet, given, said):
    hosts = fleet(standard=1)
    hosts.engine = "staged"
    result = hosts.run(rollout_engine=given)
    assert (result.rc, hosts.untouched("standard0")) == (1, True), result.out
    assert said in " ".join(result.out.split())


def test_bad_input_ends_it_before_any_host_is_asked(fleet):
    hosts = fleet(standard=1)
    result = hosts.run(rollout_rings=[{"name": "standard", "serial": [0]}])
    assert (result.rc, "TASK" in result.out, "This rollout cannot start" in result.out) == (1, False, True), result.out


def test_its_plays_touch_nobody_without_their_callback(fleet):
    hosts = fleet(standard=1)
    copied = shutil.copy(REPO / "playbooks" / "linear" / "upgrade.yml", hosts.root / "upgrade.yml")
    result = hosts.run(str(copied))
    assert (result.rc, hosts.untouched("standard0")) == (2, True), result.out
    assert "Run it as onprem.rollout.upgrade" in result.out


BREAKS = """
from ansible.plugins.callback import CallbackBase
from ansible_collections.onprem.rollout.plugins.plugin_utils import _linear

def broken(*arguments):
    raise RuntimeError("the engine broke")

class CallbackModule(CallbackBase):
    CALLBACK_VERSION, CALLBACK_TYPE, CALLBACK_NAME, CALLBACK_NEEDS_ENABLED = 2.0, "aggregate", "breaks", False

    def v2_playbook_on_task_start(self, task, is_conditional):
        if task.get_name().endswith("Prove the host healthy"):
            {how}
"""
HOWS = {
    "what a task reported is not understood": "_linear.current()._driver.report = broken",
    "it cannot soak": "_linear.current()._driver.soak = broken",
    "nobody is told that a commit begins": "_linear.current().before_commits = broken",
}


@pytest.mark.parametrize("how", HOWS)
def test_after_an_error_in_the_engine_nobody_commits_without_the_soak(fleet, how):
    hosts = fleet(standard=2)
    (hosts.root / "callbacks").mkdir()
    (hosts.root / "callbacks" / "breaks.py").write_text(BREAKS.replace("{how}", HOWS[how]))
    process = hosts.start(rollout_rings=[{**TOGETHER[0], "soak": 600}], env={"ANSIBLE_CALLBACK_PLUGINS": str(hosts.root / "callbacks")})
    result = hosts.finish(process)
    assert result.rc == 2, result.out
    assert all(hosts.is_as_before(host) for host in hosts.hosts)
    assert {hosts.record(host)["transaction"]["phase"] for host in hosts.hosts} == {"restored"}
    said = "its soak was not served" if how.startswith("nobody") else "the engine broke"
    assert all(said in hosts.record(host)["transaction"]["reason"] for host in hosts.hosts)


def test_who_only_looks_exits_with_4_when_nothing_is_to_do_but_a_host_could_not_be_asked(fleet):
    hosts = fleet(standard=2)
    (hosts.root / "hosts" / "standard1" / "dark").touch()
    assert hosts.run("onprem.rollout.upgrade", "--limit", "standard0", rollout_rings=TOGETHER, **SSH).rc == 0
    for verb in ("plan", "status"):
        looked = hosts.run(f"onprem.rollout.{verb}", rollout_rings=TOGETHER, **SSH)
        assert (looked.rc, "could not be" in looked.out) == (4, True), looked.out
