# Copyright: onprem.rollout contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

import hashlib
import os
import shutil

import pytest

from ansible_collections.onprem.rollout.plugins.module_utils import _packages, _snapshot
from ansible_collections.onprem.rollout.plugins.module_utils._errors import Refused, RolloutError
from ansible_collections.onprem.rollout.tests.unit.plugins.module_utils import faults
from ansible_collections.onprem.rollout.tests.unit.plugins.module_utils.debs import Root, build

pytestmark = pytest.mark.skipif(not shutil.which("dpkg-deb") or os.geteuid() != 0, reason="needs dpkg, and root for its scripts")

CONF = "/etc/shop.conf"
NEW = "libshop (>= 1:2), shop-data"
SCRIPTS = ("postinst", "prerm", "postrm")
BROKEN = "#!/bin/sh\necho this release cannot even leave; exit 7\n"


@pytest.fixture
def root(tmp_path):
    return Root(tmp_path / "root")


@pytest.fixture
def shop(tmp_path):
    """Version 1.0 and 2.0 of shop, which brings a library along and moves a file to a package of its own."""
    return {
        "1.0": build(tmp_path, "shop", "1.0", {"/opt/shop/server": "one\n", "/opt/shop/data": "old data\n"}, {CONF: "port 1\n"}, Depends="libshop"),
        "2.0": build(tmp_path, "shop", "2.0", {"/opt/shop/server": "two\n"}, {CONF: "port 2\n"}, Depends=NEW, Breaks="libshop (<< 1:2)"),
        "bad": build(tmp_path, "shop", "2.1", {"/opt/shop/server": "bad\n"}, {CONF: "port 3\n"}, dict.fromkeys(SCRIPTS, BROKEN), Depends="libshop"),
        "lib1": build(tmp_path, "libshop", "1:1.0~rc1+b1", {"/usr/lib/libshop": "lib one\n"}),
        "lib2": build(tmp_path, "libshop", "1:2.0", {"/usr/lib/libshop": "lib two\n"}),
        "data": build(tmp_path, "shop-data", "2.0", {"/opt/shop/data": "new data\n"}, Replaces="shop (<< 2.0)", Breaks="shop (<< 2.0)"),
        "other": build(tmp_path, "other", "5", {"/opt/other": "other\n"}),
    }


@pytest.fixture
def installed(root, shop):
    root.dpkg("-i", shop["lib1"], shop["1.0"], shop["other"])
    root.mark("auto", "libshop")
    return root


BEFORE = ["libshop 1:1.0~rc1+b1 ii", "other 5 ii", "shop 1.0 ii"]


def test_looking_says_versions_marks_and_holds(installed):
    installed.hold("shop")
    looked = _packages.look(["shop"], installed.manager)
    shop, lib = looked.packages["shop"], looked.packages["libshop"]
    assert (shop["version"], shop["state"], shop["hold"], shop["auto"], shop["needs"]) == ("1.0", "installed", True, False, ["libshop"])
    assert (lib["version"], lib["hold"], lib["auto"]) == ("1:1.0~rc1+b1", False, True)
    assert looked.paths == [CONF + beside for beside in ("", ".dpkg-dist", ".dpkg-new", ".dpkg-old")]


@pytest.mark.parametrize("cached", [True, False], ids=["from the cache", "rebuilt"])
def test_packages_come_back_without_a_repository(installed, shop, cached):
    if cached:
        installed.cache(shop["1.0"], shop["lib1"])
    installed.write(CONF, "port 1, edited\n")
    verified = installed.verify("shop")
    assert CONF in verified
    installed.secure("shop", "libshop")
    installed.dpkg("-i", "--auto-deconfigure", shop["lib2"], shop["data"], shop["2.0"])
    installed.mark("auto", "shop-data")
    assert "shop 2.0 ii" in installed.installed()
    done, problems = installed.put_back()
    assert problems == []
    assert done == [
        "package libshop: 1:2.0 -> 1:1.0~rc1+b1",
        "package shop: 2.0 -> 1.0",
        "package shop-data: 2.0 -> absent",
    ]
    assert installed.installed() == BEFORE
    assert installed.read("/opt/shop/server") == "one\n"
    assert installed.read("/opt/shop/data") == "old data\n"
    assert installed.read("/usr/lib/libshop") == "lib one\n"
    assert installed.read(CONF) == "port 1, edited\n"
    assert installed.verify("shop") == verified
    assert installed.dpkg("--audit") == ""
    assert (installed.marks("showauto"), installed.marks("showhold")) == (["libshop"], [])
    assert installed.put_back() == ([], [])


