# Copyright: onprem.rollout contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""The state of systemd units before the change, and putting it back."""

import contextlib
import os
import re
from typing import Any, Callable, Dict, List, Optional, Tuple

from ._errors import Refused, RolloutError
from ._process import last_line, run
from ._store import fsync_dir, remove_quietly

SYSTEMCTL = ["systemctl", "--no-ask-password", "--no-pager"]
PATIENCE = 300.0
RUNNING = ("active", "activating", "reloading")
SWITCH = {"enabled": "enable", "disabled": "disable", "masked": "mask"}
KINDS = ("service", "socket", "timer", "path", "mount", "automount", "swap", "target", "slice", "scope", "device")
UNITS = "/etc/systemd/system"
ENABLING = re.compile(r".+\.(wants|requires|upholds)\Z")
Command = Callable[[List[str], Optional[float]], Tuple[Optional[int], str]]
States = Dict[str, Dict[str, Any]]


def present() -> bool:
    """Whether systemd runs this host."""
    return os.path.isdir("/run/systemd/system")


def full(unit: str) -> str:
    """The name of a unit as systemd has it: shop is shop.service."""
    return unit if unit.rpartition(".")[2] in KINDS and "." in unit else unit + ".service"


def require(units: List[str]) -> None:
    """Refuse units on a host where nobody could restart them, and a unit that is given twice."""
    if units and not present():
        raise Refused(
            "services is {0}, but this host does not run systemd. Leave services out and give the command that restarts "
            "the service as restart. Nothing was touched.".format(", ".join(units)),
            "no_systemd",
        )
    _refuse_twice([(unit, full(unit)) for unit in units])


def _refuse_twice(units: List[Tuple[str, str]]) -> None:
    """C(units): each as it was given and as systemd calls it."""
    for name in sorted({name for _unit, name in units}):
        same = [unit for unit, other in units if other == name]
        if len(same) > 1:
            raise Refused(
                "services names one unit {0} times: {1} are both {2}. Nothing was touched. Leave one of them.".format(len(same), " and ".join(same), name),
                "bad_service",
            )


def files(units: List[str]) -> List[str]:
    """Where the operator's own files and drop-ins of these units are, or would be."""
    names = {full(unit) for unit in units}
    templates = {"{0}@.{1}".format(name.partition("@")[0], name.rpartition(".")[2]) for name in names if "@" in name}
    return sorted(os.path.join(UNITS, name + ending) for name in names | templates for ending in ("", ".d"))


def links(unit: str) -> Dict[str, str]:
    """What enables a unit and gives it other names: each link below UNITS, and what it leads to. That it is enabled does not say by whom it is wanted."""
    found = {}
    for place in _places():
        for name in os.listdir(place):
            path = os.path.join(place, name)
            with contextlib.suppress(OSError):  # no link
                target = os.readlink(path)
                if unit in (name, os.path.basename(target)) and target != "/dev/null":
                    found[path] = target
    return found


def _places() -> List[str]:
    if not os.path.isdir(UNITS):
        return []
    return [UNITS] + [place for place in (os.path.join(UNITS, name) for name in os.listdir(UNITS)) if ENABLING.match(place) and os.path.isdir(place)]


def _relink(unit: str, wanted: Dict[str, str]) -> bool:
    """Make links() of a unit what they were; whether anything differed."""
    now = links(unit)
    for path in sorted(set(now) | set(wanted)):
        if now.get(path) != wanted.get(path):
            remove_quietly(path)
            if path in wanted:
                os.makedirs(os.path.dirname(path), 0o755, exist_ok=True)
                os.symlink(wanted[path], path)
            fsync_dir(os.path.dirname(path))
            if ENABLING.match(os.path.dirname(path)):
                with contextlib.suppress(OSError):  # others are in it
                    os.rmdir(os.path.dirname(path))
    return now != wanted


def look(units: List[str], command: Command = run) -> States:
    """Each unit's id, active (bool), file (enabled, disabled, masked, static, ... or empty) and links(). Refused when two are one unit."""
    found = _show(units, command)
    _refuse_twice([(unit, block.get("Id", unit)) for unit, block in sorted(found.items())])
    names = {unit: block.get("Id", full(unit)) for unit, block in found.items()}
    return {unit: dict(_state(block), id=names[unit], links=links(names[unit])) for unit, block in found.items()}


def _show(units: List[str], command: Command) -> Dict[str, Dict[str, str]]:
    if not units:
        return {}
    properties = ["--property=" + name for name in ("Id", "ActiveState", "UnitFileState")]
    code, output = command(SYSTEMCTL + ["show"] + properties + ["--"] + units, PATIENCE)
    blocks = [dict(line.split("=", 1) for line in block.splitlines() if "=" in line) for block in output.strip().split("\n\n")]
    if code != 0 or len(blocks) != len(units):
        raise RolloutError("systemctl show {0} failed: {1}".format(" ".join(units), last_line(output)), "systemctl")
    return {unit: blocks[index] for index, unit in enumerate(units)}


def _state(block: Dict[str, str]) -> Dict[str, Any]:
    return {"active": block.get("ActiveState") in RUNNING, "file": block.get("UnitFileState", "")}


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
    found = _show(sorted(wanted), command)
    masked = [unit for unit, block in found.items() if _state(block)["file"] == "masked" != wanted[unit]["file"]]
    for unit in masked:
        systemctl("unmask", [unit])
    relinked = [unit for unit, before in sorted(wanted.items()) if "links" in before and _relink(before["id"], before["links"])]
    if relinked:
        systemctl("daemon-reload", [])
    if masked or relinked:
        found = _show(sorted(wanted), command)
    for unit, block in found.items():
        before, now = wanted[unit], _state(block)
        if now["file"] != before["file"] and before["file"] in SWITCH:
            systemctl(SWITCH[before["file"]], [unit])
        command(SYSTEMCTL + ["reset-failed", "--", unit], PATIENCE)  # fails for a unit that is not loaded, which is fine
        if before["active"]:
            systemctl("restart", [unit])
        elif now["active"]:
            systemctl("stop", [unit])
    return problems


def retire(wanted: States, command: Command = run) -> None:
    """Disable and stop the units that the change brought, while their files still say how. What does not work here shows in put_back()."""
    brought = sorted(unit for unit, before in wanted.items() if not before["active"] and not before["file"])
    for unit, block in _show(brought, command).items():
        now = _state(block)
        verbs = (["disable"] if now["file"] == "enabled" else []) + (["stop"] if now["active"] else [])
        for verb in verbs:
            command(SYSTEMCTL + [verb, "--", unit], PATIENCE)


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
