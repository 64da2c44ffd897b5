# Copyright: onprem.rollout contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""The deadline in the record, the units, and the process of a host without systemd, which is a real one here."""

import contextlib
import os
import signal
import subprocess
import sys
import time

import pytest

from ansible_collections.onprem.rollout.plugins.module_utils import _program, _timer
from ansible_collections.onprem.rollout.plugins.module_utils._errors import RolloutError

NOW = 1700000000.0
DAY = 86400.0


def planned(seconds=600, **more):
    return dict(_timer.moved({"after": seconds, "payload": seconds, "by": "process"}, seconds, NOW), **more)


@pytest.mark.parametrize("jump", [0.0, DAY, -DAY])
def test_a_wall_clock_that_jumps_changes_nothing_within_a_boot(jump):
    revert = planned()
    uptime = revert["boottime"] - 600
    assert _timer.remaining(revert, NOW + jump, uptime + 599) == pytest.approx(1, abs=0.01)
    assert _timer.remaining(revert, NOW + jump, uptime + 601) == pytest.approx(-1, abs=0.01)


@pytest.mark.parametrize(
    "wall, uptime, expected",
    [
        (NOW + 100, 20.0, 500),  # the wall clock knows how much is left
        (NOW + 700, 20.0, -100),
        (NOW - DAY, 20.0, 580),  # it lost its time: as much as if the boot had begun it
        (NOW - DAY, 700.0, -100),
    ],
)
def test_after_a_reboot_it_is_early_rather_than_late(wall, uptime, expected):
    assert _timer.remaining(planned(boot_id="another"), wall, uptime) == expected


def test_no_timer_is_planned_for_zero_and_a_payload_has_longer():
    assert _timer.plan(0, 600, NOW) is None
    assert _timer.plan(600, 0, NOW)["payload"] == 600
    assert _timer.plan(600, 600, NOW)["payload"] == 661
    assert [_timer.interval({"after": after}) for after in (1, 20, 600, 86400)] == [1, 1, 30, 30]


@pytest.mark.parametrize("present, uid, expected", [(True, 0, "systemd"), (True, 1000, "process"), (False, 0, "process")])
def test_units_need_systemd_and_root(monkeypatch, present, uid, expected):
    monkeypatch.setattr(_timer._services, "present", lambda: present)
    monkeypatch.setattr(os, "geteuid", lambda: uid)
    assert _timer.kind() == expected


def test_what_begin_says_of_it():
    assert _timer.describe(planned(by="systemd"))["covers_reboot"]
    process = _timer.describe(planned())
    assert (process["armed"], process["covers_reboot"]) == (True, False)
    assert "reboot" in process["note"]
    assert _timer.describe(None)["armed"] is False


class Systemctl:
    """Answers as systemctl does, in turn; the last answer stays."""

    def __init__(self, *shown):
        self.shown, self.calls = list(shown), []

    def __call__(self, argv, _timeout):
        self.calls.append(argv[3])
        if argv[3] != "show":
            return 0, ""
        return 0, self.shown.pop(0) if len(self.shown) > 1 else self.shown[0]


WAITING = "ActiveState=active\nNeedDaemonReload=no\n"


@pytest.fixture
def units(tmp_path, monkeypatch):
    place = tmp_path / "units"
    place.mkdir()
    monkeypatch.setattr(_timer, "UNITS", str(place))
    return place


def listed(place):
    return sorted(str(path.relative_to(place)) for path in place.rglob("*") if not path.is_dir())


