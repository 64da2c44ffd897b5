# Copyright: onprem.rollout contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

import os
import shutil
import socket
import subprocess

import pytest

from ansible_collections.onprem.rollout.plugins.module_utils import _capture, _objects, _providers, _putback, _retention, _snapshot
from ansible_collections.onprem.rollout.plugins.module_utils._compare import differences
from ansible_collections.onprem.rollout.plugins.module_utils._errors import Refused, RolloutError
from ansible_collections.onprem.rollout.tests.unit.plugins.module_utils.host_helpers import fingerprint, write

BAD_PATHS = [
    ("", "is relative"),
    ("etc/shop", "is relative"),
    ("/", "is the whole system"),
    ("//", "is the whole system"),
    ("/./", "is the whole system"),
    ("/srv/../etc", "contains .."),
    ("/srv/..", "contains .."),
    ("/srv/a\0b", "NUL"),
    ("{top}/state", "overlaps the state directory"),
    ("{top}/state/objects", "overlaps the state directory"),
    ("{top}", "overlaps the state directory"),
    ("/dev/null/below", "cannot be reached: Not a directory"),
    ("{top}/loop/below", "cannot be reached: Too many levels of symbolic links"),
    ("/" + "x" * 256, "cannot be reached: File name too long"),
]


@pytest.mark.parametrize(("path", "says"), BAD_PATHS)
def test_bad_paths_are_refused_with_their_value(tmp_path, path, says):
    path = path.format(top=tmp_path)
    (tmp_path / "loop").symlink_to("loop")
    with pytest.raises(Refused, match=says) as caught:
        _snapshot.resolve(["/srv/good", path], str(tmp_path / "state"))
    assert caught.value.reason == "bad_path"
    assert path.replace("\0", "") in str(caught.value).replace("\0", "")
    assert "/srv/good:" not in str(caught.value)


def test_paths_are_where_they_really_are_and_only_once(tmp_path):
    (tmp_path / "real" / "sub").mkdir(parents=True)
    (tmp_path / "alias").symlink_to("real")
    given = [str(tmp_path / name) for name in ("alias/sub", "real/sub/deeper", "real/sub/", "alias", "real/subway")]
    places = _snapshot.resolve(given, str(tmp_path / "state"))
    assert places == [os.fsencode(str(tmp_path / name)) for name in ("alias", "real/sub", "real/subway")]


LONG_AGO = 1600000000


def take(host, name, created="2025-01-01T00:00:00Z", **rules):
    """A snapshot of what has stood still: marks of files that changed just now are not trusted."""
    rules = _snapshot.Rules(tuple(rules.get("exclude", ())), rules.get("cross_mounts", False), rules.get("immutable", "refuse"))
    return _snapshot.take(host.state_dir, name, _snapshot.resolve(host.paths(), host.state_dir), created, rules)


@pytest.fixture
def settled(monkeypatch):
    """As if everything had been written long enough ago."""
    monkeypatch.setattr(_capture, "TICK", -(10**12))


@pytest.fixture
def reads(monkeypatch):
    """The content of every file that was read into the store."""
    seen = []
    add, add_file = _objects.Objects.add, _objects.Objects.add_file
    monkeypatch.setattr(_objects.Objects, "add", lambda self, content: (seen.append(content), add(self, content))[1])
    monkeypatch.setattr(_objects.Objects, "add_file", lambda self, source: (seen.append(os.fstat(source).st_size), add_file(self, source))[1])
    return seen


def contents(host):
    """Which contents the store holds, by its own two forms."""
    with _objects.Objects(host.state_dir) as objects:
        packed = [pack.item(number)[0].hex() for pack in objects.packs for number in range(pack.count)]
    loose = [name for _top, _dirs, names in os.walk(os.path.join(host.state_dir, "objects")) for name in names]
    return sorted(packed + loose)


