# Copyright: onprem.rollout contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""The orders are compared with those of dpkg, rpm and packaging themselves."""

import shutil
import subprocess

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st
from packaging.version import Version

from ansible_collections.onprem.rollout.plugins.module_utils._ranges import SCHEMES, Range

SEMVER = [
    "1.0.0-alpha",
    "1.0.0-alpha.1",
    "1.0.0-alpha.beta",
    "1.0.0-beta",
    "1.0.0-beta.2",
    "1.0.0-beta.11",
    "1.0.0-rc.1",
    "1.0.0",
    "1.0.1-0",
    "1.2.0",
    "1.10.0",
]
RANGES = [
    ("vers:deb/*", ["1", "7:2-1"], []),
    ("vers:deb/<1.4", ["1.3-9", "1.4~rc1"], ["1.4", "1.4-1", "1:0"]),
    ("vers:deb/<=1.4-1", ["1.4-1"], ["1.4-1+b1"]),
    ("vers:deb/>=1.2|<1.4", ["1.2", "1.3"], ["1.1", "1.4", "2"]),
    ("vers:deb/<1.4|>=1.2", ["1.2", "1.3"], ["1.1", "1.4", "2"]),
    ("vers:deb/>=1.2|<1.4|>=2.0|<2.3", ["1.3", "2.2"], ["1.9", "2.3"]),
    ("vers:deb/>=1.2|!=1.3|<1.4", ["1.3.1"], ["1.3", "1.4"]),
    ("vers:deb/<1.0|1.5|>2.0", ["0.9", "1.5", "2.0-1"], ["1.0", "1.4", "2.0"]),
    ("vers:deb/1%3A1.0-1", ["1:1.0-1"], ["1.0-1"]),
    ("vers:rpm/<2:1.0", ["1:9", "9"], ["2:1.0", "2:1.0-5"]),
    ("vers:semver/<1.4", ["1.3.9", "v1.3", "1.4.0-rc.1"], ["1.4.0", "1.4.0+build"]),
    ("vers:pypi/<1.4", ["1.3", "1.4rc1", "1.4.dev1"], ["1.4", "1.4.post1", "1!0"]),
]
WRONG = [
    ("1.2", "write a range"),
    ("vers:deb/", "write a range"),
    ("vers:gem/<1", "gem is no scheme whose order is known; allowed: deb, pypi, rpm, semver"),
    ("vers:semver/<one", "one is no version of the scheme semver"),
    ("vers:deb/<1 2", "1 2 is no version of the scheme deb"),
    ("vers:deb/<1|>1", "a version stands in it twice"),
    ("vers:deb/<1|*", r"\* stands alone"),
]


def sign(scheme, left, right):
    key = SCHEMES[scheme]
    return (key(right) < key(left)) - (key(left) < key(right))


def versions(letters, start="0123456789"):
    return st.builds(lambda first, rest: first + rest, st.sampled_from(start), st.text(letters, max_size=7))


@pytest.mark.parametrize("text, inside, outside", RANGES, ids=[row[0] for row in RANGES])
def test_a_range_has_what_it_names(text, inside, outside):
    assert [version for version in inside + outside if version in Range(text)] == inside


@pytest.mark.parametrize("text, why", WRONG, ids=[row[0] for row in WRONG])
def test_a_range_that_cannot_be_read_is_an_error(text, why):
    with pytest.raises(ValueError, match=why):
        Range(text)


@pytest.mark.parametrize(
    "scheme, version", [("semver", "1.0.0.0"), ("semver", "x"), ("deb", "a1"), ("deb", "1_0"), ("deb", "1-"), ("rpm", "1-2-3"), ("pypi", "1.0-SNAPSHOT")]
)
def test_a_version_without_an_order_is_no_answer(scheme, version):
    with pytest.raises(ValueError, match="{} is no version of the scheme {}".format(version, scheme)):
        version in Range("vers:{}/>0".format(scheme))  # noqa: B015 the question itself is the error


@pytest.mark.parametrize("left", range(len(SEMVER)))
def test_semver_orders_as_its_specification_does(left):
    for right, version in enumerate(SEMVER):
        assert sign("semver", SEMVER[left], version) == (left > right) - (left < right)


@pytest.mark.skipif(not shutil.which("dpkg"), reason="compares with dpkg; Debian and Ubuntu have it")
@settings(max_examples=60, deadline=None)
@example("1.0~rc1-1", "1.0-1")
@example("1.0-1", "1.0-1+b1")
@example("1:0", "9")
@example("1-2-3", "1-2")
@example("2a", "2+")
@given(versions("0123456789ab.+~-"), versions("0123456789ab.+~-"))
def test_deb_orders_as_dpkg_does(left, right):
    try:
        word = {-1: "lt", 0: "eq", 1: "gt"}[sign("deb", left, right)]
    except ValueError:
        return
    subprocess.run(["dpkg", "--compare-versions", left, word, right], check=True)


RPM = [("1.0~rc1", "1.0"), ("1.0^git1", "1.0"), ("1.0^git1", "1.0.1"), ("1.0^", "1.0^a"), ("1.a", "1.1"), ("1.010", "1.10"), ("1.0.", "1.0")]
SOME_RPM = versions("0123456789ab._+~^")


@pytest.mark.skipif(not shutil.which("rpm"), reason="compares with rpm; make test installs it on Debian")
@settings(max_examples=8, deadline=None)
@example(RPM)
@given(st.lists(st.tuples(SOME_RPM, SOME_RPM), min_size=15, max_size=30))
def test_rpm_orders_as_rpm_does(pairs):
    lua = " ".join('print(rpm.vercmp("{}", "{}"), " ")'.format(*pair) for pair in pairs)
    found = subprocess.run(["rpm", "--eval", "%{lua: " + lua + "}"], stdout=subprocess.PIPE, check=True).stdout.split()
    assert [sign("rpm", *pair) for pair in pairs] == [int(number) for number in found]


PYPI = st.from_regex(r"\A(1!)?[0-3](\.[0-2]){0,3}((a|b|rc|-alpha|_pre)[0-2]?)?(\.post[0-2]|-1|r2)?(\.?dev[0-2])?(\+[a1](\.[b2])?)?\Z")


@settings(max_examples=300, deadline=None)
@example("1.0.dev1", "1.0a1")
@example("1.0a1.dev1", "1.0a1")
@example("1.0+a", "1.0")
@example("1.0.0", "1")
@given(PYPI, PYPI)
def test_pypi_orders_as_packaging_does(left, right):
    assert sign("pypi", left, right) == (Version(left) > Version(right)) - (Version(left) < Version(right))
