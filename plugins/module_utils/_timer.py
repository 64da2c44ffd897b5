# Copyright: onprem.rollout contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""The revert timer: what makes this host run C(onprem-rollout revert) again and again while a transaction is open.

When it is to restore stands in the record, so progress moves it by a write that is made anyway. What is armed here only asks:
two units of systemd, which a reboot starts again, or else a process of its own.
"""

import contextlib
import fcntl
import os
import signal
import sys
import time
from typing import Any, Dict, List, Optional, Tuple

from . import _services
from ._errors import RolloutError
from ._fence import VARIABLE
from ._process import last_line, run
from ._store import fsync_dir, remove_quietly, show, to_bytes, write_file

STATE_DIR = "/var/lib/onprem-rollout"
PROGRAM = "onprem-rollout"
UNITS = "/etc/systemd/system"
WANTS = {".timer": "timers.target.wants", ".service": "multi-user.target.wants"}
BOOTTIME = 7  # CLOCK_BOOTTIME of Linux, which Python 3.6 has no name for; the wall clock may jump
MARGIN = 1.1
PATIENCE = 30.0
NOTE = (
    "This host does not run systemd, or this is not root: a process of its own restores it. It does not outlive a reboot or a power cut, "
    "nor, where logind is told so, the end of the session; then the next run restores this host."
)
NO_TIMER = "revert_after is 0: if the controller is lost, this host stays as the payload left it until a run settles it."
UNIT = """# Made by onprem.rollout. Enabled while a transaction is open, and inert when it is over: then both units may be removed.
[Unit]
Description=Restore this host when nobody commits its rollout in time ({state_dir})
"""
TIMER = """
[Timer]
OnActiveSec={interval}
OnUnitInactiveSec={interval}
AccuracySec=1s

[Install]
WantedBy=timers.target
"""
# simple, so that a restart of a service that waits for the end of the boot does not wait for itself; process, so that what the
# restore starts outlives it.
SERVICE = """RequiresMountsFor={quoted}
ConditionPathExists={program}
StartLimitIntervalSec=0

[Service]
Type=simple
ExecStart={argv}
KillMode=process
LogLevelMax=notice

