# Copyright: onprem.rollout contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Who holds a host: the run of ansible-playbook that works on it, named so that people and other runs can find it."""

from __future__ import annotations

import getpass
import os
import re
import socket
from collections.abc import Mapping
from typing import Any

FIRST_NAMESPACE = "4026531836"  # of processes, the machine's own: a constant of Linux
MACHINE_ID_FILE = "/etc/machine-id"
MACHINE_ID = re.compile(r"[0-9a-f]{32}\Z")


def holder(host: str, variables: Mapping[str, Any] | None = None) -> dict[str, Any]:
    """The run this worker process belongs to, working on a host by one of its names in the inventory.

    The same for all tasks of one ansible-playbook on that name, and for no other: a machine that has two names is not two hosts.
    """
    pid = os.getppid()
    return {
        "run": f"{run_of(pid)}#{host}",
        "controller": controller(),
        "pid": pid,
        "user": user(variables or {}),
        "job": job(variables or {}),
    }


def run_of(pid: int) -> str:
    """The run of ansible-playbook with this process, for is_gone() and is_alive()."""
    return f"{controller()}/{boot_id()}/{pid_namespace()}/{pid}/{started(pid)}/{machine_id()}"


def is_gone(other: Mapping[str, Any]) -> bool:
    """True only when that run is known to have ended: it ran on this machine, and that booted since, or its process is no more.

    Another boot of a machine of this name may be another machine, unless both are known by their machine-id.
    """
    parts = _parts(other)
    if not parts or not parts[1] or not boot_id():
        return False
    _name, boot, namespace, pid, start, machine = parts
    if boot != boot_id():
        return machine == machine_id() != ""
    return namespace == pid_namespace() and started(int(pid)) != start


def is_alive(other: Mapping[str, Any]) -> bool:
    """True only when that run is known to go on: it runs on this machine."""
    parts = _parts(other)
    return bool(parts and boot_id()) and parts[1:3] == [boot_id(), pid_namespace()] and started(int(parts[3])) == parts[4] != ""


def _parts(other: Mapping[str, Any]) -> list[str]:
    """What L(run_of) put together on a machine of this name; nothing of others. Records from before machine ids were told have none."""
    parts = str(other.get("run", "")).partition("#")[0].split("/")
    parts += [""] if len(parts) == 5 else []
    return parts if len(parts) == 6 and parts[0] == controller() and parts[3].isdigit() else []


def describe(other: Mapping[str, Any]) -> str:
    job = f", job {other['job']}" if other.get("job") else ""
    return f"{other.get('user', 'somebody')} on {other.get('controller', 'an unknown controller')}, pid {other.get('pid', '?')}{job}"


def boot_id() -> str:
    """The machine's boot, or nothing where the kernel does not tell."""
    try:
        with open("/proc/sys/kernel/random/boot_id", encoding="ascii") as file:
            return file.read().strip()
    except OSError:
        return ""


def machine_id() -> str:
    """Which machine this is; nothing where that is not known, as in a container, which has the id of its image, if any."""
    if pid_namespace() != FIRST_NAMESPACE:
        return ""
    try:
        with open(MACHINE_ID_FILE, encoding="ascii", errors="replace") as file:
            found = file.read().strip()
    except OSError:
        return ""
    return found if MACHINE_ID.match(found) else ""


def pid_namespace() -> str:
    """Two containers of one machine may have the same host name, but never the same processes."""
    try:
        return os.readlink("/proc/self/ns/pid").strip("pid:[]")
    except OSError:
        return ""


def started(pid: int) -> str:
    """When the process started, in clock ticks since the boot; nothing when there is no such process, or it ended and only waits to be reaped."""
    try:
        with open(f"/proc/{pid}/stat", encoding="utf-8", errors="replace") as file:
            state, *rest = file.read().rpartition(")")[2].split()
            return "" if state in "ZX" else rest[18]
    except (OSError, IndexError, ValueError):
        return ""


def controller() -> str:
    """The name of this machine."""
    return socket.gethostname()


def job(variables: Mapping[str, Any]) -> str:
    """The number of the AWX job; nothing elsewhere."""
    told = [variables.get(name) for name in ("awx_job_id", "tower_job_id")] + [os.environ.get(name) for name in ("AWX_JOB_ID", "JOB_ID")]
    return str(next(filter(None, told), ""))


def user(variables: Mapping[str, Any]) -> str:
    """Who started this: in AWX the user who launched the job, elsewhere the one of the process."""
    for name in ("awx_user_name", "tower_user_name"):
        if variables.get(name):
            return str(variables[name])
    try:
        return getpass.getuser()
    except (KeyError, OSError):
        return str(os.getuid())
