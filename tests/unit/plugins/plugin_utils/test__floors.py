# Copyright: onprem.rollout contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

from __future__ import annotations

import pytest

from ansible_collections.onprem.rollout.plugins.plugin_utils import _floors
from ansible_collections.onprem.rollout.plugins.plugin_utils._waivers import Waivers

RELEASE = {"name": "shop", "version": "1.9", "epoch": 1}
FLOOR = {"floors": {"shop": {"epoch": 2, "version": "2.0", "at": "2026-11-26T12:00:00Z"}}}
WAIVER = {"id": "w1", "by": "bob", "why": "CHG-4711", "expires": "2026-12-01T00:00:00Z"}

PROBLEMS = [
    ({}, [], ""),
    ({"vulnerable": ["vers:semver/<1.9"]}, ["vers:deb/<1.0"], ""),
    ({"vulnerable": ["vers:semver/<2"]}, [], "rollout_release.vulnerable[0]: 'vers:semver/<2': the release is in it, so no host may run shop 1.9"),
    ({}, ["vers:semver/<2"], "rollout_vulnerable[0]: 'vers:semver/<2': the release is in it"),
    ({}, ["<2"], "rollout_vulnerable[0]: '<2': write a range such as"),
    ({"version": "one"}, ["vers:semver/<2"], "rollout_vulnerable[0]: 'vers:semver/<2': one is no version of the scheme semver"),
    ({}, "vers:semver/<2", "rollout_vulnerable: 'vers:semver/<2': write a list of ranges"),
    ({"vulnerable": [7]}, [], "rollout_release.vulnerable[0]: 7: write a range"),
]


@pytest.mark.parametrize("release, policy, says", PROBLEMS, ids=range(len(PROBLEMS)))
def test_ranges_are_judged_before_any_host_is(release, policy, says):
    assert "\n".join(map(str, _floors.problems({**RELEASE, **release}, policy))).startswith(says)
    assert bool(says) == bool(_floors.problems({**RELEASE, **release}, policy))


def test_a_host_judges_by_what_release_and_policy_declare():
    found = _floors.identity({**RELEASE, "vulnerable": ["vers:semver/<1"], "artifacts": [1]}, "d" * 64, ["vers:deb/<1"])
    assert found == {"name": "shop", "version": "1.9", "digest": "d" * 64, "epoch": 1, "vulnerable": ["vers:semver/<1", "vers:deb/<1"]}


def test_a_host_below_its_floor_is_refused_with_why_no_waiver_helps():
    why = _floors.below(FLOOR, RELEASE)
    assert why.startswith("its epoch is 1")
    assert not _floors.below({}, RELEASE)
    said = _floors.refusal(why, Waivers({}, ("one.json is revoked",)))
    assert said.startswith("it must not run here: its epoch is 1")
    assert "no waiver counts: one.json is revoked" in said
    assert said.endswith("or have somebody else waive this: onprem.rollout.waive")


@pytest.mark.parametrize("record", [{"floors": [1]}, {"floors": {"shop": 1}}])
def test_a_record_that_is_nonsense_lets_nobody(record):
    assert _floors.below(record, RELEASE) == "its record has floors that cannot be read"
    assert _floors.waiver_of({"waivers": [1]}, "web1", Waivers({"web1": WAIVER})) == (None, "its record has waivers that cannot be read")


def test_a_waiver_is_taken_once():
    waivers = Waivers({"web1": WAIVER})
    assert _floors.waiver_of({}, "web1", waivers) == (WAIVER, "")
    assert _floors.waiver_of({}, "web2", waivers) == (None, "")
    used = {"waivers": [{**WAIVER, "used": "2026-11-26T12:00:00Z"}]}
    assert _floors.waiver_of(used, "web1", waivers) == (None, "the waiver w1 was used here on 2026-11-26T12:00:00Z")
