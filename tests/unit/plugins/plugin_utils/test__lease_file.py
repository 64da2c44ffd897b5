# Copyright: onprem.rollout contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""A lock between real processes: what a process does not know of itself is asked of another one."""

from __future__ import annotations

import os
import signal
import subprocess
import sys

import pytest

from ansible_collections.onprem.rollout.plugins.plugin_utils._lease_file import LeaseFile, slug
from ansible_collections.onprem.rollout.plugins.plugin_utils._ledger import LedgerError

CODE = """if True:
    import os, sys
    from ansible_collections.onprem.rollout.plugins.plugin_utils._lease_file import LeaseFile
    lease = LeaseFile(sys.argv[1], sys.argv[2])
    for line in sys.stdin:
        if line == "fork\\n":
            worker = os.fork()
            print(worker or "", end="" if not worker else "\\n", flush=True)
            if not worker:
                os.read(0, 1)  # a worker that outlives the one it works for
                os._exit(0)
        else:
            print(getattr(lease, line.strip())(), flush=True)
"""


class Other:
    """A process that is asked for a lease."""

    def __init__(self, ledger, rollout):
        self.process = subprocess.Popen(
            [sys.executable, "-c", CODE, str(ledger), rollout], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, start_new_session=True
        )

    def ask(self, what):
        self.process.stdin.write(f"{what}\n")
        self.process.stdin.flush()
        return self.process.stdout.readline().strip()

    def kill(self):
        self.process.kill()
        self.process.wait()


@pytest.fixture
def ledger(tmp_path):
    return tmp_path / "below" / "ledger.jsonl"


@pytest.fixture
def others(ledger):
    made = []

    def make(rollout="shop-2.0"):
        made.append(Other(ledger, rollout))
        return made[-1]

    yield make
    for other in made:
        os.killpg(other.process.pid, signal.SIGKILL)
        other.process.communicate()


def test_one_process_has_it_and_others_see_that(ledger, others):
    first, second = others(), others()
    assert (first.ask("taken"), first.ask("take"), first.ask("take")) == ("False", "True", "True")
    assert (second.ask("taken"), second.ask("take"), first.ask("taken")) == ("True", "False", "True")
    assert not LeaseFile(str(ledger), "shop-2.0").take()
    assert others("shop-2.1").ask("take") == "True"
    first.ask("release")
    assert (second.ask("taken"), second.ask("take"), first.ask("take")) == ("False", "True", "False")
    second.ask("release")
    assert [path.name for path in ledger.parent.iterdir()] == [f"ledger.jsonl.{slug('shop-2.1')}.lease"], "nothing is left behind"


def test_it_is_free_at_once_when_its_process_is_killed_though_a_worker_lives_on(ledger, others):
    first, second = others(), others()
    assert first.ask("take") == "True"
    worker = int(first.ask("fork"))
    os.kill(first.process.pid, signal.SIGKILL)
    first.process.wait()
    os.kill(worker, 0)
    assert (second.ask("taken"), second.ask("take")) == ("False", "True")


def test_to_look_does_not_give_it_away(ledger, others):
    lease = LeaseFile(str(ledger), "shop-2.0")
    assert (lease.take(), lease.taken(), lease.held) == (True, True, True)
    assert others().ask("take") == "False"
    lease.release()
    assert (lease.held, others().ask("take")) == (False, "True")


def test_a_file_that_was_taken_away_is_not_taken_for_the_lock(ledger, others):
    """As when the one before gave it away between this one's open and its lock."""
    lease, other = LeaseFile(str(ledger), "shop-2.0"), others()
    assert lease.take()
    os.unlink(lease._path)
    assert other.ask("take") == "True"
    assert (lease.held, lease.taken(), lease.take(), others().ask("take")) == (False, True, False, "False")
    lease.release()
    assert (others().ask("take"), lease.take()) == ("False", False)


def test_a_lock_that_was_taken_away_is_made_anew_by_whom_it_was_taken_from(ledger, others):
    lease = LeaseFile(str(ledger), "shop-2.0")
    assert lease.take()
    os.unlink(lease._path)
    assert (lease.held, lease.taken()) == (False, False)
    assert (lease.take(), lease.held, others().ask("take")) == (True, True, "False")
    lease.release()


def test_a_place_that_cannot_be_written_is_an_error(tmp_path):
    (tmp_path / "file").write_text("")
    lease = LeaseFile(str(tmp_path / "file" / "ledger.jsonl"), "shop-2.0")
    with pytest.raises(LedgerError, match=r"cannot be taken: (Not a directory|File exists)"):
        lease.take()


def test_names_that_are_no_file_names_stay_apart():
    names = [slug(name) for name in ("shop-2.0", "shop/2.0", "shop 2.0", "shop_2.0", "s" * 300, "s" * 301)]
    assert len(set(names)) == len(names)
    assert all("/" not in name and len(name) < 100 for name in names)
