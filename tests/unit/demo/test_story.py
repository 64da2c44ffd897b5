# Copyright: onprem.rollout contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

from __future__ import annotations

import dataclasses
import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import fleet
import pytest
import sight
import story

WELL = sight.Sight("2.0", (200, "ok, 5 articles"), 1, 0, {".": ("drwxr-xr-x", 0, 0, 1, "")}, {})


@pytest.mark.parametrize(
    "change",
    [{"version": "2.1"}, {"version": "nothing (refused)"}, {"health": (500, "catalogue.json")}],
    ids=["other version", "no answer", "sick"],
)
def test_a_host_that_does_not_serve_is_named(change: dict[str, Any]) -> None:
    story.serves({"early-1": WELL}, "2.0")
    with pytest.raises(story.NotAsToldError, match="early-2"):
        story.serves({"early-1": WELL, "early-2": dataclasses.replace(WELL, **change)}, "2.0")


def test_a_changed_file_is_named() -> None:
    story.unchanged({"early-1": WELL}, {"early-1": WELL})
    other = dataclasses.replace(WELL, tree={**WELL.tree, "left-over": ("-rw-r--r--", 0, 0, 1, "")})
    with pytest.raises(story.NotAsToldError, match=r"early-1.*left-over"):
        story.unchanged({"early-1": WELL}, {"early-1": other})


def test_a_host_before_its_ring_is_noticed() -> None:
    def at(began: str, ended: str) -> sight.Sight:
        return dataclasses.replace(WELL, record={"history": [{"began": began, "ended": ended}]})

    hosts = {"early-1": at("01", "02"), "standard-1": at("02", "03"), "critical-1": at("04", "05")}
    story.in_ring_order(hosts)
    with pytest.raises(story.NotAsToldError, match="critical begins after standard"):
        story.in_ring_order({**hosts, "standard-2": at("02", "05")})


class Told:
    """The story with an ansible-playbook that only says that it was started, then runs the given line of shell."""

    def __init__(self, tmp_path: Path, then: str) -> None:
        (tmp_path / "bin").mkdir()
        (tmp_path / "work").mkdir()
        self.work, self.started = tmp_path / "work", tmp_path / "started"
        fake = tmp_path / "bin" / "ansible-playbook"
        fake.write_text(f"#!/bin/sh\necho $$ > {self.started}.new; mv {self.started}.new {self.started}\n{then}\n", encoding="utf-8")
        fake.chmod(0o755)
        self.environment = {**os.environ, "PATH": f"{tmp_path}/bin:{os.environ['PATH']}", "TMPDIR": str(self.work), "KEEP": "0"}

    def start(self, **more: str) -> subprocess.Popen[str]:
        environment = {**self.environment, "PYTHON": sys.executable, **more}
        return subprocess.Popen([fleet.HERE / "run"], env=environment, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)

    def left(self) -> list[int]:
        return [pid for directory in self.work.iterdir() for pid in story.left_behind(directory)]


@pytest.fixture
def told(tmp_path: Path, request: pytest.FixtureRequest) -> Iterator[Told]:
    made = Told(tmp_path, request.param)
    yield made
    for directory in made.work.iterdir():
        fleet.down(directory)


@pytest.mark.parametrize("told", ["exec sleep 60"], indirect=True)
@pytest.mark.parametrize(("number", "code"), [(signal.SIGINT, 130), (signal.SIGTERM, 143)], ids=["Ctrl-C", "TERM"])
def test_an_interrupted_demo_leaves_nothing(told: Told, number: signal.Signals, code: int) -> None:
    with told.start() as run:
        assert fleet.wait_until(told.started.exists)
        directory = next(told.work.iterdir())
        assert len(story.left_behind(directory)) >= 9, "eight supervisors and a playbook"
        run.send_signal(number)
        assert run.wait(30) == code
    assert list(told.work.iterdir()) == []
    assert story.left_behind(directory) == []


def test_a_playbook_that_lingers_is_ended_with_all_it_started(tmp_path: Path) -> None:
    script = f"trap '' INT; sleep 60 & echo $! > {tmp_path}/pid.new; mv {tmp_path}/pid.new {tmp_path}/pid; wait"
    with subprocess.Popen(["sh", "-c", script], start_new_session=True) as child:
        assert fleet.wait_until((tmp_path / "pid").exists)
        story.end_group(child, patience=0.2)
        assert child.returncode == -signal.SIGKILL
    grandchild = Path("/proc", (tmp_path / "pid").read_text(encoding="utf-8").strip(), "cmdline")
    assert fleet.wait_until(lambda: not grandchild.exists() or not grandchild.read_bytes())


@pytest.mark.parametrize("told", ["exit 0"], indirect=True)
def test_what_is_not_as_told_fails_the_demo(told: Told) -> None:
    with told.start() as run:
        output, _none = run.communicate(timeout=30)
    assert run.returncode == 1
    assert "told: a plan with something to do exits with 2\nseen: 0" in output
    assert list(told.work.iterdir()) == []


@pytest.mark.parametrize("told", ["exit 0"], indirect=True)
def test_keep_keeps_the_files_but_no_process(told: Told) -> None:
    with told.start(KEEP="1") as run:
        output, _none = run.communicate(timeout=30)
    (directory,) = told.work.iterdir()
    assert f"fleet.py up {directory}" in output
    assert (directory / "environment").exists()
    assert told.left() == []


def test_without_ansible_it_says_what_to_do(tmp_path: Path) -> None:
    done = subprocess.run([sys.executable, fleet.HERE / "story.py"], env={"PATH": str(tmp_path)}, capture_output=True, text=True, timeout=30, check=False)
    assert done.returncode == 1
    assert "make demo" in done.stderr
