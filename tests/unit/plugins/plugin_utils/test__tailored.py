# Copyright: onprem.rollout contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

from __future__ import annotations

import copy

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ansible_collections.onprem.rollout.plugins.plugin_utils._policy import release_digest
from ansible_collections.onprem.rollout.plugins.plugin_utils._tailored import (
    Tailor,
    choose,
    described,
    parse_tailored,
    resolved,
    traits,
)


def artifact(name: str, digit: str = "0") -> dict:
    return {"path": f"/depot/{name}", "sha256": digit * 64, "size": 9}


OWN, ARM, WEB = artifact("shop.tar.gz"), artifact("shop-arm64.tar.gz", "1"), artifact("shop-web.tar.gz", "2")
RELEASE = {
    "name": "shop",
    "version": "2.0",
    "artifacts": [OWN],
    "variables": {"port": 80, "tls": False},
    "tailored": [
        {"when": {"group": ["web", "edge"], "os": "Debian"}, "artifacts": [WEB], "variables": {"port": 8080}},
        {"when": {"arch": "arm64"}, "artifacts": [ARM]},
        {"when": {"group": "db"}, "variables": {"tls": True}},
    ],
}
FACTS = {"distribution": "Ubuntu", "os_family": "Debian", "distribution_major_version": "24", "system": "Linux", "architecture": "aarch64"}
WHOLE_RELEASE = [
    ("group and os", traits(["web"], "debian", "amd64"), 0),
    ("another of the groups", traits(["x", "edge"], "Debian", "x86_64"), 0),
    ("the first of two counts", traits(["web"], "Debian", "arm64"), 0),
    ("the group alone is not enough", traits(["web"], "RedHat", "aarch64"), 1),
    ("arm64 is aarch64", traits([], "RedHat", "aarch64"), 1),
    ("by facts", traits(["web"], facts=FACTS), 0),
    ("what is set outweighs facts", traits(["web"], "RedHat", "x86_64", FACTS), None),
    ("variables alone", traits(["db"], "RedHat", "x86_64"), 2),
    ("nobody's: as it is", traits([], "RedHat", "x86_64"), None),
    ("what is not known does not matter where the group decides", traits(["db"], "", "x86_64"), 2),
]


@pytest.mark.parametrize("name, host, index", WHOLE_RELEASE, ids=[case[0] for case in WHOLE_RELEASE])
def test_who_takes_what(name, host, index):
    assert choose(RELEASE, host) == (index, "")


def test_an_entry_brings_its_artifacts_and_merges_its_variables():
    before = copy.deepcopy(RELEASE)
    web = resolved(RELEASE, traits(["web"], "Debian", "x86_64"))
    assert (web["artifacts"], web["variables"]) == ([WEB], {"port": 8080, "tls": False})
    db = resolved(RELEASE, traits(["db"], "RedHat", "x86_64"))
    assert (db["artifacts"], db["variables"]) == ([OWN], {"port": 80, "tls": True})
    rest = resolved(RELEASE, traits([], "RedHat", "x86_64"))
    assert (rest["artifacts"], rest["variables"]) == ([OWN], {"port": 80, "tls": False})
    assert {taken["digest"] for taken in (web, db, rest)} == {release_digest(RELEASE)}
    assert "tailored" not in web
    assert before == RELEASE


@pytest.mark.parametrize(
    "name",
    ["ubuntu", "Ubuntu 24", "Debian", "debian 24", "linux"],
)
def test_an_operating_system_has_several_names(name):
    release = {**RELEASE, "tailored": [{"when": {"os": name}, "variables": {}}]}
    assert choose(release, traits([], facts=FACTS)) == (0, "")
    assert choose(release, traits([], facts={**FACTS, "distribution": "Rocky", "os_family": "RedHat", "system": "SunOS"}))[0] is None


def test_what_is_not_known_is_no_other_system():
    """It would get the artifact of another system instead of an error."""
    assert choose(RELEASE, traits(["web"], "", "x86_64")) == (
        None, "[0] asks for the os, which is not known: set rollout_os, or gather its facts in an earlier play")  # fmt: skip
    assert "rollout_arch" in choose(RELEASE, traits([], "RedHat"))[1]
    with pytest.raises(ValueError, match=r"rollout_release.tailored\[1\] asks for the arch"):
        resolved(RELEASE, traits([], "RedHat"))


def test_without_a_default_everybody_must_match():
    release = {key: value for key, value in RELEASE.items() if key != "artifacts"}
    assert "no entry that matches" in choose(release, traits([], "RedHat", "x86_64"))[1]
    only_variables = {**release, "tailored": [{"when": {"group": "web"}, "variables": {"port": 1}}]}
    assert choose(only_variables, traits([])) == (None, "")
    default = {**release, "tailored": [*RELEASE["tailored"], {"artifacts": [OWN]}]}
    assert choose(default, traits([], "RedHat", "x86_64")) == (3, "")


