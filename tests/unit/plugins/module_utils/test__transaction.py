# Copyright: onprem.rollout contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

import errno
import os
import stat

import pytest

from ansible_collections.onprem.rollout.plugins.module_utils import _objects, _snapshot, _timer
from ansible_collections.onprem.rollout.plugins.module_utils._errors import Refused, RolloutError
from ansible_collections.onprem.rollout.tests.unit.plugins.module_utils.faults import hooked
from ansible_collections.onprem.rollout.tests.unit.plugins.module_utils.host_helpers import NEW, OLD, OTHER, RUN, fingerprint, park, upgrade, write


def state(host):
    """The state directory but the lock, which every run writes its pid to."""
    found = fingerprint(host.state_dir)
    del found[os.fsencode(host.state_dir) + b"/lock"]
    return found


def test_begin_writes_the_record_and_the_snapshot_and_touches_nothing_else(host):
    before = fingerprint(host.tree)
    changed, result, diff = host.begin()
    assert changed
    assert result["outcome"] == "begun"
    assert result["snapshot"]["files"] == 7
    assert diff["after"] == {"installed": None, "phase": "changing", "release": "shop 2.0"}
    assert fingerprint(host.tree) == before
    transaction = host.record()["transaction"]
    assert (transaction["id"], transaction["phase"], transaction["lease_until"]) == (result["transaction"], "changing", 1700000600)
    assert transaction["options"] == {
        "paths": host.paths(),
        "packages": [],
        "services": [],
        "restart": ["restart-it"],
        "checks": [{"type": "file", "path": "/"}],
        "keep": 3,
        "keep_days": 0,
        "keep_bytes": 0,
    }
    for path, facts in state(host).items():
        assert facts[1] == (0o700 if os.path.isdir(path) or path.endswith(b"/onprem-rollout") else 0o600), path


def test_begin_in_check_mode_says_the_same_and_writes_nothing(host):
    predicted = host.begin(check_mode=True)
    assert not os.path.exists(host.state_dir)
    done = host.begin()
    for key in ("outcome", "checks", "phase", "settled"):
        assert predicted[1][key] == done[1][key]
    assert predicted[1]["snapshot"]["bytes"] == done[1]["snapshot"]["bytes"]
    assert (predicted[0], predicted[2]) == (done[0], done[2])


REFUSALS = [
    ({"paths": ["relative"]}, "bad_path", "relative: is relative"),
    ({"checks": [{"type": "telepathy"}]}, "bad_check", "telepathy"),
    ({"services": ["shop.service"]}, "no_systemd", "shop.service"),
    ({"state_dir": "/proc/version"}, "state_dir", "/proc/version"),
    ({"min_free": 10**18}, "no_space", "1000000000000000000 are to stay free"),
]


@pytest.mark.parametrize(("options", "reason", "says"), REFUSALS)
@pytest.mark.parametrize("check_mode", [False, True])
def test_begin_refuses_bad_input_before_it_changes_anything(host, monkeypatch, options, reason, says, check_mode):
    monkeypatch.setattr(os.path, "isdir", lambda path, real=os.path.isdir: path != "/run/systemd/system" and real(path))
    before = fingerprint(host.tree)
    with pytest.raises(Refused, match=says) as caught:
        host.begin(check_mode, **options)
    assert caught.value.reason == reason
    assert fingerprint(host.tree) == before
    assert not os.path.exists(os.path.join(host.state_dir, "record.json")) or host.record()["transaction"] is None


def test_begin_refuses_a_full_disk_with_both_numbers(host, monkeypatch):
    class Full:
        f_bavail, f_frsize = 1, 4096

    monkeypatch.setattr(os, "statvfs", lambda _path: Full)
    with pytest.raises(Refused, match=r"needs \d{4} bytes and 0 are to stay free .min_free., but only 4096 are free") as caught:
        host.begin()
    assert caught.value.details["free"] == 4096
    assert caught.value.details["needed"] > 4096
    assert not os.path.exists(os.path.join(host.state_dir, "record.json"))
    assert _snapshot.names(host.state_dir) == []


