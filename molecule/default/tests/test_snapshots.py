# Copyright: onprem.rollout contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Drills and the other providers, with real units, a real btrfs and a hypervisor of shell."""

from __future__ import annotations

import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest
from releases import GOOD, SICK
from shop import Shop, ask, same, take

DISK = "/root/shop.btrfs"
PUTS_BACK = {
    "take": ["sh", "-c", 'rm -rf "/root/kept/$ROLLOUT_SNAPSHOT"; mkdir -p "/root/kept/$ROLLOUT_SNAPSHOT"; cp -a /opt/shop "/root/kept/$ROLLOUT_SNAPSHOT/"'],
    "restore": ["sh", "-c", 'rm -rf /opt/shop && cp -a "/root/kept/$ROLLOUT_SNAPSHOT/shop" /opt/'],
    "drop": ["sh", "-c", 'rm -rf "/root/kept/$ROLLOUT_SNAPSHOT"'],
    "verify": ["sh", "-c", 'test -d "/root/kept/$ROLLOUT_SNAPSHOT/shop"'],
}


def test_a_drill_of_a_service_leaves_no_trace_but_its_result(shop: Shop) -> None:
    host = shop.fleet["web1"]
    result = shop.upgrade(GOOD, verb="drill", args=("--limit", "web1"))
    assert result.rc == 0, str(result)
    assert f"DRILL PASSED: shop {GOOD} on web1" in " ".join(result.stdout.split())
    now = take(host)
    same(host, now.files, shop.before["web1"].files)
    assert now.unit == ["active", "enabled"]
    assert [(drill["ok"], drill["differences"]) for drill in now.record["drills"]] == [(True, [])]
    assert not now.record.get("transaction")


@pytest.fixture
def on_btrfs(shop: Shop, tmp_path: Path) -> Iterator[Shop]:
    """web1 has its service on a btrfs of its own."""
    host, image = shop.fleet["web1"], tmp_path / "disk"
    with image.open("wb") as out:
        out.truncate(256 << 20)
    subprocess.run(["mkfs.btrfs", "-q", str(image)], check=True)
    host.copy(image, DISK)
    host.run(f"mv /opt/shop /opt/moved && mkdir /opt/shop && mount -o loop {DISK} /opt/shop && cp -a /opt/moved/. /opt/shop/ && rm -rf /opt/moved")
    host.run("systemctl restart shop.service")
    shop.await_version(host, "1.0")
    shop.look()
    yield shop
    host.run(f"systemctl stop shop.service; umount -l /opt/shop; rm -rf /opt/shop {DISK}")


def test_a_bad_release_on_btrfs_goes_back_without_a_file_of_it_having_been_copied(on_btrfs: Shop) -> None:
    result = on_btrfs.upgrade(SICK, rollout_provider="btrfs", rollout_paths=["/opt/shop"], args=("--limit", "web1"))
    assert result.rc == 2, str(result)
    now = take(on_btrfs.fleet["web1"])
    kept = {path for path in now.files if path.startswith("opt/shop/.onprem-rollout")}
    same(on_btrfs.fleet["web1"], {path: entry for path, entry in now.files.items() if path not in kept}, on_btrfs.before["web1"].files)
    assert ask(on_btrfs.fleet["web1"], "/version") == (200, "1.0")
    assert f"opt/shop/.onprem-rollout/{now.record['transaction']['snapshot']}/current" in kept
    host, store = on_btrfs.fleet["web1"], "/var/lib/onprem-rollout"
    assert host.run(f"find {store}/objects -type f; cat {store}/packs/*.pack").stdout.encode() == host.read("/etc/systemd/system/shop.service")
    assert on_btrfs.upgrade(GOOD, rollout_provider="btrfs", rollout_paths=["/opt/shop"], args=("--limit", "web1")).rc == 0


def test_a_bad_release_goes_back_by_the_programs_of_the_operator(shop: Shop) -> None:
    options = {"rollout_provider": "command", "rollout_provider_commands": PUTS_BACK, "rollout_paths": ["/opt/shop"]}
    result = shop.upgrade(SICK, args=("--limit", "web1"), **options)
    assert result.rc == 2, str(result)
    shop.verify({"web1": f"restored {SICK}"}, ["web1"])
    shop.fleet["web1"].run("rm -rf /root/kept")
