# Copyright: onprem.rollout contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path

import fleet
import pytest
import sight


@pytest.fixture
def top(tmp_path: Path) -> Path:
    (tmp_path / "top" / "releases" / "1.0").mkdir(parents=True)
    (tmp_path / "top" / "releases" / "1.0" / "VERSION").write_text("1.0\n", encoding="utf-8")
    (tmp_path / "top" / "current").symlink_to("releases/1.0")
    return tmp_path / "top"


def same_size_same_mtime(top: Path) -> None:
    path = top / "releases" / "1.0" / "VERSION"
    info = path.stat()
    path.write_text("1.1\n", encoding="utf-8")
    os.utime(path, ns=(info.st_atime_ns, info.st_mtime_ns))


def relink(top: Path) -> None:
    (top / "current").unlink()
    (top / "current").symlink_to("releases/2.0")


CHANGES: dict[str, tuple[Callable[[Path], object], str]] = {
    "content": (same_size_same_mtime, "releases/1.0/VERSION"),
    "mode": (lambda top: (top / "releases" / "1.0" / "VERSION").chmod(0o600), "releases/1.0/VERSION"),
    "mode of top": (lambda top: top.chmod(0o700), "."),
    "mtime": (lambda top: os.utime(top / "releases", (1, 1)), "releases"),
    "link": (relink, "current"),
    "new directory": (lambda top: (top / "releases" / "2.0").mkdir(), "releases/2.0"),
    "gone": (lambda top: (top / "current").unlink(), "current"),
}


@pytest.mark.parametrize(("change", "path"), CHANGES.values(), ids=CHANGES)
def test_a_tree_shows_every_change(top: Path, change: Callable[[Path], object], path: str) -> None:
    before = sight.tree(top)
    assert sight.tree(top) == before
    change(top)
    after = sight.tree(top)
    assert after.get(path) != before.get(path)
    assert sight.digest(after) != sight.digest(before)


def test_a_host_is_seen_from_outside(demo_dir: Path) -> None:
    fleet.up(demo_dir)
    seen = sight.look(demo_dir, "early-2")
    assert (seen.version, seen.health[0], seen.starts, seen.sick_answers, seen.record) == ("1.0", 200, 1, 0, {})
    assert {"current", "releases/1.0/server.py"} <= seen.tree.keys()
