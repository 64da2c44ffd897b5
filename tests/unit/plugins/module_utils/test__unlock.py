# Copyright: onprem.rollout contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

import os

import pytest

from ansible_collections.onprem.rollout.plugins.module_utils import _timer, _unlock
from ansible_collections.onprem.rollout.plugins.module_utils._errors import Refused, RolloutError
from ansible_collections.onprem.rollout.tests.unit.plugins.module_utils.host_helpers import OTHER, RUN, fingerprint, upgrade

OPERATOR = {"run": "console-9", "controller": "console", "pid": 9, "user": "ada", "job": None}


def unlock(host, **options):
    given = {"holder": OPERATOR, "transaction": host.record()["transaction"]["id"], "why": "it hangs"}
    given.update(options)
    return _unlock.unlock(host.state_dir, clock=host.clock, **given)


def look(host):
    return _unlock.look(host.state_dir, host.clock)


def begun(host):
    host.begin(lease=600)
    upgrade(host.tree)
    return fingerprint(host.tree)


def test_to_look_writes_nothing(host):
    assert look(host)["held"] is False
    assert not os.path.exists(host.state_dir)
    begun(host)
    before = fingerprint(host.state_dir)
    told = look(host)
    assert (told["held"], told["holder"], told["lease_left"], told["phase"], told["rollout"]) == (True, RUN, 600, "changing", "r1")
    assert fingerprint(host.state_dir) == before


def test_a_lease_that_goes_on_protects_its_run(host):
    begun(host)
    before = host.record()
    with pytest.raises(Refused, match=r"goes on for 600 s, so its run may be at work. Nothing was touched") as caught:
        unlock(host)
    assert (caught.value.reason, caught.value.details["holder"]) == ("held", RUN)
    assert host.record() == before


@pytest.mark.parametrize("how, forced", [({"force": True}, True), ({"gone": RUN["run"]}, False), ({"later": 600}, False)])
def test_a_host_is_taken_and_stays_as_it_is_until_the_next_run_settles_it(host, how, forced):
    files = begun(host)
    host.now += how.pop("later", 0)
    before = host.record()
    predicted = unlock(host, check_mode=True, **how)
    assert host.record() == before
    done = unlock(host, **how)
    assert predicted == done
    changed, told, _diff = done
    assert (changed, told["outcome"], told["held"]) == (True, "evicted", False)
    assert fingerprint(host.tree) == files
    transaction = host.record()["transaction"]
    evicted = {"holder": RUN, "by": OPERATOR, "why": "it hangs", "at": transaction["evicted"]["at"], "forced": forced}
    kept = {key: value for key, value in before["transaction"].items() if key not in ("holder", "lease_until")}
    assert transaction == dict(kept, holder=dict(OPERATOR, run=""), lease_until=int(host.now), evicted=evicted)
    assert unlock(host, force=True)[:2] == (False, dict(told, outcome="free"))


def test_the_run_that_had_it_is_refused_at_every_step_and_restores_nothing(host):
    files = begun(host)
    host.verifying()
    host.awaiting_commit()
    unlock(host, force=True)
    for step in (host.verifying, host.awaiting_commit, host.commit, host.retrying):
        with pytest.raises(RolloutError, match=r"taken from this run by ada on console, process 9 at .*: it hangs. This run does not") as caught:
            step()
        assert caught.value.reason == "not_ours"
    assert host.restore()[1]["outcome"] == "untouched"
    assert (fingerprint(host.tree), host.phase()) == (files, "awaiting_commit")


def test_nobody_is_its_holder_afterwards_not_even_whoever_took_it(host):
    begun(host)
    unlock(host, force=True)
    for holder in (OPERATOR, OTHER, dict(OPERATOR, run="")):
        assert host.restore(holder["run"] or "nobody")[1]["outcome"] == "untouched"
    with pytest.raises(RolloutError, match="belongs to ada on console"):
        host.verifying(OPERATOR)


def test_the_next_run_settles_it_as_after_a_crash_and_the_history_says_who_took_it(host):
    app = os.path.join(host.tree, "app")
    before = fingerprint(app)
    begun(host)
    unlock(host, force=True)
    changed, result, _diff = host.begin(holder=OTHER)
    assert (changed, result["outcome"], result["settled"]) == (True, "begun", True)
    assert fingerprint(app) == before
    (past,) = host.record()["history"]
    assert (past["outcome"], past["evicted"]["by"], past["evicted"]["why"]) == ("restored", OPERATOR, "it hangs")
    assert "evicted" not in host.record()["transaction"]


def test_the_revert_timer_goes_on(host):
    host.begin(revert_after=60)
    upgrade(host.tree)
    unlock(host, force=True)
    assert host.revert(later=61) == "restored"


def test_a_host_that_is_in_another_transaction_by_now_is_left_alone(host):
    begun(host)
    with pytest.raises(Refused, match=r"in transaction .* by now, not in another"):
        unlock(host, transaction="another", force=True)


def test_there_is_nothing_to_take_from_a_host_that_is_settled(host):
    begun(host)
    host.restore()
    assert unlock(host, force=True)[:2] == (False, dict(look(host), outcome="free"))
    assert look(host)["held"] is False


@pytest.mark.parametrize("phase", ["inconsistent", "held"])
def test_a_host_that_waits_for_an_operator_is_held_by_no_run(host, phase):
    if phase == "held":
        host.begin(irreversible="a migration", accept_irreversible=True)
        host.restore()
    else:
        host.begin()
        upgrade(host.tree)
        host.healthy = False
        with pytest.raises(RolloutError):
            host.restore()
    assert host.phase() == phase
    assert (look(host)["held"], unlock(host, force=True)[0]) == (False, False)


def test_the_lease_never_ends_before_the_revert_timer(host, monkeypatch):
    monkeypatch.setattr(_timer, "arm", lambda *_arguments: None)
    host.begin(lease=600, revert_after=7200, payload_timeout=9000)
    for step in (lambda: None, lambda: host.retrying(wait=60), host.verifying, host.awaiting_commit):
        host.now += 100
        step()
        transaction = host.record()["transaction"]
        assert transaction["lease_until"] >= transaction["revert"]["deadline"], transaction["phase"]
    assert transaction["lease_until"] == int(host.now) + 7200
