# Copyright: onprem.rollout contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""The one file that touches the internals of ansible-core's strategies; what a play tells without one is in _core_input.py.

What it leans on, read in the source of ansible-core 2.16.19, 2.19.14 and 2.21.5:

- C(free), and so C(host_pinned), asks C(StrategyBase.get_hosts_left) before every scheduling pass and gives tasks to
  nobody else. A pass ends the play when the list is empty or nobody on it has work, so a host that is still busy must
  stay on it.
- C(free) pins hosts to workers by a count of its own, which must come to exactly 0. It is switched off: L(Core.as_list) knows who is free.
- C(_queue_task) runs a task on a host that does not stand at it; its result unblocks the host, and a failure counts where it stands.
- C(free) keeps a cursor into that list. Up to 2.20 it is not checked against a list that got shorter after a
  C(throttle), so the list is padded with an idle host. Core makes a finished stub state for a host it does not know.
- C(PlayIterator.get_next_task_for_host(peek=True)) tells what a host will do without doing it.
  C(mark_host_failed) moves a host from where it stands into the C(rescue) around it. It also adds it to
  C(play._removed_hosts), which core itself takes back only for failures it saw.
- An unreachable host gets neither C(rescue) nor C(always) (ansible#56265). Taking it out of
  C(tqm._unreachable_hosts) and C(play._removed_hosts) puts it back to work.
- C(meta: refresh_inventory) makes every host anew, with another id, and core compares hosts by their ids: a payload's
  include would be loaded for nobody.
- C(meta: end_play) completes every host that the restricted inventory shows; a state saved before can be set again.
- The bit C(RUN_FAILED_BREAK_PLAY) of a play's result keeps later plays from running and gives exit code 2.
"""

from __future__ import annotations

import functools
import gc
import threading
import time
from collections import deque
from collections.abc import Callable, Iterable, Sequence
from typing import Any

from ansible.errors import AnsibleError
from ansible.executor.play_iterator import IteratingStates
from ansible.inventory.host import Host
from ansible.playbook.block import Block
from ansible.playbook.role_include import IncludeRole
from ansible.playbook.task_include import TaskInclude
from ansible.plugins.loader import filter_loader
from ansible.plugins.strategy import results_thread_main
from ansible.template import Templar
from ansible.utils.vars import get_unique_id

from ansible_collections.onprem.rollout.plugins.plugin_utils._core_input import PlayInput
from ansible_collections.onprem.rollout.plugins.plugin_utils._output import drop_lost_output
from ansible_collections.onprem.rollout.plugins.plugin_utils._report import ASKED, PREFIX, Listener, Report, verb_of
from ansible_collections.onprem.rollout.plugins.plugin_utils._stage import Place

PATIENCE = 0.2  # seconds until verbs are heard again, and dead workers looked for; a result is heard at once
DEEPEST = 400  # a payload that is run again stands two blocks deeper each time
READS = frozenset(
    {PREFIX + "settle", PREFIX + "host_info"}
    | {prefix + name for prefix in ("", "ansible.builtin.", "ansible.legacy.") for name in ("gather_facts", "setup", "validate_argument_spec")}
)


@functools.cache
def prepare() -> None:
    """What each worker would load anew, and what its garbage collector would walk through and copy: both once, where workers are forked from."""
    filter_loader.get(PREFIX + "tailored")
    gc.freeze()


class Results(deque[Any]):
    """Core's list of results that wait to be read, which wakes who waits for one."""

    def __init__(self) -> None:
        super().__init__()
        self.came = threading.Event()

    def append(self, result: Any) -> None:
        super().append(result)
        self.came.set()


class States(dict[str, Any]):
    """Where hosts stand. Core copies this at every pass, for a debugger that asks of nobody but hosts with a task at work."""

    def __init__(self, states: dict[str, Any], at_work: Iterable[tuple[str, str]]) -> None:
        super().__init__(states)
        self._at_work = at_work

    def copy(self) -> dict[str, Any]:
        return {host: self[host] for host, _task in self._at_work if host in self}


class Core(PlayInput):
    """A play of ansible-core as the driver sees it; hosts go by their names."""

    def __init__(self, strategy: Any, iterator: Any) -> None:
        self._strategy = strategy
        self._tqm = strategy._tqm
        super().__init__(iterator._play, strategy._variable_manager, strategy._inventory, strategy._loader)
        self._iterator = iterator
        self._last: dict[str, Any] = {}
        self._before: dict[str, Any] = {}
        self._question: Any = None
        self._proofs: dict[str, Any] = {}
        self._rescues: dict[int, bool] = {}
        self._idle = Host("onprem.rollout.idle")
        self._length = 0
        self._results = strategy._results = Results()  # no task was queued yet
        self._remaining: dict[str, Any] = {}
        self._remaining_of: tuple[Any, ...] = ()
        strategy._variable_manager = self._variable_manager
        iterator._host_states = States(iterator._host_states, strategy._queued_task_cache)
        strategy._host_pinned = False  # core would count workers that tasks out of turn, and tasks passed over, never took

    @property
    def width(self) -> int:
        """How many tasks core runs at the same time."""
        return len(self._tqm._workers)

    def recognise_hosts(self) -> None:
        """After a refresh of the inventory: the same hosts as before, with their ids; one that it no longer has must still be put back."""
        for name, host in self._hosts.items():
            found = self._inventory.hosts.setdefault(name, host)
            found._uuid = host._uuid
            self._hosts[name] = found

    # --- where hosts stand ---

    def busy(self, host: str) -> bool:
        """A task of the host runs, or its result has not been read yet."""
        return bool(self._strategy._blocked_hosts.get(host, False))

    def place(self, host: str) -> Place:
        """Where the host stands. Remembers the place, so that L(turn_back) and L(again) can return to it."""
        state, task = self._iterator.get_next_task_for_host(self._hosts[host], peek=True)
        if task is None:
            return Place.OVER
        self._last[host] = self._iterator.get_host_state(self._hosts[host])
        if self._in_rescue(state):
            return Place.RESCUE
        self._before[host] = self._last[host]
        if verb_of(task) == "commit":
            return Place.COMMIT
        if verb_of(task) == "begin":
            return Place.BEGIN
        if verb_of(task) == "health":
            self._proofs[host] = task
        if str(task.action) in READS:
            return Place.READING
        return Place.WORKING

    def _in_rescue(self, state: Any) -> bool:
        """In the rescue of a host transaction: one that holds a C(restore), at any depth of blocks and includes."""
        while state is not None and state.run_state != IteratingStates.COMPLETE:
            if state.run_state == IteratingStates.RESCUE and self._restores(state.get_current_block().rescue):
                return True
            state = {
                IteratingStates.TASKS: state.tasks_child_state,
                IteratingStates.RESCUE: state.rescue_child_state,
                IteratingStates.ALWAYS: state.always_child_state,
            }.get(state.run_state)
        return False

    def _restores(self, tasks: Iterable[Any]) -> bool:
        return any(self._restores([*task.block, *task.rescue, *task.always]) if isinstance(task, Block) else verb_of(task) == "restore" for task in tasks)

    def is_unneeded(self, task: Any, variables: dict[str, Any]) -> bool:
        """An include or a built-in payload of our own that C(when) leaves out: a worker, started only to find that out, costs more than the decision."""
        role = task._role.get_name(include_role_fqcn=True) if task._role else ""
        parent = task.get_first_parent_include()
        imported = isinstance(parent, IncludeRole) and parent.statically_loaded
        ours = isinstance(task, TaskInclude) if role == PREFIX + "upgrade" else role == PREFIX + "archive" and imported and verb_of(task) == "archive"
        if not ours or task.loop:
            return False
        try:
            if hasattr(task, "evaluate_conditional"):
                return not task.evaluate_conditional(Templar(loader=self._strategy._loader, variables=variables), variables)
            return not task._resolve_conditional(task.when, variables)
        except AnsibleError:
            return False  # a worker says what is wrong with it

    def lists_of_hosts(self, make: Callable[[dict[str, Any]], None]) -> dict[str, Any]:
        """Who has not failed and who has, as make() fills it in: as long as the fleet, so only when it changed."""
        hosts = self._strategy._hosts_cache
        made_of = hosts, len(hosts), tuple(self._tqm._failed_hosts), tuple(self._tqm._unreachable_hosts)
        if self._remaining_of != made_of:
            self._remaining, self._remaining_of = {}, made_of
            make(self._remaining)
        return self._remaining

    def pass_over(self, host: str) -> None:
        """The host is done with the task that it was to be given."""
        self._strategy._blocked_hosts.pop(host, None)

    # --- moving hosts ---

    def turn_back(self, host: str, why: str, blameless: bool) -> bool:
        """Send the host from the place where it was last seen into the rescue of its transaction, whatever core thinks of it.

        Past any rescue of the payload's own: that could talk the host into going on. The rescue reads why, and whether the
        release is blameless, where core tells a rescue what failed. A host that was last seen before its C(begin), and has been
        given it since, goes from where it stands now. False for one that is in no transaction.
        """
        now = self._iterator.get_host_state(self._hosts[host])
        failure = {"failed": True, "msg": why, "blameless": blameless}
        self._strategy._variable_manager.set_nonpersistent_facts(host, {"ansible_failed_result": failure})
        turned = self._fail_from(host, self._last[host].copy()) or self._fail_from(host, now)
        self._back_to_work(host)
        return turned

    def _fail_from(self, host: str, state: Any) -> bool:
        """Let the host fail from this state on, until it stands in the rescue of a transaction; False when there is none."""
        self._iterator.set_state_for_host(host, state)
        for _depth in range(DEEPEST):
            state, task = self._iterator.get_next_task_for_host(self._hosts[host], peek=True)
            if task is None or self._in_rescue(state):
                return task is not None
            self._iterator.set_state_for_host(host, state)  # a failure counts in the block of the task that was given last
            self._iterator.mark_host_failed(self._hosts[host])
        return False

    def give_up_tasks(self) -> None:
        """After an error in the middle of a pass: wait for the tasks that run, and forget what they said.

        The hosts' records know what was done. A task is bounded by its own timeout.
        """
        drop_lost_output()
        if not self._strategy._results_thread.is_alive():
            self._strategy._results_thread = threading.Thread(target=results_thread_main, args=(self._strategy,), daemon=True)
            self._strategy._results_thread.start()
        while any(worker is not None and worker.is_alive() for worker in self._tqm._workers) or not self._tqm._final_q.empty():
            time.sleep(0.05)
        self._tqm._workers[:] = [None] * len(self._tqm._workers)  # a killed one would be found dead for ever
        with self._strategy._results_lock:
            self._strategy._results.clear()
        self._strategy._blocked_hosts.clear()
        self._strategy._queued_task_cache.clear()
        self._strategy._pending_results = 0

    def again(self, host: str) -> None:
        """Put the host back to the place where it was last seen: it does that task once more."""
        self._iterator.set_state_for_host(host, self._last[host].copy())
        self._back_to_work(host)

    def _back_to_work(self, host: str) -> None:
        self._iterator.end_play = False
        self._tqm._unreachable_hosts.pop(host, None)
        self._tqm._failed_hosts.pop(host, None)
        removed = self._play._removed_hosts
        removed[:] = [name for name in removed if name != host]

    def prove_again(self, host: str) -> bool:
        """Queue the host's own health task once more, out of turn, as C(free) queues tasks. False when no worker is free for it now.

        If it fails, core moves the host from where it stands, before its commit, into its rescue.
        """
        task = self._proofs.get(host)
        return task is not None and self._out_of_turn_task(host, task)

    @property
    def can_ask(self) -> bool:
        """Whether there is a health task that says itself what is checked."""
        task = next(iter(self._proofs.values()), None) or next(filter(None, map(self._health_in, self._iterator._blocks)), None)
        if self._question is None and task is not None and task.args.get("checks"):
            self._question = question = task.copy(exclude_parent=True)
            question._parent = task._parent
            question._uuid = get_unique_id()
            question.name = "Ask a host that is not in change how its checks are"
            question.args = {"checks": task.args["checks"]}
            question.vars = {**(task.vars or {}), ASKED: True}
            question.when, question.register, question.notify = [], None, None
            question.ignore_errors = question.ignore_unreachable = True
        return self._question is not None

    def _health_in(self, part: Any) -> Any:
        if isinstance(part, Block):
            return next(filter(None, map(self._health_in, [*part.block, *part.rescue, *part.always])), None)
        return part if verb_of(part) == "health" else None

    def ask(self, host: str) -> bool:
        """Run the checks of a host that is not at work; nothing that it says moves it. False when no worker is free for it now."""
        return self.can_ask and self._out_of_turn_task(host, self._question)

    def undo_failure(self, host: str) -> Place:
        """Put the host from its rescue back to the place where it was before, and say what that is."""
        self._iterator.set_state_for_host(host, self._before[host].copy())
        self._back_to_work(host)
        return self.place(host)

    def _out_of_turn_task(self, host: str, task: Any) -> bool:
        strategy = self._strategy
        if all(worker is not None and worker.is_alive() for worker in self._tqm._workers):
            return False
        variables = strategy._variable_manager.get_vars(
            play=self._play, host=self._hosts[host], task=task, _hosts=strategy._hosts_cache, _hosts_all=strategy._hosts_cache_all
        )
        strategy.add_tqm_variables(variables, play=self._play)
        strategy._blocked_hosts[host] = True
        self._tqm.send_callback("v2_playbook_on_task_start", task, is_conditional=False)
        strategy._queue_task(self._hosts[host], task, variables, strategy.play_context)
        return True

    def withdraw(self, host: str) -> None:
        """The host gets no more tasks of this play, and counts neither as failed nor as done."""
        self._iterator.set_run_state_for_host(host, IteratingStates.COMPLETE)

    def leave_out(self, host: str) -> None:
        """The host takes no part, and what went wrong on it is not for the exit code."""
        if host in self._last:
            self.again(host)
        self.withdraw(host)

    def restrict(self, hosts: Iterable[str]) -> None:
        """What an C(end_play) or C(clear_host_errors) of a payload can reach."""
        self._inventory.restrict_to_hosts([self._hosts[host] for host in hosts])

    def as_list(self, hosts: Sequence[str]) -> list[Any]:
        """The hosts as core wants them, never fewer than the time before."""
        found = [self._hosts[host] for host in self._within_reach(hosts)]
        padded = found + [self._idle] * max(self._length - len(found), 0 if found else 1)
        self._length = len(padded)
        return padded

    def _within_reach(self, hosts: Sequence[str]) -> Sequence[str]:
        """Hosts that are busy, and no more others than there are free workers, the first first: core would wait for one and hear nobody meanwhile."""
        free, reached = sum(1 for worker in self._tqm._workers if worker is None or not worker.is_alive()), []
        for host in hosts:
            busy = self.busy(host)
            if busy or free > 0:
                reached.append(host)
                free -= not busy
        return reached or hosts[:1]

    def await_result(self) -> None:
        """Every host is busy: no pass of core's loop, which would turn every millisecond, until one has reported or L(PATIENCE) is over."""
        drop_lost_output()
        self._results.came.clear()
        if not self._results:
            self._results.came.wait(PATIENCE)
            drop_lost_output()

    def dead_worker(self) -> bool:
        """Whether a host waits for a result that will never come: its worker was killed or could not be started, or nobody takes results.

        Core says nothing of the last two: an error of input or output there, such as a reader of its output that has gone, counts as an abort.
        """
        strategy = self._strategy
        never_queued = not strategy._pending_results and not strategy._results and any(strategy._blocked_hosts.values())
        return bool(self._tqm.has_dead_workers() or never_queued or not strategy._results_thread.is_alive())

    def terminated(self) -> bool:
        return bool(self._tqm._terminated)

    # --- the end ---

    def listen(self, report: Callable[[Report], None], last_words: Callable[[], None]) -> None:
        listener = Listener(report, last_words)
        if hasattr(listener, "_init_callback_methods"):
            listener._init_callback_methods()
        listener._load_name = Listener.CALLBACK_NAME
        self._tqm._callback_plugins.append(listener)

    def exit_code(self, code: Any, wanted: str) -> int:
        """Core's own result of the play, turned into what the rollout wants: see L(_outcome.wanted)."""
        if wanted == "halted":
            return int(self._tqm.RUN_FAILED_HOSTS | self._tqm.RUN_FAILED_BREAK_PLAY)
        if wanted in ("failed", "changes"):
            return int(self._tqm.RUN_FAILED_HOSTS)
        return 0 if wanted == "waiting" else int(code)

    def publish(self, key: str, data: Any) -> None:
        """Custom stats: what C(set_stats) gives, and AWX shows as artifacts of the job."""
        self._tqm._stats.set_custom_stats(key, data)
