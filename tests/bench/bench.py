# Copyright: onprem.rollout contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Measures the same upgrade of the same hosts by the role, by a plain playbook and over raw SSH.

The ways take turns, in one order and then in the other, each from freshly reset hosts and without open connections.
Where this machine has other work, look at the CPU seconds (controller and hosts together) rather than at the clock.
No time is ever a failure: the exit code is 1 only when an upgrade did not do its work.
"""

from __future__ import annotations

import argparse
import os
import platform
import signal
import statistics
import sys
from collections.abc import Sequence

from ansible.release import __version__ as core
from hosts import REPO, BenchError, Fleet
from ways import AT_ONCE, WAYS, Cost, Runner, Way

sys.path.insert(0, str(REPO / "tests" / "demo"))
from build_releases import build  # the demo's service is the bench's


def options() -> argparse.Namespace:
    def number(name: str, default: int) -> int:
        return int(os.environ.get(f"ONPREM_ROLLOUT_BENCH_{name}") or default)

    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--hosts", type=int, default=number("HOSTS", 12), help="hosts of the fleet (ONPREM_ROLLOUT_BENCH_HOSTS, 12)")
    parser.add_argument("--rounds", type=int, default=number("ROUNDS", 3), help="measured rounds (ONPREM_ROLLOUT_BENCH_ROUNDS, 3)")
    parser.add_argument("--ways", nargs="+", choices=[way.name for way in WAYS], default=[way.name for way in WAYS])
    parser.add_argument("--keep", action="store_true", help="leave the fleet up, and use one that is up")
    found = parser.parse_args()
    if not 1 <= found.hosts <= 60 or found.rounds < 1:
        parser.error(f"--hosts {found.hosts} --rounds {found.rounds}: write 1 to 60 hosts and at least one round")
    return found


def say(line: str) -> None:
    print(f"bench: {line}", file=sys.stderr, flush=True)


def measure(runner: Runner, ways: Sequence[Way], rounds: int) -> dict[str, list[Cost]]:
    costs: dict[str, list[Cost]] = {way.name: [] for way in ways}
    for number in range(rounds):
        for way in ways if number % 2 == 0 else ways[::-1]:
            cost = runner(way)
            costs[way.name].append(cost)
            say(f"round {number + 1} of {rounds}: {way.label}: {cost.seconds:.1f} s, CPU {cost.controller:.1f} s here and {cost.hosts:.1f} s on the hosts")
    return costs


def table(ways: Sequence[Way], costs: dict[str, list[Cost]], starts: dict[str, float | None], hosts: int) -> str:
    median = {name: statistics.median(cost.seconds for cost in found) for name, found in costs.items()}

    def ratio(name: str, to: str) -> str:
        return f"{median[name] / median[to]:.2f}" if to in median else "-"

    lines = [f"{'':35}{'median s':>8}{'min-max s':>12}{'x plain':>9}{'x raw':>7}{'CPU s per host':>16}{'remote module runs per host':>29}"]
    for way in ways:
        seconds, count = [cost.seconds for cost in costs[way.name]], starts[way.name]
        spread, runs = f"{min(seconds):.1f}-{max(seconds):.1f}", "-" if count is None else f"{count:g}"
        cpu = statistics.median(cost.cpu for cost in costs[way.name]) / hosts
        lines.append(f"{way.label:35}{median[way.name]:8.1f}{spread:>12}{ratio(way.name, 'plain'):>9}{ratio(way.name, 'raw'):>7}{cpu:16.2f}{runs:>29}")
    return "\n".join(lines)


def main() -> int:
    chosen = options()
    ways = [way for way in WAYS if way.name in chosen.ways]
    # Ctrl-C and a job runner's end alike remove the fleet.
    signal.signal(signal.SIGTERM, signal.default_int_handler)
    work = REPO / ".build" / "bench"
    build(work)
    try:
        with Fleet(REPO / ".build" / "fleet" / "bench", chosen.hosts, chosen.keep) as fleet:
            fleet.prepare(work / "releases" / "shop-1.0.tar.gz")
            runner = Runner(fleet, work)
            # Counting comes first: it also warms every way up.
            starts = {way.name: runner.python_starts(way) for way in ways}
            costs = measure(runner, ways, chosen.rounds)
    except BenchError as error:
        say(str(error))
        return 1
    except KeyboardInterrupt:
        return 130
    print(
        f"\nansible-core {core}, Python {platform.python_version()}, {os.cpu_count()} CPUs, {chosen.hosts} hosts, {AT_ONCE} at a time, "
        f"medians of {chosen.rounds} interleaved rounds\n"
    )
    print(table(ways, costs, starts, chosen.hosts))
    return 0


if __name__ == "__main__":
    sys.exit(main())