def test_what_the_repository_has_is_fetched_and_what_is_pulled_along_is_tracked(installed, shop):
    installed.publish(shop["1.0"], shop["2.0"], shop["lib1"], shop["lib2"], shop["data"])
    looked = installed.secure("shop=2.0")  # apt was not told yet that there is a repository
    assert looked.tracked == ["libshop", "shop", "shop-data"]
    for name, deb in (("shop", shop["1.0"]), ("libshop", shop["lib1"])):
        with open(deb, "rb") as source:
            assert _packages.load(installed.state_dir, "s1")["files"][name] == hashlib.sha256(source.read()).hexdigest()
    installed.dpkg("-i", "--auto-deconfigure", shop["lib2"], shop["data"], shop["2.0"])  # the change marks nothing
    assert installed.put_back()[1] == []
    assert installed.installed() == BEFORE


def test_a_package_that_left_the_repository_is_rebuilt(installed, shop):
    installed.publish(shop["2.0"], shop["lib1"], shop["lib2"], shop["data"])
    installed.update()
    installed.secure("shop=2.0")
    installed.dpkg("-i", "--auto-deconfigure", shop["lib2"], shop["data"], shop["2.0"])
    shutil.rmtree(installed.path + ".repo")
    assert installed.put_back()[1] == []
    assert (installed.installed(), installed.verify("shop")) == (BEFORE, "")


def test_what_only_the_release_had_as_a_configuration_file_goes_with_it(installed, tmp_path):
    more = {CONF: "port 4\n", "/etc/new.conf": "new\n", "/etc/mine.conf": "theirs\n"}
    installed.write("/etc/mine.conf", "the operator's own\n")
    status = installed.dpkg("-s", "shop")
    installed.secure("shop")
    installed.dpkg("-i", build(tmp_path, "shop", "4", {}, more))
    assert installed.read("/etc/mine.conf") == "the operator's own\n"
    assert installed.put_back()[1] == []
    assert not os.path.exists(installed.path + "/etc/new.conf")
    assert installed.read("/etc/mine.conf") == "the operator's own\n"
    assert (installed.dpkg("-s", "shop"), installed.verify("shop")) == (status, "")


def test_the_pristine_digest_survives_a_rebuilt_package(installed, shop):
    installed.write(CONF, "port 1, edited\n")
    installed.secure("shop")
    installed.dpkg("--purge", "shop")
    assert installed.put_back()[1] == []
    installed.write(CONF, "port 1\n")  # what the package had brought
    assert installed.verify("shop") == ""
    assert installed.dpkg("-i", "--force-depends,breaks", shop["2.0"])
    assert installed.read(CONF) == "port 2\n"  # so dpkg takes it for unedited, and brings the new one


def test_a_configuration_file_that_the_operator_removed_stays_removed(installed):
    os.unlink(installed.path + CONF)
    installed.secure("shop")
    assert installed.put_back() == ([], [])
    installed.dpkg("-i", "--force-downgrade", _only_file(installed))
    assert not os.path.exists(installed.path + CONF)


def _only_file(root):
    (name,) = os.listdir(os.path.join(root.state_dir, "packages", "files"))
    return os.path.join(root.state_dir, "packages", "files", name)


def test_a_release_whose_own_scripts_fail_has_to_leave_all_the_same(installed, shop):
    installed.cache(shop["1.0"])
    installed.secure("shop")
    installed.dpkg("-i", shop["bad"], check=False)
    assert "shop 2.1 iF" in installed.installed()
    assert installed.put_back() == (["package shop: 2.1 -> 1.0"], [])
    assert installed.installed() == BEFORE