def test_begin_refuses_a_sick_host_with_the_results(host):
    host.healthy = False
    with pytest.raises(Refused, match=r"already sick, so it was not touched: http: 500, expected 200") as caught:
        host.begin()
    assert caught.value.reason == "sick"
    assert caught.value.details["checks"][0]["seen"] == "500"
    assert host.restore()[1]["outcome"] == "untouched"


def test_the_baseline_asks_once_and_with_little_patience(host):
    host.begin(checks=[{"type": "file", "path": "/", "deadline": "10m", "consecutive": 30, "interval": 5}])
    assert host.checked == [[{"type": "file", "path": "/", "deadline": 5.0, "consecutive": 1, "interval": 5}]]
    assert host.record()["transaction"]["options"]["checks"][0]["deadline"] == "10m"


def test_begin_refuses_a_held_host_and_names_the_holder_and_the_end_of_its_lease(host):
    host.begin(holder=OTHER)
    before = state(host)
    says = "held by rollout 'r1' .shop 2.0. of somebody on elsewhere, process 2: phase changing, until 2023-11-14T22:23:20Z"
    with pytest.raises(Refused, match=says) as caught:
        host.begin()
    assert caught.value.reason == "held"
    assert caught.value.details["holder"] == OTHER
    assert state(host) == before


def test_begin_settles_its_own_open_transaction_first(host):
    before = fingerprint(os.path.join(host.tree, "app"))
    host.begin()
    upgrade(host.tree)
    predicted = host.begin(check_mode=True)
    assert predicted[1]["settled"]
    assert fingerprint(os.path.join(host.tree, "app")) != before
    result = host.begin()[1]
    assert result["settled"]
    assert fingerprint(os.path.join(host.tree, "app")) == before
    assert host.record()["history"][-1]["reason"] == "found in phase changing when shop 2.0 began"


def test_what_is_installed_is_skipped_if_it_is_healthy(host):
    park(host)
    host.commit()
    before = state(host)
    changed, result, _diff = host.begin()
    assert (changed, result["outcome"], result["transaction"], result["phase"]) == (False, "skipped", None, "committed")
    assert [check["ok"] for check in result["checks"]] == [True]
    assert state(host) == before


def test_what_is_installed_and_sick_is_refused_because_it_would_prove_its_wave(host):
    park(host)
    host.commit()
    before = state(host)
    host.healthy = False
    with pytest.raises(Refused, match="already sick") as caught:
        host.begin()
    assert caught.value.reason == "sick"
    assert state(host) == before


def test_going_back_to_what_is_installed_settles_and_is_then_skipped(host):
    park(host)
    host.commit()
    installed = fingerprint(os.path.join(host.tree, "app"))
    third = dict(NEW, version="3.0", digest="3" * 64)
    host.begin(release=third)
    write(os.path.join(host.tree, "app/data/config"), b"version=3.0\n")
    changed, result, _diff = host.begin()
    assert (changed, result["outcome"], result["settled"]) == (True, "skipped", True)
    assert fingerprint(os.path.join(host.tree, "app")) == installed


def test_a_snapshot_that_cannot_be_taken_leaves_nothing_behind(host, monkeypatch):
    def full(*_arguments):
        raise OSError(28, "No space left on device")

    before = fingerprint(host.tree)
    monkeypatch.setattr(_objects.Objects, "add", full)
    with pytest.raises(OSError, match=r"No space"):
        host.begin()
    assert fingerprint(host.tree) == before
    assert host.phase() == "restored"
    assert sorted(os.listdir(host.state_dir)) == ["lock", "objects", "onprem-rollout", "packs", "record.json", "snapshots"]
    assert os.listdir(os.path.join(host.state_dir, "snapshots")) == []


def test_the_way_to_a_commit(host):
    host.begin(lease=600)
    upgrade(host.tree)
    new = fingerprint(os.path.join(host.tree, "app"))
    host.now += 100
    assert host.verifying()[0] is True
    assert host.record()["transaction"]["lease_until"] == 1700000700
    assert host.verifying()[0] is False
    host.now += 100
    changed, record = host.awaiting_commit()
    assert changed
    assert record["transaction"]["lease_until"] == 1700000800
    assert host.awaiting_commit()[0] is False
    predicted = host.commit(check_mode=True)
    assert host.phase() == "awaiting_commit"
    done = host.commit()
    assert predicted == done
    record = host.record()
    assert record["installed"] == NEW
    assert record["last_known_good"] == record["transaction"]["snapshot"]
    assert [entry["outcome"] for entry in record["history"]] == ["committed"]
    assert not os.path.exists(os.path.join(host.state_dir, "spare"))
    assert host.commit()[0] is False
    assert host.restore()[0:2] == (False, dict(host.restore()[1], outcome="committed"))
    assert fingerprint(os.path.join(host.tree, "app")) == new


