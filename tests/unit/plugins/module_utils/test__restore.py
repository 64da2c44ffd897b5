# Copyright: onprem.rollout contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

import errno
import os
import stat

import pytest

from ansible_collections.onprem.rollout.plugins.module_utils import _services, _snapshot
from ansible_collections.onprem.rollout.plugins.module_utils._errors import Refused, RolloutError
from ansible_collections.onprem.rollout.tests.unit.plugins.module_utils.faults import hooked
from ansible_collections.onprem.rollout.tests.unit.plugins.module_utils.host_helpers import OTHER, fingerprint, upgrade, write


def inside(host):
    found = fingerprint(host.tree)
    del found[os.fsencode(host.tree)]
    return found


def test_a_host_that_never_began_is_untouched(host):
    files = dict(host.restore()[1]["files"])
    nothing = {"outcome": "untouched", "transaction": None, "files": files, "packages": [], "checks": [], "seconds": 0.0}
    nothing.update(quarantined=None, remembered=False)
    assert host.restore()[0:2] == (False, nothing)
    assert not os.path.exists(host.state_dir)


def test_restore_undoes_restarts_and_proves(host):
    old = inside(host)
    begun = host.begin()[1]
    upgrade(host.tree)
    predicted = host.restore(check_mode=True)
    assert host.phase() == "changing"
    changed, result, diff = host.restore(reason="answers 500")
    assert inside(host) == old
    assert (changed, result["outcome"], result["transaction"]) == (True, "restored", begun["transaction"])
    assert (result["files"], diff) == (predicted[1]["files"], predicted[2])
    assert result["files"]["removed"] >= 4
    assert result["checks"][0]["ok"]
    assert host.commands == [["restart-it"]]
    assert host.record()["transaction"]["reason"] == "answers 500"
    assert host.record()["history"][-1]["outcome"] == "restored"
    again = host.restore()
    assert (again[0], again[1]["outcome"]) == (False, "restored")
    assert len(host.commands) == 1


def test_whose_transaction_it_is_decides(host):
    begun = host.begin(holder=OTHER)[1]
    upgrade(host.tree)
    assert host.restore()[1]["outcome"] == "untouched"
    assert host.restore(transaction="another")[1]["outcome"] == "untouched"
    with pytest.raises(Refused, match=r"Transaction another is not on this host, its last one is {}".format(begun["transaction"])):
        host.restore(transaction="another", force=True)
    assert host.phase() == "changing"
    assert host.restore(transaction=begun["transaction"])[1]["outcome"] == "restored"


def test_an_unproven_restore_is_inconsistent_and_waits_for_an_operator(host):
    old = inside(host)
    begun = host.begin()[1]
    upgrade(host.tree)
    host.healthy = False
    with pytest.raises(RolloutError, match=r"now inconsistent: the files are back, but the host is not healthy: http: 500") as caught:
        host.restore(reason="bad release")
    details = caught.value.details
    assert (details["outcome"], details["changed"], details["checks"][0]["ok"]) == ("restore_failed", True, False)
    assert caught.value.reason == "restore_failed"
    assert host.phase() == "inconsistent"
    assert host.record()["history"][-1]["outcome"] == "restore_failed"
    assert "bad release" in host.record()["transaction"]["reason"]
    host.healthy = True
    host.now += 10**6
    for step in (host.restore, host.begin, lambda: host.begin(holder=OTHER)):
        with pytest.raises(RolloutError, match=r"This host is inconsistent: transaction {}".format(begun["transaction"])) as caught:
            step()
        assert caught.value.reason == "inconsistent"
    assert host.restore(run="an operator", transaction=begun["transaction"], force=True)[1]["outcome"] == "restored"
    assert inside(host) == old


def test_force_without_a_transaction_takes_the_inconsistent_one_and_nothing_else(host):
    begun, old = host.begin()[1], inside(host)
    with pytest.raises(Refused, match=r"neither inconsistent nor held, transaction .* is changing"):
        host.restore(run="an operator", force=True)
    upgrade(host.tree)
    host.healthy = False
    with pytest.raises(RolloutError, match="now inconsistent"):
        host.restore()
    host.healthy = True
    assert host.restore(run="an operator", force=True)[1]["transaction"] == begun["transaction"]
    assert inside(host) == old
    with pytest.raises(Refused, match="is restored"):
        host.restore(run="an operator", force=True)


def test_a_restart_that_fails_is_no_proof(host):
    host.begin()
    upgrade(host.tree)
    host.command = lambda argv, _timeout: (3, "port taken")
    with pytest.raises(RolloutError, match=r"restart: .'restart-it'. ended with 3: port taken"):
        host.restore()
    assert host.phase() == "inconsistent"


def test_services_go_back_to_what_they_were(host, monkeypatch):
    monkeypatch.setattr(_services, "present", lambda: True)

    def systemctl(argv, _timeout):
        host.commands.append([word for word in argv[1:] if not word.startswith("-")])
        return 0, "ActiveState=active\nUnitFileState=enabled\n"

    host.command = systemctl
    host.begin(services=["shop.service"], restart=[])
    assert host.record()["transaction"]["services"] == {"shop.service": {"active": True, "file": "enabled", "id": "shop.service", "links": {}}}
    host.restore()
    assert [" ".join(words) for words in host.commands[1:]] == [
        "daemon-reload",
        "show shop.service",
        "reset-failed shop.service",
        "restart shop.service",
    ]


