# Copyright: onprem.rollout contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Snapshots that programs of the operator take, restore, drop and verify: LVM, snapm, ZFS, a hypervisor.

Each may be killed and run again, so it must cope with what an earlier run of itself, or of take, left half done.
"""

import json
import os
import shutil
from typing import Any, Dict, List

from ._capture import Rules
from ._errors import Refused, RolloutError
from ._fence import fence
from ._process import last_line, reason, run
from ._store import show, write_json

ACTIONS = ("take", "restore", "drop", "verify")
TIMEOUT = 240
TOKEN = "ROLLOUT_HOOK"


def problems(commands: Any) -> List[str]:
    """What is wrong with C(provider_commands), as sentences. Knows no host, so the controller asks too."""
    if not isinstance(commands, dict):
        return ["provider_commands must be a mapping of {0}, each a list of a program and its arguments".format(", ".join(ACTIONS))]
    found = ["provider_commands has no {0}".format(action) for action in ACTIONS if action not in commands]
    found += ["provider_commands.{0} is not known; the known are {1} and timeout".format(key, ", ".join(ACTIONS)) for key in _strangers(commands)]
    for action in ACTIONS:
        argv = commands.get(action)
        if action in commands and not (isinstance(argv, list) and argv and all(isinstance(word, str) and word and "\0" not in word for word in argv)):
            found.append("provider_commands.{0} is {1!r}; write a list of a program and its arguments".format(action, argv))
    timeout = commands.get("timeout", TIMEOUT)
    if isinstance(timeout, bool) or not str(timeout).isdigit() or int(str(timeout)) < 1:
        found.append("provider_commands.timeout is {0!r}; write seconds from 1 on".format(timeout))
    return found


def _strangers(commands: Dict[Any, Any]) -> List[str]:
    return sorted(str(key) for key in commands if key not in ACTIONS and key != "timeout")


def judge(commands: Any, rules: Rules) -> None:
    """Refused(provider) before anything is touched."""
    found = problems(commands)
    if rules.exclude or rules.cross_mounts:
        found.append("exclude and cross_mounts mean nothing to it, the programs decide what they keep")
    if not found:
        missing = [commands[action][0] for action in ACTIONS if shutil.which(commands[action][0]) is None]
        found = ["{0} is not there or cannot be run".format(show(name)) for name in missing]
    if found:
        raise Refused("The provider command cannot be used: {0}. Nothing was touched. Correct provider_commands.".format("; ".join(found)), "provider")


def absolute(commands: Dict[str, Any]) -> Dict[str, Any]:
    """The same programs for whoever restores, whose C(PATH) may be another one."""
    places = {action: os.path.abspath(shutil.which(commands[action][0]) or commands[action][0]) for action in ACTIONS}
    return dict(commands, **{action: [places[action]] + commands[action][1:] for action in ACTIONS})


def call(action: str, place: str, intent: Dict[str, Any], note: bool = True) -> None:
    """Run one of the programs to its end. RolloutError(provider) with its last words when it fails.

    One that outlived us, killed, is ended first. C(intent) is what provider.json in the snapshot's directory C(place) says.
    """
    name = os.path.join(place, "provider.json")
    if intent.get("running"):
        fence(intent["running"], variable=TOKEN)
    token = os.urandom(16).hex()
    if note:
        write_json(name, dict(intent, running=token))
    state_dir = os.path.dirname(os.path.dirname(place))
    told = {"ROLLOUT_SNAPSHOT": intent["id"], "ROLLOUT_PATHS": json.dumps(intent["paths"]), "ROLLOUT_STATE_DIR": state_dir, TOKEN: token}
    argv = intent["commands"][action]
    timeout = int(intent["commands"].get("timeout", TIMEOUT))
    try:
        code, output = run(argv, timeout, env=dict(os.environ, **told))
    except OSError as error:
        raise _failed(action, argv, "could not be started: {0}".format(reason(error)), "") from error
    if code is None:
        raise _failed(action, argv, "did not end within {0} s".format(timeout), output)
    if note:
        write_json(name, dict(intent, running=None))
    if code != 0:
        raise _failed(action, argv, "ended with {0}".format(code), output)


def _failed(action: str, argv: List[str], how: str, output: str) -> RolloutError:
    words = last_line(output)
    return RolloutError("The {0} command of the snapshot ({1}) {2}{3}.".format(action, show(argv[0]), how, ": " + words if words else ""), "provider")
