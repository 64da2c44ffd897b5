# Copyright: onprem.rollout contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Crash tests as a table: {killed, failing} x {begin, commit, restore} x every call that changes the file system.

After each, one restore (the settling of the next run) must leave the old tree, byte for byte, or a committed host.
"""

import os
import shutil
import tempfile

import pytest

from ansible_collections.onprem.rollout.plugins.module_utils import _capture, _objects, _revert, _timer
from ansible_collections.onprem.rollout.tests.unit.plugins.module_utils.faults import failing_at, hooked, killed_at
from ansible_collections.onprem.rollout.tests.unit.plugins.module_utils.host_helpers import PACE, RUN, Host, fingerprint, upgrade

ENOUGH = 2000  # no operation of these tests takes so many steps
AFTER = 300  # seconds of the revert timer


def prepared(_host):
    pass


def changing(host):
    host.begin(revert_after=AFTER)
    upgrade(host.tree)


def parked(host):
    changing(host)
    host.verifying()
    host.awaiting_commit()


def begin_large(host):
    """As if the contents were too large for a pack, and more than wait for the disk together."""
    before = _capture.SMALL, _objects.INCOMING_COUNT
    _capture.SMALL, _objects.INCOMING_COUNT = 8, 2
    try:
        host.begin(revert_after=AFTER)
    finally:
        _capture.SMALL, _objects.INCOMING_COUNT = before


OPERATIONS = {
    "begin": (prepared, lambda host: host.begin(revert_after=AFTER)),
    "begin of large contents": (prepared, begin_large),
    "verifying": (changing, lambda host: host.verifying()),
    "commit": (parked, lambda host: host.commit()),
    "revert timer": (changing, lambda host: host.revert(later=AFTER + 1)),
    "restore": (changing, lambda host: host.restore(reason="bad release")),
    "restore from awaiting_commit": (parked, lambda host: host.restore(reason="bad wave")),
}


@pytest.fixture(autouse=True)
def systemd(monkeypatch):
    """Units go below the host's directory and systemctl is the host's, so the timer is armed as on a host of systemd."""
    monkeypatch.setattr(_timer, "kind", lambda: "systemd")
    monkeypatch.setattr(_timer, "UNITS", "")
    return monkeypatch


def units(host):
    _timer.UNITS = os.path.join(host.top, "units")
    os.makedirs(_timer.UNITS, exist_ok=True)


@pytest.fixture
def place():
    """A short-lived directory, in memory where there is one: these tests make thousands of files."""
    top = tempfile.mkdtemp(dir="/dev/shm" if os.access("/dev/shm", os.W_OK) else None)
    yield top
    shutil.rmtree(top)


def hosts(place, operation, first=1, stride=1):
    """A fresh host for every step, brought to where the operation starts."""
    for step in range(first, ENOUGH, PACE * stride):
        top = os.path.join(place, str(step))
        os.mkdir(top)
        host = Host(top)
        units(host)
        old = fingerprint_of(host)
        OPERATIONS[operation][0](host)
        yield step, host, old
        shutil.rmtree(top)


def fingerprint_of(host):
    """All of the tree but its top, whose time is not inside the snapshot paths."""
    found = fingerprint(host.tree)
    del found[os.fsencode(host.tree)]
    return found


def assert_settled(host, old, new, step):
    """One restore later the host is old and usable, or new and committed, and the record says which."""
    outcome = host.restore()[1]["outcome"]
    now = fingerprint_of(host)
    if outcome == "committed":
        assert now == new, step
        assert host.record()["installed"]["version"] == "2.0"
        assert host.commit()[0] is False
        return outcome
    assert outcome in ("restored", "untouched"), step
    assert now == old, step
    if os.path.exists(os.path.join(host.state_dir, "record.json")):
        assert host.record()["installed"] is None
        assert host.record()["transaction"] is None or host.phase() == "restored"
    return outcome


@pytest.mark.parametrize("operation", sorted(OPERATIONS))
def test_killed_at_every_step(place, operation):
    outcomes = []
    for step, host, old in hosts(place, operation):
        new = fingerprint_of(host)
        died = killed_at(step, lambda host=host: OPERATIONS[operation][1](host))
        outcomes.append(assert_settled(host, old, new, step))
        if not died:
            break
        if outcomes[-1] != "committed" and step % 6 == 1:  # and the host can go through it all again
            assert host.begin()[1]["outcome"] == "begun", step
            upgrade(host.tree)
            assert host.restore()[1]["outcome"] == "restored", step
            assert fingerprint_of(host) == old, step
    else:
        pytest.fail("the operation never came to its end")
    assert step > 5
    if operation == "commit":  # there is exactly one moment from which on the host is committed
        assert outcomes == sorted(outcomes, reverse=True)
        assert set(outcomes) == {"restored", "committed"}


@pytest.mark.parametrize("operation", sorted(OPERATIONS))
def test_killed_at_every_step_and_nobody_there_but_the_timer(place, operation):
    """Whoever may have been changed is armed, and is put back by what is armed alone; then that is disarmed."""
    for step, host, old in hosts(place, operation):
        new = fingerprint_of(host)
        died = killed_at(step, lambda host=host: OPERATIONS[operation][1](host))
        record = host.record() if os.path.exists(os.path.join(host.state_dir, "record.json")) else {"transaction": None}
        phase = (record["transaction"] or {"phase": None})["phase"]
        armed = _timer.is_armed(host.state_dir)
        if phase in ("changing", "verifying", "awaiting_commit", "restoring"):
            assert armed, step
            assert os.access(_timer.program(host.state_dir), os.X_OK), step
        if armed:  # else there is nobody to ask
            verdicts = [host.revert(), host.revert(later=AFTER + 601), host.revert(later=10**6)]
            assert verdicts[2] == _revert.OVER, step
            assert not _timer.is_armed(host.state_dir), step
        assert fingerprint_of(host) == (new if phase == "committed" else old), step
        if not died:
            return
    pytest.fail("the operation never came to its end")


@pytest.mark.parametrize(("first", "second"), [(1, 2), (2, 31)])
def test_a_restore_killed_twice(place, first, second):
    """At every step, and then early or late in the next one, by turns."""
    for step, host, old in hosts(place, "restore", first, 2):
        died = killed_at(step, lambda host=host: host.restore())
        killed_at(second, lambda host=host: host.restore())
        assert_settled(host, old, None, step)
        if not died:
            return


@pytest.mark.parametrize("operation", sorted(OPERATIONS))
def test_failing_at_every_step(place, operation):
    for step, host, old in hosts(place, operation):
        new = fingerprint_of(host)
        reached, error = failing_at(step, lambda host=host: OPERATIONS[operation][1](host))
        record = os.path.join(host.state_dir, "record.json")
        if os.path.exists(record) and host.record()["transaction"] and host.phase() == "inconsistent":
            assert error is not None, step
            assert host.restore(force=True)[1]["outcome"] == "restored", step
        assert_settled(host, old, new, step)
        if not reached:
            assert error is None
            return
    pytest.fail("the operation never came to its end")


@pytest.mark.parametrize("operation", ["begin", "begin of large contents", "commit", "restore"])
def test_what_the_record_says_is_on_disk_before_it_says_so(place, operation):
    """Power loss: before the record is replaced, every file renamed and every directory changed so far is synced."""
    host = next(iter(hosts(place, operation)))[1]
    synced_files, unsynced_dirs, problems, moves = set(), set(), [], []

    def target(fd):
        return os.fsencode(os.readlink(f"/proc/self/fd/{fd}"))

    def place_of(name, fd):
        return os.path.join(target(fd), os.fsencode(name)) if fd is not None else os.path.abspath(os.fsencode(name))

    def before(name, arguments, options):
        if name == "write":
            synced_files.discard(target(arguments[0]))
        elif name == "fsync":
            synced_files.add(target(arguments[0]))
            unsynced_dirs.discard(target(arguments[0]))
        elif name in ("mkdir", "rmdir", "unlink"):
            gone = place_of(arguments[0], options.get("dir_fd"))
            if name == "unlink" and not os.path.lexists(gone):
                return
            unsynced_dirs.add(os.path.dirname(gone))
            unsynced_dirs.discard(gone)
        elif name == "symlink":
            unsynced_dirs.add(os.path.dirname(place_of(arguments[1], options.get("dir_fd"))))
        elif name in ("rename", "replace"):
            source = place_of(arguments[0], options.get("src_dir_fd"))
            goal = place_of(arguments[1], options.get("dst_dir_fd"))
            if os.path.isfile(source) and source not in synced_files:
                problems.append(f"{goal!r} renamed before it was synced")
            if goal.endswith(b"record.json"):
                moves.append(goal)
                late = [path for path in unsynced_dirs if os.path.isdir(path) and not path.endswith(b"/state")]
                if late:
                    problems.append(f"record written before {late!r} were synced")
            unsynced_dirs.add(os.path.dirname(goal))

    with hooked(before):
        OPERATIONS[operation][1](host)
    assert problems == []
    assert moves


def test_the_lease_of_a_dead_run_protects_its_host_until_it_ends(place):
    host = Host(place)
    units(host)
    old = fingerprint_of(host)
    changing(host)
    other = dict(RUN, run="controller-2")
    with pytest.raises(Exception, match="held by rollout"):
        host.begin(holder=other)
    host.now += 601
    changed, result, _diff = host.begin(holder=other)
    assert changed
    assert result["settled"]
    assert fingerprint_of(host) == old
    assert host.record()["history"][-1]["outcome"] == "restored"
