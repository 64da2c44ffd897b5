# Copyright: onprem.rollout contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The releases of "shop" that the cases roll out, made from the demo's service, and what a host looks like with them."""

from __future__ import annotations

import hashlib
import io
import sys
import tarfile
from pathlib import Path
from typing import Any

HERE = Path(__file__).resolve().parent
sys.path.insert(0, str(HERE.parents[2] / "tests" / "demo"))
import build_releases  # noqa: E402 - found by the line above

INSTALLED, GOOD, SICK, DEAD, LOCAL = "1.0", "2.0", "2.1", "2.2", "2.3"
OLD = "1650000000.123456789"  # mtimes with a fraction, so that one that is cut off is seen


def members(version: str) -> dict[str, bytes]:
    """2.1 answers 500; 2.2 dies at its start; 2.3 is healthy only where the host has a catalogue of its own."""
    files = build_releases.members(version)
    if version == DEAD:
        files["server.py"] = b"import shop_that_is_nowhere\n" + files["server.py"]
    if version == LOCAL:
        here, there = b'RELEASE / "catalogue.json"', b'Path("/etc/shop/catalogue.json")'
        assert here in files["server.py"]
        files["server.py"] = files["server.py"].replace(here, there)
    return files


def release(version: str, directory: Path) -> dict[str, Any]:
    """Builds it and returns the value of `rollout_release`."""
    content = build_releases.tarball(members(version))
    path = directory / f"shop-{version}.tar.gz"
    path.write_bytes(content)
    artifact = {"path": str(path), "size": len(content), "sha256": hashlib.sha256(content).hexdigest()}
    return {"name": "shop", "version": version, "artifacts": [artifact]}


def by_hand(ring: str) -> bytes:
    """A tarball of the host's root: shop 1.0 as somebody installed it years ago, with files of other owners and modes."""
    plain = io.BytesIO()
    with tarfile.open(fileobj=plain, mode="w", format=tarfile.PAX_FORMAT) as archive:

        def add(name: str, mode: int, content: bytes | None = None, link: str = "", owner: int = 0) -> None:
            member = tarfile.TarInfo(name)
            member.type = tarfile.SYMTYPE if link else tarfile.DIRTYPE if content is None else tarfile.REGTYPE
            member.mode, member.linkname, member.uid, member.gid, member.size = mode, link, owner, owner, len(content or b"")
            member.pax_headers = {"mtime": OLD}
            archive.addfile(member, io.BytesIO(content or b""))

        add("opt/shop", 0o755)
        add("opt/shop/releases", 0o755)
        add(f"opt/shop/releases/{INSTALLED}", 0o750)
        for name, content in members(INSTALLED).items():
            add(f"opt/shop/releases/{INSTALLED}/{name}", 0o755 if name.endswith(".py") else 0o644, content)
        add("opt/shop/current", 0o777, link=f"releases/{INSTALLED}")
        add("opt/shop/etc", 0o2775, owner=65534)
        add("opt/shop/etc/shop.ini", 0o640, b"[shop]\n", owner=65534)
        add("opt/shop/data", 0o700)
        add("opt/shop/data/a name\n of two lines, \u00e9", 0o400, b"\0\xff")
        add("opt/shop/logs", 0o777, link="../../var/log")
        add("etc/systemd/system/shop.service", 0o644, (HERE / "files" / "shop.service").read_bytes())
        add("etc/shop", 0o755)
        if ring == "early":
            add("etc/shop/catalogue.json", 0o644, members(INSTALLED)["catalogue.json"])
    return plain.getvalue()