def test_the_estimate_counts_what_is_there_and_what_must_be_copied(host, settled):
    paths = _snapshot.resolve(host.paths(), host.state_dir)
    size = _snapshot.estimate(host.state_dir, paths)
    facts = take(host, "s1").facts
    assert (size.files, size.bytes) == (facts["files"], facts["bytes"]) == (7, 74)
    assert size.needed - _snapshot.estimate(host.state_dir, paths).needed == 74
    assert not os.path.exists(os.path.join(host.state_dir, "incoming"))


def test_what_has_not_changed_is_not_read_again_and_shares_its_content(host, settled, reads):
    write(os.path.join(host.tree, "app/data/large"), b"x" * (_objects.SMALL + 1))
    take(host, "s1")
    before = contents(host)
    del reads[:]
    second = take(host, "s2")
    assert reads == []
    assert (second.facts["read"], second.facts["stored"]) == (0, 0)
    assert contents(host) == before
    os.unlink(os.path.join(host.tree, "app/data/config"))
    write(os.path.join(host.tree, "app/data/config"), b"version=1.1\n")
    os.utime(os.path.join(host.tree, "app/data/large"))
    third = take(host, "s3")
    assert sorted(map(str, reads)) == ["262145", str(b"version=1.1\n")]
    assert third.facts["stored"] == 12
    assert _snapshot.verify(host.state_dir, "s3") == []


def test_what_changed_just_now_is_read_again_because_it_may_change_without_a_new_ctime(host, reads, monkeypatch):
    monkeypatch.setattr(_capture, "TICK", 60 * 10**9)  # on a busy machine a while ago is just now
    write(os.path.join(host.tree, "app/data/config"), b"just now")
    take(host, "s1")
    del reads[:]
    take(host, "s2")
    assert b"just now" in reads


def test_many_small_files_are_one_pack_and_equal_ones_are_kept_once(host):
    for number in range(500):
        write(os.path.join(host.tree, f"app/data/n{number}"), b"same" if number % 2 else b"%d" % number)
    take(host, "s1")
    assert sorted(name.rpartition(".")[2] for name in os.listdir(os.path.join(host.state_dir, "packs"))) == ["index", "pack"]
    assert len(contents(host)) == 250 + 1 + 7
    assert len(set(contents(host))) == len(contents(host))


def test_packs_are_bounded(host, monkeypatch):
    monkeypatch.setattr(_objects, "PACK_COUNT", 3)
    take(host, "s1")
    assert len(os.listdir(os.path.join(host.state_dir, "packs"))) == 2 * 3
    assert _snapshot.verify(host.state_dir, "s1") == []


def test_a_content_that_was_damaged_is_kept_again_when_it_is_met_again(host):
    take(host, "s1")
    for name in os.listdir(os.path.join(host.state_dir, "packs")):
        place = os.path.join(host.state_dir, "packs", name)
        if name.endswith(".pack"):
            write(place, b"?" * os.path.getsize(place))
    assert len(_snapshot.verify(host.state_dir, "s1")) == 7
    take(host, "s2")
    assert _snapshot.verify(host.state_dir, "s2") == _snapshot.verify(host.state_dir, "s1") == []


def test_a_damaged_snapshot_is_noted_and_not_built_upon(host, settled, reads):
    config = os.path.join(host.tree, "app/data/config")
    sha = dict(take(host, "s1").contents())[os.fsencode(config)]
    for name in os.listdir(os.path.join(host.state_dir, "packs")):
        os.unlink(os.path.join(host.state_dir, "packs", name))
    problems = _snapshot.verify(host.state_dir, "s1")
    assert f"{config} (object {sha}) is damaged or lost" in problems
    assert _snapshot.summaries(host.state_dir)[0]["damaged"] == problems
    assert not _snapshot.sound(host.state_dir, "s1")
    assert _retention.last_known_good(host.state_dir) is None
    del reads[:]
    take(host, "s2")
    assert len(reads) == 7