def test_who_takes_nothing_is_named_once_for_each_reason():
    tailor = Tailor(RELEASE)
    assert tailor.fit("a", traits(["web"], "Debian", "arm64"), "") == "shop-web.tar.gz with port (group web or edge, os Debian)"
    assert tailor.fit("b", traits([], "RedHat", "x86_64"), "") == "shop.tar.gz (the release as it is)"
    for name in "cd":
        assert tailor.fit(name, traits([]), "") == ""
    assert [str(problem) for problem in tailor.problems(", ".join)] == [
        "host c, d: rollout_release.tailored[1] asks for the arch, which is not known: set rollout_arch, or gather its facts in an earlier play"
    ]


def test_a_payload_that_needs_an_artifact_is_not_given_none():
    tailor = Tailor({"name": "shop", "version": "2.0", "tailored": [{"when": {"group": "web"}, "variables": {"port": 1}}]})
    assert tailor.fit("a", traits(["web"]), "") == "no artifact with port (group web)"
    tailor.fit("b", traits(["web"]), "it installs one")
    assert [str(problem) for problem in tailor.problems(", ".join)] == ["host b: rollout_release.tailored gives it no artifact, and it installs one"]


def test_a_release_that_is_not_tailored_costs_nothing():
    tailor = Tailor({"name": "shop", "version": "2.0", "artifacts": []})
    assert (bool(tailor), tailor.fit("a", traits([]), "it installs one"), tailor.problems(", ".join)) == (False, "", [])


def test_an_entry_for_all_others_is_named_so():
    assert described({"tailored": [{"artifacts": [{"url": "https://depot/shop.tar.gz"}]}]}, 0) == "shop.tar.gz (all others)"


BAD = [
    ("", {"when": {}}),
    ("[0]", ["web"]),
    ("[0]", [{"when": {"group": "web"}}]),
    ("[0].version", [{"when": {"group": "web"}, "variables": {}, "version": "2.1"}]),
    ("[0].when", [{"when": "web", "variables": {}}]),
    ("[0].when", [{"variables": {}}, {"when": {"os": "Debian"}, "variables": {}}]),
    ("[0].when.distribution", [{"when": {"distribution": "Debian"}, "variables": {}}]),
    ("[0].when.os", [{"when": {"os": []}, "variables": {}}]),
    ("[0].when.os", [{"when": {"os": 12}, "variables": {}}]),
    ("[0].when.group", [{"when": {"group": ["web", None]}, "variables": {}}]),
    ("[0].artifacts", [{"artifacts": "shop.tar.gz"}]),
    ("[0].artifacts[0].sha256", [{"artifacts": [{"path": "shop.tar.gz", "size": 3, "sha256": "abc"}]}]),
    ("[0].artifacts[0].size", [{"artifacts": [{**OWN, "size": "big"}]}]),
    ("[0].variables", [{"variables": ["port"]}]),
    ("[0].variables", [{"variables": {"my-port": 1}}]),
]


@pytest.mark.parametrize("where, raw", BAD, ids=[f"{where} {raw!r:.50}" for where, raw in BAD])
def test_bad_entries(where, raw):
    _artifacts, problems = parse_tailored({"tailored": raw})
    assert [problem.where for problem in problems] == [f"rollout_release.tailored{where}"]


def test_good_entries_give_their_artifacts():
    artifacts, problems = parse_tailored(RELEASE)
    assert problems == []
    assert [where for where, _artifact in artifacts] == ["rollout_release.tailored[0].artifacts[0]", "rollout_release.tailored[1].artifacts[0]"]
    assert parse_tailored(None) == parse_tailored({"name": "shop"}) == ([], [])


ANYTHING = st.recursive(st.none() | st.booleans() | st.integers() | st.text(), lambda inner: st.lists(inner) | st.dictionaries(st.text(), inner))


@given(ANYTHING)
def test_no_input_makes_the_parser_raise(raw):
    for release in ({"tailored": raw}, {"tailored": [raw, {"when": raw, "artifacts": raw, "variables": raw}, {"when": {"os": raw}, "variables": {}}]}):
        assert all(str(problem) for problem in parse_tailored(release)[1])


@pytest.mark.parametrize(
    "change",
    [
        {"tailored": RELEASE["tailored"][:2]},
        {"tailored": [*RELEASE["tailored"][:2], {"when": {"group": "db"}, "variables": {"tls": False}}]},
        {"tailored": [*RELEASE["tailored"][:2], {"when": {"group": "sql"}, "variables": {"tls": True}}]},
        {"tailored": [{**RELEASE["tailored"][0], "artifacts": [ARM]}, *RELEASE["tailored"][1:]]},
        {"tailored": []},
    ],
)
def test_another_entry_makes_another_release_for_everybody(change):
    assert release_digest({**RELEASE, **change}) != release_digest(RELEASE)


def test_a_mirror_of_an_entry_makes_no_other_release():
    moved = copy.deepcopy(RELEASE)
    moved["tailored"][1]["artifacts"][0] = {"url": "https://mirror/shop", "sha256": "1" * 64, "size": 9}
    assert release_digest(moved) == release_digest(RELEASE)
    assert release_digest({**RELEASE, "tailored": []}) == release_digest({key: RELEASE[key] for key in ("name", "version", "artifacts", "variables")})
