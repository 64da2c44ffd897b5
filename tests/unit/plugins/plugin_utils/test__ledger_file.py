# Copyright: onprem.rollout contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

from __future__ import annotations

import fcntl
import multiprocessing
import os
import resource
import shutil
import tempfile
import time

import pytest

from ansible_collections.onprem.rollout.plugins.plugin_utils import _ledger_file
from ansible_collections.onprem.rollout.plugins.plugin_utils._ledger import BrokenChain, Event, LedgerError, line_of
from ansible_collections.onprem.rollout.plugins.plugin_utils._ledger_file import LedgerFile

FORK = multiprocessing.get_context("fork")


@pytest.fixture
def ledger(tmp_path):
    return LedgerFile(str(tmp_path / "below" / "ledger.jsonl"), "ada", lambda: 1700000000.0)


def kinds(ledger):
    return [entry.kind for entry in ledger.entries()]


def test_only_its_owner_reads_it(ledger):
    ledger.append([Event("hold", "r", {})])
    assert os.stat(ledger.name).st_mode & 0o777 == 0o600


def test_a_line_that_a_crash_cut_off_anywhere_is_taken_away_and_reported(ledger):
    ledger.append([Event("hold", "r", {"why": "ünïcode"})])
    ledger.append([Event("resume", "r", {})])
    with open(ledger.name, "rb") as source:
        whole = source.read()
    first = whole.index(b"\n") + 1
    for cut in range(first + 1, len(whole)):
        with open(ledger.name, "wb") as out:
            out.write(whole[:cut])
        reader = LedgerFile(ledger.name, "ada", lambda: 0.0)
        assert [entry.kind for entry in list(reader.news())] == ["hold"] == kinds(ledger)
        ledger.append([Event("abort", "r", {})])
        found = list(ledger.entries())
        assert [entry.kind for entry in found] == ["hold", "repaired", "abort"]
        assert found[1].data["lost"] == whole[first:cut].decode()
        assert [entry.kind for entry in list(reader.news())] == ["repaired", "abort"]


def test_a_disk_that_is_full_changes_nothing(ledger):
    """The limit on a file's size stands for the disk: a write is cut short by it, and the next one fails."""
    ledger.append([Event("hold", "r", {})])
    before = open(ledger.name, "rb").read()

    def write(done):
        resource.setrlimit(resource.RLIMIT_FSIZE, (len(before) + 10, resource.RLIM_INFINITY))
        try:
            ledger.append([Event("resume", "r", {})])
        except LedgerError as error:
            done.put(str(error))
        else:
            done.put("written")

    said = FORK.SimpleQueue()
    process = FORK.Process(target=write, args=(said,))
    process.start()
    process.join(60)
    assert said.get() == f"the ledger {ledger.name} cannot be written: File too large"
    assert open(ledger.name, "rb").read() == before
    ledger.append([Event("resume", "r", {})])
    assert kinds(ledger) == ["hold", "resume"]


def as_somebody_else(attempt):
    """What the attempt ends with for an account that owns nothing here."""

    def run(said):
        os.setgid(65534)
        os.setuid(65534)
        try:
            attempt()
        except LedgerError as error:
            said.put(str(error))
        else:
            said.put("nothing went wrong")

    said = FORK.SimpleQueue()
    process = FORK.Process(target=run, args=(said,))
    process.start()
    process.join(60)
    return said.get()


@pytest.mark.skipif(os.getuid() != 0, reason="only root can become somebody else; make test is root")
def test_who_may_not_read_or_write_it_is_told_so():
    with tempfile.TemporaryDirectory() as place:  # nobody else enters those of pytest
        os.chmod(place, 0o755)
        ledger = LedgerFile(f"{place}/ledger.jsonl", "ada", lambda: 0.0)
        ledger.append([Event("hold", "r", {})])
        assert as_somebody_else(lambda: ledger.append([Event("resume", "r", {})])) == f"the ledger {ledger.name} cannot be written: Permission denied"
        for read in (ledger.entries, ledger.news, ledger.newest_first):
            assert as_somebody_else(lambda read=read: list(read())) == f"the ledger {ledger.name} cannot be read: Permission denied"
        os.chmod(ledger.name, 0o644)
        assert as_somebody_else(lambda: list(ledger.entries())) == "nothing went wrong"
        assert kinds(ledger) == ["hold"]


