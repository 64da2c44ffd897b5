# Copyright: onprem.rollout contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

from __future__ import annotations

import hashlib
from pathlib import Path

import pytest

from ansible_collections.onprem.rollout.plugins.plugin_utils import _artifact

DIGEST = hashlib.sha256(b"hello").hexdigest()
CASES = [
    (5, DIGEST, None),
    (6, DIGEST, "has 5 bytes, but its release declares 6"),
    (5, "0" * 64, f"has SHA-256 {DIGEST}, but its release declares {'0' * 64}"),
]


@pytest.fixture
def memo(tmp_path: Path) -> Path:
    (tmp_path / "memo").mkdir()
    return tmp_path / "memo"


@pytest.mark.parametrize("size, sha256, message", CASES)
def test_problem(tmp_path: Path, memo: Path, size: int, sha256: str, message: str | None) -> None:
    path = tmp_path / "artifact"
    path.write_bytes(b"hello")
    for _time in ("read", "recalled"):
        problem = _artifact.problem(str(path), size, sha256, str(memo))
        assert (problem is None) if message is None else (problem is not None and message in problem and str(path) in problem)


def test_missing(tmp_path: Path, memo: Path) -> None:
    problem = _artifact.problem(str(tmp_path / "gone"), 1, DIGEST, str(memo))
    assert problem == f"The artifact {tmp_path}/gone cannot be read: No such file or directory. Copy it there, or correct path"


def test_read_once_per_run(tmp_path: Path, memo: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    read: list[object] = []
    real = _artifact._digest
    monkeypatch.setattr(_artifact, "_digest", lambda source: read.append(source) or real(source))
    path = tmp_path / "artifact"
    path.write_bytes(b"hello")
    for _host in range(5):
        assert _artifact.problem(str(path), 5, DIGEST, str(memo)) is None
    assert len(read) == 1
    path.unlink()
    path.write_bytes(b"HELLO")
    assert _artifact.problem(str(path), 5, DIGEST, str(memo)) is not None
    assert len(read) == 2
