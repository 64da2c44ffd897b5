# Copyright: onprem.rollout contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The crash table of crashes.py on real hosts: whatever strikes, wherever, each host is committed or restored, and can be upgraded again.

The short form always; the whole with ONPREM_ROLLOUT_CRASH=whole (`make crash`). One run upgrades all six hosts; each has a cell of the
table, and a gate (files/gate.py) stops its module exactly there until the fault is done.
"""

from __future__ import annotations

import json
import os
import signal
import subprocess
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import TypeVar

import crashes
import pytest
import yaml
from crashes import PARKED, PLACES, Cell
from fleet import Host, eventually
from playbook import Result, Run
from releases import GOOD
from shop import HERE, Shop

Value = TypeVar("Value")
WHOLE = os.environ.get("ONPREM_ROLLOUT_CRASH") == "whole"
BATCHES = crashes.batches() if WHOLE else crashes.SHORT
PROGRAM = "var/lib/onprem-rollout/onprem-rollout"
# Each host for itself: what befalls one says nothing about the others.
RING = {"name": "crash", "hosts": "all", "serial": ["100%"], "max_failures": 6, "commit": "host", "on_failure": "restore_host"}
HASTE = {
    "rollout_revert_after": 12,
    "rollout_payload_timeout": 38,
    "rollout_retry_wait": 1,
    "rollout_retry_for": 10,
    "rollout_lease": 40,
    "rollout_step_timeout": 40,
    "rollout_reconnect_timeout": 90,
    "rollout_min_free": 0,
}
DAY = 86400
HUNG = 12  # seconds: longer than SSH, the revert timer and the lease wait
SMALL = """
mkdir -p /run/small && mount -t tmpfs -o size=24m small /run/small
for place in /opt /var/lib; do mkdir -p /run/small$place && cp -a $place/. /run/small$place && mount --bind /run/small$place $place; done
"""
LARGE = "rm -f /opt/filler; umount /opt /var/lib; umount /run/small"
CLOCK = """
mkdir -p /run/systemd/system/onprem-rollout-revert.service.d
echo LD_PRELOAD=/run/crash/clock.so >/etc/environment
printf '[Service]\\nEnvironment=LD_PRELOAD=/run/crash/clock.so\\n' >/run/systemd/system/onprem-rollout-revert.service.d/clock.conf
"""
TRUE_TIME = ": >/etc/environment; rm -rf /run/systemd/system/onprem-rollout-revert.service.d; systemctl daemon-reload"
# Whom a case that failed has left stopped.
STOPPED = """
for process in /proc/[0-9]*; do
  if [ "$(cut -d' ' -f3 $process/stat 2>/dev/null)" = T ]; then kill -KILL "${process#/proc/}"; fi
done
"""
# What of ours runs on a host, and whether the lock is free.
LEFT = r"""
for process in /proc/[0-9]*; do
  line=$(tr '\0' ' ' <$process/cmdline 2>/dev/null) || continue
  case $line in /usr/bin/python3' -I -B - '*|/usr/bin/python3*'onprem-rollout revert '*|/usr/bin/python3*AnsiballZ*) echo "$process: $line";; esac
