# Copyright: onprem.rollout contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""An artifact on the controller, verified once per run and not once per host.

Every host has its own worker process, so what one worker found is left in the temporary directory of this run, under a
name that changes whenever the file does.
"""

from __future__ import annotations

import hashlib
import os
from pathlib import Path
from typing import IO

CHUNK = 1024 * 1024


def problem(path: str, size: int, sha256: str, memo: str | None) -> str | None:
    """Why this file is not the declared artifact, as a sentence; None when it is. memo: a directory of this run, if there is one."""
    try:
        with open(path, "rb") as source:
            found = os.fstat(source.fileno())
            if found.st_size != size:
                return f"The artifact {path} has {found.st_size} bytes, but its release declares {size}. Build or copy it again, or correct size"
            key = f"{os.path.realpath(path)}\0{found.st_dev}\0{found.st_ino}\0{found.st_size}\0{found.st_mtime_ns}\0{found.st_ctime_ns}"
            known = Path(memo) / f"artifact-{hashlib.sha256(key.encode(errors='surrogateescape')).hexdigest()}" if memo else None
            digest = (_recall(known) or _remember(known, _digest(source))) if known else _digest(source)
    except OSError as error:
        return f"The artifact {path} cannot be read: {error.strerror}. Copy it there, or correct path"
    if digest != sha256:
        return f"The artifact {path} has SHA-256 {digest}, but its release declares {sha256}. Build or copy it again, or correct sha256"
    return None


def _digest(source: IO[bytes]) -> str:
    digest = hashlib.sha256()
    for chunk in iter(lambda: source.read(CHUNK), b""):
        digest.update(chunk)
    return digest.hexdigest()


def _recall(known: Path) -> str | None:
    try:
        return known.read_text("ascii")
    except FileNotFoundError:
        return None


def _remember(known: Path, digest: str) -> str:
    temp = known.with_suffix(f".{os.getpid()}")
    temp.write_text(digest, "ascii")
    temp.replace(known)
    return digest
