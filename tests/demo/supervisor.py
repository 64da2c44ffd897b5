#!/usr/bin/env python3
# Copyright: onprem.rollout contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""The service manager of one demo host: what systemd is elsewhere.

    supervisor.py ROOT ADDRESS PORT

Starts ROOT/app/current/server.py ADDRESS PORT in the background and starts it again when it dies, later each time.
Takes commands on ROOT/run/control.sock (see ctl.py): one word in, one line of JSON out.
Returns once the service was started and commands are taken. A lock on ROOT/run/supervisor.pid is held for as long as
the supervisor lives, so that its pid can be trusted and there is never a second one.
"""

from __future__ import annotations

import ctypes
import fcntl
import json
import os
import selectors
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import IO, Any

STABLE = 5.0  # seconds after which a service counts as started; its next death is again its first
STOP_GRACE = 3.0  # seconds between TERM and KILL
PR_SET_PDEATHSIG = 1
LIBC = ctypes.CDLL(None)


def back_off(deaths: int) -> float:
    """Seconds to wait before the start that follows this many deaths in a row."""
    return float(min(0.2 * 2 ** max(0, deaths - 1), 5.0))


def _die_with_parent() -> None:
    """A supervisor that is killed takes its service along: no demo may leave a process behind."""
    LIBC.prctl(PR_SET_PDEATHSIG, signal.SIGKILL)


def _log(text: str) -> None:
    print(f"{time.strftime('%H:%M:%S')} {text}", flush=True)


class Supervisor:
    """Keeps one service running. All timing comes from O(clock), in seconds."""

    def __init__(self, argv: list[str], log: IO[bytes], clock: Callable[[], float] = time.monotonic) -> None:
        self.argv = argv
        self.log = log
        self.clock = clock
        self.process: subprocess.Popen[bytes] | None = None
        self.started = 0.0
        self.next_start = 0.0
        self.deaths = 0
        self.starts = 0
        self.last_exit: int | None = None
        self.ending = False

    def start(self) -> None:
        self.process = subprocess.Popen(self.argv, stdin=subprocess.DEVNULL, stdout=self.log, stderr=self.log, preexec_fn=_die_with_parent)
        self.started = self.clock()
        self.starts += 1
        _log(f"started, pid {self.process.pid}")

    def stop(self) -> None:
        if self.process is None:
            return
        self.process.terminate()
        try:
            self.last_exit = self.process.wait(STOP_GRACE)
        except subprocess.TimeoutExpired:
            self.process.kill()
            self.last_exit = self.process.wait()
        self.process = None

    def tick(self) -> float | None:
        """Notice a death, start what is due. Returns the seconds until the next tick is wanted, None for: when woken."""
        if self.process is not None:
            code = self.process.poll()
            if code is None:
                return None
            self.process, self.last_exit = None, code
            self.deaths = 1 if self.clock() - self.started >= STABLE else self.deaths + 1
            self.next_start = self.clock() + back_off(self.deaths)
            _log(f"died with {code}, next start in {back_off(self.deaths):.1f} s")
        wait = self.next_start - self.clock()
        if wait > 0:
            return wait
        self.start()
        return None

    def handle(self, command: str) -> dict[str, Any]:
        if command == "restart":
            self.stop()
            self.deaths = 0
            self.start()
        elif command == "stop":
            self.stop()
            self.ending = True
        elif command != "status":
            return {"ok": False, "error": f"unknown command {command!r}; allowed: restart, status, stop"}
        return {"ok": True, **self.status()}

    def status(self) -> dict[str, Any]:
        pid = self.process.pid if self.process is not None and self.process.poll() is None else None
        return {"pid": pid, "starts": self.starts, "deaths": self.deaths, "last_exit": self.last_exit}

    def serve(self, listener: socket.socket, wake: socket.socket) -> None:
        """Run until told to end, by command or by TERM."""
        with selectors.DefaultSelector() as selector:
            selector.register(listener, selectors.EVENT_READ)
            selector.register(wake, selectors.EVENT_READ)
            while not self.ending:
                for key, _events in selector.select(self.tick()):
                    if key.fileobj is wake:
                        wake.recv(4096)
                    else:
                        self._answer(listener)
        self.stop()

    def _answer(self, listener: socket.socket) -> None:
        connection, _peer = listener.accept()
        with connection:
            connection.settimeout(2)
            try:
                command = connection.recv(64).decode("ascii", "replace").strip()
                reply = self.handle(command)
                connection.sendall(json.dumps(reply).encode() + b"\n")
            except OSError as error:  # a client that went away, or a service that cannot be started
                _log(f"control: {error}")


def lock_pid_file(run: Path) -> IO[str] | None:
    """The locked pid file, or None when a supervisor lives that holds it."""
    pid_file = (run / "supervisor.pid").open("a+", encoding="ascii")
    try:
        fcntl.flock(pid_file, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        pid_file.close()
        return None
    pid_file.truncate(0)  # what stood there is the pid of somebody else by now
    return pid_file


def running_pid(run: Path) -> int | None:
    """The pid of the supervisor that lives in this run directory."""
    if not (run / "supervisor.pid").exists():
        return None
    pid_file = lock_pid_file(run)
    if pid_file is not None:
        pid_file.close()
        return None
    text = (run / "supervisor.pid").read_text(encoding="ascii").strip()
    return int(text) if text else None


def _detach(run: Path) -> int:
    """Become a daemon. Returns, in the daemon only, the pipe on which to say that it is ready."""
    ready, say_ready = os.pipe()
    if os.fork():
        os.close(say_ready)
        os.wait()
        with os.fdopen(ready, encoding="utf-8") as pipe:
            os._exit(0 if pipe.read() == "ready" else 1)
    os.setsid()
    if os.fork():
        os._exit(0)
    os.close(ready)
    log = os.open(run / "supervisor.log", os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o600)
    null = os.open(os.devnull, os.O_RDONLY)
    for source, target in ((null, 0), (log, 1), (log, 2)):
        os.dup2(source, target)
    return say_ready


def _wake_on_signals(supervisor: Supervisor) -> socket.socket:
    def end(*_args: object) -> None:
        supervisor.ending = True

    wake, waker = socket.socketpair()
    wake.setblocking(False)
    waker.setblocking(False)
    signal.set_wakeup_fd(waker.detach(), warn_on_full_buffer=False)
    signal.signal(signal.SIGCHLD, lambda *_args: None)
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    signal.signal(signal.SIGTERM, end)
    return wake


def main() -> int:
    root, address, port = Path(sys.argv[1]).resolve(), sys.argv[2], sys.argv[3]
    run = root / "run"
    run.mkdir(mode=0o700, parents=True, exist_ok=True)
    pid_file = lock_pid_file(run)
    if pid_file is None:
        print(f"{root}: pid {running_pid(run)} supervises this host already; stop it first with: ctl.py {root} stop", file=sys.stderr)
        return 1
    ready = _detach(run)
    pid_file.write(f"{os.getpid()}\n")
    pid_file.flush()
    os.chdir(run)  # socket names are limited to some 100 bytes, so they are relative
    Path("control.sock").unlink(missing_ok=True)
    with socket.socket(socket.AF_UNIX) as listener, Path("service.log").open("ab") as log:
        listener.bind("control.sock")
        listener.listen()
        # -B: the release directory stays what was unpacked
        supervisor = Supervisor([sys.executable, "-IB", f"{root}/app/current/server.py", address, port], log)
        wake = _wake_on_signals(supervisor)
        supervisor.tick()
        os.write(ready, b"ready")
        os.close(ready)
        supervisor.serve(listener, wake)
    Path("control.sock").unlink()
    return 0


if __name__ == "__main__":
    sys.exit(main())
