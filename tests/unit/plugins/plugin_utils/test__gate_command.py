# Copyright: onprem.rollout contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Real programs; the only thing that is set is how late it is."""

from __future__ import annotations

import contextlib
import json
import os
import sys
import time
from dataclasses import replace

import pytest

from ansible_collections.onprem.rollout.plugins.plugin_utils._gate import Situation, Verdict
from ansible_collections.onprem.rollout.plugins.plugin_utils._gate_command import CommandGate, Pending, parse

SITUATION = Situation("abc", "shop-2.0", "early", 2, ("web1", "wéb2"), "ada on ctl1, pid 7", 1.8e9, ())


class Clock:
    def __init__(self):
        self.now = 0.0

    def __call__(self):
        return self.now


@pytest.fixture
def made():
    """Makes gates, and closes them."""
    with contextlib.ExitStack() as stack:

        def make(*argv, **options):
            gate = CommandGate("check", tuple(argv), clock=Clock(), **options)
            stack.callback(gate.close)
            return gate

        yield make


def shell(body):
    return "sh", "-c", body


def ended(gate, situation=SITUATION):
    """What it says in the end; every answer before is that nobody knows yet."""
    return eventually(lambda: answer if not isinstance(answer := gate.ask(situation), Pending) else None)


def eventually(condition, seconds=30):
    deadline = time.monotonic() + seconds
    while time.monotonic() < deadline:
        found = condition()
        if found:
            return found
        time.sleep(0.005)
    raise AssertionError("it did not come true")


def is_gone(pid):
    """No such process, or one that another parent is to wait for."""
    try:
        with open(f"/proc/{pid}/stat") as file:
            return file.read().rpartition(")")[2].split()[0] == "Z" and os.getpid() != parent(pid)
    except OSError:
        return True


def parent(pid):
    with open(f"/proc/{pid}/stat") as file:
        return int(file.read().rpartition(")")[2].split()[1])


def children():
    with open(f"/proc/self/task/{os.getpid()}/children") as file:
        return file.read().split()


VERDICTS = [
    ("echo all is well", "pass", "check passes: all is well"),
    ("echo first; echo; echo 'error rate 7 %'; echo; exit 1", "fail", "check fails: error rate 7 %"),
    ("echo nobody knows >&2; exit 2", "hold", "check holds: nobody knows"),
    ("exit 0", "pass", "check passes"),
    ("echo what; exit 3", "error", "check ended with 3: what"),
    ("exit 127", "error", "check ended with 127"),
    ("kill -TERM $$", "error", "check was killed by signal 15"),
    ("printf '\\377\\376'", "pass", "check passes: \ufffd\ufffd"),
    ("head -c 300000 /dev/zero | tr '\\0' x; echo; echo end", "pass", "check passes: end"),
]


@pytest.mark.parametrize("body, verdict, why", VERDICTS, ids=[body[:30] for body, _verdict, _why in VERDICTS])
def test_the_exit_code_is_the_verdict_and_the_last_line_is_why(made, body, verdict, why):
    answer = ended(made(*shell(body)))
    assert (str(answer.verdict), answer.why, answer.until) == (verdict, why, None)


def test_it_is_told_what_is_asked_about(made, tmp_path):
    program = "import json, os, sys; json.dump([json.load(sys.stdin), dict(os.environ)], open(sys.argv[1], 'w'))"
    assert ended(made(sys.executable, "-c", program, str(tmp_path / "told"), env={"MINE": "yes"})).verdict is Verdict.PASS
    stdin, variables = json.loads((tmp_path / "told").read_text())
    assert stdin == {"plan": "abc", "rollout": "shop-2.0", "ring": "early", "wave": 2, "hosts": ["web1", "wéb2"], "launcher": "ada on ctl1, pid 7"}
    assert {name: value for name, value in variables.items() if name.startswith(("ONPREM_ROLLOUT_", "MINE"))} == {
        "MINE": "yes",
        "ONPREM_ROLLOUT_PLAN": "abc",
        "ONPREM_ROLLOUT_ROLLOUT": "shop-2.0",
        "ONPREM_ROLLOUT_RING": "early",
        "ONPREM_ROLLOUT_WAVE": "2",
        "ONPREM_ROLLOUT_LAUNCHER": "ada on ctl1, pid 7",
        "ONPREM_ROLLOUT_HOST_COUNT": "2",
    }


def test_a_wave_of_any_size_can_be_asked_about(made):
    many = replace(SITUATION, hosts=tuple(f"a-host-with-a-long-name-{number}.example.org" for number in range(20_000)))
    program = "import json, sys; print(len(json.load(sys.stdin)['hosts']))"
    assert ended(made(sys.executable, "-c", program), many).why == "check passes: 20000"


def test_nobody_waits_for_it(made, tmp_path):
    gate = made(*shell(f"until [ -e {tmp_path}/go ]; do sleep 0.01; done; echo went"))
    began = time.monotonic()
    answers = [gate.ask(SITUATION) for _time in range(20)]
    assert time.monotonic() - began < 5
    assert {(type(answer), answer.verdict, answer.why) for answer in answers} == {(Pending, Verdict.HOLD, "check is asked")}
    (tmp_path / "go").touch()
    assert ended(gate).why == "check passes: went"


def family(tmp_path, last):
    """A program with a child in the background; both tell who they are."""
    return shell(f"sleep 600 & echo $! >{tmp_path}/child; echo $$ >{tmp_path}/parent; mv {tmp_path}/child {tmp_path}/both; {last}")


def pids(tmp_path):
    eventually((tmp_path / "both").exists)
    return int((tmp_path / "both").read_text()), int((tmp_path / "parent").read_text())


