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

from ansible_collections.onprem.rollout.plugins.module_utils import _objects, _putback, _snapshot
from ansible_collections.onprem.rollout.plugins.module_utils._compare import differences
from ansible_collections.onprem.rollout.plugins.module_utils._errors import RolloutError
from ansible_collections.onprem.rollout.tests.unit.plugins.module_utils.host_helpers import PACE, as_nobody, fingerprint, upgrade, write

NAMES = st.sampled_from([b"a", b"b", b"current", b"x y", b"\xff\xfe", "h\u00e9".encode(), b"-rf", b"new\nline", b".hidden"])
MODES = st.sampled_from([0o644, 0o600, 0o755, 0o4755, 0o2750, 0o400, 0o000, 0o1777])
LARGE = {"large": b"x" * 300000, "large with a hole": bytes(500000) + b"end", "zeros": bytes(9000)}
TREES = st.recursive(
    st.one_of(
        st.tuples(st.just("file"), st.binary(max_size=40), MODES),
        st.tuples(st.just("file"), st.sampled_from(sorted(LARGE)), MODES),
        st.tuples(st.just("link"), st.sampled_from([b"a", b"..", b"/etc/passwd", b"/nowhere", b"\xff"])),
        st.tuples(st.just("fifo"), st.just(b""), MODES),
        st.tuples(st.just("device"), st.sampled_from([(1, 3), (1, 5)]), MODES),
    ),
    lambda inner: st.tuples(st.just("dir"), st.dictionaries(NAMES, inner, max_size=4), MODES),
    max_leaves=12,
)
TIMES = st.integers(min_value=10**17, max_value=2 * 10**18)
WHAT = st.sampled_from(["plant", "remove", "chmod", "time", "append", "hardlink", "xattr", "swap"])
CHANGES = st.lists(
    st.tuples(WHAT, st.integers(0, 10**6), NAMES, TREES, MODES, TIMES),
    max_size=8,
)


def plant(path, tree):
    if tree[0] == "file":
        write(path, LARGE.get(tree[1], tree[1]), tree[2])
    elif tree[0] == "link":
        os.symlink(tree[1], path)
    elif tree[0] == "fifo":
        os.mkfifo(path)
        os.chmod(path, tree[2])
    elif tree[0] == "device":
        os.mknod(path, 0o600 | stat.S_IFCHR, os.makedev(*tree[1]))
        os.chmod(path, tree[2])
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
    elif what == "hardlink" and paths:
        source = paths[time % len(paths)]
        place = os.path.join(path, name) if real_dir else path
        if not os.path.isdir(source) and not os.path.islink(source) and os.path.isdir(os.path.dirname(place)) and place != source:
            remove(place)
            if os.path.lexists(source) and os.path.isdir(os.path.dirname(place)):
                os.link(source, place, follow_symlinks=False)
    elif what == "xattr" and os.path.lexists(path) and not os.path.islink(path) and (real_dir or os.path.isfile(path)):
        os.setxattr(path, "user.note", str(time).encode())
    elif what == "swap" and len(paths) > 1:
        other = paths[time % len(paths)]
        if os.path.dirname(other) == os.path.dirname(path) and other != path:
            os.rename(path, path + b".swap")
            os.rename(other, path)
            os.rename(path + b".swap", other)


