# Copyright: onprem.rollout contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""What the README promises on every ansible-core is tested on every ansible-core, though most files are shown whole on one."""

from __future__ import annotations

import ast
import re
from pathlib import Path

REPO = Path(__file__).resolve().parents[2]
CORE = REPO / "tests/core"

# The first column of the README's table, and the tests that prove the last one.
PROVEN_BY = {
    "a host fails in a wave": ["test_rollout.py::test_healthy_parked_hosts_of_a_failed_wave_are_reverted"],
    "how many at once": ["test_rollout.py::test_concurrency_is_a_sliding_window_and_no_barrier[2]"],
    "a host goes dark in mid-change": ["test_half_done.py::test_a_lost_host_that_comes_back_while_another_wave_soaks_is_restored_by_the_same_run"],
    "the payload calls `meta: end_play`": ["test_traps.py::test_a_payload_that_ends_the_play_is_not_a_success"],
    "handlers of the payload": ["test_traps.py::test_handlers_of_the_payload_run_before_its_health_is_judged"],
    "hosts after the failure": ["test_rollout.py::test_a_bad_release_stops_at_the_canary"],
    "the controller is killed": [
        "test_rollout.py::test_a_host_without_systemd_restores_itself_when_its_controller_is_killed_in_the_payload",
        "test_half_done.py::test_a_killed_controller_leaves_hosts_that_are_put_back_even_if_they_are_held_meanwhile",
    ],
    "a host was sick before": ["test_health.py::test_a_host_that_is_sick_by_itself_is_refused_as_ever"],
    "a release that failed is rolled out again": ["test_verdicts.py::test_a_release_that_failed_is_not_tried_again_until_it_changes_or_is_forced"],
    "the change cannot be undone": [
        "test_verdicts.py::test_what_cannot_be_undone_is_bad_input_until_it_is_accepted[hosts]",
        "test_verdicts.py::test_what_cannot_be_undone_is_held_and_not_restored",
    ],
    "an old version comes back by accident": [
        "test_floors.py::test_who_committed_an_epoch_takes_nothing_older_whoever_asks",
        "test_floors.py::test_a_waiver_signed_by_somebody_else_lets_its_hosts_go_below_once",
    ],
    "two run it at once": [
        "test_locks.py::test_a_second_run_is_refused_by_name_until_the_first_is_killed",
        "test_rollout.py::test_a_host_held_by_a_living_run_is_refused_by_name_even_past_its_lease",
    ],
    "run it again": ["test_rollout.py::test_a_good_release_reaches_everybody_and_a_second_run_touches_nobody"],
    "a mistake in the policy": ["test_bad_input.py::test_bad_input[rings and release]"],
}


def on_every_core(test: str) -> bool:
    """As pytest_collection_modifyitems of tests/core chooses."""
    file, name = test.split("::")
    function = name.partition("[")[0]
    if not any(isinstance(node, ast.FunctionDef) and node.name == function for node in ast.parse((CORE / file).read_text()).body):
        return False
    chosen = next(
        ast.literal_eval(node.value)
        for node in ast.parse((CORE / "conftest.py").read_text()).body
        if isinstance(node, ast.Assign) and isinstance(node.targets[0], ast.Name) and node.targets[0].id == "ON_ONE_CORE"
    )
    return file not in chosen or bool({name, function} & set(chosen[file]))


def test_each_fact_of_the_table_is_proven_on_every_core():
    table = (REPO / "README.md").read_text().partition("| plain `serial` + `rescue` | onprem.rollout |")[2]
    rows = [line.split("|")[1].strip() for line in re.findall(r"^\| .*$", table, re.MULTILINE)]
    assert sorted(rows) == sorted(PROVEN_BY), "each row names the tests that prove it"
    assert [test for tests in PROVEN_BY.values() for test in tests if not on_every_core(test)] == []


def test_a_test_that_is_not_run_everywhere_proves_nothing():
    for test in ("test_traps.py::test_no_such_thing", "test_drill.py::test_nothing", "test_rollout.py::test_concurrency_is_a_sliding_window_and_no_barrier[4]"):
        assert not on_every_core(test), test
    assert not on_every_core("test_rollout.py::test_the_budget_lets_a_wave_go_on")