done
ls /etc/systemd/system/*.wants/onprem-rollout-revert* 2>/dev/null
systemctl list-units --plain --no-legend --state=active,activating,failed 'onprem-rollout-revert*'
if [ -e /var/lib/onprem-rollout/lock ]; then flock -n /var/lib/onprem-rollout/lock true || echo locked; fi
"""


class Crash:
    """One host, its cell, and what is done to it."""

    def __init__(self, host: Host, cell: Cell) -> None:
        self.host, self.cell, self.pid, self._root = host, cell, 0, Path()

    def __str__(self) -> str:
        return f"{self.host.name} ({self.cell})"

    @property
    def variables(self) -> dict[str, str]:
        """Where the payload raises: a restore must have a reason, and something to do."""
        if self.cell.fault == "payload error":
            return {"crashes_at": self.cell.moment}
        return {"crashes_at": "inside" if self.cell.phase == "restoring" else ""}

    def read(self, path: str) -> str:
        """A file of the host, read from this machine, which costs it next to nothing; empty if there is none."""
        if not self._root.is_absolute():
            self._root = Path(f"/proc/{self.host.init}/root")
        try:
            return (self._root / path).read_text()
        except OSError:
            return ""

    @property
    def phase(self) -> str:
        return str((json.loads(self.read("var/lib/onprem-rollout/record.json") or "{}").get("transaction") or {}).get("phase", ""))

    def prepare(self, clock: Path) -> None:
        if self.cell.fault == "disk full":
            self.host.run(SMALL)
        if self.cell.fault.startswith("clock"):
            self.host.run("mkdir -p /run/crash")
            self.host.copy(clock, "/run/crash/clock.so")
            self.host.run(CLOCK)

    def arm(self) -> None:
        """Let a gate wait for the place of the cell."""
        place = PLACES[self.cell.phase, self.cell.moment]
        if self.cell.fault == "payload error" or not place.nth:
            return
        self.host.run(f"rm -rf /run/gate; mkdir -p /run/gate; mkdir -p -m 0700 {crashes.STATE}")
        self.host.copy(HERE / "files" / "gate.py", "/run/gate/gate.py")
        self.host.run(f"systemd-run --quiet --collect --unit=gate python3 /run/gate/gate.py {place.phase} {place.directory} '{place.file}' {place.nth}")
        eventually(lambda: self.read("run/gate/ready"), f"the gate of {self}")

    def await_place(self, run: Run) -> None:
        """Until the host is where the cell says. It is stopped there, or parked."""

        def there() -> bool:
            assert run.running, f"the run is over, but {self} was not reached:\n{run.wait()}"
            if (self.cell.phase, self.cell.moment) == PARKED:
                return self.phase == "awaiting_commit" and not self._runs()
            self.pid = int(self.read("run/gate/held") or 0)
            return self.pid != 0

        try:
            eventually(there, f"{self}", timeout=120, interval=0.1)
        except AssertionError as error:
            raise AssertionError(f"{error}\n{self.read('var/lib/onprem-rollout/record.json')}\n{run.stdout}") from None
        self.host.run("systemctl stop gate", check=False)  # whoever waits for it could not be frozen

    def _runs(self) -> bool:
        return "/usr/bin/python3" in self.host.run(LEFT).stdout

    def strike(self, run: Run) -> None:
        if self.cell.fault == "payload error":
            return
        self.await_place(run)
        {
            "module killed": self._kill,
            "power cut": self._cut_power,
            "host hung": self._hang,
            "network cut": self._cut_network,
            "disk full": self._fill,
            "clock a day ahead": lambda: self._jump(DAY),
            "clock a day behind": lambda: self._jump(-DAY),
        }[self.cell.fault]()

    def go_on(self) -> None:
        if self.pid:
            self.host.run(f"kill -CONT {self.pid}")

    def _kill(self) -> None:
        self.host.run(f"kill -KILL {self.pid}")

    def _cut_power(self) -> None:
        self.host.kill()
        self._root = Path()
        self.host.start()

    def _hang(self) -> None:
        """It hangs with all that runs on it; our module is where it was when the host goes on."""
        self.host.pause()
        if self.pid:
            os.kill(outside(self.host, self.pid), signal.SIGCONT)
        time.sleep(HUNG)
        self.host.unpause()

    def _cut_network(self) -> None:
        self.host.partition()
        self.go_on()
        eventually(lambda: self.phase in ("committed", "restored"), f"{self} to come to an end alone", timeout=90)
        self.host.heal()

    def _fill(self) -> None:
        """To the last byte, and it stays so."""
        self.host.run("cat /dev/zero >/opt/filler", check=False)
        assert self.host.run("stat -f -c %a /opt /var/lib").stdout.split() == ["0", "0"]
        self.go_on()

    def _jump(self, by: int) -> None:
        self.host.run(f"echo {by} >/run/crash/clock")
        self.go_on()

    def await_end(self) -> str:
        """How it ended, once nothing of ours is left on the host."""

        def end() -> str:
            now = self.phase
            return "" if now not in ("", "committed", "restored") or self.host.run(LEFT).stdout.strip() else now or "untouched"

        try:
            return eventually(end, f"the end of {self}", timeout=90, interval=0.5)
        except AssertionError as error:
            raise AssertionError(f"{error}\n{self.host.run(LEFT).stdout}\n{self.read('var/lib/onprem-rollout/record.json')}") from None

    def clean(self) -> None:
        """The gate is gone, and the disk has room again."""
        self.host.run("systemctl stop gate; rm -rf /run/gate", check=False)
        if self.cell.fault == "disk full":
            self.host.run("rm -f /opt/filler")

    def undo(self) -> None:
        self.host.recover()
        self.clean()
        self.host.run(STOPPED)
        if self.cell.fault.startswith("clock"):
            self.host.run(TRUE_TIME)
        if self.cell.fault == "disk full":
            self.host.run("systemctl stop shop.service", check=False)
            self.host.run(LARGE)


def outside(host: Host, pid: int) -> int:
    """The number that this machine knows a process of the host by."""
    init = eventually(lambda: host.init, f"{host.name} to run")
    space = os.readlink(f"/proc/{init}/ns/pid")
    for process in Path("/proc").glob("[0-9]*"):
        try:
            numbers = next(line for line in (process / "status").read_text().splitlines() if line.startswith("NSpid:")).split()
            if int(numbers[-1]) == pid and os.readlink(process / "ns/pid") == space:
                return int(process.name)
        except (OSError, StopIteration):
            continue
    raise AssertionError(f"process {pid} of {host.name} is not to be seen from outside")


Strikes = Callable[[list[Cell]], list[Crash]]


@pytest.fixture(scope="session")
def clock(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """What makes the wall clock of a process jump."""
    made = tmp_path_factory.mktemp("clock") / "clock.so"
    subprocess.run(["cc", "-Wall", "-Wextra", "-Werror", "-shared", "-fPIC", "-O2", "-o", str(made), str(HERE / "files" / "clock.c")], check=True)
    return made


@pytest.fixture
def strikes(shop: Shop, clock: Path) -> Iterator[Strikes]:
    """Gives every host a cell, a known state and a gate; all of it is undone."""
    struck: list[Crash] = []
    shop.variables["rollout_checks"] = [{**check, "deadline": 10} for check in shop.variables["rollout_checks"]]  # six hosts boot at once

    def prepare(cells: list[Cell]) -> list[Crash]:
        struck.extend(Crash(host, cell) for host, cell in zip(shop.fleet, cells, strict=False))
        together(lambda crash: crash.prepare(clock), struck)
        if any(crash.cell.fault in ("disk full", "clock a day ahead", "clock a day behind") for crash in struck):
            shop.reset()
        together(Crash.arm, struck)
        return struck

    yield prepare
    together(Crash.undo, struck)


def together(what: Callable[[Crash], Value], struck: list[Crash]) -> list[Value]:
    with ThreadPoolExecutor(len(struck)) as pool:
        return list(pool.map(what, struck))


def upgrade(shop: Shop, struck: list[Crash]) -> Run:
    inventory = shop.directory / "crashes.yml"
    inventory.write_text(yaml.safe_dump({"all": {"hosts": {crash.host.name: crash.variables for crash in struck}}}))
    soak = 4 if any((crash.cell.phase, crash.cell.moment) == PARKED for crash in struck) else 0
    hosts = ",".join(crash.host.name for crash in struck)
    args = ("-i", str(inventory), "--forks", "8")
    return shop.start(GOOD, payload="crashes", rings=[{**RING, "soak": soak}], limit=hosts, args=args, **HASTE)


def strike(run: Run, struck: list[Crash]) -> Result:
    """Every host meets its fault; the controller dies when all hosts are where they shall be."""
    if any(crash.cell.fault == "controller killed" for crash in struck):
        together(lambda crash: crash.await_place(run), struck)
        run.kill()
        result = run.wait()
        assert result.rc == -signal.SIGKILL
        together(Crash.go_on, struck)
        return result
    together(lambda crash: crash.strike(run), struck)
    return run.wait(200)


def test_the_table_is_whole() -> None:
    print("\n" + crashes.drawn())
    assert set(crashes.CELLS) == {cell for cells in crashes.batches().values() for cell in cells}
    assert {cell for cells in crashes.SHORT.values() for cell in cells} <= set(crashes.CELLS)
    assert {cell.fault for cells in crashes.SHORT.values() for cell in cells} >= set(crashes.FAULTS[1:-1])


@pytest.mark.parametrize("cells", [pytest.param(cells, id=name) for name, cells in BATCHES.items()])
def test_every_host_comes_back_when_it_meets(shop: Shop, strikes: Strikes, cells: list[Cell], capsys: pytest.CaptureFixture[str]) -> None:
    began = time.monotonic()
    struck = strikes(cells)
    result = strike(upgrade(shop, struck), struck)
    ends = together(lambda crash: problem_of(crash.await_end), struck)
    together(Crash.clean, struck)
    problems = [end for end in ends if " " in end]
    problems += [told for told in together(lambda crash: problem_of(lambda: look_closely(shop, crash, result)), struck) if told]

    names = [crash.host.name for crash in struck]
    again = shop.upgrade(GOOD, rings=[RING], limit=",".join(names), rollout_retry_failed=True, rollout_min_free=0, args=("--forks", "8"))
    expected = {crash.host.name: "skipped" if end == "committed" else "committed" for crash, end in zip(struck, ends, strict=True)}
    if (again.rc, again.states) != (0, expected):
        problems.append(f"the next upgrade came to {again.states}: {again}")
    problems.append(problem_of(lambda: shop.verify(dict.fromkeys(names, f"committed {GOOD}"), hosts=names) and ""))
    told = "; ".join(f"{crash.cell}: {end.splitlines()[0]}" for crash, end in zip(struck, ends, strict=True))
    with capsys.disabled():
        print(f"\n{time.monotonic() - began:.0f} s: {told}", end=" ")
    assert not any(problems), "\n\n".join([*filter(None, problems), str(result)])


def problem_of(what: Callable[[], str]) -> str:
    """What it returns, or why it failed: all hosts are looked at, whatever there is to say of one."""
    try:
        return what()
    except AssertionError as error:
        return f"failed: {error}"


def look_closely(shop: Shop, crash: Crash, result: Result) -> str:
    """From outside: the service and every byte; the record is whole and the run knows it; every snapshot can be read, nothing half done lies about."""
    name, end = crash.host.name, crash.phase or "untouched"
    told = result.states.get(name, "lost")
    assert told in ("lost", "unreachable", end, {"untouched": "refused"}.get(end)), f"{crash}: {end}, but the run says {told}"
    picture = shop.verify({name: end if end == "untouched" else f"{end} {GOOD}"}, hosts=[name])[name]
    litter = {path for path in picture.state if path.endswith((".new", "/spare"))}
    assert not litter, f"{crash}: {litter}"
    if end == "untouched":
        return ""
    past = picture.record["history"]
    assert {item["outcome"] for item in past} <= {"restored", "committed"}, f"{crash}: {picture.record}"
    assert past[-1]["outcome"] == end, f"{crash}: {picture.record}"
    assert {item["id"] for item in past} == {picture.record["transaction"]["id"]}, f"{crash}: {picture.record}"
    if PROGRAM in picture.state:  # or the host was never changed
        verified = crash.host.run(f"/{PROGRAM} verify", check=False)
        assert verified.returncode == 0, f"{crash}: {verified}"
    return ""
