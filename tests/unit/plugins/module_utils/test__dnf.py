# Copyright: onprem.rollout contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""A real rpm database and a local repository, both in directories of their own."""

import os
import shutil
import subprocess

import pytest

from ansible_collections.onprem.rollout.plugins.module_utils import _dnf, _packages, _process
from ansible_collections.onprem.rollout.plugins.module_utils._errors import Refused
from ansible_collections.onprem.rollout.tests.unit.plugins.module_utils import faults
from ansible_collections.onprem.rollout.tests.unit.plugins.module_utils.rpms import build, publish

needed = ("rpm", "rpmbuild", "dnf", "createrepo_c")
pytestmark = pytest.mark.skipif(os.geteuid() != 0 or not all(shutil.which(name) for name in needed), reason="needs root and " + ", ".join(needed))

CONF = "/etc/shop.conf"


@pytest.fixture(scope="module")
def built(tmp_path_factory):
    """A repository with shop 1.0 and 2.0, which brings libshop along and moves a file to a package of its own, and a bad 2.1."""
    top = str(tmp_path_factory.mktemp("rpms"))
    build(top, "shop", "1.0", {"/opt/shop/server": "one", "/opt/shop/data": "old data"}, {CONF: "port 1\n"}, head="Requires: libshop")
    build(top, "shop", "2.0", {"/opt/shop/server": "two"}, {CONF: "port 2\n"}, head="Requires: libshop = 2.0, shop-data")
    build(
        top, "shop", "2.1", {"/opt/shop/server": "bad"}, {CONF: "port 3\n"}, scripts="%preun -p <lua>\nerror('it will not leave')\n", head="Requires: libshop"
    )
    build(top, "shop-data", "2.0", {"/opt/shop/data": "new data"})
    build(top, "libshop", "1.0", {"/usr/lib/libshop": "lib one"})
    build(top, "libshop", "2.0", {"/usr/lib/libshop": "lib two"})
    return top


class Root:
    def __init__(self, path, built):
        self.path, self.repo = str(path / "root"), str(path / "repo")
        self.state_dir = str(path / "state")
        shutil.copytree(built + "/repo", self.repo)
        os.makedirs(self.path + "/etc/yum.repos.d")
        os.makedirs(self.state_dir)
        with open(self.path + "/etc/yum.repos.d/local.repo", "w") as out:
            out.write("[local]\nname=local\nbaseurl=file://{}\nenabled=1\ngpgcheck=0\n".format(self.repo))
        self.options = ["--releasever=9", "--setopt=reposdir=" + self.path + "/etc/yum.repos.d", "--setopt=cachedir=" + str(path / "cache")]
        self.manager = _dnf.Dnf(self.command, self.path, self.options)
        self.commands = []
        self.publish()

    def command(self, argv, timeout):
        self.commands.append(argv)
        return _process.run(argv, timeout)

    def publish(self, without=()):
        publish(self.repo, without)

    def dnf(self, *argv):
        subprocess.run(["dnf", "-q", "-y", "--refresh", "--installroot=" + self.path] + self.options + list(argv), check=True, stdout=subprocess.DEVNULL)

    def installed(self):
        return sorted(subprocess.run(["rpm", "--root", self.path, "-qa"], check=True, stdout=subprocess.PIPE).stdout.decode().split())

    def reasons(self):
        argv = ["dnf", "-q", "-C", "--installroot=" + self.path] + self.options + ["repoquery", "--installed", "--qf", "%{name} %{reason}"]
        return sorted(subprocess.run(argv, check=True, stdout=subprocess.PIPE).stdout.decode().splitlines())

    def verify(self, name):
        return subprocess.run(["rpm", "--root", self.path, "-V", "--nodeps", name], stdout=subprocess.PIPE).stdout.decode()

    def read(self, path):
        with open(self.path + path) as source:
            return source.read().strip()

    def secure(self, *names, snapshot="s1"):
        looked = _packages.look(list(names), self.manager)
        _packages.secure(self.state_dir, snapshot, looked)
        return looked

    def put_back(self):
        return _packages.put_back(self.state_dir, "s1", self.manager)


@pytest.fixture
def root(tmp_path, built):
    return Root(tmp_path, built)


@pytest.fixture
def installed(root):
    root.dnf("install", "shop-1.0", "libshop-1.0")
    root.dnf("mark", "remove", "libshop")
    return root


BEFORE = ["libshop-1.0-1.noarch", "shop-1.0-1.noarch"]
MARKS = ["libshop dependency", "shop user"]


def test_looking_says_versions_and_marks_and_what_is_pulled_along(installed):
    looked = _packages.look(["shop=2.0"], installed.manager)
    assert looked.tracked == ["libshop.noarch", "shop-data.noarch", "shop.noarch"]
    assert [(looked.packages[key]["version"], looked.packages[key]["auto"]) for key in ("shop.noarch", "libshop.noarch")] == [("1.0-1", False), ("1.0-1", True)]
    assert looked.paths == [CONF + beside for beside in ("", ".rpmnew", ".rpmorig", ".rpmsave")] + [
        "/etc/dnf/plugins/versionlock.list",
        "/etc/dnf/versionlock.toml",
    ]


