# Copyright: onprem.rollout contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

import os
import subprocess
import sys
import time
import uuid

import pytest

from ansible_collections.onprem.rollout.plugins.module_utils import _fence

MEEK = "import sys; print('up', flush=True); sys.stdin.read()"
STUBBORN = "import signal, sys; signal.signal(signal.SIGTERM, signal.SIG_IGN); print('up', flush=True); sys.stdin.read()"
FORKS = "import os, sys; pid = os.fork(); print('up', flush=True) if pid else None; sys.stdin.read()"
FENCING = """
import os, sys
from ansible_collections.onprem.rollout.plugins.module_utils import _fence
print(_fence.fence(sys.argv[1], 2.0))
"""


@pytest.fixture
def token():
    """A transaction that no other test run on this machine has: fencing reaches every process that carries it."""
    return uuid.uuid4().hex


@pytest.fixture
def start():
    started = []

    def start(code, transaction):
        environment = dict(os.environ, ONPREM_ROLLOUT=transaction)
        process = subprocess.Popen([sys.executable, "-c", code], env=environment, stdin=subprocess.PIPE, stdout=subprocess.PIPE)
        started.append(process)
        assert process.stdout.readline() == b"up\n"
        return process

    yield start
    for process in started:
        process.kill()
        process.communicate()


def test_the_payload_of_this_transaction_ends_and_nobody_else(start, token):
    ours, stubborn, other = start(MEEK, token), start(STUBBORN, token), start(MEEK, token + "1")
    began = time.monotonic()
    assert _fence.fence(token, 0.5) == sorted([ours.pid, stubborn.pid])
    assert time.monotonic() - began < 10
    assert ours.wait(5) == -15
    assert stubborn.wait(5) == -9
    assert other.poll() is None


def test_children_belong_to_it(start, token):
    parent = start(FORKS, token)
    pids = _fence.fence(token, 2.0)
    assert parent.pid in pids
    assert len(pids) == 2
    parent.wait(5)
    assert _fence.members(token) == []


def test_nothing_to_fence_takes_no_time():
    began = time.monotonic()
    assert _fence.fence("no-such-transaction") == []
    assert time.monotonic() - began < 2


def test_the_restore_does_not_end_itself(token):
    environment = dict(os.environ, ONPREM_ROLLOUT=token, PYTHONPATH=os.pathsep.join(path for path in sys.path if path))
    answer = subprocess.check_output([sys.executable, "-c", FENCING, token], env=environment)
    assert answer.strip() == b"[]"
