# Copyright: onprem.rollout contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""The demo's programs run as scripts of one directory; here they are imported from it."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

DEMO = Path(__file__).resolve().parents[2] / "demo"
sys.path.insert(0, str(DEMO))

import build_releases  # noqa: E402  # importable from here on only
import fleet  # noqa: E402


@pytest.fixture
def demo_dir(tmp_path: Path) -> Iterator[Path]:
    """A working directory with releases; whatever runs in it at the end is taken down."""
    build_releases.build(tmp_path)
    yield tmp_path
    fleet.down(tmp_path)