def test_a_package_that_was_absent_is_purged_whatever_its_scripts_say(root, shop):
    root.dpkg("-i", shop["lib1"])
    root.secure("shop")
    root.dpkg("-i", shop["bad"], check=False)
    assert root.put_back()[1] == []
    assert root.installed() == ["libshop 1:1.0~rc1+b1 ii"]
    assert not os.path.exists(root.path + CONF)


def test_a_package_that_was_removed_but_not_purged_is_so_again(installed, shop):
    installed.dpkg("--remove", "shop")
    assert "shop 1.0 rc" in installed.installed()
    installed.secure("shop")
    installed.dpkg("-i", shop["1.0"])
    assert installed.put_back() == (["package shop: 1.0 -> absent"], [])
    assert "shop 1.0 rc" in installed.installed()
    assert installed.read(CONF) == "port 1\n"


def test_what_somebody_else_did_meanwhile_is_left_alone(installed, shop, tmp_path):
    installed.secure("shop")
    theirs = build(tmp_path, "theirs", "1", {"/opt/theirs": "1\n"}, Depends="shop-data, thing")
    thing = build(tmp_path, "thing", "1", {"/opt/thing": "1\n"})
    surplus = build(tmp_path, "surplus", "1", {"/opt/surplus": "1\n"})
    installed.dpkg("-i", "--auto-deconfigure", build(tmp_path, "other", "6"), theirs, thing, surplus)
    installed.mark("auto", "thing", "surplus")
    assert installed.put_back() == (["package surplus: 1 -> absent"], [])
    assert installed.installed() == ["libshop 1:1.0~rc1+b1 ii", "other 6 ii", "shop 1.0 ii", "theirs 1 ii", "thing 1 ii"]


def test_holds_and_marks_come_back(installed):
    installed.hold("shop")
    installed.secure("shop", "libshop")
    installed.hold("shop", "install")
    installed.mark("auto", "shop")
    installed.mark("manual", "libshop")
    lines = ["package libshop: auto False -> True", "package shop: hold False -> True", "package shop: auto True -> False"]
    assert _packages.differences(installed.state_dir, "s1", installed.manager) == lines
    assert installed.put_back() == (lines, [])
    assert (installed.marks("showauto"), installed.marks("showhold")) == (["libshop"], ["shop"])
    assert installed.put_back() == ([], [])


def test_a_held_package_comes_back_and_stays_held(installed, shop):
    installed.hold("shop")
    installed.secure("shop")
    installed.dpkg("-i", "--force-hold", "--auto-deconfigure", shop["lib2"], shop["data"], shop["2.0"])
    assert installed.put_back()[1] == []
    assert "shop 1.0 hi" in installed.installed()


def test_a_second_snapshot_of_the_same_versions_reads_nothing_again(installed):
    installed.secure("shop", "libshop")
    first = {name: os.stat(os.path.join(installed.state_dir, "packages/files", name)).st_ino for name in os.listdir(installed.state_dir + "/packages/files")}
    del installed.commands[:]
    installed.secure("shop", "libshop", snapshot="s2")
    assert not [argv for argv in installed.commands if "dpkg-deb" in argv or "download" in argv]
    assert first == {
        name: os.stat(os.path.join(installed.state_dir, "packages/files", name)).st_ino for name in os.listdir(installed.state_dir + "/packages/files")
    }
    assert len(first) == 2


def test_a_damaged_file_is_named_before_it_is_needed_and_when_it_is(installed, shop):
    installed.secure("shop")
    with open(_only_file(installed), "r+b") as out:
        out.write(b"rust")
    assert _packages.damaged(installed.state_dir, "s1") == ["shop"]
    _snapshot.take(installed.state_dir, "s1", [], "2023-11-14T22:23:20Z")
    assert _snapshot.verify(installed.state_dir, "s1") == ["the file of package shop is damaged or lost"]
    installed.dpkg("-i", "--auto-deconfigure", shop["lib2"], shop["data"], shop["2.0"])
    (problem,) = installed.put_back()[1]
    assert problem == "the file of package shop 1.0, {}, is damaged".format(_only_file(installed))
    assert "shop 2.0 ii" in installed.installed()


