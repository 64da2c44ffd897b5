# Copyright: onprem.rollout contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ansible_collections.onprem.rollout.plugins.plugin_utils._policy import (
    Problem,
    Spread,
    parse_release,
    parse_rings,
    release_digest,
    render,
)

GOOD = {"name": "shop", "version": "2.0", "artifacts": [{"path": "shop.tar.gz", "sha256": "a" * 64, "size": 10}]}


def artifact(**changes):
    return {"name": "shop", "version": "2.0", "artifacts": [{**GOOD["artifacts"][0], **changes}]}


def test_the_default_rings():
    rings, problems = parse_rings(None)
    assert problems == []
    assert [(ring.name, ring.serial, ring.max_failures) for ring in rings] == [
        ("early", (1, "50%", "100%"), 0),
        ("standard", ("10%", "50%", "100%"), 0),
        ("critical", (1, "25%"), 0),
    ]


def test_a_ring_of_a_known_name_keeps_its_default_waves():
    rings, problems = parse_rings([{"name": "critical", "hosts": "db"}])
    assert (rings[0].serial, rings[0].hosts, problems) == ((1, "25%"), "db", [])


BAD_RINGS = [
    ("rollout_rings", {}),
    ("rollout_rings", []),
    ("rollout_rings[0]", ["early"]),
    ("rollout_rings[0].name", [{"hosts": "all"}]),
    ("rollout_rings[0].name", [{"name": "my ring"}]),
    ("rollout_rings[0].hosts", [{"name": "early", "hosts": ""}]),
    ("rollout_rings[1].name", [{"name": "early"}, {"name": "early"}]),
    ("rollout_rings[0].serial", [{"name": "early", "serial": 0}]),
    ("rollout_rings[0].serial", [{"name": "early", "serial": -3}]),
    ("rollout_rings[0].serial", [{"name": "early", "serial": "101%"}]),
    ("rollout_rings[0].serial", [{"name": "early", "serial": "0%"}]),
    ("rollout_rings[0].serial", [{"name": "early", "serial": "ten"}]),
    ("rollout_rings[0].serial", [{"name": "early", "serial": True}]),
    ("rollout_rings[0].serial", [{"name": "early", "serial": []}]),
    ("rollout_rings[0].serial", [{"name": "early", "serial": 2.5}]),
    ("rollout_rings[0].concurrency", [{"name": "early", "concurrency": 0}]),
    ("rollout_rings[0].concurrency", [{"name": "early", "concurrency": "many"}]),
    ("rollout_rings[0].max_failures", [{"name": "early", "max_failures": -1}]),
    ("rollout_rings[0].soak", [{"name": "early", "soak": "soon"}]),
    ("rollout_rings[0].soak_interval", [{"name": "early", "soak_interval": "often"}]),
    ("rollout_rings[0].commit", [{"name": "early", "commit": "never"}]),
    ("rollout_rings[0].on_failure", [{"name": "early", "on_failure": "panic"}]),
    ("rollout_rings[0].max_fail", [{"name": "early", "max_fail": 1}]),
    ("rollout_rings[0].spread", [{"name": "early", "spread": {"by": "rack", "max": 1}}]),
    ("rollout_rings[0].spread", [{"name": "early", "spread": None}]),
    ("rollout_rings[0].spread[0]", [{"name": "early", "spread": ["rack"]}]),
    ("rollout_rings[0].spread[0]", [{"name": "early", "spread": [{"by": "rack"}]}]),
    ("rollout_rings[0].spread[0]", [{"name": "early", "spread": [{"by": "rack", "max": 1, "min": 1}]}]),
    ("rollout_rings[0].spread[0].by", [{"name": "early", "spread": [{"by": "my rack", "max": 1}]}]),
    ("rollout_rings[0].spread[1].by", [{"name": "early", "spread": [{"by": "rack", "max": 1}, {"by": "rack", "max": 2}]}]),
    ("rollout_rings[0].spread[0].max", [{"name": "early", "spread": [{"by": "rack", "max": 0}]}]),
    ("rollout_rings[0].spread[0].max", [{"name": "early", "spread": [{"by": "rack", "max": "50%"}]}]),
    ("rollout_rings[0].spread[0].max", [{"name": "early", "spread": [{"by": "rack", "max": 1.5}]}]),
    ("rollout_rings[0].spread[0].max", [{"name": "early", "spread": [{"by": "rack", "max": True}]}]),
]


@pytest.mark.parametrize("where, raw", BAD_RINGS, ids=[f"{where} {raw!r:.50}" for where, raw in BAD_RINGS])
def test_bad_rings(where, raw):
    _rings, problems = parse_rings(raw)
    assert [problem.where for problem in problems] == [where]
    assert problems[0].remedy