[Install]
WantedBy=multi-user.target
"""
Revert = Dict[str, Any]


def boottime() -> float:
    """Seconds since the boot, suspended ones too."""
    return time.clock_gettime(BOOTTIME)


def boot_id() -> str:
    """Which boot this is."""
    try:
        with open("/proc/sys/kernel/random/boot_id", encoding="ascii") as source:
            return source.read().strip()
    except OSError:
        return ""


def kind() -> str:
    """Who can be armed here: systemd, or a process of its own."""
    return "systemd" if _services.present() and os.geteuid() == 0 else "process"


def plan(after: int, payload_timeout: int, now: float) -> Optional[Revert]:
    """What the record says of the timer of a new transaction; None without one.

    A task of the payload shows no progress while it runs, so while changing the timer waits longer than the longest may take.
    """
    if not after:
        return None
    return moved({"after": after, "payload": max(after, int(payload_timeout * MARGIN) + 1), "by": kind()}, after, now)


def moved(revert: Revert, seconds: float, now: float) -> Revert:
    """The same timer, C(seconds) from now."""
    return dict(revert, seconds=seconds, boot_id=boot_id(), boottime=round(boottime() + seconds, 3), deadline=int(now + seconds))


def remaining(revert: Revert, now: float, uptime: float) -> float:
    """Seconds until the deadline. In another boot only the wall clock knows it; if that jumped, it ends early rather than late."""
    if revert["boot_id"] == boot_id():
        return float(revert["boottime"] - uptime)
    return float(min(revert["deadline"] - now, revert["seconds"] - uptime))


def describe(revert: Optional[Revert]) -> Dict[str, Any]:
    """The timer for the result of begin: what it is, and what it does not cover."""
    if not revert:
        return {"armed": False, "by": None, "covers_reboot": False, "seconds": 0, "note": NO_TIMER}
    units = revert["by"] == "systemd"
    return {"armed": True, "by": revert["by"], "covers_reboot": units, "seconds": revert["seconds"], "note": "" if units else NOTE}


def interval(revert: Revert) -> int:
    """Seconds between two questions."""
    return max(1, min(30, int(revert["after"]) // 20))


def program(state_dir: str) -> str:
    """Where begin leaves the program that restores this host without a controller."""
    return os.path.join(state_dir, PROGRAM)


def arm(state_dir: str, revert: Revert, command: _services.Command = run) -> None:
    """Have the program asked from now on. RolloutError when that cannot be; repeating is harmless."""
    try:
        if revert["by"] == "systemd":
            _enable(state_dir, revert, command)
        else:
            _detach(state_dir)
    except (OSError, RolloutError) as error:
        raise RolloutError(
            "The revert timer cannot be armed: {0}. Nothing was changed. Repair that, or set revert_after to 0 to go without a timer.".format(error),
            "revert_timer",
        ) from error


def disarm(state_dir: str, command: _services.Command = run) -> None:
    """Nobody asks any more. What fails here does no harm: a timer that finds no open transaction disarms itself."""
    with contextlib.suppress(OSError, RolloutError):
        _disable(state_dir, command)
    with contextlib.suppress(OSError):
        _dismiss(state_dir)


def is_armed(state_dir: str) -> bool:
    """Whether somebody asks, now or after the next boot."""
    if os.path.lexists(_link(unit(state_dir) + ".timer")):
        return True
    with contextlib.suppress(OSError):
        fd = os.open(_lock(state_dir), os.O_RDWR | os.O_NOFOLLOW)
        try:
            return not _take(fd)
        finally:
            os.close(fd)
    return False


# --- systemd ---


def unit(state_dir: str) -> str:
    """The name of the units, of its own for each state directory."""
    if state_dir == STATE_DIR:
        return "onprem-rollout-revert"
    import hashlib

    return "onprem-rollout-revert-" + hashlib.sha256(to_bytes(state_dir)).hexdigest()[:8]


def _link(name: str) -> str:
    return os.path.join(UNITS, WANTS[os.path.splitext(name)[1]], name)


def _quoted(text: str) -> str:
    if any(ord(char) < 32 for char in text):
        raise RolloutError("{0} contains a control character, which no unit of systemd can name".format(show(text)), "state_dir")
    return '"{0}"'.format(text.replace("\\", "\\\\").replace('"', '\\"').replace("%", "%%"))


def _texts(state_dir: str, revert: Revert) -> List[Tuple[str, bytes]]:
    name = unit(state_dir)
    head = UNIT.format(state_dir=show(state_dir).replace("%", "%%"))
    argv = " ".join(_quoted(word).replace("$", "$$") for word in (sys.executable, "-IBS", program(state_dir), "revert"))
    service = head + SERVICE.format(quoted=_quoted(state_dir), program=program(state_dir).replace("%", "%%"), argv=argv)
    return [(name + ".service", to_bytes(service)), (name + ".timer", to_bytes(head + TIMER.format(interval=interval(revert))))]


def _enable(state_dir: str, revert: Revert, command: _services.Command) -> None:
    for name, text in _texts(state_dir, revert):
        write_file(os.path.join(UNITS, name), text, 0o644)
        link = _link(name)
        os.makedirs(os.path.dirname(link), 0o755, exist_ok=True)
        if not os.path.islink(link):
            remove_quietly(link)
            os.symlink("../" + name, link)
        fsync_dir(os.path.dirname(link))
    fsync_dir(UNITS)
    timer = unit(state_dir) + ".timer"
    # systemd reads units that it has not met from the disk; a reload of all units would cost more than the rest of begin
    for verbs in (["start"], ["daemon-reload", "restart"]):
        if len(verbs) > 1:
            os.utime(UNITS)  # by its time, which has ticks of milliseconds, a reload decides whether to read the directory
        for verb in verbs:
            code, output = command(_services.SYSTEMCTL + [verb] + (["--", timer] if verb != "daemon-reload" else []), PATIENCE)
        if code == 0 and _is_waiting(timer, command):
            return
    raise RolloutError("systemctl start {0} failed: {1}".format(timer, last_line(output) or "it does not wait"), "revert_timer")


def _is_waiting(timer: str, command: _services.Command) -> bool:
    properties = ["--property=" + name for name in ("ActiveState", "NeedDaemonReload")]
    code, output = command(_services.SYSTEMCTL + ["show"] + properties + ["--", timer], PATIENCE)
    return code == 0 and "ActiveState=active" in output.split() and "NeedDaemonReload=yes" not in output.split()


def _disable(state_dir: str, command: _services.Command) -> None:
    """Stop and disable the timer. The unit files stay: systemd, which may have them in memory, would need a reload for new ones.

    Those of another state directory than the usual one may never be used again, so they go.
    """
    names = [unit(state_dir) + ending for ending in WANTS]
    if any(os.path.lexists(_link(name)) for name in names):
        command(_services.SYSTEMCTL + ["stop", "--", names[0]], PATIENCE)
        for name in names:
            remove_quietly(_link(name))
            if state_dir != STATE_DIR:
                remove_quietly(os.path.join(UNITS, name))


# --- a process of its own ---


def _lock(state_dir: str) -> str:
    return os.path.join(state_dir, "timer.lock")


def _take(fd: int) -> bool:
    try:
        fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
        return True
    except BlockingIOError:
        return False


def _detach(state_dir: str) -> None:
    """Start the program. It inherits the lock, so it counts as armed from here on, and until it ends."""
    fd = os.open(_lock(state_dir), os.O_RDWR | os.O_CREAT | os.O_NOFOLLOW, 0o600)
    try:
        deadline = time.monotonic() + PATIENCE
        while not _take(fd):
            _dismiss(state_dir)
            if time.monotonic() > deadline:
                raise RolloutError("an older timer holds {0} and does not end".format(show(_lock(state_dir))), "revert_timer")
            time.sleep(0.02)
        os.ftruncate(fd, 0)
        pid = os.fork()  # twice, so that it is nobody's child and leaves no zombie
        if pid == 0:
            _start(state_dir, fd)
        if os.waitpid(pid, 0)[1] != 0:
            raise RolloutError("{0} cannot be started by {1}".format(show(program(state_dir)), sys.executable), "revert_timer")
    finally:
        os.close(fd)


def _start(state_dir: str, fd: int) -> None:
    try:
        import subprocess

        # the payload's mark would have the timer ended by the restore it begins
        environment = {key: value for key, value in os.environ.items() if key != VARIABLE}
        process = subprocess.Popen(
            [sys.executable, "-IBS", program(state_dir), "revert", "--wait"],
            stdin=subprocess.DEVNULL,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
            cwd="/",
            env=environment,
            close_fds=True,
            pass_fds=[fd],
            start_new_session=True,
        )
        os.pwrite(fd, "{0}\n".format(process.pid).encode("ascii"), 0)
        os._exit(0)
    finally:
        os._exit(1)


def _dismiss(state_dir: str) -> None:
    """End the process, unless that is us."""
    fd = os.open(_lock(state_dir), os.O_RDWR | os.O_NOFOLLOW)
    try:
        if _take(fd):
            return
        text = os.pread(fd, 32, 0).decode("ascii", "replace").strip()
    finally:
        os.close(fd)
    pid = int(text) if text.isdigit() else 0
    if pid and pid != os.getpid() and _runs(pid, program(state_dir)):
        with contextlib.suppress(ProcessLookupError):
            os.kill(pid, signal.SIGTERM)


def _runs(pid: int, path: str) -> bool:
    try:
        with open("/proc/{0}/cmdline".format(pid), "rb") as source:
            return os.fsencode(path) in source.read().split(b"\0")
    except OSError:
        return False