def test_a_damaged_cache_is_not_believed(installed, shop):
    installed.cache(shop["1.0"])
    cached = os.path.join(installed.path, "var/cache/apt/archives", os.path.basename(shop["1.0"]))
    with open(cached, "r+b") as out:
        out.truncate(os.path.getsize(cached) - 60)
    installed.secure("shop")
    installed.dpkg("-i", _only_file(installed))
    assert installed.verify("shop") == ""


def test_pruning_keeps_what_the_kept_snapshots_need(installed, shop):
    installed.secure("shop")
    installed.dpkg("-i", "--auto-deconfigure", shop["lib2"], shop["data"], shop["2.0"])
    installed.secure("shop", snapshot="s2")
    files = os.path.join(installed.state_dir, "packages/files")
    assert len(os.listdir(files)) == 2
    _packages.prune(installed.state_dir, ["s1", "unknown"])
    assert (_packages.snapshots(installed.state_dir), len(os.listdir(files))) == (["s1"], 1)
    assert installed.put_back()[1] == []
    assert "shop 1.0 ii" in installed.installed()
    _packages.prune(installed.state_dir, [])
    assert os.listdir(files) == []


REFUSALS = [
    (["shop", "shop=2.0"], "bad_package", "shop is given 2 times"),
    (["Shop!"], "bad_package", "'Shop!' is no name of a package of apt"),
    (["shop="], "bad_package", "'shop=' is no name"),
    (["shop=9.9"], "no_package", "Version '9.9' for 'shop' was not found"),
    (["nowhere=1"], "no_package", "Unable to locate package nowhere"),
]


@pytest.mark.parametrize(("names", "reason", "says"), REFUSALS)
def test_bad_names_are_refused(installed, names, reason, says):
    with pytest.raises(Refused, match=says) as caught:
        _packages.look(names, installed.manager)
    assert caught.value.reason == reason


def test_a_host_without_a_package_manager_is_told(tmp_path):
    with pytest.raises(Refused, match="packages is shop, but this host has neither apt nor dnf"):
        _packages.require(["shop"], None)
    _packages.require([], None)
    assert _packages.look([], None) == _packages.NOTHING


def test_packages_that_are_not_in_order_are_refused(installed, shop):
    installed.dpkg("--unpack", shop["other"])
    with pytest.raises(Refused, match=r"not in order: other is unpacked.*dpkg --configure -a"):
        _packages.look(["other"], installed.manager)


def test_what_cannot_be_rebuilt_is_told(installed):
    os.unlink(os.path.join(installed.path, "var/lib/dpkg/info/shop.list"))
    looked = _packages.look(["shop"], installed.manager)
    with pytest.raises(RolloutError, match=r"Package shop 1.0 is in no repository of this host and not in apt's cache.*no list of its files"):
        _packages.secure(installed.state_dir, "s1", looked)
    assert _packages.snapshots(installed.state_dir) == []


def test_too_little_disk_is_told_before_anything_is_written(installed):
    looked = _packages.look(["shop"], installed.manager)
    with pytest.raises(Refused, match="Too little disk"):
        _packages.secure(installed.state_dir, "s1", looked, 10**18)
    assert os.listdir(installed.state_dir) == []


def test_securing_can_be_killed_anywhere_and_done_again(installed, shop):
    installed.cache(shop["1.0"], shop["lib1"])
    step = 1
    while faults.killed_at(step, lambda: installed.secure("shop", "libshop")):
        if _packages.snapshots(installed.state_dir):
            assert _packages.damaged(installed.state_dir, "s1") == []
        step += 1
    assert step > 8
    assert _packages.damaged(installed.state_dir, "s1") == []


def test_putting_back_can_be_killed_anywhere_and_done_again(installed, shop):
    """Killed is the program that runs dpkg, before each dpkg and before each of its own writes."""
    installed.write(CONF, "edited\n")
    installed.secure("shop", "libshop")
    step, more = 1, True
    while more:
        installed.dpkg("-i", "--auto-deconfigure", shop["lib2"], shop["data"], shop["2.0"])
        installed.mark("auto", "shop-data")
        more = faults.killed_at(step, installed.put_back)
        assert installed.put_back()[1] == []
        assert installed.installed() == BEFORE
        step += 1
    assert step > 5
