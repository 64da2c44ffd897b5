# Copyright: onprem.rollout contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

import os
import shutil
import stat
import tempfile

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from ansible_collections.onprem.rollout.plugins.module_utils import _putback, _snapshot
from ansible_collections.onprem.rollout.plugins.module_utils._errors import RolloutError
from ansible_collections.onprem.rollout.tests.unit.plugins.module_utils.host_helpers import as_nobody, fingerprint, upgrade, write

NAMES = st.sampled_from([b"a", b"b", b"current", b"x y", b"\xff\xfe", "h\u00e9".encode(), b"-rf", b"new\nline", b".hidden"])
MODES = st.sampled_from([0o644, 0o600, 0o755, 0o4755, 0o2750, 0o400, 0o000, 0o1777])
TREES = st.recursive(
    st.one_of(
        st.tuples(st.just("file"), st.binary(max_size=40), MODES),
        st.tuples(st.just("link"), st.sampled_from([b"a", b"..", b"/etc/passwd", b"/nowhere", b"\xff"])),
    ),
    lambda inner: st.tuples(st.just("dir"), st.dictionaries(NAMES, inner, max_size=4), MODES),
    max_leaves=12,
)
TIMES = st.integers(min_value=10**17, max_value=2 * 10**18)
CHANGES = st.lists(st.tuples(st.sampled_from(["plant", "remove", "chmod", "time", "append"]), st.integers(0, 10**6), NAMES, TREES, MODES, TIMES), max_size=8)


def plant(path, tree):
    if tree[0] == "file":
        write(path, tree[1], tree[2])
    elif tree[0] == "link":
        os.symlink(tree[1], path)
    else:
        os.mkdir(path)
        for name, inner in tree[1].items():
            plant(os.path.join(path, name), inner)
        os.chmod(path, tree[2])


def remove(path):
    if os.path.isdir(path) and not os.path.islink(path):
        shutil.rmtree(path)
    elif os.path.lexists(path):
        os.unlink(path)


def change(top, what, index, name, tree, mode, time):
    """Something a payload might do to one of the paths there are."""
    paths = sorted(path for path in fingerprint(top) if path != top)
    path = paths[index % len(paths)] if paths else os.path.join(top, name)
    real_dir = os.path.isdir(path) and not os.path.islink(path)
    if what == "plant":
        path = os.path.join(path, name) if real_dir else path
        remove(path)
        if os.path.isdir(os.path.dirname(path)):
            plant(path, tree)
    elif what == "remove":
        remove(path)
    elif what == "chmod" and os.path.lexists(path) and not os.path.islink(path):
        os.chmod(path, mode)
    elif what == "time" and os.path.lexists(path):
        os.utime(path, ns=(time, time), follow_symlinks=False)
    elif what == "append" and os.path.isfile(path) and not os.path.islink(path):
        os.chmod(path, 0o600)
        with open(path, "ab") as out:
            out.write(b"more")


