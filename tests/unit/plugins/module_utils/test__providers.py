# Copyright: onprem.rollout contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""One contract for all providers: files, btrfs (a real file system in an image), and command (shell scripts around rsync)."""

import os
import shutil
import signal
import tempfile
import time

import pytest

from ansible_collections.onprem.rollout.plugins.module_utils import _btrfs, _capture, _hooks, _objects, _providers, _retention, _snapshot
from ansible_collections.onprem.rollout.plugins.module_utils._errors import Refused, RolloutError
from ansible_collections.onprem.rollout.tests.unit.plugins.module_utils.faults import killed_at
from ansible_collections.onprem.rollout.tests.unit.plugins.module_utils.host_helpers import (
    MEMORY,
    NEW,
    PACE,
    UNIQUE,
    Host,
    fingerprint,
    sh,
    upgrade,
    write,
)

HOOKS = {
    "take": 'echo take >>"$store/log"; rm -rf "$copy" "$copy.sums"; rsync -aAXH "$tree/" "$copy/"; '
    'find "$copy" -type f -exec sha256sum {} + >"$copy.new"; mv "$copy.new" "$copy.sums"',
    "restore": 'echo restore >>"$store/log"; test -e "$copy.sums"; rsync -aAXH --checksum --delete "$copy/" "$tree/"',
    "drop": 'echo drop >>"$store/log"; test ! -e "$store/stuck" || { echo "the snapshot is open" >&2; exit 5; }; rm -rf "$copy" "$copy.sums"',
    "verify": 'sha256sum --quiet --check "$copy.sums" 2>/dev/null',
}


class Files:
    def __init__(self, place):
        self.host = Host(place)
        self.options = {"provider": "files", "provider_commands": {}}

    def left(self):
        """Everything that a snapshot needs, after all were dropped."""
        return [name for part in ("objects", "packs") for _top, _dirs, names in os.walk(os.path.join(self.host.state_dir, part)) for name in names]

    def damage(self):
        for top, _dirs, names in os.walk(os.path.join(self.host.state_dir, "packs")):
            for name in names:
                if name.endswith(".pack"):
                    overwrite(os.path.join(top, name))


class Btrfs(Files):
    def __init__(self, image):
        self.image = image
        self.top = tempfile.mkdtemp(dir=image.mount)
        os.rmdir(self.top)
        sh("btrfs", "subvolume", "create", self.top)
        super().__init__(self.top)
        self.options = {"provider": "btrfs", "provider_commands": {}}

    def left(self):
        hidden = [".onprem-rollout"] if os.path.exists(os.path.join(self.top, ".onprem-rollout")) else []
        return hidden + sh("btrfs", "subvolume", "list", "-o", self.top).split() + super().left()

    def damage(self):
        self.image.damage()


class Command(Files):
    def __init__(self, place):
        super().__init__(place)
        self.store = os.path.join(self.host.top, "store")
        os.mkdir(self.store)
        self.options = {"provider": "command", "provider_commands": {name: self.hook(text) for name, text in HOOKS.items()}}

    def hook(self, text):
        return ["sh", "-c", 'set -eu; tree=$1; store=$2; copy="$store/$ROLLOUT_SNAPSHOT"; ' + text, "sh", self.host.tree, self.store]

    def left(self):
        return [name for name in os.listdir(self.store) if name not in ("log", "stuck")] + super().left()

    def log(self):
        with open(os.path.join(self.store, "log"), encoding="ascii") as source:
            return source.read().split()

    def damage(self):
        for top, _dirs, names in os.walk(self.store):
            for name in names:
                if name == "big":
                    overwrite(os.path.join(top, name))


def overwrite(path):
    size = os.stat(path).st_size
    with open(path, "r+b") as out:
        out.write(b"?" * size)


@pytest.fixture
def place():
    made = tempfile.mkdtemp(dir=MEMORY)
    yield made
    shutil.rmtree(made)


def provider_of(kind, request, place):
    if kind == "btrfs":
        return Btrfs(request.getfixturevalue("image"))
    if kind == "command" and shutil.which("rsync") is None:
        pytest.skip("its scripts need rsync; runs in make test and CI")
    return (Command if kind == "command" else Files)(place)


@pytest.fixture(params=["files", "btrfs", "command"])
def provider(request, place):
    return provider_of(request.param, request, place)


@pytest.fixture
def btrfs(request, place):
    return provider_of("btrfs", request, place)


@pytest.fixture
def command(request, place):
    return provider_of("command", request, place)


def inside(host):
    found = fingerprint(host.tree)
    del found[os.fsencode(host.tree)]
    return found


def take(provider, name="s1", created="1"):
    host = provider.host
    how = _providers.Provider(provider.options["provider"], provider.options["provider_commands"])
    return _providers.take(host.state_dir, name, _snapshot.resolve(host.paths(), host.state_dir), created, provider=how)


