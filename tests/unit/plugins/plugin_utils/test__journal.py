# Copyright: onprem.rollout contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

from __future__ import annotations

import pytest

from ansible_collections.onprem.rollout.plugins.plugin_utils._journal import LISTEN, RETRY, Journal
from ansible_collections.onprem.rollout.plugins.plugin_utils._ledger_file import LedgerFile


class Clock:
    now = 0.0

    def __call__(self):
        return self.now


@pytest.fixture
def ledger(tmp_path):
    return LedgerFile(str(tmp_path / "below" / "ledger.jsonl"), "ada", lambda: 0.0)


@pytest.fixture
def clock():
    return Clock()


@pytest.fixture
def journal(ledger, clock):
    journal = Journal(ledger, "shop-2.0", clock)
    journal.note("started")
    assert journal.flush()
    journal.open()
    return journal


@pytest.fixture
def away(tmp_path):
    """The ledger's place is gone, and something else is there, until it is called."""
    (tmp_path / "below").rename(tmp_path / "elsewhere")
    (tmp_path / "below").write_text("")

    def back():
        (tmp_path / "below").unlink()
        (tmp_path / "elsewhere").rename(tmp_path / "below")

    return back


def test_trouble_with_listening_ends_when_it_can_listen_again_though_nothing_is_to_be_written(journal, clock, away):
    clock.now += LISTEN
    assert (journal.listen(), "Not a directory" in journal.trouble) == ([], True)
    away()
    clock.now += LISTEN
    assert (journal.listen(), journal.trouble, journal.flush()) == ([], "", True)


def test_a_chain_that_is_broken_is_trouble_though_it_can_be_written(journal, ledger, clock, tmp_path):
    (tmp_path / "below" / "ledger.jsonl").write_text("")
    clock.now += LISTEN
    assert journal.listen() == []
    journal.note("halted")
    assert journal.flush()
    assert "line 1 is gone" in journal.trouble
    clock.now += LISTEN
    assert (journal.listen(), "line 1" in journal.trouble) == ([], True)


def test_trouble_with_writing_lasts_until_it_is_written(journal, ledger, clock, away):
    journal.note("halted")
    assert not journal.flush()
    away()
    clock.now += LISTEN
    journal.listen()
    assert "cannot be written" in journal.trouble
    clock.now += RETRY
    assert (journal.flush(), journal.trouble) == (True, "")
    assert [entry.kind for entry in ledger.entries()] == ["started", "halted"]
