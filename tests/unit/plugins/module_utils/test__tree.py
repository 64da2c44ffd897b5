# Copyright: onprem.rollout contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

import hashlib
import os

import pytest

from ansible_collections.onprem.rollout.plugins.module_utils import _tree
from ansible_collections.onprem.rollout.plugins.module_utils._errors import RolloutError
from ansible_collections.onprem.rollout.tests.unit.plugins.module_utils.host_helpers import fingerprint


@pytest.fixture
def top(tmp_path):
    """An open directory."""
    fd = os.open(str(tmp_path), os.O_RDONLY | os.O_DIRECTORY)
    yield fd
    os.close(fd)


def make(path, kind):
    if kind == "file":
        path.write_bytes(b"content")
    elif kind == "dir":
        path.mkdir()
    elif kind == "link":
        path.symlink_to("somewhere/\u00e9lse")
    elif kind == "special":
        os.mkfifo(str(path))


@pytest.mark.parametrize("kind", ["file", "dir", "link", "special", None])
def test_a_thing_is_described_as_what_it_is(tmp_path, top, kind):
    make(tmp_path / "thing", kind)
    found = _tree.describe(b"thing", top)
    assert (found and found["type"]) == kind
    if found:
        status = os.lstat(str(tmp_path / "thing"))
        assert found["mode"] == status.st_mode & 0o7777


@pytest.mark.parametrize("content", [b"", b"x", bytes(4096), bytes(10000), b"a" + bytes(9000) + b"b", bytes(3 * 1024 * 1024) + b"end"], ids=len)
@pytest.mark.parametrize("sparse", [False, True])
def test_what_is_pumped_arrives_with_or_without_holes(tmp_path, content, sparse):
    (tmp_path / "source").write_bytes(content)
    with open(str(tmp_path / "source"), "rb", 0) as source, open(str(tmp_path / "target"), "wb", 0) as target:
        assert _tree.pump(source.fileno(), target.fileno(), sparse) == hashlib.sha256(content).hexdigest()
    assert (tmp_path / "target").read_bytes() == content
    if sparse and len(content) > 8192:
        assert os.stat(str(tmp_path / "target")).st_blocks * 512 < len(content)


@pytest.mark.parametrize("kind", ["file", "dir", "link", "special", None])
def test_a_thing_is_removed_whatever_it_is(tmp_path, top, kind):
    make(tmp_path / "thing", kind)
    _tree.remove(b"thing", top)
    assert os.listdir(str(tmp_path)) == []


def test_what_a_link_leads_to_stays(tmp_path, top):
    (tmp_path / "precious").mkdir()
    (tmp_path / "precious" / "file").write_text("x")
    before = fingerprint(str(tmp_path / "precious"))
    (tmp_path / "doomed" / "inner").mkdir(parents=True)
    (tmp_path / "doomed" / "inner" / "link").symlink_to(tmp_path / "precious")
    _tree.remove(b"doomed", top)
    assert os.listdir(str(tmp_path)) == ["precious"]
    assert fingerprint(str(tmp_path / "precious")) == before


def test_a_link_is_not_entered(tmp_path, top):
    (tmp_path / "real").mkdir()
    (tmp_path / "alias").symlink_to("real")
    with pytest.raises(OSError, match=r"alias"):
        _tree.enter(b"alias", top)


def test_the_directory_of_a_path_must_be_real(tmp_path):
    (tmp_path / "real").mkdir()
    (tmp_path / "alias").symlink_to("real")
    os.close(_tree.parent_of(os.fsencode(str(tmp_path / "real" / "file"))))
    with pytest.raises(RolloutError, match=r"alias was a real path when the snapshot was taken; now it leads to .*/real"):
        _tree.parent_of(os.fsencode(str(tmp_path / "alias" / "file")))


def test_nesting_has_a_limit_with_a_message(tmp_path, top):
    place = tmp_path / "d"
    place.mkdir()
    for _level in range(_tree.MAX_DEPTH + 2):
        place = place / "d"
        place.mkdir()
    with pytest.raises(RolloutError, match=r"deeper than 200"):
        _tree.remove(b"d", top)