@pytest.mark.parametrize("damage", ["entries", "no entries"])
def test_entries_that_are_not_what_was_written_are_an_error_that_names_them(host, damage):
    snapshot = take(host, "s1")
    if damage == "entries":
        with open(snapshot.entries_file, "r+b") as out:
            out.write(b"/")
            out.seek(40)
            out.write(b"?")
    else:
        os.unlink(snapshot.entries_file)
    with pytest.raises(RolloutError, match=r"snapshots/s1/entries"):
        _putback.put_back(host.state_dir, snapshot)
    assert "snapshots/s1/entries" in _snapshot.verify(host.state_dir, "s1")[0]


def test_names_of_any_bytes_survive(host):
    odd = [b"caf\xe9", b"new\nline", b"tab\there", b"back\\slash", b"back\\nslash", b"\\\n\\\\t"]
    for name in odd:
        write(os.path.join(os.fsencode(host.tree), b"app/data", name), name)
    snapshot = take(host, "s1")
    found = {path for path, _entry in snapshot.entries()}
    assert {os.path.join(os.fsencode(host.tree), b"app/data", name) for name in odd} <= found
    assert list(differences(snapshot)) == []


def test_sockets_are_neither_kept_nor_removed(host):
    place = os.path.join(host.tree, "app/s")
    listener = socket.socket(socket.AF_UNIX)
    here = os.getcwd()
    os.chdir(os.path.dirname(place))  # the path of a socket has little room
    try:
        listener.bind("s")
    finally:
        os.chdir(here)
        listener.close()
    paths = _snapshot.resolve(host.paths(), host.state_dir)
    snapshot = _snapshot.take(host.state_dir, "s1", paths, "now")
    assert [entry["type"] for path, entry in snapshot.entries() if path == os.fsencode(place)] == ["socket"]
    assert list(differences(snapshot)) == []
    os.unlink(place)
    assert [item.kind for item in differences(snapshot)] == ["metadata"]  # the time of the directory
    _putback.put_back(host.state_dir, snapshot)
    assert not os.path.exists(place)


def test_a_file_that_never_stands_still_is_refused(host, monkeypatch):
    config = os.path.join(host.tree, "app/data/config")
    original = _objects.Objects.add

    def busy(self, content):
        with open(config, "ab") as out:
            out.write(b"more\n")
        return original(self, content)

    monkeypatch.setattr(_objects.Objects, "add", busy)
    with pytest.raises(Refused, match=r"app/data/config changed while it was copied, 3 times"):
        _snapshot.take(host.state_dir, "s1", [os.fsencode(config)], "now")


def test_what_is_excluded_is_neither_kept_nor_removed_nor_put_back(host):
    for name in ("app/data/run.pid", "app/data/cache/old", "app/keep.pid"):
        os.makedirs(os.path.dirname(os.path.join(host.tree, name)), exist_ok=True)
        write(os.path.join(host.tree, name), b"before")
    snapshot = take(host, "s1", exclude=["*.pid", host.tree + "/app/data/cache"])
    assert not [path for path, _entry in snapshot.entries() if b".pid" in path or b"cache" in path]
    write(os.path.join(host.tree, "app/data/run.pid"), b"after")
    os.makedirs(os.path.join(host.tree, "app/new/deep"))
    write(os.path.join(host.tree, "app/new/deep/other.pid"), b"new")
    write(os.path.join(host.tree, "app/new/gone"), b"new")
    write(os.path.join(host.tree, "app/data/cache/new"), b"new")
    _putback.put_back(host.state_dir, snapshot)
    assert open(os.path.join(host.tree, "app/data/run.pid"), "rb").read() == b"after"
    assert sorted(os.listdir(os.path.join(host.tree, "app/data/cache"))) == ["new", "old"]
    assert os.listdir(os.path.join(host.tree, "app/new")) == ["deep"]
    assert list(differences(snapshot)) == []


