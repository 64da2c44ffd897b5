# Copyright: onprem.rollout contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""A recording stage that walks hosts through the role's tasks as core would."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field

from ansible_collections.onprem.rollout.plugins.plugin_utils._conductor import Conductor
from ansible_collections.onprem.rollout.plugins.plugin_utils._driver import Driver
from ansible_collections.onprem.rollout.plugins.plugin_utils._plan import Plan, RingPlan, waves
from ansible_collections.onprem.rollout.plugins.plugin_utils._policy import Release, Ring
from ansible_collections.onprem.rollout.plugins.plugin_utils._stage import Place, Settings

NEW = "digest of the new release"
FORWARD = ["settle", "begin", "payload", "health", "commit"]
SETTLING = ["put back", "bring back"]  # only of hosts that are half done
BACK = ["restore"]
DEFAULTS = {
    "put back": {"settled": "restored", "record": {"installed": {"digest": "old"}, "transaction": {"phase": "restored"}}},
    "bring back": {"drained": False},
    "begin": {"outcome": "begun"},
    "commit": {"outcome": "committed"},
    "restore": {"outcome": "restored"},
    "asked": {"checks": [{"name": "web", "type": "http", "level": "required", "ok": True}]},
}
VERBS = {"payload": "", "put back": "settle", "bring back": "traffic"}
PLACES = {"settle": Place.READING, "begin": Place.BEGIN, "commit": Place.COMMIT, "restore": Place.RESCUE}


@dataclass
class FakeReport:
    kind: str
    host: str
    verb: str
    data: dict
    task: str
    payload: str = ""
    asked: bool = False


@dataclass
class Stage:
    """Every host stands at an index of FORWARD, or of BACK once it failed. Records what the driver did to it."""

    width: int = 4
    at: dict[str, tuple[str, int]] = field(default_factory=dict)
    seen: dict[str, tuple[str, int]] = field(default_factory=dict)
    running: dict[str, str] = field(default_factory=dict)
    calls: list[tuple] = field(default_factory=list)
    blameless: dict[str, bool] = field(default_factory=dict)
    dead: bool = False
    half_done: tuple[str, ...] = ()
    before: dict[str, tuple[str, int]] = field(default_factory=dict)
    can_ask: bool = True

    def task(self, host: str) -> str | None:
        lane, index = self.at[host]
        forward = [FORWARD[0], *(SETTLING if host in self.half_done else []), *FORWARD[1:]]
        tasks = forward if lane == "forward" else BACK
        return tasks[index] if lane != "over" and index < len(tasks) else None

    def busy(self, host: str) -> bool:
        return host in self.running

    def place(self, host: str) -> Place:
        task = self.task(host)
        if task is None:
            return Place.OVER
        self.seen[host] = self.at[host]
        if task not in BACK:
            self.before[host] = self.at[host]
        return PLACES.get(task, Place.WORKING)

    def turn_back(self, host: str, why: str, blameless: bool) -> bool:
        """From the place where it was last seen, or else from where it stands: in a transaction past its begin."""
        self.calls.append(("turn_back", host))
        self.blameless[host] = blameless
        first = len(SETTLING) + 2 if host in self.half_done else 2
        turned = any(lane == "back" or (lane == "forward" and index >= first) for lane, index in (self.seen.get(host, ("over", 0)), self.at[host]))
        self.at[host] = ("back" if turned else "over", 0)
        return turned

    def again(self, host: str) -> None:
        self.calls.append(("again", host))
        self.at[host] = self.seen[host]

    def withdraw(self, host: str) -> None:
        self.calls.append(("withdraw", host))
        self.at[host] = ("over", 0)

    def leave_out(self, host: str) -> None:
        self.withdraw(host)

    def prove_again(self, host: str) -> bool:
        if len(self.running) >= self.width:
            return False
        self.calls.append(("prove_again", host))
        self.running[host] = "health"
        return True

    def ask(self, host: str) -> bool:
        if len(self.running) >= self.width:
            return False
        self.calls.append(("ask", host))
        self.running[host] = "asked"
        return True

    def undo_failure(self, host: str) -> Place:
        self.calls.append(("undo_failure", host))
        self.at[host] = self.before[host]
        return self.place(host)

    def restrict(self, hosts) -> None:
        self.calls.append(("restrict", tuple(hosts)))

    def await_result(self) -> None:
        self.calls.append(("await_result",))

    def dead_worker(self) -> bool:
        return self.dead

    def terminated(self) -> bool:
        return False


