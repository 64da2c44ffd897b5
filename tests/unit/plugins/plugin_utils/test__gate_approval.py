# Copyright: onprem.rollout contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Real keys and real signatures, made by ssh-keygen."""

from __future__ import annotations

import json
import os
import subprocess

import pytest

from ansible_collections.onprem.rollout.plugins.plugin_utils import _gate_approval
from ansible_collections.onprem.rollout.plugins.plugin_utils._gate import Situation, Verdict
from ansible_collections.onprem.rollout.plugins.plugin_utils._gate_approval import ApprovalGate, approval_text, parse, person, sign, verify
from ansible_collections.onprem.rollout.plugins.plugin_utils._ledger import Entry, Event, Head, seconds, stamp
from ansible_collections.onprem.rollout.plugins.plugin_utils._ledger_file import LedgerFile

PLAN = "abc123def456" + "0" * 52
OTHER = "f" * 64
NOW = 1_800_000_000.0
LATER, EARLIER = stamp(NOW + 3600), stamp(NOW - 3600)
LAUNCHER = "ada on ctl1, pid 7"
WAITS = "waits for 1 approval of plan abc123def456, by somebody else than ada: ansible-playbook onprem.rollout.approve"


@pytest.fixture(scope="session")
def keys(tmp_path_factory):
    """The private keys of bob, carol and mallory; the first two are allowed, and bob's old one no more."""
    directory = tmp_path_factory.mktemp("keys")
    for name in ("ada", "bob", "carol", "mallory", "old"):
        subprocess.run(["ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-C", name, "-f", str(directory / name)], check=True)
    public = {name: (directory / f"{name}.pub").read_text() for name in ("ada", "bob", "carol", "old")}
    lines = [
        f"ada@example.org {public['ada']}",
        f"bob@example.org,robert@example.org {public['bob']}",
        f"carol@example.org {public['carol']}",
        f'bob@example.org valid-before="20200101" {public["old"]}',
    ]
    (directory / "allowed").write_text("".join(lines))
    return directory


def event(at=NOW - 60, who="bob on ctl2, pid 9", number=3, **data):
    return Entry(Head(number, "0" * 64), "approve", "shop-2.0", who, at, {"plan": PLAN, "remark": "", "expires": None, **data})


def signed(keys, by="bob@example.org", key="bob", plan=PLAN, expires=LATER, remark="looks good", **changes):
    text = approval_text(plan, by, remark, expires)
    return event(**{"by": by, "expires": expires, "text": text, "signature": sign(text, str(keys / key)), **changes})


def situation(*events, now=NOW, launcher=LAUNCHER):
    return Situation(PLAN, "shop-2.0", "early", 1, ("web1",), launcher, now, events)


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


def gate(keys, **options):
    return ApprovalGate("approval", allowed_signers=str(keys / "allowed"), **options)


def test_a_signed_approval_counts(keys):
    answer = gate(keys).ask(situation(signed(keys)))
    assert (answer.verdict, answer.until) == (Verdict.PASS, seconds(LATER))
    assert answer.why == "plan abc123def456 is approved by bob@example.org (looks good)"


def test_a_signature_survives_the_ledger(keys, tmp_path):
    ledger = LedgerFile(str(tmp_path / "ledger.jsonl"), "bob on ctl2, pid 9", lambda: NOW)
    text = approval_text(PLAN, "bob@example.org", "grüße\n\U0001f600", LATER)
    ledger.append([Event("approve", "shop-2.0", {"text": text, "signature": sign(text, str(keys / "bob"))})])
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


def no_keygen(keys, monkeypatch, tmp_path):
    monkeypatch.setenv("PATH", str(tmp_path))
    return str(keys / "allowed")


def hangs(keys, monkeypatch, tmp_path):
    program(monkeypatch, tmp_path, "exec sleep 60")
    monkeypatch.setattr(_gate_approval, "KEYGEN_LIMIT", 0.2)
    return str(keys / "allowed")


def too_old(keys, monkeypatch, tmp_path):
    program(monkeypatch, tmp_path, "echo 'unknown option -- Y' >&2; echo 'usage: ssh-keygen' >&2; exit 1")
    return str(keys / "allowed")


def program(monkeypatch, tmp_path, body):
    (tmp_path / "ssh-keygen").write_text(f"#!/bin/sh\n{body}\n")
    (tmp_path / "ssh-keygen").chmod(0o755)
    monkeypatch.setenv("PATH", str(tmp_path), prepend=os.pathsep)


def gone(keys, monkeypatch, tmp_path):
    return str(tmp_path / "gone")


def directory(keys, monkeypatch, tmp_path):
    return str(tmp_path)


ERRORS = [
    (no_keygen, "ssh-keygen cannot be started: No such file or directory; install OpenSSH's client on the controller"),
    (hangs, "ssh-keygen did not end within 0.2 s"),
    (too_old, "ssh-keygen -Y verify ended with 1: unknown option -- Y; it needs OpenSSH 8.1 or newer"),
    (gone, "allowed_signers "),
    (directory, "allowed_signers "),
]


@pytest.mark.parametrize("make, why", ERRORS)
def test_what_cannot_be_checked_is_an_error(keys, monkeypatch, tmp_path, make, why):
    there = situation(signed(keys))
    answer = ApprovalGate("approval", allowed_signers=make(keys, monkeypatch, tmp_path)).ask(there)
    assert answer.verdict is Verdict.ERROR
    assert answer.why.startswith(f"approvals cannot be checked: {why}")


