# Copyright: onprem.rollout contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Programs run on the host, without a shell and without waiting for what they leave behind."""

import contextlib
import os
import signal
from typing import IO, TYPE_CHECKING, Dict, List, Optional, Tuple

if TYPE_CHECKING:
    import subprocess

OUTPUT = 256 * 1024


def run(argv: List[str], timeout: Optional[float] = None, cwd: Optional[str] = None, env: Optional[Dict[str, str]] = None) -> Tuple[Optional[int], str]:
    """The return code and the last C(OUTPUT) bytes of stdout and stderr together; None instead of a code on timeout.

    The output goes to a file: with a pipe we would wait for a daemon that the program started and that inherited it.
    The program gets its own session, so that a timeout ends its children too. OSError when it cannot be started.
    """
    import subprocess  # only here: a host that starts no program is spared the time

    with unnamed_file() as output:
        process = subprocess.Popen(
            argv, stdin=subprocess.DEVNULL, stdout=output, stderr=subprocess.STDOUT, cwd=cwd, env=env, close_fds=True, start_new_session=True
        )
        code = None  # type: Optional[int]
        try:
            code = process.wait(timeout)
        except subprocess.TimeoutExpired:
            pass
        finally:
            if code is None:
                _end(process)
        output.seek(max(0, os.fstat(output.fileno()).st_size - OUTPUT))
        return code, output.read(OUTPUT).decode("utf-8", "replace")


def unnamed_file() -> IO[bytes]:
    """As tempfile makes it on Linux, without the time that its import takes."""
    with contextlib.suppress(OSError):
        return os.fdopen(os.open(os.environ.get("TMPDIR") or "/tmp", os.O_RDWR | os.O_TMPFILE, 0o600), "w+b")
    import tempfile  # it knows of more places, and of systems without such files

    return tempfile.TemporaryFile()


def _end(process: "subprocess.Popen[bytes]") -> None:
    with contextlib.suppress(ProcessLookupError):
        os.killpg(process.pid, signal.SIGKILL)
    process.wait()


def last_line(output: str, limit: int = 200) -> str:
    """The last line that says something, for a message."""
    lines = [line.strip() for line in output.splitlines() if line.strip()]
    return lines[-1][:limit] if lines else ""


def reason(error: OSError) -> str:
    """Why a program could not be started, in words."""
    return (os.strerror(error.errno) if error.errno else str(error)).lower()
