# Copyright: onprem.rollout contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Hosts for the core matrix: real plays of the real role, each host a directory tree with its own record.

The ansible-core under test is the one that runs pytest.
"""

from __future__ import annotations

import hashlib
import json
import os
import signal
import stat
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest
import yaml

from ansible_collections.onprem.rollout.plugins.module_utils import _timer
from ansible_collections.onprem.rollout.plugins.plugin_utils._ledger import replay
from ansible_collections.onprem.rollout.plugins.plugin_utils._plan import rotate
from ansible_collections.onprem.rollout.plugins.plugin_utils._policy import Release

HERE = Path(__file__).resolve().parent
REPO = HERE.parents[1]
BIN = Path(sys.executable).parent

# Files that speak of our modules and the role more than of core: shown whole on one core, on the others by the tests named here.
# What the README says of every core has a test on every core: tests/unit/test_readme.py.
FIRST_CORE = "2.19"
ON_ONE_CORE = {
    "test_bad_input.py": ("test_bad_input[rings and release]",),
    "test_depot.py": (),
    "test_half_done.py": (
        "test_a_killed_worker_stops_the_rollout_and_everybody_in_change_goes_back",
        "test_a_reader_of_the_output_that_goes_away_takes_nobody_with_it",
        "test_a_killed_controller_leaves_hosts_that_are_put_back_even_if_they_are_held_meanwhile",
        "test_a_cancelled_job_says_what_it_leaves_as_after_ctrl_c",
        "test_parked_hosts_renew_their_leases",
        "test_a_lost_host_that_comes_back_while_another_wave_soaks_is_restored_by_the_same_run",
    ),
    "test_rollout.py": (
        "test_a_good_release_reaches_everybody_and_a_second_run_touches_nobody",
        "test_a_bad_release_stops_at_the_canary",
        "test_a_payload_that_raises_in_a_later_wave_reverts_that_wave_alone",
        "test_healthy_parked_hosts_of_a_failed_wave_are_reverted",
        "test_nobody_new_is_let_in_while_a_failed_host_is_still_in_its_rescue",
        "test_drain_and_rejoin_around_a_good_change_and_a_restore",
        "test_check_mode_changes_nothing_and_says_so",
        "test_ctrl_c_leaves_a_record_that_the_next_upgrade_settles_first",
        "test_a_payload_past_its_deadline_is_killed_and_restored",
        "test_concurrency_is_a_sliding_window_and_no_barrier[2]",
        "test_a_host_without_systemd_restores_itself_when_its_controller_is_killed_in_the_payload",
        "test_a_host_held_by_a_living_run_is_refused_by_name_even_past_its_lease",
    ),
    "test_payloads.py": (
        "test_a_rescue_of_the_payload_cannot_talk_a_reverted_host_into_a_commit",
        "test_handlers_of_a_failed_payload_do_not_undo_the_restore",
        "test_an_error_that_ends_the_run_does_not_leave_hosts_half_done",
        "test_an_error_that_ends_the_run_leaves_alone_who_waits_for_a_worker",
        "test_an_include_whose_file_is_missing_is_the_reason_of_its_failure",
        "test_an_unreachable_helper_that_the_payload_ignores_is_ignored",
        "test_errors_cannot_be_ignored_from_outside",
        "test_handlers_of_hooks_run_with_their_hook",
        "test_a_handler_that_hangs_is_ended_as_its_hook_would_be[drain]",
        "test_two_rollouts_in_one_playbook_do_not_mix_up",
        "test_a_host_found_sick_while_its_wave_is_reverted_is_restored_too",
    ),
    "test_drill.py": (),
    "test_decisions.py": ("test_a_hold_from_another_terminal_stops_between_hosts_and_a_resume_goes_on",),
    "test_linear.py": (),
    "test_recover.py": ("test_half_done_hosts_are_settled_with_an_empty_controller_and_nobody_else_is_changed",),
    "test_gates.py": ("test_a_rollout_waits_for_its_approval_and_the_next_run_goes_on",),
    "test_placement.py": (),
    "test_floors.py": (
        "test_who_committed_an_epoch_takes_nothing_older_whoever_asks",
        "test_a_waiver_signed_by_somebody_else_lets_its_hosts_go_below_once",
    ),
    "test_supersede.py": (),
    "test_health.py": (
        "test_a_service_that_dies_in_mid_soak_sends_its_wave_back_and_the_check_is_named",
        "test_an_outage_restores_nobody_spends_no_budget_and_says_so",
        "test_a_service_that_is_down_before_their_change_uses_up_nobody[all are let in together]",
        "test_a_host_that_is_sick_by_itself_is_refused_as_ever",
    ),
    "test_shared_ledger.py": (),
    "test_locks.py": ("test_a_second_run_is_refused_by_name_until_the_first_is_killed",),
    "test_later.py": ("test_a_payload_that_asks_for_it_is_run_again_after_the_wait", "test_others_go_on_while_one_waits_and_no_fork_waits_with_it"),
    "test_verdicts.py": (
        "test_a_release_that_failed_is_not_tried_again_until_it_changes_or_is_forced",
        "test_what_cannot_be_undone_is_bad_input_until_it_is_accepted[hosts]",
        "test_what_cannot_be_undone_is_held_and_not_restored",
    ),
}


# One suite, two engines: these are played with `linear` too, and the first of them on every core. What is not here either says nothing
# of an engine (modules, the ledger, the input) or is what `linear` cannot do:
# - a sliding window, and what waits in it: concurrency without a barrier, a failed host in its rescue while others could begin, exit 21;
# - parking before the commit for longer than a batch's soak: a wave that goes back as a whole, on_failure, commit for a wave, a ring or the
#   rollout, leases of parked hosts, a host found sick while it is parked;
# - moving a host that core has given up: one that went dark, whose worker was killed, whose payload ended the play, or whose
#   include core ends the whole run for; a payload's own rescue after that;
# - plays of the user's own around the role: they choose their strategy themselves.
WITH_LINEAR = (
    "test_a_good_release_reaches_everybody_and_a_second_run_touches_nobody",
    "test_a_bad_release_stops_at_the_canary",
    "test_a_rollout_waits_for_its_approval_and_the_next_run_goes_on",
    "test_the_budget_lets_a_wave_go_on",
    "test_check_mode_changes_nothing_and_says_so",
    "test_the_plan_is_what_the_upgrade_does",
    "test_ctrl_c_leaves_a_record_that_the_next_upgrade_settles_first",
    "test_a_hold_from_another_terminal_stops_between_hosts_and_a_resume_goes_on",
    "test_an_abort_restores_or_keeps_what_is_not_committed",
    "test_a_promotion_ends_the_soak",
    "test_a_commit_and_a_restore_prove_what_was_decided_since_the_host_began",
    "test_a_killed_controller_leaves_hosts_that_are_put_back_even_if_they_are_held_meanwhile",
    "test_a_second_run_is_refused_by_name_until_the_first_is_killed",
    "test_a_limit_neither_skips_the_verdict_nor_touches_others",
    "test_plays_after_a_halted_rollout_do_not_run_and_do_not_hide_it",
    "test_a_payload_that_ran_no_task_is_not_committed",
)
LINEAR_ON_EVERY_CORE = WITH_LINEAR[:2]


def pytest_generate_tests(metafunc):
    if metafunc.function.__name__ in WITH_LINEAR:
        metafunc.parametrize("engine", ["staged", "linear"], indirect=True)


def engine_of(item):
    return item.callspec.params.get("engine") if hasattr(item, "callspec") else None


def pytest_collection_modifyitems(config, items):
    """The cores come one after the other, and the whole is to be short. What is left out is counted as deselected."""
    if os.environ.get("ONPREM_ROLLOUT_CORE", FIRST_CORE) == FIRST_CORE:
        return
    left_out = [item for item in items if not {item.name, item.originalname} & set(ON_ONE_CORE.get(item.path.name, (item.name,)))]
    left_out += [item for item in items if engine_of(item) == "linear" and item.originalname not in LINEAR_ON_EVERY_CORE]
    config.hook.pytest_deselected(items=left_out)
    items[:] = [item for item in items if item not in left_out]


def eventually(condition: Callable[[], Any], process: subprocess.Popen, timeout: float = 200) -> None:
    """Wait until the condition holds, which it must while the process still runs."""
    deadline = time.monotonic() + timeout
    while not condition():
        assert time.monotonic() < deadline
        assert process.poll() is None
        time.sleep(0.02)


def tree(root: Path) -> dict[str, tuple]:
    """Every path below root with type, mode, mtime and content."""
    found = {}
    for path in [root, *sorted(root.rglob("*"))]:
        status = path.lstat()
        content = os.readlink(path) if path.is_symlink() else hashlib.sha256(path.read_bytes()).hexdigest() if path.is_file() else None
        found[str(path.relative_to(root))] = (stat.filemode(status.st_mode), status.st_mtime_ns, content)
    return found


@dataclass
class Result:
    rc: int
    out: str
    data: dict[str, Any]

    @property
    def states(self) -> dict[str, str]:
        return {host: item["state"] for host, item in self.data.get("hosts", {}).items()}


@dataclass
class Fleet:
    root: Path
    groups: dict[str, list[str]]
    variables: dict[str, Any] = field(default_factory=dict)
    engine: str = "staged"

    def __post_init__(self) -> None:
        for host in self.hosts:
            app = self.app(host)
            app.mkdir(parents=True)
            (app / "version").write_text("1.0\n")
            (app / "config").mkdir()
            (app / "config" / "shop.ini").write_text("[shop]\n")
            (app / "config" / "shop.ini").chmod(0o640)
            (app / "current").symlink_to("config")
        self.before = {host: tree(self.app(host)) for host in self.hosts}
        self.defaults = {
            "ansible_connection": "local",
            "ansible_python_interpreter": sys.executable,
            "root": str(self.root / "hosts" / "{{ inventory_hostname }}"),
            "app": "{{ root }}/app",
            "state": "{{ root }}/state",
            "rollout_state_dir": "{{ state }}",
            "rollout_paths": ["{{ app }}"],
            "rollout_payload": "writes",
            "rollout_checks": [{"name": "version", "type": "command", "argv": ["grep", "-q", "^[12]", "{{ app }}/version"], "deadline": 1, "interval": 0.2}],
            "rollout_release": {"name": "shop", "version": "2.0", "artifacts": []},
            "rollout_reconnect_timeout": 30,
        }

    def in_line(self, ring: str) -> list[str]:
        """The hosts of a ring in the order in which a wave of the default release takes them; test_the_plan_is_what_the_upgrade_does shows that it is so."""
        return rotate(self.groups[f"rollout_{ring}"], Release("shop", "2.0", ()))

    @property
    def hosts(self) -> list[str]:
        return [host for hosts in self.groups.values() for host in hosts]

    def app(self, host: str) -> Path:
        return self.root / "hosts" / host / "app"

    def version(self, host: str) -> str:
        return (self.app(host) / "version").read_text().strip()

    def record(self, host: str) -> dict[str, Any]:
        path = self.root / "hosts" / host / "state" / "record.json"
        return json.loads(path.read_text()) if path.exists() else {}

    def is_as_before(self, host: str) -> bool:
        return tree(self.app(host)) == self.before[host]

    def untouched(self, host: str) -> bool:
        return self.is_as_before(host) and not self.record(host)

    @property
    def ledger_file(self) -> Path:
        return self.root / ".local" / "state" / "onprem-rollout" / "ledger.jsonl"

    def ledger(self) -> list[Any]:
        """Every event of the ledger, the chain checked."""
        return list(replay(self.ledger_file.read_text().splitlines())) if self.ledger_file.exists() else []

    def has_a_ledger(self) -> None:
        """As after the first run: verbs make none."""
        self.ledger_file.parent.mkdir(parents=True)
        self.ledger_file.touch()

    def inventory(self, **variables: Any) -> Path:
        hostvars = variables.pop("hostvars", {})
        data = {
            "all": {
                "vars": {**self.defaults, **self.variables, **variables},
                "children": {group: {"hosts": {host: hostvars.get(host, {}) for host in hosts}} for group, hosts in self.groups.items()},
            }
        }
        path = self.root / "inventory.yml"
        path.write_text(yaml.safe_dump(data))
        return path

    def start(self, playbook: str = "onprem.rollout.upgrade", *arguments: str, env: dict[str, str] | None = None, **variables: Any):
        """A running ansible-playbook in its own process group; its JSON goes to the fleet's root."""
        inventory = self.inventory(**variables)
        environment = {
            "PATH": f"{BIN}:{os.environ['PATH']}",
            "HOME": str(self.root),
            "TMPDIR": tempfile.gettempdir(),
            "ANSIBLE_REMOTE_TMP": f"{self.root}/.ansible/tmp",
            "LC_ALL": "C.UTF-8",
            "ANSIBLE_COLLECTIONS_PATH": os.environ.get("ANSIBLE_COLLECTIONS_PATH", str(REPO / ".build")),
            "ANSIBLE_ROLES_PATH": str(HERE / "roles"),
            "ANSIBLE_LOCALHOST_WARNING": "false",
            "ANSIBLE_DEPRECATION_WARNINGS": "false",
            "ANSIBLE_FORKS": "8",
            "ANSIBLE_PIPELINING": "1",
            "ANSIBLE_NOCOLOR": "1",
            **(env or {}),
        }
        (self.root / "result.json").unlink(missing_ok=True)
        chosen = ["-e", f"rollout_engine={self.engine}"] if self.engine != "staged" else []
        command = [str(BIN / "ansible-playbook"), playbook, "-i", str(inventory), "-e", f"rollout_json={self.root}/result.json", *chosen, *arguments]
        return subprocess.Popen(
            command, env=environment, cwd=self.root, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT, text=True, start_new_session=True,
        )  # fmt: skip

    def finish(self, process: subprocess.Popen, timeout: float = 400) -> Result:
        try:
            out, _nothing = process.communicate(timeout=timeout)
        except subprocess.TimeoutExpired:
            os.killpg(process.pid, signal.SIGKILL)
            out, _nothing = process.communicate()
            raise AssertionError(f"ansible-playbook did not end within {timeout} s:\n{out}") from None
        path = self.root / "result.json"
        return Result(process.returncode, out, json.loads(path.read_text()) if path.exists() else {})

    def run(self, playbook: str = "onprem.rollout.upgrade", *arguments: str, **variables: Any) -> Result:
        return self.finish(self.start(playbook, *arguments, **variables))


@pytest.fixture
def engine(request):
    return getattr(request, "param", "staged")


@pytest.fixture
def fleet(tmp_path, engine):
    made: list[Fleet] = []

    def make(**groups: int | list[str]) -> Fleet:
        named = {f"rollout_{group}": hosts if isinstance(hosts, list) else [f"{group}{index}" for index in range(hosts)] for group, hosts in groups.items()}
        made.append(Fleet(tmp_path, named, engine=engine))
        return made[-1]

    yield make
    for hosts in made:  # what was left half done on purpose is guarded by a revert timer
        for host in hosts.hosts:
            _timer.disarm(str(hosts.root / "hosts" / host / "state"))
