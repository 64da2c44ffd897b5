# Copyright: onprem.rollout contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""One contract for all providers: files, btrfs (a real file system in an image), and command (shell scripts around rsync)."""

import os
import shutil
import tempfile

import pytest

from ansible_collections.onprem.rollout.plugins.module_utils import _btrfs, _capture, _objects, _providers, _retention, _snapshot
from ansible_collections.onprem.rollout.plugins.module_utils._errors import RolloutError
from ansible_collections.onprem.rollout.tests.unit.plugins.module_utils.faults import killed_at
from ansible_collections.onprem.rollout.tests.unit.plugins.module_utils.host_helpers import (
    MEMORY,
    NEW,
    PACE,
    UNIQUE,
    upgrade,
    write,
)
from ansible_collections.onprem.rollout.tests.unit.plugins.module_utils.provider_hosts import inside, take


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
