# Copyright: onprem.rollout contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Measures what a rollout costs the controller: strategy C(staged) against core's own, on hosts whose tasks do nothing.

A copy of the collection, in which the verbs answer on the controller as if a host had, is played with 100, 1 000 and 5 000 hosts.
The same tasks both ways, in turns. What a way costs with one host, and what the inventory costs (C(--list-hosts)), is taken from its
figures: the rest is what a host costs, and a task of it. Where this machine has other work, look at the CPU.

Then 60 hosts whose payload takes a log-normal time (median 1 s, sigma 0.8), ten at a time: against the sum of these times divided by ten,
which nobody can beat, and against C(linear) with C(serial: 10). No time is ever a failure.
"""

from __future__ import annotations

import argparse
import os
import random
import shutil
import statistics
import subprocess
import sys
import tempfile
import time
from dataclasses import dataclass
from pathlib import Path

REPO = Path(__file__).resolve().parents[2]
TASKS = 5
FORKS = 10
ROUNDS = 3  # of a small fleet; a large one is its own average
ANSWERS = {
    "settle": "record={}, abandoned=None, settled=None, drained=False, unfit=''",
    "begin": "outcome='begun', transaction='t1'",
    "health": "checks=[]",
    "commit": "outcome='committed'",
    "restore": "outcome='restored'",
    "nap": "",
}
ACTION = """
import time
from ansible.plugins.action import ActionBase
class ActionModule(ActionBase):
    def run(self, tmp=None, task_vars=None):
        time.sleep(float(self._task.args.get("seconds", 0)))
        return dict(changed=False, {answer})
"""
PLAY = """
- name: Bench
  hosts: all
  gather_facts: false
  {keywords}
  tasks:
    - name: Settle
      onprem.rollout.settle:
    - name: Transaction
      block:
        - name: Begin
          onprem.rollout.begin:
        - name: Payload
          onprem.rollout.nap:
            seconds: "{{{{ nap | default(0) }}}}"
        - name: Health
          onprem.rollout.health:
        - name: Commit
          onprem.rollout.commit:
      rescue:
        - name: Restore
          onprem.rollout.restore:
"""
STAGED = "strategy: onprem.rollout.staged"
WAYS = {"staged": STAGED, "host_pinned": "strategy: host_pinned", "linear": "strategy: linear"}
POLICY = """
all:
  vars:
    ansible_connection: local
    rollout_rings: [{{name: standard, hosts: all, serial: ["100%"], concurrency: {forks}, max_failures: 0}}]
    rollout_release: {{name: bench, version: "1.0"}}
    rollout_paths: [/nowhere]
    rollout_payload: nothing
    rollout_checks: [{{name: nothing, type: command, argv: [/bin/true]}}]
    rollout_ledger: {ledger}
  hosts:
