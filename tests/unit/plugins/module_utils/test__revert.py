# Copyright: onprem.rollout contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""What the timer decides, with a fake clock; and one host that really restores itself, by the program and a process."""

import os
import time

import pytest

from ansible_collections.onprem.rollout.plugins.module_utils import _revert, _timer
from ansible_collections.onprem.rollout.plugins.module_utils._errors import RolloutError
from ansible_collections.onprem.rollout.plugins.module_utils._store import locked
from ansible_collections.onprem.rollout.tests.unit.plugins.module_utils.host_helpers import fingerprint, upgrade, write


@pytest.fixture
def guarded(host, tmp_path, monkeypatch):
    """A host in mid-change, guarded by units in a directory."""
    monkeypatch.setattr(_timer, "kind", lambda: "systemd")
    monkeypatch.setattr(_timer, "UNITS", str(tmp_path))
    host.old = {path: facts for path, facts in fingerprint(host.tree).items() if path != os.fsencode(host.tree)}
    host.begin(revert_after=100, payload_timeout=200)
    upgrade(host.tree)
    return host


def is_old(host):
    return {path: facts for path, facts in fingerprint(host.tree).items() if path != os.fsencode(host.tree)} == host.old


def test_it_restores_once_the_deadline_is_reached_and_not_before(guarded):
    assert guarded.revert(later=220) == _revert.WAITING
    assert not is_old(guarded)
    assert guarded.revert(later=222) == _revert.RESTORED
    assert is_old(guarded)
    record = guarded.record()
    assert record["transaction"]["reverted_by"] == "timer"
    assert record["transaction"]["reason"] == "revert timer: nobody committed within 221 s, found in phase changing"
    assert [(past["outcome"], past["reverted_by"]) for past in record["history"]] == [("restored", "timer")]
    assert not _timer.is_armed(guarded.state_dir)
    assert guarded.revert(later=10**6) == _revert.OVER
    assert len(guarded.record()["history"]) == 1


def test_progress_moves_the_deadline(guarded):
    guarded.verifying()
    assert guarded.revert(later=99) == _revert.WAITING
    guarded.awaiting_commit()  # parked: as long as its lease, 600 s
    assert guarded.revert(later=599) == _revert.WAITING
    guarded.verifying()
    assert guarded.revert(later=101) == _revert.RESTORED


def test_never_after_a_commit(guarded):
    guarded.verifying()
    guarded.awaiting_commit()
    new = fingerprint(guarded.tree)
    guarded.commit()
    assert not _timer.is_armed(guarded.state_dir)
    spare = os.path.join(guarded.state_dir, "spare")
    write(spare, b"left by a commit that was killed before it was through")
    assert guarded.revert(later=10**6) == _revert.OVER
    assert fingerprint(guarded.tree) == new
    assert not os.path.exists(spare)


def test_a_restore_that_died_is_repeated_at_once_with_its_own_reason(guarded):
    def cut(_checks):  # the power, in the health checks
        raise KeyboardInterrupt

    check, guarded.check = guarded.check, cut
    with pytest.raises(KeyboardInterrupt):
        guarded.restore(reason="a bad release")
    guarded.check = check
    assert guarded.phase() == "restoring"
    assert guarded.revert() == _revert.RESTORED
    assert guarded.record()["transaction"]["reason"] == "a bad release"


def test_an_inconsistent_host_is_never_touched_again(guarded):
    guarded.healthy = False
    with pytest.raises(RolloutError, match="now inconsistent"):
        guarded.revert(later=1000)
    assert guarded.phase() == "inconsistent"
    assert not _timer.is_armed(guarded.state_dir)
    before = fingerprint(guarded.tree), guarded.record()
    assert guarded.revert(later=10**6) == _revert.OVER
    assert (fingerprint(guarded.tree), guarded.record()) == before


def test_whoever_holds_the_lock_is_not_disturbed(guarded, monkeypatch):
    monkeypatch.setattr(_revert, "LOCK_WAIT", 0.1)
    with locked(guarded.state_dir):
        assert guarded.revert(later=1000) == _revert.WAITING
    assert not is_old(guarded)


def test_without_a_timer_or_a_host_there_is_nothing_to_do(host):
    assert host.revert() == _revert.OVER
    host.begin()
    assert host.revert(later=10**6) == _revert.OVER
    assert host.phase() == "changing"


def test_its_own_run_is_told_and_undoes_what_its_payload_wrote_since(guarded):
    guarded.revert(later=1000)
    write(os.path.join(guarded.tree, "app/late"), b"the payload went on\n")
    for step in (guarded.verifying, guarded.awaiting_commit, guarded.commit):
        with pytest.raises(RolloutError, match=r"restored by its revert timer at .*shop 2.0 is not on it any more: revert timer: nobody") as caught:
            step()
        assert caught.value.reason == "reverted"
    changed, result, _diff = guarded.restore(reason="reverted")
    assert (changed, result["outcome"], result["files"]["removed"]) == (True, "restored", 1)
    assert is_old(guarded)
    assert guarded.restore()[0] is False  # once is enough
    assert guarded.restore(run="another")[1]["outcome"] == "untouched"


def test_the_log_keeps_what_is_news(guarded, capsys):
    for text in ("first", "first", "second", "first"):
        _revert.note(guarded.state_dir, text)
    with open(os.path.join(guarded.state_dir, "revert.log")) as source:
        assert [line.split(" ", 1)[1] for line in source.read().splitlines()] == ["first", "second", "first"]
    assert capsys.readouterr().out.count("<5>first\n") == 3


def test_a_host_without_systemd_really_restores_itself(host, monkeypatch):
    monkeypatch.setattr(_timer, "kind", lambda: "process")
    host.old = {path: facts for path, facts in fingerprint(host.tree).items() if path != os.fsencode(host.tree)}
    begun = host.begin(revert_after=1, restart=[], checks=[{"type": "file", "path": "/"}])[1]
    assert begun["revert"]["by"] == "process"
    upgrade(host.tree)
    deadline = time.monotonic() + 30
    while host.phase() != "restored" or _timer.is_armed(host.state_dir):
        assert time.monotonic() < deadline, host.record()
        time.sleep(0.05)
    assert is_old(host)
    assert host.record()["transaction"]["reverted_by"] == "timer"
    with open(os.path.join(host.state_dir, "revert.log")) as source:
        assert source.read().count("restored by its revert timer: revert timer: nobody committed within 1 s") == 1