def test_a_disk_that_fills_right_after_the_record_was_written_lets_it_say_how_it_ended(host):
    full = []

    def before(name, arguments, _options):
        if name == "unlink" and str(arguments[0]).endswith("/spare") and os.path.getsize(arguments[0]):
            full.clear()
        elif name == "replace" and not os.path.exists(arguments[1]) and str(arguments[1]).endswith("/record.json"):
            full.append(True)
        elif full and name in ("write", "fsync") and stat.S_ISREG(os.fstat(arguments[0]).st_mode):
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    files = fingerprint(host.tree)
    with hooked(before), pytest.raises(OSError, match="No space left"):
        host.begin()
    assert host.phase() == "restored"
    assert "No space left" in host.record()["transaction"]["reason"]
    assert fingerprint(host.tree) == files


@pytest.mark.parametrize("step", ["verifying", "awaiting_commit", "commit"])
def test_a_step_needs_a_transaction_of_this_run(host, step):
    with pytest.raises(RolloutError, match=r"no transaction"):
        getattr(host, step)()
    host.begin()
    with pytest.raises(RolloutError, match=r"phase changing. belongs to tester on controller, process 1, not to this run") as caught:
        getattr(host, step)(holder=OTHER)
    assert caught.value.reason == "not_ours"


def test_only_what_awaits_its_commit_is_committed(host):
    host.begin()
    with pytest.raises(RolloutError, match=r"is changing; only one that is awaiting_commit"):
        host.commit()
    with pytest.raises(RolloutError, match=r"from there it cannot become awaiting_commit"):
        host.awaiting_commit()
    host.restore()
    with pytest.raises(RolloutError, match=r"is restored; only one that is awaiting_commit"):
        host.commit()


def test_a_sick_host_is_not_committed_and_stays_revertible(host):
    park(host)
    host.healthy = False
    with pytest.raises(RolloutError, match=r"Not committed, this host is no longer healthy: http: 500") as caught:
        host.commit()
    assert caught.value.details["phase"] == "awaiting_commit"
    host.healthy = True
    assert host.restore()[1]["outcome"] == "restored"


def test_commits_keep_so_many_snapshots_and_last_known_good(host):
    for number in range(4):
        release = dict(NEW, version=str(number), digest=str(number))
        host.now += 60
        host.begin(release=release, keep=2)
        write(os.path.join(host.tree, "app/data/config"), b"%d" % number)
        host.verifying()
        host.awaiting_commit()
        host.commit()
    kept = [item["id"] for item in _snapshot.summaries(host.state_dir)]
    assert len(kept) == 2
    assert host.record()["last_known_good"] == kept[-1]
    assert host.record()["installed"]["version"] == "3"
    assert host.record()["transaction"]["previous"]["version"] == "2"


def test_a_host_refused_for_its_disk_has_no_record_and_no_timer(host, tmp_path, monkeypatch):
    monkeypatch.setattr(_timer, "kind", lambda: "systemd")
    monkeypatch.setattr(_timer, "UNITS", str(tmp_path))
    with pytest.raises(Refused) as caught:
        host.begin(min_free=2**62, revert_after=600)
    assert caught.value.reason == "no_space"
    assert not os.path.exists(os.path.join(host.state_dir, "record.json"))
    assert not _timer.is_armed(host.state_dir)


def test_a_newer_schema_stops_every_step(host):
    host.begin(release=OLD)
    path = os.path.join(host.state_dir, "record.json")
    with open(path) as source:
        content = source.read().replace('"schema":1', '"schema":7')
    write(path, content.encode(), 0o600)
    before = fingerprint(host.tree)
    for step in (host.begin, host.verifying, host.awaiting_commit, host.commit, host.restore):
        with pytest.raises(RolloutError, match=r"record.json has schema 7"):
            step()
    assert fingerprint(host.tree) == before
    assert RUN["run"] in content
