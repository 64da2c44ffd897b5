# Copyright: onprem.rollout contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

import json
import shutil

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from ansible_collections.onprem.rollout.plugins.module_utils import _floor, _record
from ansible_collections.onprem.rollout.plugins.module_utils._errors import Refused, RolloutError
from ansible_collections.onprem.rollout.tests.unit.plugins.module_utils.host_helpers import RUN, fingerprint, upgrade

AT = "2026-11-26T12:00:00Z"
WAIVER = {"id": "w1", "by": "bob@example.org", "why": "CHG-4711", "expires": "2023-11-14T22:13:21Z"}  # a second after the host's clock
OTHER_WAIVER = dict(WAIVER, id="w2", by="eve@example.org")
HIGH = "vers:semver/<2.0"


def release(version, epoch=0, vulnerable=(), name="shop"):
    found = {"name": name, "version": version, "digest": (name + version).ljust(64, "0")}
    return dict(found, **{key: value for key, value in (("epoch", epoch), ("vulnerable", list(vulnerable))) if value})


def floors(epoch=0, vulnerable=(), name="shop"):
    return {name: {"epoch": epoch, "version": "9", "at": AT, "vulnerable": list(vulnerable)}}


JUDGED = [
    (None, release("1.0"), ""),
    (floors(2), release("1.0", 2), ""),
    (floors(2), release("1.0", 3), ""),
    (floors(2), release("9.9", 1), "its epoch is 1, and shop 9, committed here on 2026-11-26T12:00:00Z, has epoch 2: everything older is unsafe"),
    (floors(2), release("9.9"), "its epoch is 0, and shop 9"),
    (floors(2), release("1.0", name="till"), ""),
    (floors(0, [HIGH]), release("2.0"), ""),
    (floors(0, [HIGH]), release("1.9"), "1.9 is in the range vers:semver/<2.0, which is declared vulnerable"),
    (None, release("1.9", vulnerable=[HIGH]), "1.9 is in the range"),
    (floors(0, [HIGH]), release("one"), "nobody can tell whether one is in the range vers:semver/<2.0, which is declared vulnerable: one is no version"),
    (floors(0, ["vers:maven/<2"]), release("9.0"), "nobody can tell whether 9.0 is in the range vers:maven/<2"),
]


@pytest.mark.parametrize("known, asked, why", JUDGED, ids=range(len(JUDGED)))
def test_what_is_below_the_floor_is_told_why(known, asked, why):
    found = _floor.judge(known, asked)
    assert found.startswith(why)
    assert bool(found) == bool(why)


RELEASES = st.builds(release, st.sampled_from(["1.0", "1.5", "2.0"]), st.integers(0, 3), st.lists(st.sampled_from([HIGH, "vers:semver/=1.5"]), max_size=2))


@settings(deadline=None)
@given(st.lists(RELEASES, max_size=6))
def test_the_floor_never_sinks_and_no_range_of_the_highest_epoch_is_forgotten(releases):
    known = {}
    for item in releases:
        before = known.get("shop", {}).get("epoch", 0)
        known = _floor.raised(known, item, AT)
        floor = known.get("shop", {})
        assert floor.get("epoch", 0) == max(before, item.get("epoch", 0))
        if item.get("epoch", 0) >= before:
            assert set(item.get("vulnerable", [])) <= set(floor.get("vulnerable", []))
        assert all(_floor.judge(known, release("9.0", epoch)) for epoch in range(floor.get("epoch", 0)))


# --- the host ---


def committed(host, item, **options):
    host.begin(release=item, **options)
    upgrade(host.tree)
    host.verifying()
    host.awaiting_commit()
    host.commit()
    shutil.rmtree(host.tree)
    host.__init__(host.top)


def failed(host, item):
    host.begin(release=item)
    upgrade(host.tree)
    host.restore(reason="it failed", failed=True)


def refusal(host, item, **options):
    before = fingerprint(host.tree), host.record()
    with pytest.raises(Refused) as caught:
        host.begin(release=item, **options)
    assert (caught.value.reason, fingerprint(host.tree), host.record()) == ("below_floor", *before)
    return str(caught.value)


def test_a_host_goes_below_no_epoch_that_it_committed(host):
    committed(host, release("2.0", 2))
    assert host.record()["floors"] == {"shop": {"epoch": 2, "version": "2.0", "at": "2023-11-14T22:13:20Z", "vulnerable": []}}
    said = refusal(host, release("2.1", 1))
    assert "shop 2.1 must not run on this host: its epoch is 1, and shop 2.0, committed here on 2023-11-14T22:13:20Z, has epoch 2" in said
    assert "onprem.rollout.waive" in said
    committed(host, release("1.9", 2))
    assert host.record()["installed"]["version"] == "1.9"


