# Copyright: onprem.rollout contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""What the demo's hosts are at one moment, read from outside: by HTTP, by supervisor and from their files."""

from __future__ import annotations

import hashlib
import json
import os
import stat
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import fleet

Tree = dict[str, tuple[str | int, ...]]


def tree(top: Path) -> Tree:
    """Every entry below and including top: type and mode, owner, mtime in ns, and SHA-256, link target or nothing."""
    found: Tree = {}
    for directory, names, files in os.walk(top):
        for name in ["", *names, *files]:
            path = Path(directory, name)
            if name in names and not path.is_symlink():
                continue  # it comes as the top of its own walk
            info = path.lstat()
            content = ""
            if stat.S_ISLNK(info.st_mode):
                content = str(path.readlink())
            elif stat.S_ISREG(info.st_mode):
                content = hashlib.sha256(path.read_bytes()).hexdigest()
            found[str(path.relative_to(top))] = (stat.filemode(info.st_mode), info.st_uid, info.st_gid, info.st_mtime_ns, content)
    return found


def digest(found: Tree) -> str:
    return hashlib.sha256(json.dumps(found, sort_keys=True).encode()).hexdigest()


@dataclass(frozen=True)
class Sight:
    """One host as seen from outside."""

    version: str  # what /version answers, or why it does not
    health: tuple[int, str]
    starts: int  # how often its supervisor has started the service
    sick_answers: int  # how often /health answered 500 since the fleet is up
    tree: Tree
    record: dict[str, Any]  # what the host itself says; {} before its first rollout


def look(directory: Path, host: str) -> Sight:
    root, place = fleet.root(directory, host), fleet.load(directory)[host]
    ctl = subprocess.run([sys.executable, directory / "bin" / "ctl.py", root, "status"], stdout=subprocess.PIPE, check=True)
    record = root / "state" / "record.json"
    status, version = fleet.ask(place, "/version")
    return Sight(
        version=version if status == 200 else f"nothing ({version})",
        health=fleet.ask(place, "/health"),
        starts=json.loads(ctl.stdout)["starts"],
        sick_answers=(root / "run" / "service.log").read_text(encoding="utf-8").count('"GET /health HTTP/1.1" 500'),
        tree=tree(root / "app"),
        record=json.loads(record.read_text(encoding="utf-8")) if record.exists() else {},
    )


def look_all(directory: Path) -> dict[str, Sight]:
    return {host: look(directory, host) for host in fleet.HOSTS}