@dataclass
class Play:
    """Runs the driver against a stage: answers maps (host, task) to what happens instead of a success."""

    hosts: int = 4
    answers: dict = field(default_factory=dict)
    ring: dict = field(default_factory=dict)
    max_unhealthy: int | str | None = None
    held: dict = field(default_factory=dict)
    look_only: bool = False
    retry_failed: frozenset = frozenset()
    half_done: tuple[str, ...] = ()
    renew_interval: float = 600.0
    max_wait: float = 1800.0
    delays: dict = field(default_factory=dict)
    aborts: Callable[[Play], bool] | None = None
    domains: dict = field(default_factory=dict)
    now: float = 0.0
    ran: list[tuple[str, str]] = field(default_factory=list)

    def __post_init__(self) -> None:
        names = [f"h{number}" for number in range(self.hosts)]
        ring = Ring("all", "all", **{"serial": (1, "100%"), **self.ring})
        plan = Plan(Release("shop", "2.0", ()), (RingPlan(ring, waves(names, ring.serial)),), self.held, self.domains, max_unhealthy=self.max_unhealthy)
        self.stage = Stage(at=dict.fromkeys([*names, *self.held], ("forward", 0)), half_done=self.half_done)
        for host in self.half_done:
            self.answers.setdefault((host, "settle"), ("ok", {"abandoned": "t1", "drained": True, **record("old", "changing")}))
        self.told = []
        self.driver = Driver(
            Conductor(plan),
            self.stage,
            NEW,
            self.told.append,
            Settings(60, 5, self.retry_failed, self.renew_interval, max_wait=self.max_wait),
            self.look_only,
            lambda: self.now,
            self.sleep,
        )

    def sleep(self, seconds: float) -> None:
        self.now += seconds

    def run(self) -> Play:
        for _pass in range(10_000):
            for host, task in list(self.stage.running.items()):
                if self.delays.get((host, task), 0) > 0:
                    self.delays[(host, task)] -= 1
                else:
                    self.answer(host, task)
            if self.aborts and self.aborts(self):
                self.aborts = None
                self.stage.running.clear()
                self.driver.abort("the run failed: a worker died")
            left = self.driver.hosts_left()
            idle = [host for host in left if host not in self.stage.running]
            if not any(self.stage.task(host) for host in idle) and not self.stage.running:
                return self
            for host in idle[: self.stage.width]:
                task = self.stage.task(host)
                if task:
                    lane, index = self.stage.at[host]
                    self.stage.at[host] = (lane, index + 1)
                    self.stage.running[host] = task
                    self.ran.append((host, task))
        raise AssertionError("the play does not end")

    def answer(self, host: str, task: str) -> None:
        del self.stage.running[host]
        self.now += 1
        answer = self.answers.get((host, task))
        if isinstance(answer, list):
            answer = answer.pop(0) if answer else None
        kind, data = answer or ("ok", DEFAULTS.get(task, {}))
        if task == "asked":
            self.driver.report(FakeReport(kind, host, "health", data, task, asked=True))
            return
        if kind == "failed" and self.stage.at[host][0] == "forward" and task not in ("settle", *SETTLING):
            self.stage.at[host] = ("back", 0)
        elif kind in ("failed", "end_play"):
            self.stage.at[host] = ("over", 0)
        if kind != "end_play":
            self.driver.report(FakeReport(kind, host, VERBS.get(task, task), data, task))

    def outcomes(self) -> dict[str, str]:
        return {host: str(state) for host, state in self.driver.conductor.states().items()}


def record(digest: str, phase: str | None = None) -> dict:
    return {"record": {"installed": {"name": "shop", "version": "x", "digest": digest}, "transaction": {"phase": phase}}}


DARK = ("unreachable", {"msg": "No route to host"})
SAME = ("ok", record(NEW, "committed"))
REFUSED = ("failed", {"refused": True, "msg": "sick already"})
BROKEN = ("failed", {"msg": "check web: saw 500, expected 200"})
TOGETHER = {"serial": ("100%",)}