@pytest.mark.skipif(os.geteuid() != 0, reason="mounts; runs as root, as in make test and CI")
@pytest.mark.parametrize("cross", [False, True])
def test_a_mount_is_left_alone_unless_asked(host, cross):
    place = os.path.join(host.tree, "app/data/mounted")
    os.mkdir(place)
    subprocess.run(["mount", "-t", "tmpfs", "none", place], check=True)
    try:
        write(os.path.join(place, "inside"), b"before")
        snapshot = take(host, "s1", cross_mounts=cross)
        write(os.path.join(place, "inside"), b"after it")
        _putback.put_back(host.state_dir, snapshot)
        assert open(os.path.join(place, "inside"), "rb").read() == (b"before" if cross else b"after it")
    finally:
        subprocess.run(["umount", place], check=True)
    if not cross:
        before = fingerprint(host.tree)
        with pytest.raises(RolloutError, match=r"mounted at .*app/data/mounted when the snapshot was taken, and is not now"):
            _putback.put_back(host.state_dir, snapshot)
        assert fingerprint(host.tree) == before


@pytest.mark.skipif(os.geteuid() != 0, reason="mounts; runs as root, as in make test and CI")
def test_what_was_mounted_over_since_is_an_error(host):
    snapshot = take(host, "s1")
    place = os.path.join(host.tree, "app/data")
    subprocess.run(["mount", "-t", "tmpfs", "none", place], check=True)
    try:
        with pytest.raises(RolloutError, match=r"app/data is a mount point now and was none"):
            _putback.put_back(host.state_dir, snapshot)
    finally:
        subprocess.run(["umount", place], check=True)


@pytest.mark.skipif(os.geteuid() != 0, reason="sets the immutable flag; runs as root, as in make test and CI")
@pytest.mark.parametrize("flag", ["i", "a"])
def test_flags_are_refused_or_lifted_and_set_again(host, flag):
    config = os.path.join(host.tree, "app/data/config")
    before = fingerprint(host.tree)
    subprocess.run(["chattr", "+" + flag, config], check=True)
    try:
        with pytest.raises(Refused, match=r"app/data/config") as caught:
            take(host, "s0")
        assert caught.value.reason == "immutable"
        snapshot = take(host, "s1", immutable="lift")
        subprocess.run(["chattr", "-" + flag, config], check=True)
        write(config, b"changed")
        write(os.path.join(host.tree, "app/data/new"), b"new")
        subprocess.run(["chattr", "+i", os.path.join(host.tree, "app/data/new"), config, os.path.join(host.tree, "app/data")], check=True)
        _putback.put_back(host.state_dir, snapshot)
        assert fingerprint(host.tree) == before
        seen = subprocess.run(["lsattr", config], check=True, stdout=subprocess.PIPE).stdout.decode().split()[0]
        assert [letter for letter in "ia" if letter in seen] == [flag]
    finally:
        subprocess.run(["chattr", "-R", "-ia", host.tree], check=False)


@pytest.mark.skipif(os.geteuid() != 0, reason="makes a user; runs as root, as in make test and CI")
def test_an_owner_that_has_gone_is_an_error_before_anything_is_put_back(host):
    config = os.path.join(host.tree, "app/data/config")
    subprocess.run(["useradd", "--no-create-home", "--system", "rolloutgone"], check=True)
    try:
        shutil.chown(config, "rolloutgone")
        uid = os.stat(config).st_uid
        snapshot = take(host, "s1")
    finally:
        subprocess.run(["userdel", "rolloutgone"], check=True)
    write(config, b"changed")
    write(os.path.join(host.tree, "app/data/same"), b"changed too")
    before = fingerprint(host.tree)
    with pytest.raises(RolloutError, match=rf"user rolloutgone .id {uid}. no longer exists") as caught:
        _putback.put_back(host.state_dir, snapshot)
    assert caught.value.reason == "owner"
    assert fingerprint(host.tree) == before