"""


@dataclass(frozen=True)
class Cost:
    """Seconds by the clock, seconds of CPU with all workers, MiB of the largest process."""

    seconds: float
    cpu: float
    mebibytes: float


class Bench:
    def __init__(self, place: Path) -> None:
        self.place = place
        ours = place / "collections" / "ansible_collections" / "onprem" / "rollout"
        for part in ("plugins", "meta"):
            shutil.copytree(REPO / part, ours / part, ignore=shutil.ignore_patterns("__pycache__"))
        actions = ours / "plugins" / "action"
        for name, answer in ANSWERS.items():
            (actions / f"{name}.py").write_text(ACTION.replace("{answer}", answer))
        role = place / "roles" / "nothing" / "tasks"
        role.mkdir(parents=True)
        (role / "main.yml").write_text("- name: Nothing\n  onprem.rollout.nap:\n")

    def __call__(self, keywords: str, naps: list[float], *options: str) -> Cost:
        """RuntimeError when the play did not do its work."""
        (self.place / "ledger.jsonl").unlink(missing_ok=True)
        hosts = "".join(f"    h{number:05d}: {{nap: {nap:.3f}}}\n" for number, nap in enumerate(naps))
        (self.place / "inventory.yml").write_text(POLICY.format(forks=FORKS, ledger=self.place / "ledger.jsonl") + hosts)
        (self.place / "play.yml").write_text(PLAY.format(keywords=keywords))
        argv = [str(Path(sys.executable).with_name("ansible-playbook")), "play.yml", "-i", "inventory.yml", "-f", str(FORKS), *options]
        kept = {key: value for key, value in os.environ.items() if not key.startswith("ANSIBLE_")}
        paths = {"ANSIBLE_COLLECTIONS_PATH": str(self.place / "collections"), "ANSIBLE_ROLES_PATH": str(self.place / "roles")}
        quiet = {"ANSIBLE_DEPRECATION_WARNINGS": "False", "ANSIBLE_NOCOLOR": "1", "XDG_STATE_HOME": str(self.place / "state")}
        with open(self.place / "out", "wb") as out:
            began = time.monotonic()
            process = subprocess.Popen(argv, cwd=self.place, env={**kept, **paths, **quiet}, stdin=subprocess.DEVNULL, stdout=out, stderr=out)
            _pid, status, usage = os.wait4(process.pid, 0)
        process.returncode = os.waitstatus_to_exitcode(status)
        said = (self.place / "out").read_text(errors="replace")
        if process.returncode or (not options and said.count("failed=0") != len(naps)):
            raise RuntimeError(f"{keywords} {options} gave {process.returncode}:\n{said[-3000:]}")
        return Cost(time.monotonic() - began, usage.ru_utime + usage.ru_stime, usage.ru_maxrss / 1024)


def median(costs: list[Cost]) -> Cost:
    return Cost(*(statistics.median(getattr(cost, field) for cost in costs) for field in ("seconds", "cpu", "mebibytes")))


def scale(bench: Bench, sizes: list[int], ways: list[str]) -> None:
    def played(size: int, *options: str) -> dict[str, Cost]:
        """Every way, the ways taking turns."""
        costs: dict[str, list[Cost]] = {way: [] for way in ways}
        for number in range(max(1, min(ROUNDS, 300 // size))):
            for way in ways if number % 2 == 0 else ways[::-1]:
                costs[way].append(bench(WAYS[way], [0.0] * size, *options))
        return {way: median(found) for way, found in costs.items()}

    single = played(1)
    inventory = {size: bench(WAYS["linear"], [0.0] * size, "--list-hosts") for size in (1, *sizes)}
    print(f"\nPlays of {TASKS} tasks that do nothing, {FORKS} forks\n\n{'hosts':>6} {'':12}{'ms per host and task':>22}{'ms of CPU':>11}{'kB per host':>13}")
    for way, cost in single.items():
        print(f"{1:6} {way:12} {cost.seconds:.1f} s, {cost.cpu:.1f} s of CPU and {cost.mebibytes:.0f} MiB, which the figures below are above")
    for size in sizes:
        for way, cost in played(size).items():
            one, hosts, host = single[way], inventory[size], inventory[1]
            seconds = cost.seconds - one.seconds - (hosts.seconds - host.seconds)
            cpu = cost.cpu - one.cpu - (hosts.cpu - host.cpu)
            memory = 1024 * (cost.mebibytes - one.mebibytes - (hosts.mebibytes - host.mebibytes)) / size
            print(f"{size:6} {way:12}{1000 * seconds / size / TASKS:22.1f}{1000 * cpu / size / TASKS:11.1f}{memory:13.0f}", flush=True)


def window(bench: Bench, rounds: int) -> None:
    choose = random.Random(1)
    naps = [choose.lognormvariate(0, 0.8) for _host in range(60)]
    bound = sum(naps) / FORKS
    print(f"\n60 hosts, log-normal payloads, {FORKS} at a time; sum / {FORKS} is {bound:.1f} s\n")
    ways = {"staged": STAGED, "linear, serial 10": f"strategy: linear\n  serial: {FORKS}"}
    found = [{way: bench(keywords, naps).seconds for way, keywords in ways.items()} for _round in range(rounds)]
    seconds = {way: statistics.median(each[way] for each in found) for way in ways}
    for way, took in seconds.items():
        print(f"  {way:18} {took:6.1f} s   {took / bound:.2f} x the bound   {took / seconds['linear, serial 10']:.2f} x linear")


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--hosts", type=int, nargs="*", default=[100, 1000, 5000])
    parser.add_argument("--ways", nargs="+", choices=WAYS, default=["staged", "host_pinned"])
    parser.add_argument("--rounds", type=int, default=1, help="of the window's (1)")
    found = parser.parse_args()
    if found.rounds < 1 or min(found.hosts, default=1) < 1:
        parser.error(f"--rounds {found.rounds} --hosts {found.hosts}: write at least one of each")
    with tempfile.TemporaryDirectory(prefix="onprem-rollout-scale-", dir=REPO / ".build") as place:
        bench = Bench(Path(place))
        scale(bench, found.hosts, found.ways)
        window(bench, found.rounds)
    return 0


if __name__ == "__main__":
    sys.exit(main())
