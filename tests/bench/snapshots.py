# Copyright: onprem.rollout contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Measures snapshots and restores against tar, on the same trees: 20 000 small files, and 1 GiB of large ones.

Both sides are whole processes and end when the disk has what they wrote. They take turns; the table shows medians and ratios,
in brackets those without the start of Python and its imports, which a module run costs whatever it does, and the processor
seconds of the whole process, which tell more where a machine is busy. Python is started as the collection starts it on a host.
With --million a snapshot of a million files is taken too, for the memory. No time is ever a failure.
"""

from __future__ import annotations

import argparse
import os
import random
import resource
import shutil
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

TREE = Path(__file__).resolve().parents[2] / ".build"
SNAPSHOT = "from {0} import _snapshot; _snapshot.take({1!r}, {2!r}, [{3!r}], {2!r})"
RESTORE = "from {0} import _snapshot, _putback; _putback.put_back({1!r}, _snapshot.load({1!r}, {2!r}))"
MODULE_UTILS = "ansible_collections.onprem.rollout.plugins.module_utils"
AIMS = {"first snapshot": 1.5, "second snapshot": 0.35, "restore of 20 changed": 0.1}


def small(top: Path, directories: int = 200, files: int = 100, most: int = 8000) -> None:
    choose = random.Random(1)
    for directory in range(directories):
        (top / f"d{directory}").mkdir(parents=True)
        for number in range(files):
            (top / f"d{directory}" / f"f{number}").write_bytes(choose.randbytes(choose.randint(0, most)))


def large(top: Path) -> None:
    top.mkdir()
    for number in range(256):
        (top / f"f{number}").write_bytes(os.urandom(4 << 20))


def change(top: Path, number: int) -> None:
    """Twenty files, a few bytes each."""
    for path in sorted(path for path in top.rglob("*") if path.is_file())[:: max(1, len(list(top.rglob("f*"))) // 20)][:20]:
        with open(path, "r+b") as out:
            out.write(b"%020d" % number)


def timed(argv: list[str]) -> tuple[float, float, float]:
    """Seconds of the whole process, those that it says it worked, and those of a processor."""
    used = processor()
    began = time.monotonic()
    done = subprocess.run(argv, check=True, stdout=subprocess.PIPE)
    whole = time.monotonic() - began
    return whole, float(done.stdout or whole), processor() - used


def processor() -> float:
    usage = resource.getrusage(resource.RUSAGE_CHILDREN)
    return usage.ru_utime + usage.ru_stime


def host(python: str, text: str) -> list[str]:
    imports, work = text.split("; ", 1)
    timer = f"import time; began = time.monotonic(); {work}; print(time.monotonic() - began)"
    return [python, "-I", "-B", "-S", "-c", f"import sys; sys.path.insert(0, {str(TREE)!r}); {imports}; {timer}"]


def rounds(place: Path, top: Path, count: int, python: str) -> dict[str, list[tuple[float, float, float]]]:
    seconds: dict[str, list[tuple[float, float, float]]] = {}

    def measure(what: str, argv: list[str]) -> None:
        os.sync()
        seconds.setdefault(what, []).append(timed(argv))

    for number in range(count):
        archive, out, state = place / "x.tar", place / "out", place / "state"
        for leftover in (out, state):
            shutil.rmtree(leftover, ignore_errors=True)
            leftover.mkdir(mode=0o700)
        archive.unlink(missing_ok=True)
        snapshot = host(python, SNAPSHOT.format(MODULE_UTILS, str(state), "s1", os.fsencode(top)))
        tar = ["sh", "-c", f"tar -cf {archive} -C {top.parent} {top.name} && sync {archive}"]
        for what, argv in [("tar", tar), ("first snapshot", snapshot)][:: 1 if number % 2 else -1]:
            measure(what, argv)
        measure("second snapshot", host(python, SNAPSHOT.format(MODULE_UTILS, str(state), "s2", os.fsencode(top))))
        change(top, number)
        measure("restore of 20 changed", host(python, RESTORE.format(MODULE_UTILS, str(state), "s2")))
        measure("untar", ["sh", "-c", f"tar -xf {archive} -C {out} && sync -f {out}"])
    return seconds


def table(title: str, seconds: dict[str, list[tuple[float, float, float]]]) -> None:
    print(f"\n{title}")
    medians = {what: [statistics.median(column) for column in zip(*values, strict=True)] for what, values in seconds.items()}
    for what, (whole, inside, used) in medians.items():
        line = f"  {what:22} {whole:7.2f} s {used:7.2f} s CPU"
        if what in AIMS:
            against = "untar" if what.startswith("restore") else "tar"
            other = medians[against][0]
            line += f"   {whole / other:5.2f} x {against}  ({inside:.2f} s, {inside / other:.2f} x; aim {AIMS[what]:g})"
        print(line)


def memory(place: Path, python: str) -> None:
    top, state = place / "million", place / "million-state"
    small(top, 1000, 1000, 0)
    state.mkdir(mode=0o700)
    for number in (1, 2):
        text = SNAPSHOT.format(MODULE_UTILS, str(state), f"s{number}", os.fsencode(top))
        began = time.monotonic()
        process = subprocess.Popen(host(python, text), stdout=subprocess.DEVNULL)
        _pid, status, usage = os.wait4(process.pid, 0)
        process.returncode = status
        print(f"  snapshot {number} of a million files: {time.monotonic() - began:.0f} s, {usage.ru_maxrss / 1024:.0f} MiB (aim 100)")


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=int(os.environ.get("ONPREM_ROLLOUT_BENCH_ROUNDS") or 3))
    parser.add_argument("--million", action="store_true")
    parser.add_argument("--python", default=sys.executable, help="the host's interpreter")
    found = parser.parse_args()
    makers: list[tuple[str, Callable[[Path], None]]] = [("20 000 small files", small), ("1 GiB in 256 files", large)]
    place = Path(tempfile.mkdtemp(prefix="onprem-rollout-bench-", dir=TREE))
    try:
        for title, make in makers:
            make(place / "tree")
            table(title, rounds(place, place / "tree", found.rounds, found.python))
            shutil.rmtree(place / "tree")
        if found.million:
            memory(place, found.python)
    finally:
        shutil.rmtree(place, ignore_errors=True)
    print(f"\nPython {sys.version.split()[0]}, {os.cpu_count()} processors, {resource.getrusage(resource.RUSAGE_CHILDREN).ru_utime:.0f} s of them in all")
    return 0


if __name__ == "__main__":
    sys.exit(main())
