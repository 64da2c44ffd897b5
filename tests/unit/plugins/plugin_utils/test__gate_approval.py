# Copyright: onprem.rollout contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Real keys and real signatures, made by ssh-keygen."""

from __future__ import annotations

import subprocess

import pytest

from ansible_collections.onprem.rollout.plugins.plugin_utils._gate import Verdict
from ansible_collections.onprem.rollout.plugins.plugin_utils._gate_approval import ApprovalGate, approval_text
from ansible_collections.onprem.rollout.plugins.plugin_utils._ledger import Entry, Event, Head, seconds, stamp
from ansible_collections.onprem.rollout.plugins.plugin_utils._ledger_file import LedgerFile
from ansible_collections.onprem.rollout.plugins.plugin_utils._signatures import APPROVAL, person, sign
from ansible_collections.onprem.rollout.tests.unit.plugins.plugin_utils.approvals import (
    EARLIER,
    LATER,
    LAUNCHER,
    NOW,
    OTHER,
    PLAN,
    event,
    gate,
    signed,
    situation,
)

WAITS = "waits for 1 approval of plan abc123def456, by somebody else than ada: ansible-playbook onprem.rollout.approve"


# --- without signatures ---

COUNTS = {
    "by somebody else": event(by="bob"),
    "without a name, then by who wrote it": event(),
    "with an end to come": event(by="bob", expires=LATER),
    "expires exactly now: it is expired when now > expires": event(by="bob", expires=stamp(NOW)),
    "with an end in another zone": event(by="bob", expires="2027-01-15T10:00:00+02:00"),
}


@pytest.mark.parametrize("entry", COUNTS.values(), ids=COUNTS)
def test_an_approval_counts(entry):
    answer = ApprovalGate("approval").ask(situation(entry))
    assert (answer.verdict, answer.why) == (Verdict.PASS, "plan abc123def456 is approved by bob")
    assert answer.until == (seconds(entry.data["expires"]) if entry.data["expires"] else None)


DOES_NOT_COUNT = {
    "is for plan ffffffffffff": event(plan=OTHER, by="bob"),
    f"expired at {stamp(NOW - 1)}": event(by="bob", expires=stamp(NOW - 1)),
    "is by the launcher": event(by="ada"),
    "is by the launcher ": event(by="bob", who="ada on elsewhere, pid 1"),
    "is by the launcher  ": event(by="ADA@example.org"),
    "expires '2027-01-20T00:00:00', which does not say in which zone": event(by="bob", expires="2027-01-20T00:00:00"),
    "expires 'soon', which is no ISO 8601 time": event(by="bob", expires="soon"),
    "expires 5, which is no ISO 8601 time": event(by="bob", expires=5),
    "is by '', which is no name": event(by=""),
    "is by ['bob'], which is no name": event(by=["bob"]),
    "says no plan or no remark as text": event(by="bob", plan=None),
    "has a signature that is none": event(by="bob", signature=7),
    "is no JSON text with plan, by, remark and expires": event(by="bob", signature="x", text="[]"),
}


@pytest.mark.parametrize("why, entry", DOES_NOT_COUNT.items(), ids=DOES_NOT_COUNT)
def test_an_approval_does_not_count_and_it_is_said_why(why, entry):
    answer = ApprovalGate("approval").ask(situation(entry))
    assert answer.verdict is Verdict.HOLD
    assert answer.why.endswith(f"(line 3 of the ledger) {why.rstrip()}")
    assert answer.why.startswith(
        "waits for 1 approval of plan abc123def456, by somebody else than ada: ansible-playbook onprem.rollout.approve; does not count"
    )


def test_other_events_approve_nothing():
    hold = Entry(Head(1, ""), "hold", "shop-2.0", "bob on ctl1", NOW, {"plan": PLAN, "by": "bob"})
    assert ApprovalGate("approval").ask(situation(hold)).why == WAITS


def test_the_launcher_may_approve_where_that_is_allowed():
    assert ApprovalGate("approval", not_launcher=False).ask(situation(event(by="ada", who=LAUNCHER))).verdict is Verdict.PASS


