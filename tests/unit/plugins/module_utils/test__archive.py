# Copyright: onprem.rollout contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Releases on a real disk, interrupted at every step. Runs on Python 3.6 too."""

import fcntl
import hashlib
import io
import json
import os
import tarfile

import pytest

from ansible_collections.onprem.rollout.plugins.module_utils import _archive, _releases, _unpack
from ansible_collections.onprem.rollout.plugins.module_utils._errors import Refused, RolloutError


class Host:
    """A dest, the artifacts built for it, and a command that notes every restart."""

    def __init__(self, path):
        self.path = path
        self.dest = path / "opt" / "shop"
        self.notes = path / "restarts"
        self.command = ["sh", "-c", "readlink current >> {0}".format(self.notes)]

    def options(self, version, content=None, **changes):
        path = self.path / "artifact-{0}-{1}.tar.gz".format(version.replace("/", "_"), content)
        if not path.exists():
            with tarfile.open(str(path), "w:gz") as tar:
                for name, data in (("shop/VERSION", version), ("shop/text", content or "")):
                    info = tarfile.TarInfo(name)
                    info.size = len(data)
                    tar.addfile(info, io.BytesIO(data.encode()))
        data = path.read_bytes()
        options = {
            "src": str(path),
            "url": None,
            "size": len(data),
            "sha256": hashlib.sha256(data).hexdigest(),
            "dest": str(self.dest),
            "version": version,
            "strip": 1,
            "unit": None,
            "command": self.command,
            "timeout": 10,
            "keep": 3,
            "max_bytes": _unpack.MAX_BYTES,
        }
        return dict(options, **changes)

    def run(self, version, content=None, **changes):
        options = self.options(version, content, **changes)
        releases = _releases.Releases(str(self.dest))
        with releases.locked():
            intent = _archive.intend(releases, options)
            _archive.act(releases, options, intent)
        return intent

    @property
    def restarts(self):
        return self.notes.read_text().split() if self.notes.exists() else []

    @property
    def running(self):
        return (self.dest / "current" / "VERSION").read_text()

    @property
    def kept(self):
        return sorted(os.listdir(str(self.dest / "releases")))


@pytest.fixture
def host(tmp_path):
    return Host(tmp_path)


def test_first_and_second_run(host):
    intent = host.run("1.0")
    assert (intent.unpack, intent.switch, intent.restart, intent.before, intent.previous) == (True, True, True, None, None)
    assert os.readlink(str(host.dest / "current")) == "releases/1.0"
    assert host.running == "1.0"
    assert host.kept == [".1.0.json", "1.0"]
    intent = host.run("1.0", src=None)
    assert (intent.unpack, intent.switch, intent.restart, intent.remove) == (False, False, False, [])
    assert host.restarts == ["releases/1.0"]


def test_forward_back_and_forward_again(host):
    for version in ("1.0", "2.0", "1.0", "2.0"):
        host.run(version)
    assert host.restarts == ["releases/1.0", "releases/2.0", "releases/1.0", "releases/2.0"]
    assert host.run("2.0").previous == "1.0"


def test_same_version_of_another_build(host):
    host.run("1.0", "old")
    intent = host.run("1.0", "new")
    assert (intent.unpack, intent.switch, intent.restart) == (True, False, True)
    assert (host.dest / "current" / "text").read_text() == "new"
    assert host.kept == [".1.0.json", "1.0"]


def test_another_strip_is_another_release(host):
    host.run("1.0")
    assert host.run("1.0", strip=0).unpack
    assert os.listdir(str(host.dest / "current")) == ["shop"]


KEEPS = [
    (3, ["1", "2", "3", "4", "5"], ["3", "4", "5"]),
    (1, ["1", "2", "3"], ["2", "3"]),
    (2, ["1", "2", "3", "1"], ["1", "3"]),
    (3, ["1", "2", "3", "1", "4"], ["1", "3", "4"]),
    (9, ["1", "2", "3"], ["1", "2", "3"]),
    (1, ["1"], ["1"]),
    (1, ["1", "2", "2"], ["1", "2"]),
]


@pytest.mark.parametrize("keep, order, expected", KEEPS)
def test_keep(host, keep, order, expected):
    for version in order:
        host.run(version, keep=keep)
    assert _releases.Releases(str(host.dest)).versions() == expected
    assert host.kept == sorted(expected + [".{0}.json".format(version) for version in expected])
    assert not host.run(order[-1], keep=keep).remove