def test_every_kind_of_change_is_undone_and_undone_again(provider):
    host = provider.host
    before = inside(host)
    for _time in range(2):
        snapshot = take(provider)
        assert inside(host) == before
        upgrade(host.tree)
        changed = inside(host)
        listed = _providers.preview(snapshot)
        assert inside(host) == changed
        for _again in range(2):
            found = _providers.put_back(host.state_dir, _snapshot.load(host.state_dir, "s1"))
            assert inside(host) == before
            assert listed is None or found.listed == listed.listed
            listed = None if provider.options["provider"] == "command" else _providers.preview(snapshot)
            assert listed is None or listed.listed == []
        assert _providers.verify(host.state_dir, "s1") == []
        assert _providers.sound(host.state_dir, "s1")
        assert _providers.drop(host.state_dir, "s1")
        _snapshot.sweep(host.state_dir)
        assert provider.left() == []
        assert _snapshot.names(host.state_dir) == []


def test_a_host_goes_through_its_transactions(provider):
    host = provider.host
    before = inside(host)
    top = os.stat(host.top).st_mtime_ns
    assert host.begin(check_mode=True, **provider.options)[1]["outcome"] == "begun"
    assert os.stat(host.top).st_mtime_ns == top
    assert host.begin(**provider.options)[1]["outcome"] == "begun"
    upgrade(host.tree)
    would = host.restore(check_mode=True)
    assert would[1]["files"]["paths"] or "cannot be said" in would[2]["prepared"]
    result = host.restore()
    assert result[1]["outcome"] == "restored"
    assert "warnings" not in result[1]
    assert inside(host) == before
    for number in range(3):
        host.now += 60
        host.begin(keep=1, release=dict(NEW, version=str(number), digest=str(number) * 64), **provider.options)
        write(os.path.join(host.tree, "app/data/config"), b"version=%d\n" % number)
        host.verifying()
        host.awaiting_commit()
        result = host.commit()[1]
        assert result["last_known_good"] == host.record()["transaction"]["snapshot"]
        assert _snapshot.names(host.state_dir) == [result["last_known_good"]]
    assert _retention.verify(host.state_dir)["snapshots"] == [{"id": result["last_known_good"], "problems": []}]


def test_damage_is_found_and_such_a_snapshot_is_not_last_known_good(provider):
    host = provider.host
    big = os.path.join(host.tree, "app/data/big")
    write(big, UNIQUE * 1000)
    snapshot = take(provider)
    os.unlink(big)
    provider.damage()
    assert any("big" in problem for problem in _providers.verify(host.state_dir, "s1"))
    assert not _providers.sound(host.state_dir, "s1")
    assert _retention.last_known_good(host.state_dir) is None
    if provider.options["provider"] != "command":
        changed = inside(host)
        with pytest.raises(RolloutError, match=r"big .*damaged or lost; it was not put back") as caught:
            _providers.put_back(host.state_dir, snapshot)
        assert caught.value.reason == "damaged"
        assert inside(host) == changed
    assert _providers.drop(host.state_dir, "s1")


def steps(prepare, action, judge, stride=PACE):
    """Kill C(action) at every changing call, or at some, each time on a host that C(prepare) made ready again."""
    for step in range(1, 1000, stride):
        prepare()
        died = killed_at(step, action)
        judge(step)
        if not died:
            return step
    return pytest.fail("the operation never came to its end")


def test_a_begin_killed_anywhere_leaves_the_host_as_it_was_and_nothing_else(provider):
    host = provider.host
    if provider.options["provider"] == "btrfs":
        host.state_dir = tempfile.mkdtemp(dir=MEMORY)
    before, top = inside(host), os.stat(host.top).st_mtime_ns

    def judge(step):
        assert host.restore()[1]["outcome"] in ("restored", "untouched"), step
        assert inside(host) == before, step
        if provider.options["provider"] == "btrfs":
            assert os.stat(host.top).st_mtime_ns == top, step
        for name in _snapshot.names(host.state_dir):
            assert _providers.drop(host.state_dir, name), step
        _snapshot.sweep(host.state_dir)
        assert provider.left() == [], step

    assert steps(lambda: None, lambda: host.begin(**provider.options), judge) > 10
    if provider.options["provider"] == "btrfs":
        shutil.rmtree(host.state_dir)


def test_a_restore_killed_anywhere_goes_on(provider):
    host = provider.host
    before = inside(host)

    def prepare():
        host.begin(**provider.options)
        upgrade(host.tree)

    def judge(step):
        assert host.restore()[1]["outcome"] == "restored", step
        assert inside(host) == before, step

    assert steps(prepare, host.restore, judge, stride=4) > 5


def test_a_drop_killed_anywhere_is_finished_by_the_next(provider):
    host = provider.host

    def judge(step):
        for name in _snapshot.names(host.state_dir):
            assert _providers.drop(host.state_dir, name), step
        _snapshot.sweep(host.state_dir)
        assert provider.left() == [], step

    assert steps(lambda: take(provider), lambda: _providers.drop(host.state_dir, "s1"), judge) > 4


