# Copyright: onprem.rollout contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

import shutil
import subprocess

import pytest

from ansible_collections.onprem.rollout.plugins.module_utils._apt_alone import alone

pytestmark = pytest.mark.skipif(not shutil.which("dpkg"), reason="needs dpkg, which compares the versions")


def package(version, needs=(), avoids=(), provides=()):
    return {"version": version, "state": "installed", "needs": list(needs), "avoids": list(avoids), "provides": list(provides)}


HOST = {
    "shop": package("1.0", provides=["shop"]),
    "libc": package("2.36-9+deb12u1", provides=["libc"]),
    "python3": package("3.11.2", provides=["python3", "python"]),
    "half": dict(package("1", provides=["half"]), state="unpacked"),
}
CASES = [
    ("Depends: libc", True),
    ("Depends: libc (>= 2.30), python3:any (<< 4)\nRecommends: python", True),
    ("Pre-Depends: nowhere | libc (>= 2.30)", True),
    ("Depends: libc (>= 2.37)", False),
    ("Depends: libc (>= 1:1)", False),
    ("Depends: nowhere", False),
    ("Depends: half", False),
    ("Depends: python (>= 1)", False),
    ("Depends: libc:armhf", False),
    ("Recommends: nowhere", False),
    ("Breaks: libc (<< 2.30), nowhere", True),
    ("Breaks: libc (<< 2.37)", False),
    ("Conflicts: libc", False),
    ("Conflicts: python", False),
    ("Conflicts: shop", True),
    ("Depends: libc,\n python3 (= 3.11.2)", True),
]


def compare(asked):
    return [subprocess.call(["dpkg", "--compare-versions", *one]) == 0 for one in asked]


@pytest.mark.parametrize(("fields", "says"), CASES)
def test_a_package_changes_alone_when_the_host_has_what_it_needs(fields, says):
    assert alone(["shop"], ["Package: shop\nVersion: 2.0\n" + fields, ""], HOST, compare) is says


@pytest.mark.parametrize("field", ["needs", "avoids"])
def test_who_mentions_the_package_may_change_with_it(field):
    assert not alone(["shop"], ["Package: shop"], dict(HOST, plugin=package("1", **{field: ["shop"]})), compare)


def test_every_named_package_must_be_described():
    assert not alone(["other", "shop"], ["Package: shop"], HOST, compare)
    assert not alone(["shop"], [""], HOST, compare)