def test_a_file_of_signers_that_goes_in_the_very_moment_is_an_error(keys, tmp_path):
    text = approval_text(PLAN, "bob@example.org", "", None)
    with pytest.raises(_gate_approval.CannotAsk, match="allowed_signers cannot be read"):
        verify(text, sign(text, str(keys / "bob")), "bob@example.org", str(tmp_path / "gone"))


def test_a_key_that_cannot_sign_says_so(tmp_path):
    with pytest.raises(_gate_approval.CannotAsk, match="could not sign"):
        sign("text", str(tmp_path / "gone"))


# --- files ---


def write(directory, name, text, keys, key="bob"):
    (directory / name).write_text(text)
    subprocess.run(["ssh-keygen", "-q", "-Y", "sign", "-n", "onprem-rollout", "-f", str(keys / key), str(directory / name)], check=True)


def test_a_file_that_somebody_signed_by_hand_counts(keys, tmp_path):
    text = json.dumps({"plan": PLAN, "by": "bob@example.org", "remark": "grüße", "expires": LATER}, indent=2, ensure_ascii=False)
    write(tmp_path, "bob.json", text, keys)
    answer = gate(keys, files=str(tmp_path)).ask(situation())
    assert (answer.verdict, answer.why) == (Verdict.PASS, "plan abc123def456 is approved by bob@example.org (grüße)")
    (tmp_path / "bob.json").write_text(text + " ")
    assert "one of them was changed" in gate(keys, files=str(tmp_path)).ask(situation()).why


def test_a_file_and_an_event_count_together_but_not_for_one_person(keys, tmp_path):
    write(tmp_path, "bob.json", approval_text(PLAN, "bob@example.org", "", LATER), keys)
    both = gate(keys, files=str(tmp_path), count=2)
    assert both.ask(situation(signed(keys))).verdict is Verdict.HOLD
    assert both.ask(situation(signed(keys, by="carol@example.org", key="carol"))).verdict is Verdict.PASS


def unsigned(directory, keys):
    (directory / "a.json").write_text(approval_text(PLAN, "bob@example.org", "", LATER))


def pipe(directory, keys):
    os.mkfifo(directory / "a.json")


def huge(directory, keys):
    (directory / "a.json").write_text(" " * 70_000)


def binary(directory, keys):
    (directory / "a.json").write_bytes(b"\xff\xfe")
    (directory / "a.json.sig").write_text("x")


def forever(directory, keys):
    write(directory, "a.json", approval_text(PLAN, "bob@example.org", "", None), keys)


FILES = [
    (unsigned, "cannot be read: its signature"),
    (pipe, "cannot be read: the file"),
    (huge, "is no regular file of at most 65536 bytes"),
    (binary, "is no JSON text"),
    (forever, "names no end, and a file must when there is a max_age"),
]


@pytest.mark.parametrize("make, why", FILES)
def test_a_file_does_not_count_and_it_is_said_why(keys, tmp_path, make, why):
    make(tmp_path, keys)
    answer = gate(keys, files=str(tmp_path), max_age=60).ask(situation())
    assert answer.verdict is Verdict.HOLD
    assert f"({tmp_path / 'a.json'}) " in answer.why
    assert why in answer.why


def test_a_directory_that_is_gone_is_an_error(keys, tmp_path):
    assert gate(keys, files=str(tmp_path / "gone")).ask(situation()).verdict is Verdict.ERROR


# --- the policy ---


def test_the_defaults():
    found, problems = parse({"type": "approval"}, "gates[0]")
    assert (found, problems) == (ApprovalGate("approval", 1, True, None, None, None), [])


def test_every_option(keys, tmp_path):
    raw = {"type": "approval", "name": "board", "count": "2", "not_launcher": False, "allowed_signers": str(keys / "allowed"), "files": str(tmp_path)}
    found, problems = parse({**raw, "max_age": "2d"}, "gates[0]")
    assert (found, problems) == (ApprovalGate("board", 2, False, str(keys / "allowed"), str(tmp_path), 172800.0), [])


BAD = [
    ({"name": ""}, "name"),
    ({"name": "a\nb"}, "name"),
    ({"count": 0}, "count"),
    ({"count": "two"}, "count"),
    ({"not_launcher": "no"}, "not_launcher"),
    ({"allowed_signers": "/nowhere/allowed"}, "allowed_signers"),
    ({"allowed_signers": ["a"]}, "allowed_signers"),
    ({"files": "/tmp"}, "files"),
    ({"max_age": 0}, "max_age"),
    ({"max_age": "soon"}, "max_age"),
    ({"who": "bob"}, "who"),
]


@pytest.mark.parametrize("raw, option", BAD)
def test_bad_options(raw, option):
    found, problems = parse({"type": "approval", **raw}, "gates[0]")
    assert (found, [problem.where for problem in problems]) == (None, [f"gates[0].{option}"])


def test_a_directory_that_is_not_there_is_found_at_once(keys, tmp_path):
    _found, problems = parse({"type": "approval", "allowed_signers": str(keys / "allowed"), "files": str(tmp_path / "gone")}, "gates[0]")
    assert [problem.where for problem in problems] == ["gates[0].files"]