def test_an_unchanged_second_snapshot_reads_no_content(provider, monkeypatch):
    monkeypatch.setattr(_capture, "TICK", -(10**12))
    monkeypatch.setattr(_btrfs, "TICK", -(10**12))
    first = take(provider)
    monkeypatch.setattr(_objects.Objects, "add", None)
    monkeypatch.setattr(_objects.Objects, "add_file", None)
    monkeypatch.setattr(_capture.Capture, "_with_attributes", None)
    second = take(provider, "s2", "2")
    assert second.facts["read"] == 0
    assert second.facts["entries_sha256"] == first.facts["entries_sha256"]


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


BAD_COMMANDS = [
    ({}, "has no take; provider_commands has no restore"),
    ({"take": "lvcreate -s"}, "take is 'lvcreate -s'; write a list"),
    ({"drop": []}, r"drop is \[\]"),
    ({"undo": ["true"]}, "undo is not known"),
    ({"timeout": 0}, "timeout is 0; write seconds"),
    ({"take": ["/no/such/program"]}, "/no/such/program is not there"),
]


@pytest.mark.parametrize(("wrong", "says"), BAD_COMMANDS)
def test_commands_that_cannot_be_right_are_refused(host, wrong, says):
    good = {action: ["true"] for action in _hooks.ACTIONS}
    with pytest.raises(Refused, match=says) as caught:
        host.begin(provider="command", provider_commands=dict(good, **wrong) if wrong else wrong or None)
    assert caught.value.reason == "provider"
    assert not os.path.exists(host.state_dir)


def test_a_take_that_fails_refuses_the_host_with_its_last_words_and_is_dropped(command):
    host = command.host
    command.options["provider_commands"]["take"] = command.hook('mkdir "$copy"; echo "no extents left" >&2; exit 5')
    with pytest.raises(Refused, match=r"take command .* ended with 5: no extents left") as caught:
        host.begin(**command.options)
    assert caught.value.reason == "provider"
    assert command.left() == []
    assert not os.path.exists(os.path.join(host.state_dir, "record.json"))


def test_a_restore_that_fails_leaves_the_host_inconsistent_until_it_works(command):
    host = command.host
    before = inside(host)
    command.options["provider_commands"]["restore"] = command.hook('test -e "$store/mended" || exit 3; ' + HOOKS["restore"])
    host.begin(**command.options)
    upgrade(host.tree)
    with pytest.raises(RolloutError, match=r"restore command .* ended with 3"):
        host.restore()
    assert host.phase() == "inconsistent"
    write(os.path.join(command.store, "mended"), b"")
    assert host.restore(force=True)[1]["outcome"] == "restored"
    assert inside(host) == before


def test_a_drop_that_fails_is_reported_and_tried_again(command):
    host = command.host
    stuck = os.path.join(command.store, "stuck")

    def upgraded(number):
        host.now += 60
        host.begin(keep=1, release=dict(NEW, version=str(number), digest=str(number) * 64), **command.options)
        host.verifying()
        host.awaiting_commit()
        return host.commit()[1]

    first = upgraded(1)
    write(stuck, b"")
    second = upgraded(2)
    assert "could not be dropped" in second["warnings"][0]
    assert "the snapshot is open" in second["warnings"][0]
    assert first["last_known_good"] in second["warnings"][0]
    assert len(_snapshot.finished(host.state_dir)) == 1
    os.unlink(stuck)
    third = upgraded(3)
    assert "warnings" not in third
    assert _snapshot.names(host.state_dir) == [third["last_known_good"]]
    assert sorted(name.split(".")[0] for name in command.left()) == [third["last_known_good"]] * 2


def awaited(condition):
    deadline = time.monotonic() + 20
    while not condition():
        assert time.monotonic() < deadline
        time.sleep(0.02)


def test_a_program_that_outlived_us_is_ended_before_the_next_one_runs(command):
    host = command.host
    pidfile = os.path.join(command.store, "pid")
    command.options["provider_commands"]["take"] = command.hook('echo $$ >"$store/pid.new"; mv "$store/pid.new" "$store/pid"; exec sleep 600')
    child = os.fork()
    if child == 0:
        try:
            host.begin(**command.options)
        finally:
            os._exit(1)
    awaited(lambda: os.path.exists(pidfile))
    os.kill(child, signal.SIGKILL)
    os.waitpid(child, 0)
    with open(pidfile, encoding="ascii") as source:
        hook = int(source.read())
    os.kill(hook, 0)
    os.unlink(pidfile)
    assert host.restore()[1]["outcome"] == "restored"
    awaited(lambda: not os.path.exists("/proc/{0}".format(hook)) or b"sleep" not in open("/proc/{0}/cmdline".format(hook), "rb").read())
    assert command.log() == ["drop"]
    assert _snapshot.names(host.state_dir) == []


def test_a_program_without_end_is_ended(command):
    command.options["provider_commands"].update(take=command.hook("exec sleep 600"), timeout=1)
    with pytest.raises(Refused, match=r"did not end within 1 s"):
        command.host.begin(**command.options)
    assert command.left() == []