def test_its_time_limit_ends_it_and_what_it_started(made, tmp_path):
    gate = made(*family(tmp_path, "wait"), timeout=5.0)
    gate.ask(SITUATION)
    both = pids(tmp_path)
    gate.clock.now = 4.999
    assert isinstance(gate.ask(SITUATION), Pending)
    gate.clock.now = 5.0
    answer = gate.ask(SITUATION)
    assert (answer.verdict, answer.why) == (Verdict.ERROR, "check: sh was ended after 5 s, its time limit")
    assert eventually(lambda: all(map(is_gone, both)))
    assert children() == []


def test_what_it_leaves_behind_is_ended_with_it(made, tmp_path):
    gate = made(*family(tmp_path, "exit 0"))
    assert ended(gate).verdict is Verdict.PASS
    assert eventually(lambda: all(map(is_gone, pids(tmp_path))))
    assert children() == []


def test_close_ends_it_and_may_come_twice_or_before_anything(made, tmp_path):
    gate = made(*family(tmp_path, "wait"))
    gate.close()
    gate.ask(SITUATION)
    both = pids(tmp_path)
    gate.close()
    gate.close()
    assert eventually(lambda: all(map(is_gone, both)))
    assert children() == []


def test_no_file_is_left_open(made):
    gate = made(*shell("exit 0"))
    ended(gate)
    before = len(os.listdir("/proc/self/fd"))
    for _time in range(5):
        ended(gate)
        gate.ask(SITUATION)
        gate.close()
    assert len(os.listdir("/proc/self/fd")) == before


def test_a_hold_is_asked_again_after_the_interval_and_a_pass_at_once(made, tmp_path):
    gate = made(*shell(f"echo x >>{tmp_path}/asked; exit $(cat {tmp_path}/code)"), interval=30.0)

    def asked():
        return (tmp_path / "asked").read_text().count("x")

    (tmp_path / "code").write_text("2")
    assert ended(gate).verdict is Verdict.HOLD
    (tmp_path / "code").write_text("0")
    gate.clock.now = 29.0
    assert (ended(gate).verdict, asked()) == (Verdict.HOLD, 1)
    gate.clock.now = 30.0
    assert (ended(gate).verdict, asked()) == (Verdict.PASS, 2)
    assert (ended(gate).verdict, asked()) == (Verdict.PASS, 3)


def test_an_answer_about_one_wave_is_none_about_another(made, tmp_path):
    gate = made(*shell(f'[ "$ONPREM_ROLLOUT_WAVE" = 3 ] && exit 0; [ "$ONPREM_ROLLOUT_WAVE" = 1 ] && exit 2; echo $$ >{tmp_path}/pid; exec sleep 600'))
    assert ended(gate, replace(SITUATION, wave=1)).verdict is Verdict.HOLD
    assert isinstance(gate.ask(SITUATION), Pending)
    pid = eventually(lambda: (tmp_path / "pid").exists() and (tmp_path / "pid").read_text().strip())
    assert ended(gate, replace(SITUATION, wave=3)).verdict is Verdict.PASS
    assert is_gone(pid)


CANNOT_START = [("/nowhere/program", "no such file or directory"), ("/", "permission denied"), ("empty", "exec format error")]


@pytest.mark.parametrize("program, why", CANNOT_START)
def test_a_program_that_cannot_be_started_is_an_error(made, tmp_path, program, why):
    if program == "empty":
        program = str(tmp_path / program)
        with open(program, "w") as file:
            os.fchmod(file.fileno(), 0o755)
            file.write("neither a program nor a script")
    before = len(os.listdir("/proc/self/fd"))
    answer = made(program).ask(SITUATION)
    assert (answer.verdict, answer.why) == (Verdict.ERROR, f"check: {program} cannot be started: {why}")
    assert len(os.listdir("/proc/self/fd")) == before


# --- the policy ---


def test_the_defaults():
    gate, problems = parse({"type": "command", "argv": ["true"]}, "gates[0]")
    assert (gate, problems) == (CommandGate("command", ("true",), 60.0, 30.0, {}), [])


def test_every_option(tmp_path):
    (tmp_path / "own").write_text("#!/bin/sh\n")
    (tmp_path / "own").chmod(0o755)
    raw = {"type": "command", "name": "c", "argv": ["own", "x"], "timeout": "2m", "interval": 5, "env": {"PATH": str(tmp_path)}}
    gate, problems = parse(raw, "gates[0]")
    assert (gate, problems) == (CommandGate("c", ("own", "x"), 120.0, 5.0, {"PATH": str(tmp_path)}), [])


BAD = [
    ({"argv": None}, "argv"),
    ({"argv": "true"}, "argv"),
    ({"argv": []}, "argv"),
    ({"argv": [""]}, "argv"),
    ({"argv": ["true", 1]}, "argv"),
    ({"argv": ["true", "a\0b"]}, "argv"),
    ({"argv": ["no-such-program-here"]}, "argv"),
    ({"argv": ["/etc/passwd"]}, "argv"),
    ({"timeout": 0}, "timeout"),
    ({"timeout": "soon"}, "timeout"),
    ({"interval": 0}, "interval"),
    ({"env": ["A=b"]}, "env"),
    ({"env": {"A": 1}}, "env"),
    ({"env": {"A=": "1"}}, "env"),
    ({"env": {"ONPREM_ROLLOUT_PLAN": "x"}}, "env"),
    ({"name": 3}, "name"),
    ({"shell": "true"}, "shell"),
]


@pytest.mark.parametrize("raw, option", BAD, ids=[str(raw)[:50] for raw, _option in BAD])
def test_bad_options(raw, option):
    gate, problems = parse({"type": "command", "argv": ["true"], **raw}, "gates[0]")
    assert (gate, [problem.where for problem in problems]) == (None, [f"gates[0].{option}"])
