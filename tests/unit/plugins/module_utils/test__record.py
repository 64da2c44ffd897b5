# Copyright: onprem.rollout contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

import json
import os

import pytest

from ansible_collections.onprem.rollout.plugins.module_utils import _record
from ansible_collections.onprem.rollout.plugins.module_utils._errors import RolloutError
from ansible_collections.onprem.rollout.tests.unit.plugins.module_utils.host_helpers import NEW, OLD, RUN

NOW = 1700000000.0
PAIRS = [(phase, following) for phase in sorted(_record.PHASES) for following in sorted(_record.PHASES)]
# Written down once more, on purpose: a change of the table must be meant.
ALLOWED = {
    ("prepared", "changing"),
    ("prepared", "restoring"),
    ("changing", "verifying"),
    ("changing", "restoring"),
    ("verifying", "awaiting_commit"),
    ("verifying", "verifying"),
    ("verifying", "restoring"),
    ("awaiting_commit", "committed"),
    ("awaiting_commit", "verifying"),
    ("awaiting_commit", "restoring"),
    ("restoring", "restored"),
    ("restoring", "inconsistent"),
    ("restoring", "restoring"),
    ("restored", "restoring"),
    ("inconsistent", "restoring"),
    ("changing", "held"),
    ("verifying", "held"),
    ("awaiting_commit", "held"),
    ("held", "restoring"),
    ("held", "committed"),
}


def transaction(phase="prepared", **more):
    base = {
        "id": "t1",
        "rollout": "r1",
        "holder": RUN,
        "release": NEW,
        "previous": OLD,
        "phase": phase,
        "snapshot": "s1",
        "began": _record.iso(NOW),
        "updated": _record.iso(NOW),
        "lease_until": NOW + 60,
        "options": {},
        "reason": None,
    }
    return dict(base, **more)


def record(phase="prepared", **more):
    return dict({"schema": 1, "installed": OLD, "last_known_good": "s0", "transaction": transaction(phase), "history": []}, **more)


@pytest.mark.parametrize(("phase", "following"), PAIRS)
def test_the_one_writer_refuses_what_the_table_does_not_allow(tmp_path, phase, following):
    if (phase, following) in ALLOWED:
        moved = _record.advance(str(tmp_path), record(phase), following, NOW + 5)
        assert moved["transaction"]["phase"] == following
        assert _record.load(str(tmp_path)) == moved
    else:
        with pytest.raises(RolloutError, match=f"t1 is {phase}; from there it cannot become {following}"):
            _record.advance(str(tmp_path), record(phase), following, NOW + 5)
        assert os.listdir(str(tmp_path)) == []


@pytest.mark.parametrize("phase", sorted(_record.PHASES))
def test_only_what_is_over_makes_room_for_the_next_transaction(tmp_path, phase):
    if phase in ("committed", "restored"):
        assert _record.open_transaction(record(phase)) is None
        assert _record.start(str(tmp_path), record(phase), transaction(id="t2"))["transaction"]["id"] == "t2"
    else:
        assert _record.open_transaction(record(phase))["phase"] == phase
        with pytest.raises(RolloutError, match=f"still {phase}"):
            _record.start(str(tmp_path), record(phase), transaction(id="t2"))


OUTCOMES = [
    ("awaiting_commit", "committed", "committed", NEW, "s1"),
    ("restoring", "restored", "restored", OLD, "s0"),
    ("restoring", "inconsistent", "restore_failed", OLD, "s0"),
]


@pytest.mark.parametrize(("phase", "following", "outcome", "installed", "good"), OUTCOMES)
def test_the_end_of_a_transaction_is_one_write(tmp_path, phase, following, outcome, installed, good):
    moved = _record.advance(str(tmp_path), record(phase), following, NOW + 61.5, good, reason="because")
    assert moved["installed"] == installed
    assert moved["last_known_good"] == good
    assert moved["history"] == [
        {
            "id": "t1",
            "rollout": "r1",
            "release": NEW,
            "previous": OLD,
            "outcome": outcome,
            "began": "2023-11-14T22:13:20Z",
            "ended": "2023-11-14T22:14:21Z",
            "seconds": 61,
            "reason": "because",
        }
    ]


def test_the_history_is_bounded_and_keeps_the_newest(tmp_path):
    full = record("restoring", history=[{"id": number} for number in range(20)])
    moved = _record.advance(str(tmp_path), full, "restored", NOW)
    assert len(moved["history"]) == 20
    assert [entry["id"] for entry in moved["history"]][-2:] == [19, "t1"]


def test_a_host_without_a_record_was_never_upgraded(tmp_path):
    assert _record.load(str(tmp_path)) == {"schema": 1, "installed": None, "last_known_good": None, "transaction": None, "history": []}
    assert os.listdir(str(tmp_path)) == []


UNREADABLE = [
    ("{torn", "record", "cannot be read"),
    ("", "record", "cannot be read"),
    ("[]", "record", "no schema"),
    ('{"schema": "1"}', "record", "no schema"),
    ('{"schema": 0}', "record", "its schema is 0"),
    ('{"schema": 3}', "schema", "has schema 3; this version of onprem.rollout knows schemas up to 2"),
    ('{"schema": 1}', "record", "missing"),
    (json.dumps(record("prepared", transaction={"id": "x"})), "record", "transaction has no rollout, holder"),
    (json.dumps(record("prepared", transaction=[])), "record", "not a mapping"),
    (json.dumps(dict(record("changing"), failed=[{"times": 1}])), "record", "failed is not a list"),
    (json.dumps(record("exploded")), "record", "phase 'exploded' is unknown"),
    (json.dumps(record("prepared", transaction=transaction(holder=None))), "record", "holder or options"),
]


@pytest.mark.parametrize(("content", "reason", "says"), UNREADABLE)
def test_a_record_that_is_not_understood_is_named_and_stays(tmp_path, content, reason, says):
    path = tmp_path / "record.json"
    path.write_text(content)
    with pytest.raises(RolloutError, match=says) as caught:
        _record.load(str(tmp_path))
    assert caught.value.reason == reason
    assert str(path) in str(caught.value)
    assert "Nothing was touched" in str(caught.value)
    assert path.read_text() == content


def test_a_record_that_cannot_be_there_is_not_asked_to_be_put_back(tmp_path):
    (tmp_path / "file").touch()
    with pytest.raises(RolloutError, match="Set state_dir to a directory of the user that runs this, or use become") as caught:
        _record.load(str(tmp_path / "file" / "state"))
    assert "good copy" not in str(caught.value)


@pytest.mark.parametrize("now", [0.0, NOW, 951782400.0, 951868799.0, 1735689599.0, 4102444799.0, 4107542400.0])
def test_times_are_utc_and_come_back(now):
    assert _record.unix(_record.iso(now)) == now


@pytest.mark.parametrize("text", ["", "soon", "2025-01-31 23:59:59Z", "2025-02-30T00:00:00Z", "2025-13-01T00:00:00Z", "2025-01-31T24:00:00Z"])
def test_a_text_that_is_no_time_is_not_taken_for_one(text):
    with pytest.raises(ValueError, match=r"is no time|invalid literal"):
        _record.unix(text)