def test_whoever_launched_an_earlier_run_of_the_plan_does_not_count_either():
    asked = situation(event(by="bob"), launcher="cron on ctl1, pid 9", launchers={"bob@example.org", "cron", ""})
    answer = ApprovalGate("approval").ask(asked)
    assert answer.verdict is Verdict.HOLD
    assert ", by somebody else than bob and cron: " in answer.why
    assert "is by the launcher of an earlier run of it" in answer.why
    assert ApprovalGate("approval", not_launcher=False).ask(asked).verdict is Verdict.PASS


def test_a_launcher_whom_nobody_knows_is_an_error():
    answer = ApprovalGate("approval").ask(situation(event(by="bob"), launcher=""))
    assert (answer.verdict, answer.why) == (Verdict.ERROR, "approvals cannot be checked: nobody knows who launched this run, and it must not be the approver")


TWO = [
    ([event(by="bob"), event(by="carol", who="carol on ctl3")], Verdict.PASS),
    ([event(by="bob"), event(by="bob")], Verdict.HOLD),
    ([event(by="bob@example.org"), event(by="Bob", who="dave on ctl1")], Verdict.HOLD),
    ([event(by="bob"), event(by="carol")], Verdict.HOLD),  # the same person wrote both
    ([event(by="bob")], Verdict.HOLD),
]


@pytest.mark.parametrize("events, verdict", TWO)
def test_the_same_approver_counts_once(events, verdict):
    answer = ApprovalGate("approval", count=2).ask(situation(*events))
    assert answer.verdict is verdict
    if verdict is Verdict.HOLD:
        assert answer.why.startswith("waits for 1 approval of plan")
        assert ("is by somebody who is counted already" in answer.why) is (len(events) == 2)


AGES = [(NOW - 100, Verdict.PASS, NOW), (NOW - 101, Verdict.HOLD, None), (NOW + 5000, Verdict.PASS, NOW + 5100)]


@pytest.mark.parametrize("at, verdict, until", AGES)
def test_an_approval_without_an_end_holds_for_max_age(at, verdict, until):
    """It has expired when now - at > max_age."""
    answer = ApprovalGate("approval", max_age=100).ask(situation(event(by="bob", at=at)))
    assert (answer.verdict, answer.until) == (verdict, until)


def test_what_somebody_says_now_counts_more_than_before():
    answer = ApprovalGate("approval").ask(situation(event(by="bob", expires=EARLIER), event(by="bob", expires=LATER)))
    assert (answer.verdict, answer.until) == (Verdict.PASS, seconds(LATER))


def test_a_long_list_of_flaws_is_cut():
    answer = ApprovalGate("approval").ask(situation(*[event(by="bob", plan=OTHER, number=number) for number in range(1, 9)]))
    assert answer.why.count("is for plan") == 5
    assert "(line 8 of the ledger)" in answer.why
    assert answer.why.endswith("; and 3 more")


@pytest.mark.parametrize("name, who", [("ada on ctl1, pid 7", "ada"), ("Ada@example.org", "ada"), (" ada ", "ada"), ("Ada Lovelace", "ada lovelace"), ("", "")])
def test_people(name, who):
    assert person(name) == who


# --- signed ---


def test_a_signed_approval_counts(keys):
    answer = gate(keys).ask(situation(signed(keys)))
    assert (answer.verdict, answer.until) == (Verdict.PASS, seconds(LATER))
    assert answer.why == "plan abc123def456 is approved by bob@example.org (looks good)"


def test_a_signature_survives_the_ledger(keys, tmp_path):
    ledger = LedgerFile(str(tmp_path / "ledger.jsonl"), "bob on ctl2, pid 9", lambda: NOW)
    text = approval_text(PLAN, "bob@example.org", "grüße\n\U0001f600", LATER)
    ledger.append([Event("approve", "shop-2.0", {"text": text, "signature": sign(text, str(keys / "bob"), APPROVAL)})])
    assert gate(keys).ask(situation(*ledger.entries())).why == "plan abc123def456 is approved by bob@example.org (grüße \U0001f600)"


