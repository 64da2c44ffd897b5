# Copyright: onprem.rollout contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""The state of systemd units before the change, and putting it back."""

import os
from typing import Any, Callable, Dict, List, Optional, Tuple

from ._errors import Refused, RolloutError
from ._process import last_line, run

SYSTEMCTL = ["systemctl", "--no-ask-password", "--no-pager"]
PATIENCE = 300.0
RUNNING = ("active", "activating", "reloading")
SWITCH = {"enabled": "enable", "disabled": "disable"}
Command = Callable[[List[str], Optional[float]], Tuple[Optional[int], str]]
States = Dict[str, Dict[str, Any]]


def present() -> bool:
    """Whether systemd runs this host."""
    return os.path.isdir("/run/systemd/system")


def require(units: List[str]) -> None:
    """Refuse units on a host where nobody could restart them."""
    if units and not present():
        raise Refused(
            "services is {0}, but this host does not run systemd. Leave services out and give the command that restarts "
            "the service as restart. Nothing was touched.".format(", ".join(units)),
            "no_systemd",
        )


def look(units: List[str], command: Command = run) -> States:
    """Each unit's active (bool) and file (enabled, disabled, static, ... or empty)."""
    if not units:
        return {}
    code, output = command(SYSTEMCTL + ["show", "--property=ActiveState", "--property=UnitFileState", "--"] + units, PATIENCE)
    blocks = [dict(line.split("=", 1) for line in block.splitlines() if "=" in line) for block in output.strip().split("\n\n")]
    if code != 0 or len(blocks) != len(units):
        raise RolloutError("systemctl show {0} failed: {1}".format(" ".join(units), last_line(output)), "systemctl")
    states = [{"active": block.get("ActiveState") in RUNNING, "file": block.get("UnitFileState", "")} for block in blocks]
    return {unit: states[index] for index, unit in enumerate(units)}


def put_back(wanted: States, command: Command = run) -> List[str]:
    """Enable or disable, restart or stop the units as they were; what did not work, as sentences."""
    if not wanted:
        return []
    problems = []  # type: List[str]

    def systemctl(verb: str, units: List[str]) -> None:
        code, output = command(SYSTEMCTL + [verb] + (["--"] + units if units else []), PATIENCE)
        if code != 0:
            problems.append("systemctl {0} failed: {1}".format(" ".join([verb] + units), last_line(output) or "no answer in time"))

    systemctl("daemon-reload", [])
    for unit, now in look(sorted(wanted), command).items():
        before = wanted[unit]
        if now["file"] != before["file"] and before["file"] in SWITCH:
            systemctl(SWITCH[before["file"]], [unit])
        command(SYSTEMCTL + ["reset-failed", "--", unit], PATIENCE)  # fails for a unit that is not loaded, which is fine
        if before["active"]:
            systemctl("restart", [unit])
        elif now["active"]:
            systemctl("stop", [unit])
    return problems


def rerun(argv: List[str], command: Command = run) -> List[str]:
    """Run the operator's own restart command; what did not work, as sentences."""
    if not argv:
        return []
    try:
        code, output = command(argv, PATIENCE)
    except OSError as error:
        return ["restart: {0} cannot be started: {1}".format(argv, error.strerror)]
    if code == 0:
        return []
    seen = "did not end in {0:g} s".format(PATIENCE) if code is None else "ended with {0}".format(code)
    return ["restart: {0} {1}: {2}".format(argv, seen, last_line(output))]
