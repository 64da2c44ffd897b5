# Copyright: onprem.rollout contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""A real PostgreSQL server for tests, from Debian's package postgresql: a cluster of its own in a directory of its own.

Its processes die with the process that started them, however that ends.
"""

from __future__ import annotations

import os
import pwd
import signal
import socket
import subprocess
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

PASSWORD = "s3cret/p@ss"  # one that has to be written with %2F and %40
QUICK = ("fsync=off", "full_page_writes=off", "shared_buffers=16MB", "max_connections=40", "autovacuum=off", "log_min_messages=fatal")


def programs() -> Path:
    """Where Debian keeps the newest server's programs, which are not on PATH; a skip that says so where there is none."""
    found = sorted(Path("/usr/lib/postgresql").glob("*/bin/postgres"), key=lambda path: float(path.parts[-3]))
    if not found:
        pytest.skip("no PostgreSQL server here (Debian's package postgresql)")
    return found[-1].parent


class Server:
    """The superuser is postgres; over TCP everybody needs PASSWORD, over the socket nobody does."""

    def __init__(self, directory: Path) -> None:
        self._programs = programs()
        self._data = directory / "data"
        self._directory = directory
        self._process: subprocess.Popen | None = None
        self._owner: dict[str, Any] = {}
        if os.getuid() == 0:  # the server refuses to run as root
            known = {user.pw_name for user in pwd.getpwall()}
            owner = pwd.getpwnam("postgres" if "postgres" in known else "nobody")
            os.chown(directory, owner.pw_uid, owner.pw_gid)
            self._owner = {"user": owner.pw_uid, "group": owner.pw_gid, "extra_groups": []}
        with socket.socket() as free:
            free.bind(("127.0.0.1", 0))
            self.port = free.getsockname()[1]
        secret = directory / "password"
        secret.write_text(PASSWORD)
        options = ["--no-sync", "--username=postgres", f"--pwfile={secret}", "--auth-local=trust", "--auth-host=scram-sha-256", "--encoding=UTF8", "--locale=C"]
        self._run("initdb", f"--pgdata={self._data}", *options)

    def start(self) -> None:
        options = [f"--{item}" for item in (f"port={self.port}", "listen_addresses=127.0.0.1", f"unix_socket_directories={self._directory}", *QUICK)]
        command = ["setpriv", "--pdeathsig", "QUIT", str(self._programs / "postgres"), "-D", str(self._data), *options]
        self._process = subprocess.Popen(command, cwd=self._directory, stdin=subprocess.DEVNULL, stderr=subprocess.DEVNULL, **self._owner)
        deadline = time.monotonic() + 30
        while subprocess.run([self._programs / "pg_isready", "-q", "-h", self._directory, "-p", str(self.port)], check=False).returncode:
            assert self._process.poll() is None, "the server did not start"
            assert time.monotonic() < deadline
            time.sleep(0.02)

    def stop(self, how: signal.Signals = signal.SIGQUIT) -> None:
        """As pg_ctl stop -m immediate."""
        if self._process is not None:
            self._process.send_signal(how)
            self._process.wait(30)
            self._process = None

    def sql(self, statements: str, database: str = "postgres") -> str:
        """As the superuser."""
        return self._run(
            "psql", "-XAtq", "-v", "ON_ERROR_STOP=1", "-h", str(self._directory), "-p", str(self.port), "-U", "postgres", "-c", statements, database
        )

    def place(self, database: str, user: str = "postgres", password: str = "s3cret%2Fp%40ss", port: int = 0) -> str:
        return f"postgresql://{user}:{password}@127.0.0.1:{port or self.port}/{database}"

    def local(self, database: str) -> str:
        return f"postgresql:///{database}?host={self._directory}&port={self.port}&user=postgres"

    def _run(self, program: str, *arguments: str) -> str:
        done = subprocess.run([self._programs / program, *arguments], cwd=self._directory, capture_output=True, text=True, check=False, **self._owner)
        assert done.returncode == 0, f"{program}: {done.stderr}"
        return done.stdout


@contextmanager
def running_server() -> Iterator[Server]:
    """Not below tmp_path, which is root's alone, and whose name is too long for a socket."""
    with tempfile.TemporaryDirectory(prefix="onprem-rollout-postgresql.") as directory:
        server = Server(Path(directory))
        try:
            server.start()
            yield server
        finally:
            server.stop()