@pytest.fixture
def hurried(monkeypatch):
    monkeypatch.setattr(_ledger_file, "LIMIT", 0.2)
    monkeypatch.setattr(_ledger_file, "REST", 0.5)


def test_nobody_waits_for_ever_for_a_process_that_keeps_the_lock(ledger, hurried):
    ledger.append([Event("hold", "r", {})])
    for attempt in (lambda: ledger.append([Event("resume", "r", {})]), lambda: list(ledger.news()), lambda: list(ledger.newest_first())):
        began = time.monotonic()
        with open(ledger.name) as other:
            fcntl.flock(other, fcntl.LOCK_EX)
            with pytest.raises(LedgerError, match=r"ledger\.jsonl is locked by another process .* look for it with: fuser -v /"):
                attempt()
            assert time.monotonic() - began < 2
            began = time.monotonic()
            with pytest.raises(LedgerError, match="is locked by another process"):
                attempt()
            assert time.monotonic() - began < 0.2, "it rests"
        attempt()
    assert kinds(ledger) == ["hold", "resume"]


def test_a_line_that_its_writer_may_still_take_back_is_not_read(ledger, hurried):
    head = ledger.append([Event("hold", "r", {})])
    list(ledger.news())
    with open(ledger.name, "r+") as writer:
        fcntl.flock(writer, fcntl.LOCK_EX)
        end = writer.seek(0, os.SEEK_END)
        writer.write(line_of(head, Event("abort", "r", {}), "ada", 0.0) + "\n")
        writer.flush()
        for read in (ledger.news, ledger.entries, ledger.newest_first):
            with pytest.raises(LedgerError):
                list(read())
        os.ftruncate(writer.fileno(), end)
    assert [kinds(ledger), list(ledger.news())] == [["hold"], []]


@pytest.mark.parametrize("harm, why", [("remove", "is gone: the ledger was removed"), ("cut", "is gone: the ledger is shorter than it was")])
def test_a_ledger_that_shrinks_under_a_run_is_seen(ledger, harm, why):
    ledger.append([Event("hold", "r", {})])
    list(ledger.news())
    if harm == "remove":
        os.remove(ledger.name)
    else:
        os.truncate(ledger.name, 5)
    with pytest.raises(BrokenChain, match=f"line 1 {why}"):
        list(ledger.news())


def test_a_place_that_cannot_be_written_is_an_error_with_its_reason(tmp_path):
    (tmp_path / "file").write_text("")
    ledger = LedgerFile(str(tmp_path / "file" / "ledger.jsonl"), "ada", lambda: 0.0)
    with pytest.raises(LedgerError, match=r"ledger\.jsonl cannot be written: (Not a directory|File exists)"):
        ledger.append([Event("hold", "r", {})])


def test_what_is_written_while_another_file_takes_the_ledgers_place_is_in_that_one(ledger):
    ledger.append([Event("hold", "r", {})])
    with open(ledger.name, "rb") as locked:
        fcntl.flock(locked, fcntl.LOCK_EX)
        writer = FORK.Process(target=lambda: (os.close(locked.fileno()), ledger.append([Event("resume", "r", {})])))
        writer.start()
        try:
            deadline = time.monotonic() + _ledger_file.LIMIT / 2
            while ledger.name not in {os.path.realpath(each.path) for each in os.scandir(f"/proc/{writer.pid}/fd")}:
                assert time.monotonic() < deadline
            shutil.copy(ledger.name, f"{ledger.name}.copy")
            os.replace(f"{ledger.name}.copy", ledger.name)
        finally:
            fcntl.flock(locked, fcntl.LOCK_UN)
            writer.join()
    assert kinds(ledger) == ["hold", "resume"]