def test_a_rule_of_the_rollout_holds_for_rings_without_rules_of_their_own():
    rules = (Spread("site", 2),)
    rings, problems = parse_rings([{"name": "early"}, {"name": "late", "spread": [{"by": "rack", "max": "1"}]}, {"name": "free", "spread": []}], spread=rules)
    assert problems == []
    assert [ring.spread for ring in rings] == [rules, (Spread("rack", 1),), ()]
    assert {ring.spread for ring in parse_rings(None, spread=rules)[0]} == {rules}


def test_every_problem_is_reported_at_once():
    raw = [{"name": "early", "serial": ["10%", "ten", 0], "soak": -1, "commit": "x"}, {"name": "late", "on_failure": 3}]
    assert len(parse_rings(raw)[1]) == 5


@pytest.mark.parametrize("raw, seconds", [(0, 0), ("90", 90), ("1.5m", 90), ("2h", 7200), ("1d", 86400), (30.5, 30.5)])
def test_soak_units(raw, seconds):
    (ring,), _problems = parse_rings([{"name": "early", "soak": raw, "soak_interval": raw}])
    assert (ring.soak, ring.soak_interval) == (seconds, seconds)


@given(st.recursive(st.none() | st.booleans() | st.integers() | st.floats() | st.text(), lambda inner: st.lists(inner) | st.dictionaries(st.text(), inner)))
def test_no_input_makes_the_parsers_raise(raw):
    for parse in (parse_rings, parse_release):
        _value, problems = parse(raw)
        assert all(str(problem) for problem in problems)
    assert parse_rings([{"name": "early", "serial": raw, "soak": raw, "concurrency": raw, "commit": raw, "spread": raw}])
    assert parse_rings([{"name": "early", "spread": [raw, {"by": raw, "max": raw}]}])


BAD_RELEASES = [
    ("rollout_release", None),
    ("rollout_release", "shop-2.0"),
    ("rollout_release.name", {"version": "2.0"}),
    ("rollout_release.version", {"name": "shop"}),
    ("rollout_release.version", {"name": "shop", "version": 2.0}),
    ("rollout_release.version", {"name": "shop", "version": "../2"}),
    ("rollout_release.artifacts", {"name": "shop", "version": "2.0", "artifacts": "shop.tgz"}),
    ("rollout_release.colour", {"name": "shop", "version": "2.0", "colour": "red"}),
    ("rollout_release.variables", {"name": "shop", "version": "2.0", "variables": []}),
    ("rollout_release.artifacts[0].sha256", artifact(sha256=None)),
    ("rollout_release.artifacts[0].sha256", artifact(sha256="ABC")),
    ("rollout_release.artifacts[0].size", artifact(size=0)),
    ("rollout_release.artifacts[0].size", artifact(size=None)),
    ("rollout_release.artifacts[0]", artifact(path=None)),
    ("rollout_release.artifacts[0]", artifact(url="https://depot.example/shop.tar.gz")),
    ("rollout_release.artifacts[0].url", artifact(path=None, url="ftp://depot.example/shop.tar.gz")),
    ("rollout_release.artifacts[0].md5", artifact(md5="x")),
]


@pytest.mark.parametrize("where, raw", BAD_RELEASES, ids=[f"{where} {raw!r:.50}" for where, raw in BAD_RELEASES])
def test_bad_releases(where, raw):
    release, problems = parse_release(raw)
    assert release is None
    assert [problem.where for problem in problems] == [where]


def test_a_good_release():
    release, problems = parse_release({**GOOD, "variables": {"port": 80}})
    assert (problems, release.label, release.artifacts[0].size, release.variables) == ([], "shop 2.0", 10, {"port": 80})


def test_the_digest_names_the_content_not_the_place():
    moved = {**GOOD, "artifacts": [{"url": "https://mirror.example/shop", "sha256": "a" * 64, "size": 10}]}
    assert release_digest(GOOD) == release_digest(moved)
    assert release_digest(GOOD) != release_digest(artifact(sha256="b" * 64))
    assert release_digest(GOOD) != release_digest({**GOOD, "version": "2.1"})
    assert release_digest({**GOOD, "variables": {}}) == release_digest(GOOD)
    assert release_digest({**GOOD, "variables": {"a": 1, "b": 2}}) == release_digest({**GOOD, "variables": {"b": 2, "a": 1}})
    assert release_digest({**GOOD, "variables": {"a": 1}}) != release_digest({**GOOD, "variables": {"a": 2}})


def test_a_message_names_value_place_and_remedy():
    text = render([Problem("rollout_rings[0].serial", "ten", "write a number"), Problem("host db1", "x", "y")])
    assert "2 problems; no host was touched" in text
    assert "1. rollout_rings[0].serial: 'ten': write a number" in text
