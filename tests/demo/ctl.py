#!/usr/bin/env python3
# Copyright: onprem.rollout contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Tell a demo host's supervisor what to do: ctl.py ROOT restart|status|stop

Prints the answer as one line of JSON. restart returns once the new process was spawned; whether it is healthy is for
the checks to say.
"""

from __future__ import annotations

import json
import os
import socket
import sys

TIMEOUT = 15  # seconds; a service that ignores TERM is killed after 3


def ask(root: str, command: str) -> str:
    os.chdir(os.path.join(root, "run"))  # socket names are limited to some 100 bytes, so they are relative
    with socket.socket(socket.AF_UNIX) as connection:
        connection.settimeout(TIMEOUT)
        connection.connect("control.sock")
        connection.sendall(command.encode() + b"\n")
        with connection.makefile(encoding="utf-8") as answer:
            return answer.readline()


def main() -> int:
    if len(sys.argv) != 3:
        print(__doc__.splitlines()[0], file=sys.stderr)
        return 2
    root, command = sys.argv[1:]
    try:
        answer = ask(root, command)
    except OSError as error:
        print(f"ctl.py {command}: the supervisor of {root} does not answer: {error}; start the fleet with fleet.py up", file=sys.stderr)
        return 1
    if not answer:
        print(f"ctl.py {command}: the supervisor of {root} could not do it; see {root}/run/supervisor.log", file=sys.stderr)
        return 1
    print(answer, end="")
    return 0 if json.loads(answer)["ok"] else 1


if __name__ == "__main__":
    sys.exit(main())
