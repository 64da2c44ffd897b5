# Copyright: onprem.rollout contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""The program that begin leaves: whole, alone, the same from wherever its sources come. Run as a sysadmin would, at the console."""

import json
import os
import re
import subprocess
import sys

import pytest

from ansible_collections.onprem.rollout.plugins.module_utils import _console, _program, _record, _store, _timer
from ansible_collections.onprem.rollout.tests.unit.plugins.module_utils.host_helpers import fingerprint, upgrade, write


@pytest.fixture
def console(host):
    """Run the program of a host by its name, in an empty environment and the locale of a rescue shell."""

    def run(*arguments):
        program = os.path.join(host.state_dir, "onprem-rollout")
        done = subprocess.run(
            [program] + list(arguments), env={"LC_ALL": "C", "PATH": "/usr/bin:/bin"}, cwd="/", stdout=subprocess.PIPE, stderr=subprocess.PIPE
        )
        return done.returncode, done.stdout.decode(), done.stderr.decode()

    return run


@pytest.fixture
def changing(host):
    host.old = fingerprint(os.path.join(host.tree, "app"))
    host.begin(restart=[], checks=[{"type": "file", "path": "/", "name": "root"}])
    upgrade(host.tree)
    return host


def test_it_brings_along_all_that_it_imports_and_nothing_of_the_controller():
    names = set(_program.sources("_console"))
    assert names >= {"_packages", "_apt", "_dnf", "_debfile"}  # imported only where they are needed
    assert {"_console", "_revert", "_restore", "_putback", "_snapshot", "_record", "_timer", "_checks", "_probes"} <= names
    assert "_program" not in names
    for name, text in _program.sources("_console").items():
        assert set(_program.imports(text)) <= names, name


@pytest.mark.parametrize(
    "source, expected",
    [
        ("from . import _a, _b\n", ["_a", "_b"]),
        ("from . import (\n    _a,\n    _b as c,\n)\n", ["_a", "_b"]),
        ("def f():\n    from ._a import x, _y\n", ["_a"]),
        ("from ._a import (\n    x,\n)\nimport _os\n", ["_a"]),
    ],
)
def test_imports_are_found_however_they_are_written(source, expected):
    assert _program.imports(source) == expected


def test_it_is_written_once_and_again_when_the_sources_change(tmp_path):
    _program.leave(str(tmp_path))
    path = _timer.program(str(tmp_path))
    first = os.stat(path)
    assert first.st_mode & 0o7777 == 0o700
    _program.leave(str(tmp_path))
    assert os.stat(path).st_ino == first.st_ino
    write(path, b"older\n", 0o700)
    _program.leave(str(tmp_path))
    with open(path, "rb") as source:
        assert source.read() == _program.build()
    assert os.listdir(str(tmp_path)) == ["onprem-rollout"]


def test_status_says_what_is_half_done_and_what_to_do(changing, console):
    code, out, err = console("status")
    assert (code, err) == (_console.OPEN, "")
    assert "phase changing" in out
    assert "shop 2.0, over nothing that a rollout installed" in out
    assert "tester on controller" in out
    assert "revert timer:   none" in out
    assert out.endswith("{0} restore\n".format(_timer.program(changing.state_dir)))
    code, out, _err = console("status", "--json")
    assert json.loads(out)["record"] == changing.record()


def test_a_timer_that_nobody_runs_is_said_loudly(host, console, monkeypatch):
    monkeypatch.setattr(_timer, "arm", lambda *_arguments: None)
    host.begin(revert_after=600)
    assert re.search(r"restores this host in (600|5\d\d) s unless it hears of progress, but NOBODY IS THERE TO DO IT", console("status")[1])


