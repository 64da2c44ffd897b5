# Copyright: onprem.rollout contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

from __future__ import annotations

import os
import subprocess
import sys

import pytest

from ansible_collections.onprem.rollout.plugins.plugin_utils import _holder


def run_of(process: int, **changes: str) -> dict[str, str]:
    parts = dict(zip(("host", "boot", "namespace", "pid", "start", "machine"), _holder.holder("web1")["run"].partition("#")[0].split("/"), strict=True))
    changes.pop("left", None) and parts.pop("machine")
    parts |= {"pid": str(process), "start": _holder.started(process), **changes}
    return {"run": "/".join(parts.values())}


def test_all_tasks_of_one_run_have_the_same_holder():
    assert _holder.holder("web1") == _holder.holder("web1")
    assert _holder.holder("web1")["run"] != _holder.holder("web2")["run"]
    assert _holder.holder("web1")["pid"] == os.getppid()


def test_a_run_is_gone_when_its_process_is():
    process = subprocess.Popen([sys.executable, "-c", "import sys; sys.stdin.read()"], stdin=subprocess.PIPE)
    other = run_of(process.pid)
    assert (_holder.is_gone(other), _holder.is_alive(other)) == (False, True)
    process.communicate()
    assert (_holder.is_gone(other), _holder.is_alive(other)) == (True, False)


@pytest.fixture(autouse=True)
def machine(monkeypatch):
    """A machine that is known by its id, which a container is not."""
    monkeypatch.setattr(_holder, "machine_id", lambda: MACHINE)


MACHINE = "0123456789abcdef" * 2
CASES = [
    ("the machine booted again", {"boot": "another"}, True),
    ("another machine of the same name", {"boot": "another", "machine": "f" * 32}, False),
    ("nobody knows whether it is the same machine", {"boot": "another", "machine": ""}, False),
    ("an older record, of another boot", {"boot": "another", "left": "out"}, False),
    ("an older record, of a process that is no more", {"start": "1", "left": "out"}, True),
    ("a machine that got another id since its boot", {"start": "1", "machine": "f" * 32}, True),
    ("the pid is somebody else's by now", {"start": "1"}, True),
    ("another machine", {"host": "elsewhere"}, False),
    ("another container of this machine", {"namespace": "1"}, False),
    ("the kernel told no boot", {"boot": ""}, False),
    ("nonsense", {"pid": "x"}, False),
]


@pytest.mark.parametrize("name, changes, gone", CASES, ids=[case[0] for case in CASES])
def test_only_what_is_known_to_be_gone_is_gone(name, changes, gone):
    assert _holder.is_gone(run_of(os.getpid(), **changes)) is gone
    assert not _holder.is_alive(run_of(os.getpid(), **changes))


def test_an_older_record_of_a_run_that_goes_on_is_understood():
    assert _holder.is_alive(run_of(os.getpid(), left="out"))
    assert not _holder.is_gone(run_of(os.getpid(), left="out"))


def test_no_machine_is_known_by_the_id_of_an_image_or_by_none(monkeypatch, tmp_path):
    monkeypatch.undo()
    monkeypatch.setattr(_holder, "MACHINE_ID_FILE", str(tmp_path / "machine-id"))

    def found(namespace, content):
        monkeypatch.setattr(_holder, "pid_namespace", lambda: namespace)
        (tmp_path / "machine-id").write_text(content)
        return _holder.machine_id()

    assert found("4026531836", f"{MACHINE}\n") == MACHINE
    assert found("4026532000", f"{MACHINE}\n") == ""
    assert (found("4026531836", "uninitialized\n"), found("4026531836", "")) == ("", "")


@pytest.mark.parametrize("other", [{}, {"run": ""}, {"run": None}, {"run": "a/b"}])
def test_a_holder_that_cannot_be_understood_is_taken_for_alive(other):
    assert _holder.is_gone(other) is False


def test_the_job_of_awx_is_named(monkeypatch):
    monkeypatch.setenv("AWX_JOB_ID", "4711")
    assert "job 4711" in _holder.describe(_holder.holder("web1"))


def test_awx_tells_who_launched_the_job_and_which_it_is():
    told = {"awx_job_id": 4711, "awx_user_name": "ada"}
    assert _holder.describe(_holder.holder("web1", told)).startswith("ada on ")
    assert "job 4711" in _holder.describe(_holder.holder("web1", told))
    assert _holder.holder("web1", told)["run"] == _holder.holder("web1")["run"]
