# Copyright: onprem.rollout contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""What a host remembers: releases that failed, changes that cannot be undone, payloads that are run again later."""

import json
import os

import pytest

from ansible_collections.onprem.rollout.plugins.module_utils import _record, _timer
from ansible_collections.onprem.rollout.plugins.module_utils._errors import Refused, RolloutError
from ansible_collections.onprem.rollout.tests.unit.plugins.module_utils.host_helpers import NEW, OTHER, fingerprint, park, upgrade, write


def fail(host, **options):
    host.begin(**options)
    upgrade(host.tree)
    assert host.restore(reason="answers 500", failed=True)[1]["remembered"]


def test_a_release_that_failed_here_is_refused_until_it_is_forced(host):
    fail(host)
    record = host.record()
    for check_mode in (False, True):
        with pytest.raises(Refused, match=r"shop 2.0 failed on this host before \(2023-11-14T22:13:20Z, once\): answers 500.*rollout_retry_failed") as caught:
            host.begin(check_mode)
        assert (caught.value.reason, caught.value.details["failed"]["times"]) == ("failed_before", 1)
    assert host.record() == record
    fail(host, retry_failed=True)
    assert [item["times"] for item in host.record()["failed"]] == [2]
    host.begin(release=dict(NEW, digest="3" * 64))


def test_a_commit_forgets_that_the_release_failed_and_nothing_else(host):
    other = dict(NEW, version="2.1", digest="3" * 64)
    fail(host)
    fail(host, release=other)
    host.begin(retry_failed=True)
    host.verifying()
    host.awaiting_commit()
    host.commit()
    assert [item["release"] for item in host.record()["failed"]] == [other]


def test_the_installed_release_is_no_failure_to_be_refused(host):
    park(host)
    host.commit()
    write(host.state_dir + "/record.json", json.dumps(dict(host.record(), failed=[{"release": NEW, "times": 1}])).encode())
    assert host.begin()[1]["outcome"] == "skipped"


def test_only_so_many_failures_are_remembered(host):
    for number in range(_record.FAILED + 3):
        fail(host, release=dict(NEW, digest=str(number)))
    assert [item["release"]["digest"] for item in host.record()["failed"]] == [str(number) for number in range(3, _record.FAILED + 3)]


FOREVER = {"irreversible": "schema 7", "accept_irreversible": True}


def test_what_cannot_be_undone_needs_a_word(host):
    with pytest.raises(Refused, match=r"cannot be undone on this host: schema 7.*rollout_accept_irreversible") as caught:
        host.begin(irreversible="schema 7")
    assert caught.value.reason == "irreversible"
    assert not os.path.exists(os.path.join(host.state_dir, "record.json"))


def test_what_cannot_be_undone_is_held_by_whoever_would_restore_it(host):
    host.begin(**FOREVER)
    upgrade(host.tree)
    new = fingerprint(host.tree)
    with pytest.raises(RolloutError, match=r"held on shop 2.0 .* cannot be undone \(schema 7\)") as caught:
        host.begin(**FOREVER)
    assert (caught.value.refused, caught.value.reason) == (False, "held")
    record = host.record()
    with pytest.raises(Refused, match="rollout_force_commit"):
        host.begin(holder=OTHER, abandoned=record["transaction"]["id"], **FOREVER)
    assert (host.record(), host.phase(), fingerprint(host.tree)) == (record, "held", new)


def test_only_an_operator_who_names_it_commits_a_held_transaction(host):
    begun = host.begin(**FOREVER)[1]
    host.restore(reason="answers 500", failed=True)
    for options in ({}, {"transaction": "another"}):
        with pytest.raises(RolloutError, match=r"held and named|not in transaction another"):
            host.commit(**options)
    host.healthy = False
    with pytest.raises(RolloutError, match="no longer healthy"):
        host.commit(transaction=begun["transaction"])
    host.healthy = True
    assert host.commit(OTHER, transaction=begun["transaction"])[1]["installed"] == NEW
    assert host.record()["failed"] == []


def test_naming_a_transaction_does_not_commit_one_that_is_not_held(host):
    begun = host.begin()[1]
    with pytest.raises(RolloutError, match="is changing"):
        host.commit(OTHER, transaction=begun["transaction"])


def test_a_payload_that_is_run_again_later_is_not_restored_by_the_timer_while_it_waits(host, monkeypatch):
    monkeypatch.setattr(_timer, "arm", lambda *_arguments: None)
    host.begin(revert_after=600, payload_timeout=0)
    host.now += 100
    assert host.retrying(wait=60)[1]["transaction"]["revert"]["deadline"] == host.now + 660


def test_a_payload_that_is_run_again_later_keeps_its_lease(host):
    host.begin()
    host.now += 100
    assert host.retrying()[1]["transaction"]["lease_until"] == host.now + 600
    assert host.phase() == "changing"
    host.verifying()
    with pytest.raises(RolloutError, match="is verifying; from there it cannot become changing"):
        host.retrying()


LATER = {"number": 9, "sha256": "b" * 64}


@pytest.mark.parametrize("step, outcome", [("commit", "committed"), ("restore", "restored")])
def test_the_last_step_keeps_the_head_of_the_ledger_by_then(host, step, outcome):
    host.begin(anchor={"number": 2, "sha256": "a" * 64})
    host.verifying()
    host.awaiting_commit()
    assert host.record()["transaction"]["anchor"]["number"] == 2
    assert getattr(host, step)(anchor=LATER)[1]["outcome"] == outcome
    assert host.record()["transaction"]["anchor"] == LATER


def test_a_step_without_a_ledger_keeps_what_the_host_has(host):
    host.begin(anchor=LATER)
    host.restore()
    assert host.record()["transaction"]["anchor"] == LATER
