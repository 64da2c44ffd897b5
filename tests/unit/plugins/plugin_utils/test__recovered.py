# Copyright: onprem.rollout contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

from __future__ import annotations

import pytest

from ansible_collections.onprem.rollout.plugins.plugin_utils._commands import Commands
from ansible_collections.onprem.rollout.plugins.plugin_utils._hostrun import HostRun
from ansible_collections.onprem.rollout.plugins.plugin_utils._recovered import OPEN, SETTLED, End, end_of, note_forced, report_lines, summary, task_of


def run(phase=None, **known):
    return HostRun(record={"transaction": {"phase": phase, "reason": "web: 500", "irreversible": "schema 7", "release": {"version": "2.0"}}}, **known)


TASKS = [
    (HostRun(), "", ""),
    (run("committed"), "", ""),
    (run("changing", half_done=True), "", "restore"),
    (run("restoring", half_done=True), "", "restore"),
    (run("restored", half_done=True, drained=True), "", "rejoin"),
    (run("changing", taken=True, why="held by another run"), "", ""),
    (run("changing", half_done=True), "commit", ""),
    (run("changing", half_done=True), "restore", ""),
    (run("inconsistent", why="it is inconsistent"), "", ""),
    (run("inconsistent", why="it is inconsistent"), "restore", "restore"),
    (run("held", why="it is held"), "commit", "commit"),
    (HostRun(dark="unreachable"), "restore", ""),
]


@pytest.mark.parametrize("given, force, task", TASKS)
def test_what_is_done_with_a_host(given, force, task):
    assert task_of(given, force) == task


ENDS = [
    (HostRun(), "", False, End.NOTHING),
    (run("restored"), "restore", False, End.RESTORED),
    (run("restored"), "rejoin", False, End.REJOINED),
    (run("restored", drained=True), "rejoin", False, End.OUT_OF_TRAFFIC),
    (run("restored", drained=True), "restore", False, End.OUT_OF_TRAFFIC),
    (run("inconsistent", why="its restore failed"), "restore", False, End.INCONSISTENT),
    (run("changing", why="its restore failed", unproven=True), "restore", False, End.INCONSISTENT),
    (run("held", why="held"), "restore", False, End.HELD),
    (run("changing", why="held by another run", taken=True), "", False, End.TAKEN),
    (run("changing", why="its record cannot be read"), "", False, End.FAILED),
    (HostRun(dark="unreachable in 'Ask'"), "", True, End.UNREACHABLE),
    (run("changing", dark="unreachable in 'Put back'"), "restore", True, End.FAILED),
    (run("changing", dark="no answer in 'Put back'"), "restore", False, End.FAILED),
]


@pytest.mark.parametrize("given, task, away, end", ENDS)
def test_how_a_host_ends(given, task, away, end):
    assert end_of(given, task, away) is end


def test_check_mode_says_how_it_would_end():
    for task, end in (("restore", End.RESTORED), ("rejoin", End.REJOINED), ("commit", End.COMMITTED)):
        assert end_of(run("changing", half_done=True, drained=True), task, False, check_mode=True) is end
    assert end_of(run("changing", why="its drain failed"), "restore", False, check_mode=True) is End.FAILED


FORCED = [("inconsistent", "restored", End.RESTORED), ("held", "committed", End.COMMITTED), ("held", "restored", End.RESTORED)]


@pytest.mark.parametrize("phase, outcome, end", FORCED)
def test_what_an_operator_forced_is_open_no_more(phase, outcome, end):
    given = run(phase, why="an operator decides")
    note_forced(given, outcome)
    assert end_of(given, "commit" if outcome == "committed" else "restore", False) is end
    assert (given.record.get("installed") == {"version": "2.0"}) is (outcome == "committed")


def test_the_report_names_each_host_once_and_who_needs_an_operator_first():
    runs = {"a": run("restored"), "b": run("inconsistent"), "c": HostRun(), "d": HostRun(dark="unreachable"), "e": run("changing", taken=True, why="of eve")}
    ends = {"a": End.RESTORED, "b": End.INCONSISTENT, "c": End.NOTHING, "d": End.UNREACHABLE, "e": End.TAKEN}
    given = Commands(["ansible-playbook", "onprem.rollout.recover"], ["onprem.rollout.recover"])
    lines = report_lines(runs, ends, {"a": "was changing to 2.0, left by ada"}, given)
    assert [line.strip() for line in lines] == [
        "!! INCONSISTENT: b: web: 500",
        "!! Nobody touches such a host until an operator says so: mend what its reason names, then",
        "!!   ansible-playbook onprem.rollout.recover --limit b -e rollout_force_restore=true",
        "RECOVER: 1 host settled, 2 hosts left open, 1 host could not be asked",
        "restored: a: was changing to 2.0, left by ada",
        "INCONSISTENT, an operator decides: b: web: 500",
        "left alone, a run that may be alive has it: e: of eve",
        "could not be asked: d: unreachable",
        "nothing to do: 1 host: c",
    ]
    told = summary(runs, ends)
    assert (told["b"]["why"], told["a"]["why"], told["e"]["state"]) == ("web: 500", "", "taken")


def test_every_end_is_settled_open_nothing_to_do_or_unreachable():
    assert {*SETTLED, *OPEN, End.NOTHING, End.UNREACHABLE} == set(End)