def test_a_lower_keep_removes_later_too(host):
    for version in ("1", "2", "3", "4"):
        host.run(version, keep=9)
    intent = host.run("4", keep=2)
    assert (intent.remove, intent.restart) == (["1", "2"], False)
    assert _releases.Releases(str(host.dest)).versions() == ["3", "4"]


CRASHED = 99
STEPS = [
    (_unpack, "write"),
    (_releases, "write_json"),
    (_releases.os, "rename"),
    (_releases, "fsync_dir"),
    (_releases.os, "symlink"),
    (_archive, "_restart"),
    (_releases, "_remove"),
    (_releases, "remove_quietly"),
]


@pytest.mark.parametrize("after", [False, True], ids=["before", "after"])
@pytest.mark.parametrize("nth", range(3))
@pytest.mark.parametrize("owner, name", STEPS, ids=[step[1] for step in STEPS])
@pytest.mark.parametrize("target", [("2.0", None), ("1.0", "rebuilt")], ids=["upgrade", "rebuild"])
def test_interrupted_anywhere_the_next_run_completes_it(host, monkeypatch, target, owner, name, nth, after):
    """Crash at the nth call of each step; then the host still runs something whole, and a second run makes it right."""
    host.run("0.9")
    host.run("1.0", "first", keep=2)
    real, count = getattr(owner, name), [0]

    def crash(*args, **kwargs):
        count[0] += 1
        if count[0] - 1 != nth:
            return real(*args, **kwargs)
        if after:
            real(*args, **kwargs)
        os._exit(CRASHED)

    child = os.fork()
    if not child:  # a process of its own, so that nothing is tidied up on the way out
        monkeypatch.setattr(owner, name, crash)
        host.run(*target, keep=2)
        os._exit(0)
    assert os.WEXITSTATUS(os.waitpid(child, 0)[1]) in (0, CRASHED)
    if target[0] == "2.0":
        assert host.running in ("1.0", "2.0")
    host.run(*target, keep=2)
    assert host.running == target[0]
    assert (host.dest / "current" / "text").read_text() == (target[1] or "")
    assert host.restarts[-1] == "releases/" + target[0]
    if target[0] == "2.0":
        assert host.restarts.count("releases/2.0") in (1, 2)
        assert host.kept == [".1.0.json", ".2.0.json", "1.0", "2.0"]
    intent = host.run(*target, keep=2)
    assert (intent.unpack, intent.switch, intent.restart, intent.remove) == (False, False, False, [])
    assert host.kept == sorted(host.kept)
    assert not [name for name in host.kept if name.endswith((".partial", ".old", ".download", ".new"))]


def test_a_failed_restart_is_tried_again(host):
    host.run("1.0")
    with pytest.raises(RolloutError) as caught:
        host.run("2.0", command=["sh", "-c", "echo no port; exit 7"])
    assert caught.value.reason == "restart"
    assert "Release 2.0 is current, but its restart failed: sh -c echo no port; exit 7 ended with rc 7: no port." in str(caught.value)
    assert caught.value.details["changed"]
    intent = host.run("2.0")
    assert (intent.unpack, intent.switch, intent.restart) == (False, False, True)


RESTARTS = [
    ({"command": ["/no/such/ctl"]}, "ended with rc 127: no such file or directory"),
    ({"command": ["sleep", "60"], "timeout": 0.2}, "did not end within 0.2 s: no output"),
]


@pytest.mark.parametrize("changes, message", RESTARTS)
def test_restarts_that_fail(host, changes, message):
    with pytest.raises(RolloutError) as caught:
        host.run("1.0", **changes)
    assert message in str(caught.value)


UNITS = [
    ("LoadState=loaded\nNeedDaemonReload=no\nFragmentPath=/etc/systemd/system/shop.service", False),
    ("LoadState=loaded\nNeedDaemonReload=yes\nFragmentPath=/etc/systemd/system/shop.service", True),
    ("LoadState=not-found\nNeedDaemonReload=no", True),
    ("LoadState=loaded\nNeedDaemonReload=no\nFragmentPath=DEST/current/shop.service", True),
    ("LoadState=loaded\nNeedDaemonReload=no\nFragmentPath=/x\nDropInPaths=/y DEST/current/more.conf", True),
]