def other_namespace(keys):
    text = approval_text(PLAN, "bob@example.org", "", LATER)
    done = subprocess.run(["ssh-keygen", "-q", "-Y", "sign", "-n", "file", "-f", str(keys / "bob")], input=text, text=True, stdout=subprocess.PIPE, check=True)
    return event(text=text, signature=done.stdout)


FLAWED = {
    "not signed": (lambda keys: event(by="bob"), "is not signed"),
    "a key nobody knows": (lambda keys: signed(keys, key="mallory"), "was signed with a key that allowed_signers does not have for that name"),
    "somebody else's key": (lambda keys: signed(keys, key="carol"), "was signed with a key that allowed_signers does not have for that name"),
    "a key of yesterday": (lambda keys: signed(keys, key="old"), "was signed with a key that allowed_signers says has expired"),
    "the text changed": (
        lambda keys: signed(keys, text=approval_text(PLAN, "bob@example.org", "never mind", LATER)),
        "has a signature of another text: one of them was changed",
    ),
    "one byte more": (
        lambda keys: signed(keys, text=approval_text(PLAN, "bob@example.org", "looks good", LATER) + "\n"),
        "has a signature of another text: one of them was changed",
    ),
    "another purpose": (other_namespace, "was signed for another purpose, and not with -n onprem-rollout"),
    "no signature at all": (lambda keys: signed(keys, signature="yes"), "has a signature that is none"),
    "half a signature": (
        lambda keys: signed(keys, signature="-----BEGIN SSH SIGNATURE-----\nU1NIU0lH\n-----END SSH SIGNATURE-----\n"),
        "has a signature that",
    ),
    "no text": (lambda keys: signed(keys, text=None), "is no JSON text with plan, by, remark and expires"),
    "another plan, whatever the event says": (lambda keys: signed(keys, plan=OTHER), "is for plan ffffffffffff"),
    "expired, whatever the event says": (lambda keys: signed(keys, expires=EARLIER, at=NOW), f"expired at {EARLIER}"),
    "the launcher, whatever the event says": (lambda keys: signed(keys, by="ada@example.org", key="ada", who="bob on ctl2"), "is by the launcher"),
}


@pytest.mark.parametrize("make, why", FLAWED.values(), ids=FLAWED)
def test_a_signed_approval_does_not_count_and_it_is_said_why(keys, make, why):
    answer = gate(keys).ask(situation(make(keys)))
    assert answer.verdict is Verdict.HOLD
    assert why in answer.why.partition("does not count: ")[2]


def test_a_signed_approval_may_be_brought_in_by_anybody(keys):
    assert gate(keys).ask(situation(signed(keys, who=LAUNCHER))).verdict is Verdict.PASS


def test_one_key_counts_once_whatever_it_says(keys):
    events = [signed(keys), signed(keys, by="robert@example.org")]
    assert gate(keys, count=2).ask(situation(*events)).verdict is Verdict.HOLD
    assert gate(keys, count=2).ask(situation(*events, signed(keys, by="carol@example.org", key="carol"))).verdict is Verdict.PASS


def test_a_key_that_is_taken_out_while_the_rollout_waits_counts_no_more(keys, tmp_path):
    allowed = tmp_path / "allowed"
    allowed.write_text((keys / "allowed").read_text())
    asked, there = ApprovalGate("approval", allowed_signers=str(allowed)), situation(signed(keys))
    assert asked.ask(there).verdict is Verdict.PASS
    allowed.write_text(f"carol@example.org {(keys / 'carol.pub').read_text()}")
    assert asked.ask(there).verdict is Verdict.HOLD


def test_a_signature_that_is_written_again_is_not_younger(keys):
    old, again = signed(keys, expires=None, at=NOW - 500), signed(keys, expires=None, at=NOW)
    assert gate(keys, max_age=100).ask(situation(old)).verdict is Verdict.HOLD
    assert gate(keys, max_age=100).ask(situation(old, again)).verdict is Verdict.HOLD
    assert gate(keys, max_age=1000).ask(situation(old, again)).until == NOW + 500
