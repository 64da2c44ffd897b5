# Copyright: onprem.rollout contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""What the module archive does: first all of it is decided from what is on disk, then it is done.

    intent = intend(releases, options)    # the same in check mode
    act(releases, options, intent)

Interrupted anywhere, the next run finds what is missing: a release that is not whole counts as not there, and one
whose restart was not seen to succeed is restarted.
"""

import os
import time
from typing import Any, Dict, List, NamedTuple, Optional

from . import _process, _unpack
from ._errors import Refused, RolloutError
from ._releases import Releases
from ._store import remove_quietly

SHOW = 30.0
Options = Dict[str, Any]
Intent = NamedTuple(
    "Intent",
    [
        ("unpack", bool),
        ("switch", bool),
        ("restart", bool),
        ("remove", List[str]),
        ("versions", List[str]),
        ("before", Optional[str]),
        ("digest", Optional[str]),
        ("previous", Optional[str]),
    ],
)


def intend(releases: Releases, options: Options) -> Intent:
    """What is to be done for the options of the module, by what is on disk now."""
    version, before = options["version"], releases.current()
    unpack = not releases.has(version, options["sha256"], options["strip"])
    marker = releases.marker(version) or {}
    switch = before != version
    restart = bool(options["unit"] or options["command"]) and (unpack or switch or not marker.get("active"))
    previous = before if switch else marker.get("previous")
    digest = (releases.marker(before) or {}).get("sha256") if before else None
    surplus = releases.surplus(options["keep"], version, previous)
    return Intent(unpack, switch, restart, surplus, releases.versions(), before, digest, previous)


def act(releases: Releases, options: Options, intent: Intent) -> None:
    """Do it. RolloutError when the artifact is not what was declared, or the restart fails."""
    version, news = options["version"], {"previous": intent.previous, "active": False, "since": time.time()}
    releases.clean()
    if intent.unpack:
        marker = {key: options[key] for key in ("version", "sha256", "size", "strip")}
        _unpack_release(releases, options, dict(marker, schema=1, **news))
    elif intent.switch:
        releases.note(version, **news)
    if intent.switch:
        releases.switch(version)
    if intent.restart:
        _restart(options)
    if not (releases.marker(version) or {}).get("active"):
        releases.note(version, active=True)
    for surplus in intent.remove:
        releases.remove(surplus)


def _unpack_release(releases: Releases, options: Options, marker: Dict[str, Any]) -> None:
    version, url = options["version"], options["url"]
    from . import _fetch  # here, because importing an HTTP client costs more than most of what a host does

    path = releases.download_path(version) if url else options["src"]
    if not path:
        raise Refused(
            "Release {0} is not unpacked in {1}, and none of path, src and url says where it is.".format(version, releases.root),
            "artifact",
        )
    try:
        if url:
            _fetch.fetch(url, path, options["size"])
        with _unpack.open_verified(path, options["size"], options["sha256"], url and _fetch.redacted(url)) as source:
            releases.install(version, source, marker, options["max_bytes"])
    finally:
        if url:
            remove_quietly(path)


def _restart(options: Options) -> None:
    unit, dest = options["unit"], options["dest"]
    reload = [["systemctl", "daemon-reload"]] if unit and _brings_unit(unit, dest) else []
    for argv in reload + [["systemctl", "restart", "--", unit] if unit else options["command"]]:
        try:
            code, output = _process.run(argv, options["timeout"], cwd=dest)
        except OSError as error:
            code, output = 127, _process.reason(error)
        if code != 0:
            ended = "did not end within {0} s".format(options["timeout"]) if code is None else "ended with rc {0}".format(code)
            hint = "journalctl -u {0} -n 50".format(unit) if unit else "the output of the command"
            raise RolloutError(
                "Release {0} is current, but its restart failed: {1} {2}: {3}. See {4}; the next run restarts it again.".format(
                    options["version"], " ".join(argv), ended, _process.last_line(output) or "no output", hint
                ),
                "restart",
                changed=True,
                output=output[-2000:],
            )


def _brings_unit(unit: str, dest: str) -> bool:
    """Whether the release may have changed the unit itself: a reload of systemd costs more than all the rest."""
    try:
        code, output = _process.run(["systemctl", "show", "--property=LoadState,FragmentPath,DropInPaths,NeedDaemonReload", "--", unit], SHOW)
    except OSError:
        return False  # the restart will say it better
    shown = dict(line.split("=", 1) for line in output.splitlines() if "=" in line)
    if code != 0 or shown.get("LoadState") != "loaded" or shown.get("NeedDaemonReload") == "yes":
        return True
    home = os.path.join(os.path.realpath(dest), "")
    paths = [shown.get("FragmentPath", "")] + shown.get("DropInPaths", "").split()
    return any(os.path.realpath(path).startswith(home) for path in paths if path)


def diff(releases: Releases, options: Options, intent: Intent) -> Dict[str, Any]:
    """Which release is current and which are kept, before and after."""
    after = sorted(set(intent.versions).union([options["version"]]).difference(intent.remove))
    return {
        "before_header": releases.dest,
        "after_header": releases.dest,
        "before": {"current": intent.before, "sha256": intent.digest, "releases": intent.versions},
        "after": {"current": options["version"], "sha256": options["sha256"], "releases": after},
    }