def test_restore_by_hand(changing, console):
    before = fingerprint(changing.tree)
    code, plan, _err = console("restore", "--check")
    assert (code, fingerprint(changing.tree)) == (0, before)
    assert "created: {0}/app/empty".format(changing.tree) in plan or "replaced: {0}/app/empty".format(changing.tree) in plan
    assert "caf\\xe9" in plan
    assert "would be restored:" in plan
    assert console("restore", "--transaction", "0" * 32) == (
        1,
        "",
        "no_transaction: Transaction {0} is not open on this host. See: status\n".format("0" * 32),
    )
    code, out, err = console("restore", "--transaction", changing.record()["transaction"]["id"])
    assert (code, err) == (0, "")
    assert "check root: ok" in out
    assert fingerprint(os.path.join(changing.tree, "app")) == changing.old
    assert changing.record()["history"][-1]["reverted_by"] == "console"
    assert console("restore") == (0, "Nothing to restore: no transaction is open.\n", "")
    assert console("status")[0] == 0
    assert "shop 2.0  restored: restored by hand at the console, found in phase changing" in console("log")[1]


def test_a_host_that_stays_sick_is_inconsistent_until_it_is_forced(host, console):
    host.begin(restart=[], checks=[{"type": "file", "path": os.path.join(host.top, "well"), "deadline": 0.2, "interval": 0.1}])
    code, _out, err = console("restore")
    assert (code, "now inconsistent" in err) == (_console.INCONSISTENT, True)
    code, out, _err = console("status")
    assert (code, "THIS HOST IS INCONSISTENT" in out) == (_console.INCONSISTENT, True)
    assert console("restore")[0] == _console.INCONSISTENT
    write(os.path.join(host.top, "well"), b"")
    assert console("restore", "--force")[0] == 0
    assert host.phase() == "restored"


def test_verify_names_what_is_damaged(changing, console):
    code, out, _err = console("verify")
    assert (code, out.endswith(": intact\n")) == (0, True)
    packs = os.path.join(changing.state_dir, "packs")
    victim = next(os.path.join(packs, name) for name in os.listdir(packs) if name.endswith(".pack"))
    write(victim, b"?" * os.path.getsize(victim), 0o600)
    code, out, _err = console("verify")
    assert code == _console.DAMAGED
    assert ": DAMAGED\n" in out
    assert changing.tree in out
    assert console("verify", "--json")[0] == _console.DAMAGED


def test_a_long_payload_shows_progress(host, monkeypatch):
    monkeypatch.setattr(_timer, "arm", lambda *_arguments: None)
    host.begin(revert_after=600)
    mark = host.record()["transaction"]["id"]

    def progress(mark):
        environment = dict(os.environ, ONPREM_ROLLOUT=mark)
        done = subprocess.run([_timer.program(host.state_dir), "progress"], env=environment, stderr=subprocess.PIPE)
        return done.returncode, done.stderr.decode()

    before = host.record()["transaction"]
    assert progress(mark) == (0, "")
    after = host.record()["transaction"]
    assert after["revert"]["boottime"] > before["revert"]["boottime"]
    assert after["phase"] == "changing"
    record = host.record()
    evicted = dict(record, transaction=dict(record["transaction"], evicted={"holder": record["transaction"]["holder"]}))
    _store.write_json(_record.path_of(host.state_dir), evicted)
    assert progress(mark)[0] == 1, "the host was taken from the run whose payload this is"
    _store.write_json(_record.path_of(host.state_dir), record)
    code, err = progress("f" * 32)
    assert (code, err.startswith("phase: No payload of transaction ffff")) == (1, True)
    host.verifying()
    assert progress(mark)[0] == 1
    assert host.record()["transaction"]["phase"] == "verifying"


def test_help_is_enough_and_wrong_usage_is_told_apart(changing, console):
    code, out, _err = console("--help")
    assert code == 0
    for needed in ("restore --check", "verify", "log", "exit codes", "Nothing here needs a network"):
        assert needed in out
    assert console()[0] == console("explode")[0] == 2


def test_a_record_that_cannot_be_read_is_one_sentence(changing, console):
    write(os.path.join(changing.state_dir, "record.json"), b"{")
    for verb in ("status", "restore", "log"):
        code, out, err = console(verb)
        assert (code, out) == (1, "")
        assert err.startswith("record: The record {0}/record.json cannot be read".format(changing.state_dir))
        assert err.count("\n") == 1


def test_any_python_of_the_host_runs_it(changing):
    done = subprocess.run([sys.executable, "-IBS", _timer.program(changing.state_dir), "status"], stdout=subprocess.PIPE)
    assert done.returncode == _console.OPEN