def test_the_units_are_enabled_while_armed_and_stay_inert_afterwards(units):
    systemctl = Systemctl(WAITING)
    for _again in range(2):
        _timer.arm(_timer.STATE_DIR, planned(by="systemd"), systemctl)
    assert systemctl.calls == ["start", "show"] * 2
    name = "onprem-rollout-revert"
    links = ["multi-user.target.wants/%s.service" % name, "timers.target.wants/%s.timer" % name]
    files = ["%s.service" % name, "%s.timer" % name]
    assert listed(units) == sorted(links + files)
    assert all((units / link).resolve() == units / os.path.basename(link) for link in links)
    assert "OnUnitInactiveSec=30\n" in (units / (name + ".timer")).read_text()
    assert '"%s" "-IBS" "/var/lib/onprem-rollout/onprem-rollout" "revert"' % sys.executable in (units / (name + ".service")).read_text()
    assert _timer.is_armed(_timer.STATE_DIR)
    _timer.disarm(_timer.STATE_DIR, systemctl)
    _timer.disarm(_timer.STATE_DIR, systemctl)
    assert systemctl.calls == ["start", "show"] * 2 + ["stop"]
    assert listed(units) == files
    assert not _timer.is_armed(_timer.STATE_DIR)


def test_a_unit_that_systemd_knows_otherwise_is_loaded_again(units):
    systemctl = Systemctl("ActiveState=active\nNeedDaemonReload=yes\n", WAITING)
    _timer.arm(_timer.STATE_DIR, planned(by="systemd"), systemctl)
    assert systemctl.calls == ["start", "show", "daemon-reload", "restart", "show"]


def test_a_timer_that_does_not_wait_is_an_error(units):
    with pytest.raises(RolloutError, match=r"cannot be armed: systemctl start onprem-rollout-revert\.timer failed"):
        _timer.arm(_timer.STATE_DIR, planned(by="systemd"), Systemctl("ActiveState=failed\nNeedDaemonReload=no\n"))


def test_each_state_directory_has_units_of_its_own_whatever_its_name(units, tmp_path):
    odd = str(tmp_path / 'a "b" $c %d')
    _timer.arm(odd, planned(by="systemd"), Systemctl(WAITING))
    name = _timer.unit(odd)
    assert name not in ("onprem-rollout-revert", _timer.unit(odd + "x"))
    assert '/a \\"b\\" $$c %%d/onprem-rollout" "revert"' in (units / (name + ".service")).read_text()
    _timer.disarm(odd, Systemctl(WAITING))
    assert listed(units) == []
    with pytest.raises(RolloutError, match="control character"):
        _timer.arm("/a\nb", planned(by="systemd"), Systemctl(WAITING))


@pytest.mark.skipif(
    not os.path.exists("/usr/bin/systemd-analyze"), reason="needs systemd-analyze; runs where systemd is installed, and the fleet's hosts start the same units"
)
def test_systemd_itself_understands_the_units(units):
    _timer.arm(_timer.STATE_DIR, planned(by="systemd"), Systemctl(WAITING))
    for name in listed(units)[-2:]:
        done = subprocess.run(["systemd-analyze", "verify", "--man=no", str(units / os.path.basename(name))], stderr=subprocess.PIPE)
        assert done.stderr.decode().strip() == "", name


# The oldest systemd on a supported host is 239, of RHEL 8. Each directive with the version that it came with, by its manual pages.
SINCE = {
    "AccuracySec": 209,
    "ConditionPathExists": 1,
    "Description": 1,
    "ExecStart": 1,
    "KillMode": 1,
    "LogLevelMax": 236,
    "OnActiveSec": 1,
    "OnUnitInactiveSec": 1,
    "RequiresMountsFor": 201,
    "StartLimitIntervalSec": 229,
    "Type": 1,
    "WantedBy": 1,
}


def test_the_oldest_systemd_knows_every_directive():
    lines = [line for _name, text in _timer._texts("/srv/state", planned(by="systemd")) for line in text.decode().splitlines()]
    used = {line.partition("=")[0] for line in lines if "=" in line and not line.startswith("#")}
    assert used == set(SINCE)
    assert max(SINCE.values()) <= 239


def eventually(seen, what, seconds=20):
    deadline = time.monotonic() + seconds
    while not seen():
        assert time.monotonic() < deadline, what
        time.sleep(0.02)


