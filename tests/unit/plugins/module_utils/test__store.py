# Copyright: onprem.rollout contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

import os
import stat
import subprocess
import sys

import pytest

from ansible_collections.onprem.rollout.plugins.module_utils import _store
from ansible_collections.onprem.rollout.plugins.module_utils._errors import Refused, RolloutError
from ansible_collections.onprem.rollout.tests.unit.plugins.module_utils.host_helpers import as_nobody


def test_json_goes_to_a_private_file_and_comes_back(tmp_path):
    path = str(tmp_path / "data.json")
    data = {"name": "caf\u00e9 \udcff", "list": [1, None, True]}
    _store.write_json(path, {"old": 1})
    _store.write_json(path, data)
    assert _store.read_json(path) == data
    assert stat.S_IMODE(os.stat(path).st_mode) == 0o600
    assert os.listdir(str(tmp_path)) == ["data.json"]


def test_no_file_is_none(tmp_path):
    assert _store.read_json(str(tmp_path / "nothing")) is None


def test_a_link_planted_at_the_temporary_name_is_not_followed(tmp_path):
    (tmp_path / "victim").write_text("precious")
    (tmp_path / "data.json.new").symlink_to("victim")
    with pytest.raises(OSError, match=r"data.json.new"):
        _store.write_json(str(tmp_path / "data.json"), {})
    assert (tmp_path / "victim").read_text() == "precious"


@pytest.mark.parametrize("raw", [b"/srv/plain", b"/srv/caf\xc3\xa9", b"/srv/caf\xe9", b"/srv/\xff\n"])
def test_any_bytes_survive_text_and_can_be_shown(raw):
    assert _store.to_bytes(_store.to_text(raw)) == raw
    assert os.fsencode(_store.local(_store.to_text(raw))) == raw
    _store.show(raw).encode("utf-8")
    assert _store.show(_store.to_text(raw)) == _store.show(raw)


def test_the_state_directory_is_made_private(tmp_path):
    place = str(tmp_path / "a" / "b")
    _store.prepare(place)
    assert stat.S_IMODE(os.stat(place).st_mode) == 0o700
    os.chmod(place, 0o755)
    _store.prepare(place)
    assert stat.S_IMODE(os.stat(place).st_mode) == 0o700


@pytest.mark.parametrize("name", ["file", "file/below"])
@pytest.mark.parametrize("ask", [_store.prepare, _store.examine])
def test_a_state_directory_that_cannot_be_used_is_refused(tmp_path, name, ask):
    (tmp_path / "file").write_text("")
    with pytest.raises(Refused, match=rf"{name} cannot be used: .*file is not a directory") as caught:
        ask(str(tmp_path / name))
    assert caught.value.reason == "state_dir"


def test_a_directory_that_the_system_does_not_make_is_refused():
    with pytest.raises(Refused, match=r"/proc/nobody/may cannot be used") as caught:
        _store.prepare("/proc/nobody/may")
    assert caught.value.reason == "state_dir"


def test_without_root_the_default_state_directory_is_refused_by_name(tmp_path):
    if os.geteuid() == 0:
        message = as_nobody(str(tmp_path), lambda: _store.prepare("/var/lib/onprem-rollout-of-nobody"))
        assert message.startswith("Refused: The state directory /var/lib/onprem-rollout-of-nobody cannot be used")
        assert "or use become" in message


@pytest.mark.skipif(os.geteuid() != 0, reason="only root can give a directory away; runs as root, as in make test and CI")
def test_a_state_directory_of_somebody_else_is_refused(tmp_path):
    os.chown(str(tmp_path), 65534, 65534)
    with pytest.raises(Refused, match=r"belongs to uid 65534, but this runs as uid 0"):
        _store.prepare(str(tmp_path))


HOLD = """
import fcntl, os, sys
fd = os.open(sys.argv[1], os.O_RDWR | os.O_CREAT, 0o600)
fcntl.flock(fd, fcntl.LOCK_EX)
os.write(fd, str(os.getpid()).encode())
print("held", flush=True)
sys.stdin.read()
"""


def test_a_held_lock_names_its_file_and_its_holder_and_is_free_when_that_dies(tmp_path):
    path = str(tmp_path / "lock")
    other = subprocess.Popen([sys.executable, "-c", HOLD, path], stdin=subprocess.PIPE, stdout=subprocess.PIPE)
    try:
        assert other.stdout.readline() == b"held\n"
        with pytest.raises(RolloutError, match=f"{path} is held by process {other.pid} ") as caught, _store.locked(str(tmp_path), wait=0.1):
            pytest.fail("two have the lock")
        assert caught.value.reason == "locked"
    finally:
        other.kill()
        other.communicate()
    with _store.locked(str(tmp_path)):
        assert int(open(path).read()) == os.getpid()


def test_check_mode_makes_no_lock(tmp_path):
    with _store.locked(str(tmp_path), check_mode=True):
        pass
    assert os.listdir(str(tmp_path)) == []


def test_free_bytes_of_a_directory_to_be_made_are_those_of_its_parent(tmp_path, monkeypatch):
    seen = []

    class Status:
        f_bavail, f_frsize = 3, 512

    def statvfs(path):
        seen.append(path)
        return Status

    monkeypatch.setattr(os, "statvfs", statvfs)
    assert _store.free_bytes(str(tmp_path / "a" / "b")) == 1536
    assert seen == [str(tmp_path)]


def test_the_reserve_is_real_and_given_back(tmp_path):
    _store.reserve(str(tmp_path))
    assert os.stat(str(tmp_path / "spare")).st_blocks * 512 >= _store.SPARE
    _store.release_reserve(str(tmp_path))
    _store.release_reserve(str(tmp_path))
    assert os.listdir(str(tmp_path)) == []