@pytest.mark.parametrize("shown, reload", UNITS)
def test_unit(host, monkeypatch, shown, reload):
    fake = host.path / "systemctl"
    fake.write_text('#!/bin/sh\necho "$@" >> {0}\n[ "$1" = show ] && cat {1}/shown || :\n'.format(host.notes, host.path))
    fake.chmod(0o755)
    (host.path / "shown").write_text(shown.replace("DEST", str(host.dest)) + "\n")
    monkeypatch.setenv("PATH", "{0}:{1}".format(host.path, os.environ["PATH"]))
    host.run("1.0", unit="shop.service", command=None)
    asked = host.notes.read_text().splitlines()
    assert asked[1:] == ["daemon-reload"] * reload + ["restart -- shop.service"]


def test_nothing_to_restart(host):
    assert not host.run("1.0", command=None).restart
    assert host.running == "1.0"


VERSIONS = ["", ".", "..", "../x", "a/b", "/x", ".hidden", "-x", "a b", "a\n", "x" * 201, "é"]


@pytest.mark.parametrize("version", VERSIONS)
def test_versions_that_cannot_name_a_directory(tmp_path, version):
    with pytest.raises(Refused) as caught:
        _releases.Releases(str(tmp_path)).path(version)
    assert repr(version) in str(caught.value)
    assert os.listdir(str(tmp_path)) == []


REFUSALS = [
    ("the wrong digest", {"sha256": "0" * 64}, "digest"),
    ("the wrong size", {"size": 3}, "size"),
    ("no artifact", {"src": None}, "artifact"),
    ("a missing artifact", {"src": "/no/such/file"}, "artifact"),
    ("too large", {"max_bytes": 2}, "bad_archive"),
]


@pytest.mark.parametrize("changes, reason", [case[1:] for case in REFUSALS], ids=[case[0] for case in REFUSALS])
def test_refused_and_unchanged(host, changes, reason):
    host.run("1.0")
    with pytest.raises(RolloutError) as caught:
        host.run("2.0", **changes)
    assert caught.value.reason == reason
    assert (host.running, host.kept, host.restarts) == ("1.0", [".1.0.json", "1.0"], ["releases/1.0"])


def test_too_little_disk(host, monkeypatch):
    monkeypatch.setattr(_releases, "free_bytes", lambda path: 2)
    with pytest.raises(Refused) as caught:
        host.run("1.0")
    assert caught.value.reason == "no_space"
    assert "needs 3 bytes" in str(caught.value)
    assert host.kept == []


def test_current_that_is_not_ours(host):
    (host.dest / "current").mkdir(parents=True)
    with pytest.raises(Refused) as caught:
        host.run("1.0")
    assert caught.value.reason == "bad_current"


def test_a_link_of_somebody_else_is_replaced(host):
    host.dest.mkdir(parents=True)
    (host.dest / "current").symlink_to("/usr")
    assert host.run("1.0").before is None
    assert host.running == "1.0"


MARKERS = ["", "{", "[]", "null", '{"sha256": 1}']


@pytest.mark.parametrize("text", MARKERS)
def test_a_marker_that_says_nothing(host, text):
    host.run("1.0")
    (host.dest / "releases" / ".1.0.json").write_text(text)
    assert host.run("1.0").unpack


def test_a_marker_without_its_directory(host):
    host.run("1.0")
    (host.dest / "releases" / "1.0").rename(host.path / "elsewhere")
    assert host.run("1.0").unpack


def test_a_second_run_is_kept_out(host):
    host.run("1.0")
    fd = os.open(str(host.dest / "releases"), os.O_RDONLY)
    try:
        fcntl.flock(fd, fcntl.LOCK_EX)
        with pytest.raises(Refused) as caught:
            host.run("2.0")
        assert caught.value.reason == "locked"
    finally:
        os.close(fd)


def test_diff_says_what_changed(host):
    host.run("1.0")
    options = host.options("2.0")
    releases = _releases.Releases(str(host.dest))
    change = _archive.diff(releases, options, _archive.intend(releases, options))
    assert change["before"] == {"current": "1.0", "sha256": host.options("1.0")["sha256"], "releases": ["1.0"]}
    assert change["after"] == {"current": "2.0", "sha256": options["sha256"], "releases": ["1.0", "2.0"]}
    host.run("2.0")
    again = _archive.diff(releases, options, _archive.intend(releases, options))
    assert again["before"] == again["after"] == change["after"]


def test_marker_is_readable_by_people(host):
    host.run("1.0")
    marker = json.loads((host.dest / "releases" / ".1.0.json").read_text())
    assert (marker["schema"], marker["version"], marker["active"], marker["previous"]) == (1, "1.0", True, None)
