# Copyright: onprem.rollout contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Ending what a payload left running, so that nobody writes into the files that are being put back.

The payload runs with C(ONPREM_ROLLOUT=<transaction id>) in its environment, which all its children inherit.
"""

import contextlib
import os
import signal
import time
from typing import Callable, List, Optional, Set, Tuple

VARIABLE = "ONPREM_ROLLOUT"
PATIENCE = 5.0
POLL = 0.05
Process = Tuple[int, str]  # pid and start time: a pid alone may be somebody else's by now


def fence(transaction: str, patience: float = PATIENCE, wait: Callable[[float], None] = time.sleep, variable: str = VARIABLE) -> List[int]:
    """TERM, then KILL, every process of the transaction but ourselves and our ancestors; returns their pids."""
    found = members(transaction, variable)
    for process in found:
        _signal(process, signal.SIGTERM)
    deadline = time.monotonic() + patience
    while any(_start(pid) == start for pid, start in found) and time.monotonic() < deadline:
        wait(POLL)
    late = members(transaction, variable)  # also those that were forked meanwhile
    for process in late:
        _signal(process, signal.SIGKILL)
    return sorted({pid for pid, _start_time in found + late})


def members(transaction: str, variable: str = VARIABLE) -> List[Process]:
    """The living processes that carry the transaction in their environment. Without root: only our own can be seen."""
    mark = "{0}={1}".format(variable, transaction).encode("ascii")
    spared = _family()
    found = []
    for name in os.listdir("/proc"):
        if not name.isdigit() or int(name) in spared:
            continue
        with contextlib.suppress(OSError):
            with open("/proc/{0}/environ".format(name), "rb") as source:
                marked = mark in source.read().split(b"\0")
            start = _start(int(name)) if marked else None
            if start is not None:
                found.append((int(name), start))
    return found


def _signal(process: Process, number: int) -> None:
    pid, start = process
    if _start(pid) == start:
        with contextlib.suppress(ProcessLookupError, PermissionError):
            os.kill(pid, number)


def _stat(pid: int) -> Optional[List[str]]:
    """The fields of /proc/<pid>/stat from the state on; the name before them may contain anything."""
    try:
        with open("/proc/{0}/stat".format(pid), encoding="ascii", errors="replace") as source:
            return source.read().rpartition(")")[2].split()
    except OSError:
        return None


def _start(pid: int) -> Optional[str]:
    """When a process started; None when it is gone or only waits to be reaped."""
    fields = _stat(pid)
    return fields[19] if fields and fields[0] not in ("Z", "X") else None


def _family() -> Set[int]:
    pids = set()  # type: Set[int]
    pid = os.getpid()
    while pid > 0 and pid not in pids:
        pids.add(pid)
        fields = _stat(pid)
        pid = int(fields[1]) if fields else 0
    return pids
