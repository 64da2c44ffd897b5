# Copyright: onprem.rollout contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Approvals in files that were signed by hand, programs that cannot be asked, and the options of the gate."""

from __future__ import annotations

import json
import os
import subprocess

import pytest

from ansible_collections.onprem.rollout.plugins.plugin_utils import _signatures
from ansible_collections.onprem.rollout.plugins.plugin_utils._gate import Verdict
from ansible_collections.onprem.rollout.plugins.plugin_utils._gate_approval import ApprovalGate, approval_text, parse
from ansible_collections.onprem.rollout.plugins.plugin_utils._signatures import APPROVAL, CannotAsk, sign, verify
from ansible_collections.onprem.rollout.tests.unit.plugins.plugin_utils.approvals import (
    LATER,
    PLAN,
    gate,
    signed,
    situation,
)


def no_keygen(keys, monkeypatch, tmp_path):
    monkeypatch.setenv("PATH", str(tmp_path))
    return str(keys / "allowed")


def hangs(keys, monkeypatch, tmp_path):
    program(monkeypatch, tmp_path, "exec sleep 60")
    monkeypatch.setattr(_signatures, "KEYGEN_LIMIT", 0.2)
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
    with pytest.raises(CannotAsk, match="allowed_signers cannot be read"):
        verify(text, sign(text, str(keys / "bob"), APPROVAL), "bob@example.org", str(tmp_path / "gone"), APPROVAL)


def test_a_key_that_cannot_sign_says_so(tmp_path):
    with pytest.raises(CannotAsk, match="could not sign"):
        sign("text", str(tmp_path / "gone"), APPROVAL)


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
