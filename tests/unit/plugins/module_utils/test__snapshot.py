# Copyright: onprem.rollout contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

import json
import os
import socket

import pytest

from ansible_collections.onprem.rollout.plugins.module_utils import _putback, _snapshot
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
]


@pytest.mark.parametrize(("path", "says"), BAD_PATHS)
def test_bad_paths_are_refused_with_their_value(tmp_path, path, says):
    path = path.format(top=tmp_path)
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


def test_the_estimate_counts_what_is_there_and_what_must_be_copied(host):
    paths = _snapshot.resolve(host.paths(), host.state_dir)
    size = _snapshot.estimate(paths)
    manifest = _snapshot.take(host.state_dir, "s1", paths, "now")
    assert (size["files"], size["bytes"]) == (manifest["files"], manifest["bytes"]) == (7, 74)
    assert size["needed"] >= 7 * 4096
    again = _snapshot.estimate(paths, _snapshot.known(manifest))
    assert again["needed"] < 4096 * 3


def test_an_object_is_stored_once_and_again_when_it_was_damaged(host):
    paths = _snapshot.resolve(host.paths(), host.state_dir)
    _snapshot.take(host.state_dir, "s1", paths, "now")
    objects = os.path.join(host.state_dir, "objects")
    before = fingerprint(objects)
    _snapshot.take(host.state_dir, "s2", paths, "now")
    assert fingerprint(objects) == before
    victim = sorted(path for path in before if os.path.isfile(path))[0]
    write(victim, b"damaged")
    _snapshot.take(host.state_dir, "s3", paths, "now")
    assert sorted(facts[-1] for path, facts in fingerprint(objects).items() if os.path.isfile(path)) == sorted(
        facts[-1] for path, facts in before.items() if os.path.isfile(path)
    )


def test_names_of_any_bytes_survive_the_manifest(host):
    paths = _snapshot.resolve(host.paths(), host.state_dir)
    _snapshot.take(host.state_dir, "s1", paths, "now")
    with open(os.path.join(host.state_dir, "snapshots/s1/manifest.json"), "rb") as source:
        text = source.read()
    text.decode("ascii")
    entries = [entry["path"].encode("utf-8", "surrogateescape") for entry in json.loads(text.decode("ascii"))["entries"]]
    assert os.fsencode(host.tree) + b"/app/data/caf\xe9" in entries


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
    manifest = _snapshot.take(host.state_dir, "s1", paths, "now")
    assert [entry["type"] for entry in manifest["entries"] if entry["path"] == place] == ["special"]
    assert _putback.differences(manifest) == []
    os.unlink(place)
    assert [item.kind for item in _putback.differences(manifest)] == ["metadata"]  # the time of the directory
    _putback.put_back(host.state_dir, manifest)
    assert not os.path.exists(place)


def test_a_file_that_never_stands_still_is_refused(host, monkeypatch):
    config = os.path.join(host.tree, "app/data/config")
    original = _snapshot.pump

    def busy(source, target):
        with open(config, "ab") as out:
            out.write(b"more\n")
        return original(source, target)

    monkeypatch.setattr(_snapshot, "pump", busy)
    with pytest.raises(Refused, match=r"app/data/config changed while it was copied, 3 times"):
        _snapshot.take(host.state_dir, "s1", [os.fsencode(config)], "now")


def test_pruning_keeps_the_newest_and_the_needed_and_their_objects(host):
    paths = _snapshot.resolve(host.paths(), host.state_dir)
    config = os.path.join(host.tree, "app/data/config")
    manifests = []
    for number in range(6):
        write(config, b"content %d" % number)
        manifests.append(_snapshot.take(host.state_dir, f"s{number}", paths, f"2025-01-0{number + 1}T00:00:00Z"))
    assert _snapshot.prune(host.state_dir, 2, ["s1", None]) == ["s0", "s2", "s3"]
    assert [item["id"] for item in _snapshot.summaries(host.state_dir)] == ["s1", "s4", "s5"]
    for number in (1, 4, 5):
        assert _putback.damaged(host.state_dir, [_putback.Difference("created", b"x", e.get("sha256")) for e in manifests[number]["entries"]]) == []
    held = sum(len(files) for _top, _dirs, files in os.walk(os.path.join(host.state_dir, "objects")))
    assert held == 6 + 3


def test_no_object_goes_while_a_manifest_cannot_be_read(host):
    paths = _snapshot.resolve(host.paths(), host.state_dir)
    _snapshot.take(host.state_dir, "s1", paths, "1")
    _snapshot.take(host.state_dir, "s2", paths, "2")
    write(os.path.join(host.state_dir, "snapshots/s1/manifest.json"), b"{torn")
    before = fingerprint(os.path.join(host.state_dir, "objects"))
    assert _snapshot.prune(host.state_dir, 0, ["s1"]) == ["s2"]
    assert fingerprint(os.path.join(host.state_dir, "objects")) == before


@pytest.mark.parametrize("content", [None, b"{torn", b'{"schema": 2, "entries": []}', b"[]"])
def test_a_manifest_that_cannot_be_used_is_named(host, content):
    place = os.path.join(host.state_dir, "snapshots/s1")
    os.makedirs(place)
    if content is not None:
        write(os.path.join(place, "manifest.json"), content)
    with pytest.raises(RolloutError, match=r"snapshots/s1/manifest.json"):
        _snapshot.load(host.state_dir, "s1")


def test_too_deep_a_tree_is_refused_before_anything_is_written(host):
    place = os.path.join(host.tree, "app/data")
    for _level in range(210):
        place = os.path.join(place, "d")
        os.mkdir(place)
    with pytest.raises(RolloutError, match=r"deeper than 200"):
        _snapshot.estimate(_snapshot.resolve(host.paths(), host.state_dir))
