# Copyright: onprem.rollout contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Measures the ledger in a file: how long a verb takes until its event is on the disk, and how long a run reads at its start.

A verb reads how the rollout stands and writes one event, in a ledger of a million events whose newest run wrote the last few thousand; each
is a process's first look at the ledger. No time is ever a failure; CPU seconds tell a slow machine from slow code.
"""

from __future__ import annotations

import argparse
import os
import resource
import statistics
import sys
import tempfile
import time
from pathlib import Path

TREE = Path(__file__).resolve().parents[2] / ".build"
sys.path.insert(0, str(TREE))

from ansible_collections.onprem.rollout.plugins.plugin_utils._journal import Journal  # noqa: E402  after the path to it
from ansible_collections.onprem.rollout.plugins.plugin_utils._ledger import START, Event, head_of, line_of  # noqa: E402
from ansible_collections.onprem.rollout.plugins.plugin_utils._ledger_file import LedgerFile  # noqa: E402
from ansible_collections.onprem.rollout.plugins.plugin_utils._standing import lately, settled  # noqa: E402

WHO = "ada on ctl1, pid 7"
ROLLOUT = "shop-2.0"
AIMS = {"verb": 0.05, "replay": 10.0}


def fill(path: Path, number: int, lately_from: int) -> None:
    """A ledger with a run's start, in which nothing counts that is older than itself, before the last events."""
    head = START
    with open(path, "w", encoding="utf-8") as out:
        for at in range(number):
            if at in (0, number - lately_from):
                event = Event("started", ROLLOUT, {"plan": "0" * 64, "since": at + 1, "inputs": {}})
            else:
                event = Event("host", ROLLOUT, {"ring": "standard", "wave": 3, "host": f"shop{at}.example.com", "state": "committed", "why": ""})
            line = line_of(head, event, WHO, 1_700_000_000.0 + at)
            head = head_of(head, line)
            out.write(line + "\n")
        out.flush()
        os.fsync(out.fileno())


def verb(path: Path, kind: str) -> tuple[float, float]:
    began, cpu = time.perf_counter(), time.process_time()
    ledger = LedgerFile(str(path), WHO, time.time)
    standing = lately(ledger.newest_first(bare="host"))
    if standing is None or settled(kind, standing):
        raise SystemExit(f"{kind} has nothing to do")
    ledger.append([Event(kind, standing.rollout, {"by": "ada", "why": "the bench"})])
    return time.perf_counter() - began, time.process_time() - cpu


def replay(path: Path) -> tuple[float, float]:
    began, cpu = time.perf_counter(), time.process_time()
    Journal(LedgerFile(str(path), WHO, time.time), *ROLLOUT.split("-"), time.monotonic).open()
    return time.perf_counter() - began, time.process_time() - cpu


def row(title: str, took: list[tuple[float, float]], aim: float) -> None:
    wall, cpu = zip(*took, strict=True)
    print(f"  {title:<44} {statistics.median(wall):8.3f} s  (most {max(wall):.3f}; aim {aim:g}); {statistics.median(cpu):.3f} CPU s")


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--events", type=int, default=1_000_000)
    parser.add_argument("--rounds", type=int, default=20)
    found = parser.parse_args()
    with tempfile.TemporaryDirectory(prefix="onprem-rollout-bench-", dir=TREE) as place:
        path = Path(place) / "ledger.jsonl"
        for newest in (100, 1000, 5000):
            fill(path, found.events, min(newest, found.events))
            if newest == 100:
                print(f"\nthe ledger in a file: {found.events} events, {path.stat().st_size / 1e6:.0f} MB")
            took = [verb(path, ("hold", "resume")[number % 2]) for number in range(2 * found.rounds)]
            row(f"a verb, {newest} events after the run's start", took, AIMS["verb"])
        row(f"reading all {found.events} events", [replay(path)], AIMS["replay"])
    most = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
    print(f"  Python {sys.version.split()[0]}, {os.cpu_count()} processors, load {os.getloadavg()[0]:.1f}, most memory {most:.0f} MB")
    return 0


if __name__ == "__main__":
    sys.exit(main())
