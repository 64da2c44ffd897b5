# Copyright: onprem.rollout contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""What only btrfs has: subvolumes, frozen copies, shared blocks."""

import os
import shutil

import pytest

from ansible_collections.onprem.rollout.plugins.module_utils import _capture, _providers, _snapshot
from ansible_collections.onprem.rollout.plugins.module_utils._errors import Refused, RolloutError
from ansible_collections.onprem.rollout.tests.unit.plugins.module_utils.host_helpers import (
    fingerprint,
    sh,
    upgrade,
    write,
)
from ansible_collections.onprem.rollout.tests.unit.plugins.module_utils.provider_hosts import inside, overwrite, take

BTRFS_MISFITS = [
    ({"paths": ["/proc/self"]}, "is on proc, not on btrfs"),
    ({"cross_mounts": True}, "Take cross_mounts away"),
]


@pytest.mark.parametrize(("options", "says"), BTRFS_MISFITS)
def test_what_btrfs_cannot_do_is_refused_and_nothing_is_made(btrfs, options, says):
    with pytest.raises(Refused, match=says) as caught:
        btrfs.host.begin(**dict(btrfs.options, **options))
    assert caught.value.reason == "provider"
    assert not os.path.exists(btrfs.host.state_dir)
    assert btrfs.left() == []


def test_a_nested_subvolume_is_refused_or_excluded(btrfs):
    host = btrfs.host
    before = inside(host)
    nested = os.path.join(host.tree, "app/data/nested")
    sh("btrfs", "subvolume", "create", nested)
    write(os.path.join(nested, "file"), b"kept")
    for check_mode in (True, False):
        with pytest.raises(Refused, match=r"app/data/nested is a subvolume of its own.*Exclude it"):
            host.begin(check_mode=check_mode, **btrfs.options)
    assert btrfs.left()[-1].endswith(b"nested")
    host.begin(exclude=["nested"], **btrfs.options)
    upgrade(host.tree)
    host.restore()
    after = inside(host)
    assert after.pop(os.fsencode(nested))
    assert after.pop(os.fsencode(nested + "/file"))
    data = os.fsencode(host.tree + "/app/data")
    assert {path: after[path] for path in after if path != data} == {path: before[path] for path in before if path != data}


def test_a_whole_subvolume_can_be_the_path(btrfs, tmp_path):
    state, tree = str(tmp_path / "state"), os.path.join(btrfs.top, "whole")
    sh("btrfs", "subvolume", "create", tree)
    shutil.move(os.path.join(btrfs.host.tree, "app"), os.path.join(tree, "app"))
    before = fingerprint(tree)
    how = _providers.Provider("btrfs", {})
    for name in ("s1", "s2"):
        _providers.take(state, name, [os.fsencode(tree)], name, provider=how)
    write(os.path.join(tree, "new"), b"new")
    shutil.rmtree(os.path.join(tree, "app/releases"))
    found = _providers.put_back(state, _snapshot.load(state, "s1"))
    assert not [path for _kind, path in found.listed if b".onprem-rollout" in path]
    plain = _snapshot.take(state, "plain", [os.fsencode(tree)], "3")
    assert not [path for path, _entry in plain.entries() if b".onprem-rollout" in path]
    for name in ("s1", "s2"):
        assert _providers.drop(state, name)
    assert fingerprint(tree) == before


def test_what_begin_adds_to_the_paths_may_be_elsewhere(btrfs, tmp_path):
    host = btrfs.host
    other = str(tmp_path / "drop-ins")
    os.mkdir(other)
    write(os.path.join(other, "small"), b"old")
    write(os.path.join(other, "large"), bytes(300000) + b"old")
    before, elsewhere = inside(host), fingerprint(other)
    paths = _snapshot.resolve([*host.paths(), other], host.state_dir)
    how = _providers.Provider("btrfs", {})
    _providers.preflight(host.state_dir, paths, _capture.DEFAULT, 0, how)
    assert not os.path.exists(host.state_dir)
    for name in ("s1", "s2"):
        snapshot = _providers.take(host.state_dir, name, paths, name, provider=how)
    upgrade(host.tree)
    write(os.path.join(other, "small"), b"new")
    os.unlink(os.path.join(other, "large"))
    listed = _providers.preview(snapshot).listed
    assert _providers.put_back(host.state_dir, snapshot).listed == listed
    assert (inside(host), fingerprint(other)) == (before, elsewhere)
    assert _providers.verify(host.state_dir, "s2") == []
    for top, _dirs, names in os.walk(os.path.join(host.state_dir, "objects")):
        for name in names:
            overwrite(os.path.join(top, name))
    assert ["large" in problem for problem in _providers.verify(host.state_dir, "s2")] == [True]
    for name in ("s1", "s2"):
        _providers.drop(host.state_dir, name)
    _snapshot.sweep(host.state_dir)
    assert btrfs.left() == []


@pytest.mark.parametrize("how", ["content", "swapped", "gone"])
def test_a_btrfs_snapshot_that_is_not_the_one_taken_is_never_put_back(btrfs, how):
    host = btrfs.host
    snapshot = take(btrfs)
    frozen = os.path.join(btrfs.top, ".onprem-rollout", "s1")
    assert os.stat(os.path.dirname(frozen)).st_mode & 0o777 == 0o700
    if how == "content":
        sh("btrfs", "property", "set", frozen, "ro", "false")
        write(os.path.join(frozen, "tree/unit"), b"[Servile]\n")
        sh("btrfs", "property", "set", frozen, "ro", "true")
    else:
        sh("btrfs", "subvolume", "delete", frozen)
    if how == "swapped":
        sh("btrfs", "subvolume", "snapshot", "-r", btrfs.top, frozen)
    upgrade(host.tree)
    changed = inside(host)
    with pytest.raises(RolloutError, match=r"\.onprem-rollout/s1 .*Nothing was put back") as caught:
        _providers.put_back(host.state_dir, snapshot)
    assert caught.value.reason == "damaged"
    assert inside(host) == changed
    assert not _providers.sound(host.state_dir, "s1")
    assert _providers.verify(host.state_dir, "s1")
    assert _providers.drop(host.state_dir, "s1")


def test_blocks_are_shared_where_a_large_file_comes_back(btrfs):
    big = os.path.join(btrfs.host.tree, "app/data/big")
    write(big, os.urandom(1 << 20))
    snapshot = take(btrfs)
    os.unlink(big)
    _providers.put_back(btrfs.host.state_dir, snapshot)
    shared = sh("btrfs", "filesystem", "du", "--raw", big).split()
    assert shared[-4:-2] == [b"1048576", b"0"]