def test_holes_stay_holes(host):
    for name, size in (("small", 100000), ("large", 50 * 1024 * 1024)):
        with open(os.path.join(host.tree, "app/data", name), "wb") as out:
            out.write(b"begin")
            out.truncate(size)
    before = fingerprint(host.tree + "/app")
    snapshot = take(host, "s1")
    assert sum(os.stat(path).st_blocks * 512 for path in fingerprint(host.state_dir)) < 1024 * 1024
    for name in ("small", "large"):
        write(os.path.join(host.tree, "app/data", name), b"changed")
    _putback.put_back(host.state_dir, snapshot)
    assert {path: facts for path, facts in fingerprint(host.tree).items() if b"app" in path} == {
        path: facts for path, facts in before.items() if b"app" in path
    }
    for name in ("small", "large"):
        assert os.stat(os.path.join(host.tree, "app/data", name)).st_blocks * 512 < 20000


KEEPS = [
    ({"count": 2}, ["s1", "s4", "s5"]),
    ({"count": 9, "days": 3}, ["s1", "s3", "s4", "s5"]),
    ({"count": 9, "bytes": 1}, ["s1"]),
    ({"count": 9, "bytes": 10**9}, ["s0", "s1", "s2", "s3", "s4", "s5"]),
    ({"count": 0}, ["s1"]),
]


@pytest.mark.parametrize(("keep", "left"), KEEPS)
def test_pruning_keeps_by_count_age_and_bytes_and_the_needed_with_their_contents(host, keep, left):
    config = os.path.join(host.tree, "app/data/config")
    for number in range(6):
        write(config, b"content %d" % number * 1000)
        write(os.path.join(host.tree, "app/data/large"), b"%d" % number * (_objects.SMALL + 1))
        take(host, f"s{number}", f"2025-01-0{number + 1}T00:00:00Z")
    dropped = _retention.prune(host.state_dir, keep, ["s1", None], _retention.unix("2025-01-06T12:00:00Z"))
    assert _snapshot.names(host.state_dir) == left
    assert sorted(dropped + left) == ["s0", "s1", "s2", "s3", "s4", "s5"]
    for name in left:
        assert _snapshot.verify(host.state_dir, name) == []
    wanted = {sha for name in left for _path, sha in _snapshot.load(host.state_dir, name).contents()}
    with _objects.Objects(host.state_dir) as objects:
        assert objects.bytes() < 2 * sum(len(name) and 300000 for name in left) + 100000
    assert wanted <= set(contents(host))


def test_a_sweep_writes_a_thin_pack_again_and_keeps_a_damaged_one(host):
    for number in range(40):
        write(os.path.join(host.tree, f"app/data/n{number}"), b"%d" % number * 1000)
    take(host, "s1")
    for number in range(1, 40):
        os.unlink(os.path.join(host.tree, f"app/data/n{number}"))
    take(host, "s2")
    _providers.discard(host.state_dir, "s1")
    assert len(contents(host)) == 8
    assert _snapshot.verify(host.state_dir, "s2") == []


def test_no_content_goes_while_a_snapshot_cannot_be_read(host):
    take(host, "s1", "2025-01-01T00:00:00Z")
    take(host, "s2", "2025-01-02T00:00:00Z")
    write(os.path.join(host.state_dir, "snapshots/s1/snapshot.json"), b"{torn")
    before = contents(host)
    assert _retention.prune(host.state_dir, {"count": 0}, ["s1"], 0) == ["s2"]
    assert contents(host) == before


@pytest.mark.parametrize(
    ("content", "says"),
    [
        (None, "there is no snapshot s1"),
        (b"{torn", "cannot be read"),
        (b'{"schema": 3}', "knows schemas up to 2"),
        (b"[]", "is not the description"),
        (b'{"schema": 2, "id": "s1", "paths": []}', "has no created, exclude"),
    ],
)
def test_a_snapshot_that_cannot_be_used_is_named(host, content, says):
    place = os.path.join(host.state_dir, "snapshots/s1")
    os.makedirs(place)
    if content is not None:
        write(os.path.join(place, "snapshot.json"), content)
    with pytest.raises(RolloutError, match=r"snapshots/s1/snapshot.json .*" + says):
        _snapshot.load(host.state_dir, "s1")
