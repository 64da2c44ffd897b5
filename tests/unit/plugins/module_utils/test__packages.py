# Copyright: onprem.rollout contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

import json
import os

import pytest

from ansible_collections.onprem.rollout.plugins.module_utils import _packages
from ansible_collections.onprem.rollout.plugins.module_utils._errors import Refused

DEBIAN, UBUNTU = "ID=debian\n", 'NAME="Ubuntu"\nID=ubuntu\nID_LIKE=debian\n'
RHEL, ROCKY, SUSE = 'ID="rhel"\nID_LIKE="fedora"\n', 'ID="rocky"\nID_LIKE="rhel centos fedora"\n', 'ID="opensuse-leap"\nID_LIKE="suse opensuse"\n'
APT, DNF = ("apt-get",), ("dnf", "rpm")
CASES = [
    (APT, "", "auto", "apt"),
    (DNF, "", "auto", "dnf"),
    (("dnf",), ROCKY, "auto", None),
    ((), DEBIAN, "auto", None),
    (APT + DNF, DEBIAN, "auto", "apt"),
    (APT + DNF, UBUNTU, "auto", "apt"),
    (APT + DNF, RHEL, "auto", "dnf"),
    (APT + DNF, ROCKY, "auto", "dnf"),
    (APT + DNF, SUSE, "auto", "dnf"),
    (APT + DNF, None, "auto", "apt"),
    (APT + DNF, DEBIAN, "dnf", "dnf"),
    (APT + DNF, ROCKY, "apt", "apt"),
    (APT, ROCKY, "dnf", None),
]


@pytest.fixture
def system(tmp_path, monkeypatch):
    """A function that makes a root with these tools on PATH and this os-release, and returns its path."""
    tools = tmp_path / "bin"
    tools.mkdir()
    monkeypatch.setenv("PATH", str(tools))

    def make(names, release):
        for name in names:
            (tools / name).write_text("")
            (tools / name).chmod(0o755)
        for place in ("etc", "var/lib/dpkg"):
            (tmp_path / place).mkdir(parents=True)
        (tmp_path / "var/lib/dpkg/status").write_text("")
        if release is not None:
            (tmp_path / "etc/os-release").write_text(release)
        return str(tmp_path)

    return make


@pytest.mark.parametrize(("names", "release", "wanted", "expected"), CASES)
def test_who_manages_the_packages_of_a_host(system, names, release, wanted, expected):
    found = _packages.manager_of(None, system(names, release), wanted)
    assert getattr(found, "manager", None) == expected


@pytest.mark.parametrize(("leads_to", "tool"), [("dnf-3", "dnf4"), ("dnf5", "dnf5")])
def test_which_dnf_it_is(system, tmp_path, leads_to, tool):
    root = system(DNF + (leads_to,), ROCKY)
    (tmp_path / "bin/dnf").unlink()
    (tmp_path / "bin/dnf").symlink_to(leads_to)
    assert _packages.manager_of(None, root).tool == tool


@pytest.mark.parametrize(("wanted", "says"), [("auto", "neither apt nor dnf"), ("dnf", "no dnf")])
def test_a_host_without_the_package_manager_is_told(wanted, says):
    with pytest.raises(Refused, match=r"packages is shop=2.0, but this host has {0}\. .* correct package_manager".format(says)) as caught:
        _packages.require(["shop=2.0"], None, wanted)
    assert caught.value.reason == "no_package_manager"


@pytest.mark.skipif(not os.path.isfile("/var/lib/dpkg/status"), reason="needs a host of Debian, such as the one of make test")
@pytest.mark.parametrize(("manager", "expected"), [("apt", "apt"), ("dnf", "dnf"), ("unreadable", "apt")])
def test_a_snapshot_says_whose_packages_it_has(system, tmp_path, manager, expected):
    system(APT + DNF, DEBIAN)
    (tmp_path / "packages").mkdir()
    (tmp_path / "packages/s1.json").write_text("{" if manager == "unreadable" else json.dumps({"schema": 1, "manager": manager}))
    assert _packages.manager_for(str(tmp_path), "s1").manager == expected
