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
    parts = dict(zip(("host", "boot", "namespace", "pid", "start"), _holder.holder("web1")["run"].partition("#")[0].split("/"), strict=True))
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


CASES = [
    ("the machine booted again", {"boot": "another"}, True),
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
