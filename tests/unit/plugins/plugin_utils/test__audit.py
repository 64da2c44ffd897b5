# Copyright: onprem.rollout contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

from __future__ import annotations

from ansible_collections.onprem.rollout.plugins.plugin_utils._audit import anchor_of, audit
from ansible_collections.onprem.rollout.plugins.plugin_utils._ledger import START, Event, Head, head_of, line_of, repair_of, replay


def chain(*whys):
    lines, heads = [], [START]
    for why in whys:
        lines.append(line_of(heads[-1], Event("hold", "r", {"why": why}), "ada", 0.0))
        heads.append(head_of(heads[-1], lines[-1]))
    return lines, heads


def test_a_ledger_that_is_what_was_written():
    lines, heads = chain("a", "b", "c")
    sound, said = audit("l", replay(lines), {"web1": heads[2], "web2": heads[3]})
    assert (sound, said[0]) == (True, "audit: l: 3 events, the chain is whole; 2 hosts agree")
    assert said[1].endswith(heads[3].sha256)
    assert said[2] == "  hosts prove all up to line 3"


def test_what_came_after_the_last_step_on_a_host_is_said_to_be_unproven():
    lines, heads = chain("a", "b", "c", "d")
    assert audit("l", replay(lines), {"web1": heads[2]})[1][2] == "  hosts prove all up to line 2; that the 2 after it are the last ones nobody can prove"
    assert audit("l", replay(lines[:3]), {"web1": heads[2]})[0], "the end after line 2 may be cut off"
    assert not audit("l", replay(lines[:1]), {"web1": heads[2]})[0]
    assert audit("l", replay(lines), {})[1][2].startswith("  no host proves any line; that the 4 after it")


def test_an_edit_names_the_line_and_the_hosts_that_know_better():
    lines, heads = chain("a", "b", "c")
    lines[1] = lines[1].replace('"b"', '"x"')
    sound, said = audit("l", replay(lines), {"web1": heads[1], "web2": heads[3]})
    assert not sound
    assert said[1:] == [
        "  the chain breaks: line 3 does not follow from line 2, which was changed after it was written",
        "  web2 was changed at line 3, which the ledger does not have: its end is lost",
    ]


def test_a_ledger_that_was_written_anew_is_whole_and_the_hosts_prove_it():
    old, new = chain("a", "b"), chain("a", "x")
    sound, said = audit("l", replay(new[0]), {"web1": old[1][2]})
    assert (sound, said[1]) == (False, "  web1 was changed at another line 2 than the ledger has: the ledger was written anew")


def test_a_line_that_a_crash_cut_off_is_told_of():
    line = line_of(START, Event("repaired", "r", {"lost": '{"at'}), "ada", 0.0)
    sound, said = audit("l", replay([line]), {})
    assert (sound, said[3:]) == (True, [f"  {repair_of(next(replay([line])))}"])
    assert "line 1: a crash cut off the line" in said[3]
    assert audit("l", replay([line]), {"web1": Head(2, "")})[1][-1] == said[3]


def test_the_anchor_of_a_record():
    assert anchor_of({"transaction": {"anchor": {"number": 3, "sha256": "ab"}}}) == Head(3, "ab")
    assert [anchor_of(record) for record in ({}, {"transaction": None}, {"transaction": {"anchor": None}}, {"transaction": {"anchor": {"number": "3"}}})] == [
        None
    ] * 4