def test_what_begin_adds_to_the_paths_can_be_excluded(host, monkeypatch):
    monkeypatch.setattr(_services, "present", lambda: True)
    monkeypatch.setattr(_services, "UNITS", os.path.join(host.tree, "units"))
    host.command = lambda argv, _timeout: (0, "ActiveState=active\nUnitFileState=enabled\n")
    host.begin(services=["shop"], restart=[], exclude=["*.service"])
    paths = _snapshot.load(host.state_dir, host.record()["transaction"]["snapshot"]).paths
    assert [os.path.basename(path) for path in paths if b"/units/" in path] == [b"shop.service.d"]


def test_a_damaged_snapshot_makes_the_host_inconsistent_and_changes_no_file(host):
    host.begin()
    upgrade(host.tree)
    new = inside(host)
    for name in os.listdir(os.path.join(host.state_dir, "packs")):
        if name.endswith(".pack"):
            place = os.path.join(host.state_dir, "packs", name)
            write(place, b"?" * os.path.getsize(place))
    with pytest.raises(RolloutError, match=r"app/.* .object [0-9a-f]+. is damaged or lost"):
        host.restore()
    assert inside(host) == new
    assert host.phase() == "inconsistent"
    assert host.commands == []


def test_the_payload_cannot_keep_restore_from_writing_by_filling_the_disk(host):
    host.begin()
    spare = os.path.join(host.state_dir, "spare")
    assert os.path.getsize(spare) == 65536
    host.restore()
    assert not os.path.exists(spare)


@pytest.mark.parametrize("made", ["inside", "the end"])
def test_a_disk_that_fills_during_the_restore_does_not_keep_it_from_ending(host, made):
    before, full = inside(host), {"now": False, "ever": False}
    host.begin()
    upgrade(host.tree)

    def fill():
        full.update(now=full["now"] or not full["ever"], ever=True)

    def strike(name, arguments, _options):
        if name == "unlink" and str(arguments[0]).endswith("/spare") and os.path.getsize(arguments[0]):
            full["now"] = False
        elif made == "inside" and name == "rename" and host.phase() == "restoring":
            fill()
        elif full["now"] and name == "fsync" and stat.S_ISREG(os.fstat(arguments[0]).st_mode):
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    def check(_checks):
        if made == "the end":
            fill()
        return []

    host.check = check
    with hooked(strike):
        host.restore()
    assert (host.phase(), inside(host)) == ("restored", before)
    assert full == {"now": False, "ever": True}


def test_what_is_restarted_does_not_carry_the_transaction(host, monkeypatch):
    monkeypatch.setenv("ONPREM_ROLLOUT", "something")
    seen = []
    host.command = lambda _argv, _timeout: (seen.append(os.environ.get("ONPREM_ROLLOUT")) or 0, "")
    host.begin()
    host.restore()
    assert seen == [None]


def test_who_goes_back_without_a_verdict_is_not_marked(host):
    host.begin()
    upgrade(host.tree)
    host.restore(reason="its wave is reverted")
    assert not host.record().get("failed")
    host.begin()


def test_a_failure_is_written_before_the_restore_and_counted_once(host):
    begun = host.begin()[1]
    upgrade(host.tree)
    host.healthy = False
    with pytest.raises(RolloutError):
        host.restore(reason="answers 500", failed=True)
    host.healthy = True
    host.restore(transaction=begun["transaction"], force=True, failed=True)
    assert [(item["times"], item["reason"]) for item in host.record()["failed"]] == [(1, "answers 500")]


def test_a_host_that_nobody_changed_has_no_verdict(host, monkeypatch):
    monkeypatch.setattr(_snapshot, "take", lambda *_args: (_ for _ in ()).throw(KeyboardInterrupt()))
    with pytest.raises(KeyboardInterrupt):
        host.begin()
    assert host.phase() == "prepared"
    host.restore(failed=True)
    assert not host.record().get("failed")


@pytest.mark.parametrize("parked", [False, True])
def test_what_cannot_be_undone_is_held_until_its_restore_is_forced(host, parked):
    old = inside(host)
    begun = host.begin(irreversible="schema 7", accept_irreversible=True)[1]
    upgrade(host.tree)
    if parked:
        host.verifying()
        host.awaiting_commit()
    new = inside(host)
    assert host.restore(check_mode=True)[1]["outcome"] == "held"
    changed, result, _diff = host.restore(reason="its wave is reverted")
    assert (changed, result["outcome"], result["irreversible"], result["proven"]) == (True, "held", "schema 7", parked)
    assert (inside(host), host.phase(), host.commands) == (new, "held", [])
    again = host.restore(transaction=begun["transaction"])
    assert (again[0], again[1]["outcome"], inside(host)) == (False, "held", new)
    assert host.restore(transaction=begun["transaction"], force=True)[1]["outcome"] == "restored"
    assert inside(host) == old


def test_what_cannot_be_undone_but_never_began_is_let_go(host, monkeypatch):
    monkeypatch.setattr(_snapshot, "take", lambda *_args: (_ for _ in ()).throw(KeyboardInterrupt()))
    with pytest.raises(KeyboardInterrupt):
        host.begin(irreversible="schema 7", accept_irreversible=True)
    assert host.restore()[1]["outcome"] == "restored"