@pytest.mark.skipif(os.geteuid() != 0, reason="plants modes that shut out everybody but root; runs as root, as in make test and CI")
@settings(max_examples=120, deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(old=st.dictionaries(NAMES, TREES, max_size=4), times=st.lists(TIMES, min_size=1, max_size=5), changes=CHANGES)
def test_any_tree_comes_back_from_any_change(old, times, changes):
    place = tempfile.mkdtemp()
    try:
        state, top = os.path.join(place, "state"), os.fsencode(os.path.join(place, "tree"))
        os.mkdir(top)
        for name, tree in old.items():
            plant(os.path.join(top, name), tree)
        for number, path in enumerate(sorted(fingerprint(top), reverse=True)):
            os.utime(path, ns=(times[number % len(times)],) * 2, follow_symlinks=False)
        before = fingerprint(top)
        manifest = _snapshot.take(state, "s1", [top], "now")
        assert fingerprint(top) == before
        assert _putback.differences(manifest) == []
        for item in changes:
            change(top, *item)
        changed = fingerprint(top)
        listed = _putback.differences(manifest)
        assert fingerprint(top) == changed
        assert bool(listed) == (changed != before)
        assert _putback.put_back(state, _snapshot.load(state, "s1")) == listed
        assert fingerprint(top) == before
    finally:
        shutil.rmtree(place)


def snapshot_of(host):
    return _snapshot.take(host.state_dir, "s1", _snapshot.resolve(host.paths(), host.state_dir), "now")


def inside(host):
    found = fingerprint(host.tree)
    del found[os.fsencode(host.tree)]
    return found


def test_every_kind_of_change_is_listed_and_undone(host):
    before = inside(host)
    manifest = snapshot_of(host)
    upgrade(host.tree)
    kinds = {os.path.relpath(item.path, os.fsencode(host.tree)): item.kind for item in _putback.differences(manifest)}
    assert kinds[b"app/current"] == kinds[b"app/dangling"] == kinds[b"app/empty"] == kinds[b"app/data/config"] == "replaced"
    assert kinds[b"app/releases/1.0/helper"] == "replaced"
    assert kinds[b"app/data/caf\xe9"] == kinds[b"app/locked/key"] == "created"
    assert kinds[b"app/releases/2.0"] == kinds[b"new"] == kinds[b"new/etc"] == kinds[b"new/etc/conf"] == "removed"
    assert kinds[b"app/locked"] == "metadata"
    assert b"app/data/same" not in kinds
    _putback.put_back(host.state_dir, manifest)
    assert inside(host) == before
    assert _putback.put_back(host.state_dir, manifest) == []


def test_what_does_not_differ_is_not_touched(host):
    manifest = snapshot_of(host)
    same = os.path.join(host.tree, "app/data/same")
    before = os.lstat(same)
    upgrade(host.tree)
    _putback.put_back(host.state_dir, manifest)
    after = os.lstat(same)
    assert (before.st_ino, before.st_ctime_ns) == (after.st_ino, after.st_ctime_ns)


def test_a_directory_swapped_for_a_link_leads_nowhere(host, tmp_path):
    victim = tmp_path / "victim"
    victim.mkdir()
    (victim / "config").write_bytes(b"somebody else's")
    (victim / "other").write_bytes(b"somebody else's too")
    before, others = inside(host), fingerprint(str(victim))
    manifest = snapshot_of(host)
    shutil.rmtree(os.path.join(host.tree, "app/data"))
    os.symlink(str(victim), os.path.join(host.tree, "app/data"))
    _putback.put_back(host.state_dir, manifest)
    assert inside(host) == before
    assert fingerprint(str(victim)) == others


def test_a_parent_that_became_a_link_is_an_error_that_names_both(host, tmp_path):
    manifest = snapshot_of(host)
    os.rename(host.tree, str(tmp_path / "elsewhere"))
    os.symlink("elsewhere", host.tree)
    with pytest.raises(RolloutError, match=r"tree was a real path when the snapshot was taken; now it leads to .*elsewhere"):
        _putback.put_back(host.state_dir, manifest)


def test_an_absent_path_below_a_new_link_takes_the_link_and_not_what_it_leads_to(host, tmp_path):
    (tmp_path / "data" / "etc").mkdir(parents=True)
    (tmp_path / "data" / "etc" / "conf").write_bytes(b"not ours")
    before, others = inside(host), fingerprint(str(tmp_path / "data"))
    manifest = snapshot_of(host)
    os.symlink(str(tmp_path / "data"), os.path.join(host.tree, "new"))
    assert [item.path for item in _putback.put_back(host.state_dir, manifest)] == [os.fsencode(host.tree) + b"/new"]
    assert inside(host) == before
    assert fingerprint(str(tmp_path / "data")) == others


def test_what_stands_beside_an_absent_path_stays(host):
    manifest = snapshot_of(host)
    os.makedirs(os.path.join(host.tree, "new/etc"))
    write(os.path.join(host.tree, "new/etc/conf"), b"new")
    write(os.path.join(host.tree, "new/neighbour"), b"not in the paths")
    _putback.put_back(host.state_dir, manifest)
    assert os.listdir(os.path.join(host.tree, "new")) == ["neighbour"]


def test_a_path_whose_parents_were_removed_comes_back(tmp_path):
    place = tmp_path / "a" / "b"
    place.mkdir(parents=True)
    write(str(place / "file"), b"content", 0o640)
    before = fingerprint(str(place / "file"))
    state = str(tmp_path / "state")
    manifest = _snapshot.take(state, "s1", [os.fsencode(str(place / "file"))], "now")
    shutil.rmtree(str(tmp_path / "a"))
    _putback.put_back(state, manifest)
    assert fingerprint(str(place / "file")) == before


@pytest.mark.parametrize("damage", ["content", "lost"])
def test_a_damaged_object_is_named_and_nothing_is_put_back(host, damage):
    manifest = snapshot_of(host)
    sha = next(entry["sha256"] for entry in manifest["entries"] if entry["path"].endswith("data/config"))
    upgrade(host.tree)
    upgraded = fingerprint(host.tree)
    place = os.path.join(host.state_dir, "objects", sha[:2], sha)
    if damage == "lost":
        os.unlink(place)
    else:
        write(place, b"version=6.6\n")
    with pytest.raises(RolloutError, match=rf"app/data/config .object {sha}") as caught:
        _putback.put_back(host.state_dir, manifest)
    assert "app/data/same" not in str(caught.value)
    assert fingerprint(host.tree) == upgraded


def test_an_object_that_turns_bad_while_it_is_copied_never_gets_a_name(host, monkeypatch):
    manifest = snapshot_of(host)
    upgrade(host.tree)
    monkeypatch.setattr(_putback, "damaged", lambda _state_dir, _wanted: [])
    for top, _dirs, files in os.walk(os.path.join(host.state_dir, "objects")):
        for name in files:
            write(os.path.join(top, name), b"rotten")
    with pytest.raises(RolloutError, match=r"is damaged; .* was not put back"):
        _putback.put_back(host.state_dir, manifest)
    names = [name for _top, dirs, files in os.walk(os.fsencode(host.tree)) for name in dirs + files]
    assert not [name for name in names if name.startswith(b".onprem-rollout.")]
    assert b"rotten" not in [open(path, "rb").read() for path in fingerprint(host.tree) if os.path.isfile(path)]


def test_somebody_who_keeps_writing_is_reported(host, monkeypatch):
    manifest = snapshot_of(host)
    config = os.path.join(host.tree, "app/data/config")
    original = _putback.differences

    def busy(manifest):
        write(config, b"again and again", 0o644)
        return original(manifest)

    monkeypatch.setattr(_putback, "differences", busy)
    with pytest.raises(RolloutError, match=r"Put back 3 times.*app/data/config .replaced"):
        _putback.put_back(host.state_dir, manifest)


def test_the_setuid_bit_and_owner_of_a_file_come_back(host):
    helper = os.path.join(host.tree, "app/releases/1.0/helper")
    before = os.lstat(helper)
    manifest = snapshot_of(host)
    os.unlink(helper)
    write(helper, b"setuid\n", 0o600)
    if os.geteuid() == 0:
        os.chown(helper, 12345, 54321)
    _putback.put_back(host.state_dir, manifest)
    after = os.lstat(helper)
    assert stat.S_IMODE(after.st_mode) == 0o4750
    assert (after.st_uid, after.st_gid, after.st_mtime_ns) == (before.st_uid, before.st_gid, before.st_mtime_ns)


def test_without_root_everything_comes_back_also_in_read_only_directories(host):
    os.chmod(host.top, 0o755)
    if os.geteuid() == 0:
        os.chown(host.top, 65534, 65534)

    def round_trip():
        before = inside(host)
        manifest = snapshot_of(host)
        upgrade(host.tree)
        os.mkdir(os.path.join(host.tree, "app/data/shut"))
        write(os.path.join(host.tree, "app/data/shut/file"), b"x")
        os.chmod(os.path.join(host.tree, "app/data/shut"), 0)
        os.chmod(os.path.join(host.tree, "app/data/same"), 0)
        os.chmod(os.path.join(host.tree, "app/releases"), 0o400)
        _putback.put_back(host.state_dir, manifest)
        after = inside(host)
        wrong = [(path, before.get(path), after.get(path)) for path in sorted(set(before) | set(after)) if before.get(path) != after.get(path)]
        if wrong:
            raise ValueError(wrong)

    for path in list(fingerprint(host.tree)):  # reading back needs what 0400 of the owner gives
        if not os.path.islink(path) and os.path.isfile(path):
            os.chmod(path, stat.S_IMODE(os.lstat(path).st_mode) | 0o400)
    parent = os.path.dirname(host.top)
    while parent != "/":  # pytest makes its directories for its own user only
        os.chmod(parent, os.stat(parent).st_mode | 0o011)
        parent = os.path.dirname(parent)
        if parent == tempfile.gettempdir():
            break
    assert as_nobody(host.top, round_trip) == ""


def test_without_root_what_cannot_be_read_is_refused(host):
    os.chmod(host.top, 0o755)
    secret = os.path.join(host.tree, "app/data/secret")
    write(secret, b"x", 0)
    parent = os.path.dirname(host.top)
    while parent not in ("/", tempfile.gettempdir()):
        os.chmod(parent, os.stat(parent).st_mode | 0o011)
        parent = os.path.dirname(parent)
    if os.geteuid() == 0:
        message = as_nobody(host.top, lambda: snapshot_of(host))
        assert "Refused" in message
        assert "app/data/secret cannot be read by uid 65534" in message
