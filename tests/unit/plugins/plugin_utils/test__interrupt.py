# Copyright: onprem.rollout contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Real signals, in processes of their own."""

from __future__ import annotations

import signal
import subprocess
import sys

import pytest

PROGRAM = """
import os, signal, time
from ansible_collections.onprem.rollout.plugins.plugin_utils._interrupt import Interrupt
{before}
interrupt = Interrupt()
{forget}
try:
    os.kill(os.getpid(), {number})
    time.sleep(5)
    print("goes on", interrupt.seen)
except KeyboardInterrupt:
    print("ends as by Ctrl-C", interrupt.seen)
"""
IN_A_CHILD = """
if not os.fork():
    os.kill(os.getpid(), signal.SIGTERM)
    os._exit(3)
child = os.waitstatus_to_exitcode(os.wait()[1])
print(child, interrupt.seen, end=" ")
"""


def run(number, before="", forget=""):
    code = PROGRAM.format(number=int(number), before=before, forget=forget).replace("time.sleep(5)", "time.sleep(0.01)")
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=30, check=False)
    return done.returncode, done.stdout.strip(), done.stderr


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_both_end_a_run_in_the_same_way(number):
    assert run(number) == (0, "ends as by Ctrl-C True", "")


def test_who_ignores_ctrl_c_is_left_alone():
    ignore = "signal.signal(signal.SIGINT, signal.SIG_IGN)"
    assert run(signal.SIGINT, ignore) == (0, "goes on False", "")
    assert run(signal.SIGTERM, ignore)[0] == -signal.SIGTERM


def test_what_was_there_before_is_there_again():
    assert run(signal.SIGTERM, forget="interrupt.forget()")[0] == -signal.SIGTERM
    assert run(signal.SIGINT, forget="interrupt.forget()") == (0, "ends as by Ctrl-C False", "")


def test_a_worker_that_is_told_to_end_just_ends():
    assert run(signal.SIGINT, forget=IN_A_CHILD) == (0, f"{-signal.SIGTERM} False ends as by Ctrl-C True", "")