@pytest.fixture
def waiting(host, monkeypatch):
    """A host in mid-change, guarded by a process."""
    monkeypatch.setattr(_timer, "kind", lambda: "process")
    monkeypatch.setenv("ONPREM_ROLLOUT", "whatever")
    host.begin(revert_after=600, restart=[], checks=[])
    yield host
    _timer.disarm(host.state_dir)
    eventually(lambda: not _timer.is_armed(host.state_dir), "the process to end")


def pid_of(host):
    with open(os.path.join(host.state_dir, "timer.lock")) as source:
        return int(source.read())


def opened_by(pid):
    """The files and devices a process has open; one it closes while we look is not among them."""
    paths = set()
    for descriptor in os.listdir("/proc/%d/fd" % pid):
        with contextlib.suppress(FileNotFoundError):
            paths.add(os.readlink("/proc/%d/fd/%s" % (pid, descriptor)))
    return {path for path in paths if path.startswith("/")}


def test_the_process_has_a_session_of_its_own_and_nothing_of_ours(waiting):
    pid = pid_of(waiting)
    assert _timer.is_armed(waiting.state_dir)
    assert os.getsid(pid) == pid != os.getsid(0)
    with open("/proc/%d/environ" % pid, "rb") as source:
        assert b"ONPREM_ROLLOUT" not in source.read()
    assert os.readlink("/proc/%d/cwd" % pid) == "/"
    assert opened_by(pid) - {_timer.program(waiting.state_dir)} == {
        "/dev/null",
        os.path.join(waiting.state_dir, "timer.lock"),
    }
    with open("/proc/%d/stat" % pid) as source:
        assert source.read().rpartition(")")[2].split()[1] != str(os.getpid())


def test_there_is_one_process_for_each_state_directory(waiting):
    first = pid_of(waiting)
    _timer.arm(waiting.state_dir, planned())
    assert pid_of(waiting) != first
    eventually(lambda: not os.path.exists("/proc/%d" % first), "the first to end")
    assert _timer.is_armed(waiting.state_dir)


def test_a_commit_ends_it(waiting):
    pid = pid_of(waiting)
    waiting.verifying()
    waiting.awaiting_commit()
    waiting.commit()
    eventually(lambda: not os.path.exists("/proc/%d" % pid), "the process to end")


def test_it_ends_by_itself_when_nothing_is_left(waiting):
    pid = pid_of(waiting)
    os.kill(pid, signal.SIGKILL)
    eventually(lambda: not _timer.is_armed(waiting.state_dir), "it to be dead")
    waiting.restore()
    _timer.arm(waiting.state_dir, planned())
    again = pid_of(waiting)
    assert again != pid
    eventually(lambda: not _timer.is_armed(waiting.state_dir), "the process to find nothing to do")
    eventually(lambda: not os.path.exists("/proc/%d" % again), "the process to end")
    assert [past["outcome"] for past in waiting.record()["history"]] == ["restored"]


def test_a_process_id_that_is_somebody_elses_is_left_alone(waiting):
    with open(os.path.join(waiting.state_dir, "timer.lock"), "r+") as lock:
        own = lock.read()
        lock.seek(0)
        lock.write("%d\n" % os.getppid())
        lock.flush()
        _timer.disarm(waiting.state_dir)
        assert _timer.is_armed(waiting.state_dir)
        lock.seek(0)
        lock.truncate()
        lock.write(own)


def test_a_program_that_cannot_be_started_is_an_error(host, tmp_path, monkeypatch):
    monkeypatch.setattr(sys, "executable", str(tmp_path / "no python"))
    os.makedirs(host.state_dir)
    _program.leave(host.state_dir)
    with pytest.raises(RolloutError, match=r"cannot be armed: .* cannot be started by .*no python"):
        _timer.arm(host.state_dir, planned())
    assert not _timer.is_armed(host.state_dir)
