# Copyright: onprem.rollout contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

from __future__ import annotations

import subprocess
import sys

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


@pytest.fixture
def place(tmp_path):
    return tmp_path / "below" / "ledger.jsonl"


@pytest.fixture
def elsewhere(place):
    """Another process that has the rollout shop-2.0, and lets go of it when it is killed."""
    code = """if True:
        import sys
        from ansible_collections.onprem.rollout.plugins.plugin_utils._lease_file import LeaseFile
        print(LeaseFile(sys.argv[1], "shop").take(), flush=True)
        sys.stdin.read()"""
    with subprocess.Popen([sys.executable, "-c", code, str(place)], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout.readline() == "True\n"
        yield process
        process.kill()