def test_packages_come_back_without_a_repository(installed):
    with open(installed.path + CONF, "a") as out:
        out.write("edited\n")
    verified = installed.verify("shop")
    installed.secure("shop=2.0")
    installed.dnf("install", "shop-2.0")
    assert installed.installed() == ["libshop-2.0-1.noarch", "shop-2.0-1.noarch", "shop-data-2.0-1.noarch"]
    shutil.rmtree(installed.repo)
    predicted = _packages.differences(installed.state_dir, "s1", installed.manager)
    done, problems = installed.put_back()
    assert problems == []
    assert done == predicted
    assert done[:3] == ["package libshop.noarch: 2.0-1 -> 1.0-1", "package shop.noarch: 2.0-1 -> 1.0-1", "package shop-data.noarch: 2.0-1 -> absent"]
    assert (installed.installed(), installed.reasons()) == (BEFORE, MARKS)
    assert [installed.read(path) for path in ("/opt/shop/server", "/opt/shop/data", "/usr/lib/libshop")] == ["one", "old data", "lib one"]
    assert installed.verify("shop") == verified
    assert installed.put_back() == ([], [])


def test_a_release_whose_own_scripts_fail_has_to_leave_all_the_same(installed):
    installed.secure("shop")
    installed.dnf("install", "shop-2.1")
    assert installed.put_back()[1] == []
    assert (installed.installed(), installed.reasons()) == (BEFORE, MARKS)


def test_a_package_that_was_absent_is_removed_with_what_it_brought(root):
    root.secure("shop")
    root.dnf("install", "shop-2.0")
    assert len(root.installed()) == 3
    assert root.put_back()[1] == []
    assert root.installed() == []


def test_marks_come_back(installed):
    installed.secure("shop", "libshop")
    installed.dnf("mark", "install", "libshop")
    installed.dnf("mark", "remove", "shop")
    assert installed.put_back() == (["package libshop.noarch: auto False -> True", "package shop.noarch: auto True -> False"], [])
    assert installed.reasons() == MARKS


def test_a_package_that_left_the_repository_is_refused_by_name(installed):
    installed.publish(without=["shop-1.0"])
    with pytest.raises(Refused, match=r"Package shop.noarch 1.0-1 is in no repository of this host and not in dnf's cache") as caught:
        installed.secure("shop")
    assert caught.value.reason == "package"
    assert installed.installed() == BEFORE
    assert _packages.snapshots(installed.state_dir) == []


def test_what_was_secured_once_needs_no_repository_again(installed):
    installed.secure("shop")
    installed.publish(without=["shop-1.0", "libshop-1.0"])
    installed.secure("shop", snapshot="s2")
    assert _packages.damaged(installed.state_dir, "s2") == []


REFUSALS = [(["shop", "shop"], "bad_package"), (["no name"], "bad_package"), (["shop=9.9"], "no_package"), (["nowhere=1"], "no_package")]


@pytest.mark.parametrize(("names", "reason"), REFUSALS)
def test_bad_names_are_refused(installed, names, reason):
    with pytest.raises(Refused) as caught:
        _packages.look(names, installed.manager)
    assert caught.value.reason == reason


def test_putting_back_can_be_killed_anywhere_and_done_again(installed):
    installed.secure("shop=2.0")
    step = 0
    while step < 3:
        installed.dnf("install", "shop-2.0")

        def dying(argv, timeout, step=step, seen=[]):  # noqa: B006 - counts the changing commands of this round
            if argv[3] == "rpm" and argv[-1] != argv[3] and any(word in ("-e", "-U") for word in argv):
                seen.append(argv)
                if len(seen) > step:
                    os._exit(faults.KILLED)
            return _process.run(argv, timeout)

        pid = os.fork()
        if pid == 0:
            try:
                _packages.put_back(installed.state_dir, "s1", _dnf.Dnf(dying, installed.path, installed.options))
            finally:
                os._exit(0)
        os.waitpid(pid, 0)
        assert installed.put_back()[1] == []
        assert installed.installed() == BEFORE
        step += 1


TABLE = """\
Dependencies resolved.
================================================================================
 Package          Architecture       Version            Repository         Size
================================================================================
Upgrading:
 shop             noarch             2.0-1              local             6.1 k
     replacing  old-shop.x86_64 1.0-1
 a-package-with-a-name-that-is-too-long-for-the-table
                  x86_64             1:2.0-1.el9        baseos             12 M

Transaction Summary
================================================================================
Upgrade  1 Package
"""


def test_the_table_of_dnf_is_read_with_its_long_names():
    assert _dnf._listed(TABLE) == {"shop.noarch", "old-shop.x86_64", "a-package-with-a-name-that-is-too-long-for-the-table.x86_64"}


@pytest.mark.parametrize(
    ("reason", "automatic"), [("dependency", True), ("weak-dependency", True), ("Weak Dependency", True), ("user", False), ("Group", False)]
)
def test_the_reasons_of_dnf_4_and_5_are_read(reason, automatic):
    assert bool(_dnf.AUTOMATIC.search("shop.noarch " + reason)) is automatic


def test_a_version_that_is_locked_is_not_said_to_be_missing():
    said = "All matches were filtered out by exclude filtering for argument: shop-2.0\nError: Unable to find a match: shop-2.0\n"
    with pytest.raises(Refused, match=r"a versionlock or an exclude keeps shop-2.0 away") as caught:
        _dnf.Dnf(lambda _argv, _timeout: (1, said)).pulled_along(["shop"], {"shop": "2.0"}, {})
    assert caught.value.reason == "no_package"