def test_an_attempt_that_failed_raises_no_floor_but_what_it_declared_vulnerable_stays_known(host):
    committed(host, release("1.5", 1))
    failed(host, release("2.0", 2, [HIGH]))
    assert host.record()["floors"]["shop"] == {"epoch": 1, "version": "1.5", "at": "2023-11-14T22:13:20Z", "vulnerable": [HIGH]}
    assert "1.6 is in the range vers:semver/<2.0" in refusal(host, release("1.6", 1))


def test_what_the_policy_declares_is_kept_as_what_the_release_declares(host):
    committed(host, release("2.0", 0, [HIGH]))
    assert "1.5 is in the range" in refusal(host, release("1.5"))


def test_a_host_restored_to_what_is_unsafe_is_quarantined_from_then_on_until_it_commits_something_safe(host):
    committed(host, release("1.5", 1))
    failed(host, release("2.0", 2))
    first = host.record()["quarantined"]
    assert first["why"] == "shop 2.0 has epoch 2: everything older is unsafe"
    assert (first["since"], first["until"], first["release"]["version"]) == ("2023-11-14T22:13:20Z", "2023-11-21T22:13:20Z", "1.5")
    host.now += 3600
    failed(host, release("2.1", 2))
    assert {key: host.record()["quarantined"][key] for key in ("since", "until")} == {"since": first["since"], "until": first["until"]}
    committed(host, release("2.2", 2))
    assert "quarantined" not in host.record()


@pytest.mark.parametrize("item", [release("2.0", 1), release("2.0", 0, [HIGH])])
def test_what_nobody_knows_is_older_than_any_epoch_but_in_no_range(host, item):
    failed(host, item)
    assert bool(host.record().get("quarantined")) == bool(item.get("epoch"))


def test_a_restore_to_what_is_safe_quarantines_nobody(host):
    committed(host, release("2.0", 1))
    failed(host, release("2.1", 1))
    assert "quarantined" not in host.record()


def test_a_waiver_lets_one_transaction_below_the_floor_and_is_used_up_then(host):
    committed(host, release("2.0", 2))
    committed(host, release("1.9", 1), waiver=WAIVER)
    record = host.record()
    assert record["installed"]["version"] == "1.9"
    assert record["floors"]["shop"]["epoch"] == 2
    assert record["transaction"]["waiver"] == WAIVER
    assert record["waivers"] == [dict(WAIVER, used="2023-11-14T22:13:20Z")]
    assert "The waiver w1 of bob@example.org was used here on 2023-11-14T22:13:20Z" in refusal(host, release("1.8", 1), waiver=WAIVER)
    committed(host, release("1.8", 1), waiver=OTHER_WAIVER)


def test_a_waiver_that_expired_is_none(host):
    committed(host, release("2.0", 2))
    host.now += 1
    assert "The waiver w1 of bob@example.org expired on 2023-11-14T22:13:21Z" in refusal(host, release("1.9", 1), waiver=WAIVER)


def test_a_waiver_that_nobody_needs_is_not_used_up(host):
    committed(host, release("2.0", 2), waiver=WAIVER)
    assert "waivers" not in host.record()


def test_an_older_copy_of_the_collection_touches_no_host_with_a_floor(host, monkeypatch):
    committed(host, release("1.0"))
    assert host.record()["schema"] == 1
    committed(host, release("2.0", 2))
    monkeypatch.setattr(_record, "SCHEMA", 1)  # what the version before floors knows
    with pytest.raises(RolloutError, match=r"has schema 2; this version of onprem[.]rollout knows schemas up to 1"):
        host.begin(release=release("1.0"))


@pytest.mark.parametrize("broken", [[1], {"shop": 1}, {"shop": {"epoch": "2"}}, {"shop": {"vulnerable": [1]}}])
def test_floors_that_cannot_be_read_are_no_floors_of_none(host, broken):
    committed(host, release("2.0", 2))
    record = dict(host.record(), floors=broken)
    with open(_record.path_of(host.state_dir), "w") as out:
        json.dump(record, out)
    with pytest.raises(RolloutError, match="floors is not a mapping"):
        host.begin(release=release("3.0", 3), holder=RUN)