@pytest.mark.skipif(os.geteuid() != 0, reason="plants modes that shut out everybody but root; runs as root, as in make test and CI")
@settings(max_examples=120 // PACE, suppress_health_check=[HealthCheck.too_slow])
@given(old=st.dictionaries(NAMES, TREES, max_size=4), prior=CHANGES, times=st.lists(TIMES, min_size=1, max_size=5), changes=CHANGES)
def test_any_tree_comes_back_from_any_change(old, prior, times, changes):
    place = tempfile.mkdtemp()
    try:
        state, top = os.path.join(place, "state"), os.fsencode(os.path.join(place, "tree"))
        os.mkdir(top)
        for name, tree in old.items():
            plant(os.path.join(top, name), tree)
        for item in prior:
            change(top, *item)
        for number, path in enumerate(sorted(fingerprint(top), reverse=True)):
            os.utime(path, ns=(times[number % len(times)],) * 2, follow_symlinks=False)
        _snapshot.take(state, "s0", [top], "1")
        before = fingerprint(top)
        snapshot = _snapshot.take(state, "s1", [top], "2")
        assert fingerprint(top) == before
        assert list(differences(snapshot)) == []
        for item in changes:
            change(top, *item)
        changed = fingerprint(top)
        listed = _putback.preview(snapshot)
        assert fingerprint(top) == changed
        assert bool(listed.listed) == (changed != before)
        assert _putback.put_back(state, _snapshot.load(state, "s1")).listed == listed.listed
        assert fingerprint(top) == before
        assert _snapshot.verify(state, "s1") == []
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
    kinds = {os.path.relpath(item.path, os.fsencode(host.tree)): item.kind for item in differences(manifest)}
    assert kinds[b"app/current"] == kinds[b"app/dangling"] == kinds[b"app/empty"] == kinds[b"app/data/config"] == "replaced"
    assert kinds[b"app/releases/1.0/helper"] == "replaced"
    assert kinds[b"app/data/caf\xe9"] == kinds[b"app/locked/key"] == "created"
    assert kinds[b"app/releases/2.0"] == kinds[b"new"] == kinds[b"new/etc"] == kinds[b"new/etc/conf"] == "removed"
    assert kinds[b"app/locked"] == "metadata"
    assert b"app/data/same" not in kinds
    _putback.put_back(host.state_dir, manifest)
    assert inside(host) == before
    assert _putback.put_back(host.state_dir, manifest).listed == []


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
    assert [path for _kind, path in _putback.put_back(host.state_dir, manifest).listed] == [os.fsencode(host.tree) + b"/new"]
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


def objects_of(host):
    """Every file that holds contents."""
    return [os.path.join(top, name) for part in ("objects", "packs") for top, _dirs, names in os.walk(os.path.join(host.state_dir, part)) for name in names]


def overwrite(path):
    """Other bytes in the same place: the file system says nothing."""
    size = os.stat(path).st_size
    with open(path, "r+b") as out:
        out.write(b"?" * size)


@pytest.mark.parametrize("damage", ["content", "lost", "large content", "large lost"])
def test_a_damaged_object_is_named_and_nothing_is_put_back(host, damage):
    config = os.path.join(host.tree, "app/data/config")
    write(config, b"x" * (_objects.SMALL + 1) if "large" in damage else b"version=1.0\n")
    snapshot = snapshot_of(host)
    sha = next(sha for path, sha in snapshot.contents() if path.endswith(b"data/config"))
    upgrade(host.tree)
    upgraded = fingerprint(host.tree)
    for path in objects_of(host):
        if ("/objects/" in path) == ("large" in damage) and not path.endswith(".index"):
            os.unlink(path) if "lost" in damage else overwrite(path)
    with pytest.raises(RolloutError, match=r"object [0-9a-f]{64}. is damaged or lost") as caught:
        _putback.put_back(host.state_dir, snapshot)
    assert caught.value.reason == "damaged"
    if "large" in damage:
        assert "app/data/config" in str(caught.value)
        assert sha in str(caught.value)
    assert fingerprint(host.tree) == upgraded
    assert any(sha in problem for problem in _snapshot.verify(host.state_dir, "s1"))


def test_an_object_that_turns_bad_while_it_is_copied_never_gets_a_name(host, monkeypatch):
    snapshot = snapshot_of(host)
    upgrade(host.tree)
    monkeypatch.setattr(_objects.Objects, "intact", lambda _self, _sha: True)
    for path in objects_of(host):
        if not path.endswith(".index"):
            overwrite(path)
    with pytest.raises(RolloutError, match=r"is damaged or lost; it was not put back"):
        _putback.put_back(host.state_dir, snapshot)
    names = [name for _top, dirs, files in os.walk(os.fsencode(host.tree)) for name in dirs + files]
    assert not [name for name in names if name.startswith(b".onprem-rollout.")]
    assert not [path for path in fingerprint(host.tree) if os.path.isfile(path) and b"???" in open(path, "rb").read()]


def test_somebody_who_keeps_writing_is_reported(host, monkeypatch):
    manifest = snapshot_of(host)
    config = os.path.join(host.tree, "app/data/config")

    def busy(snapshot, made=None, **_same):
        write(config, b"again and again", 0o644)
        return differences(snapshot, made)

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
