# Copyright: onprem.rollout contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

from __future__ import annotations

import subprocess

import pytest


@pytest.fixture(scope="session")
def keys(tmp_path_factory):
    """The private keys of bob, carol and mallory; the first two are allowed, and bob's old one no more."""
    directory = tmp_path_factory.mktemp("keys")
    for name in ("ada", "bob", "carol", "mallory", "old"):
        subprocess.run(["ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-C", name, "-f", str(directory / name)], check=True)
    public = {name: (directory / f"{name}.pub").read_text() for name in ("ada", "bob", "carol", "old")}
    lines = [
        f"ada@example.org {public['ada']}",
        f"bob@example.org,robert@example.org {public['bob']}",
        f"carol@example.org {public['carol']}",
        f'bob@example.org valid-before="20200101" {public["old"]}',
    ]
    (directory / "allowed").write_text("".join(lines))
    return directory
