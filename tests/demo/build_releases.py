#!/usr/bin/env python3
# Copyright: onprem.rollout contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Build the demo's releases of "shop": build_releases.py DIR

Writes DIR/releases/shop-<version>.tar.gz and, for what is rolled out, DIR/release-<version>.yml. The same sources give
the same bytes, so digests can be compared between runs.

1.0 is what the hosts have. 2.0 is good. 2.1 starts, but its catalogue was cut off in the build, so /health answers 500.
"""

from __future__ import annotations

import gzip
import hashlib
import io
import json
import sys
import tarfile
from pathlib import Path

SERVICE = Path(__file__).resolve().parent / "service"
BUILT = 1704067200  # 2024-01-01, so that the bytes do not depend on the day
INSTALLED, GOOD, BAD = VERSIONS = ("1.0", "2.0", "2.1")


def members(version: str) -> dict[str, bytes]:
    """The files of a release by name, sorted."""
    catalogue = (SERVICE / "catalogue.json").read_bytes()
    return {
        "VERSION": f"{version}\n".encode(),
        "catalogue.json": catalogue[: len(catalogue) // 2] if version == BAD else catalogue,
        "server.py": (SERVICE / "server.py").read_bytes(),
    }


def tarball(files: dict[str, bytes]) -> bytes:
    plain = io.BytesIO()
    with tarfile.open(fileobj=plain, mode="w", format=tarfile.USTAR_FORMAT) as archive:
        for name, content in files.items():
            member = tarfile.TarInfo(name)
            member.size, member.mtime = len(content), BUILT
            member.mode = 0o755 if name.endswith(".py") else 0o644
            archive.addfile(member, io.BytesIO(content))
    return gzip.compress(plain.getvalue(), mtime=0)


def release_file(version: str, path: Path, content: bytes) -> str:
    """Extra vars for ansible-playbook. JSON strings are YAML, whatever the path contains."""
    return "\n".join(
        [
            "---",
            "rollout_release:",
            "  name: shop",
            f'  version: "{version}"',
            "  artifacts:",
            f"    - path: {json.dumps(str(path))}",
            f"      size: {len(content)}",
            f"      sha256: {hashlib.sha256(content).hexdigest()}",
            "",
        ]
    )


def build(directory: Path) -> None:
    (directory / "releases").mkdir(parents=True, exist_ok=True)
    for version in VERSIONS:
        path, content = directory / "releases" / f"shop-{version}.tar.gz", tarball(members(version))
        path.write_bytes(content)
        if version != INSTALLED:
            (directory / f"release-{version}.yml").write_text(release_file(version, path, content), encoding="utf-8")


if __name__ == "__main__":
    build(Path(sys.argv[1]).resolve())
