# Copyright: onprem.rollout contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The same for a host of the other family: its os-release says so, rpm has its service, and dnf a repository of real rpms.

Judged by rpm -q, rpm -V, dnf repoquery, and systemctl on the host.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from fleet import Fleet, Host, eventually
from playbook import Playbook, Result

from ansible_collections.onprem.rollout.tests.unit.plugins.module_utils.rpms import build, publish

CONF, LOCKS = "/etc/desk.conf", "/etc/dnf/plugins/versionlock.list"
UNIT = """\
[Service]
ExecStart=/usr/bin/python3 -IB /usr/lib/desk/serve
[Install]
WantedBy={target}.target
"""
SERVE = """\
import http.server
VERSION, HEALTHY = {version!r}, {healthy}
class Handler(http.server.BaseHTTPRequestHandler):
    def do_GET(self):
        self.send_response(200 if HEALTHY else 500)
        self.end_headers()
        self.wfile.write((VERSION + " " + open("/etc/desk.conf").read() + open("/usr/lib/desk/library").read()).encode())
http.server.ThreadingHTTPServer(("127.0.0.1", 8091), Handler).serve_forever()
"""
SCRIPTS = """\
%post
{more}systemctl daemon-reload
systemctl reenable --quiet desk
systemctl restart desk
%preun
{leaves}[ $1 != 0 ] || systemctl disable --quiet --now desk
"""
LOSES_REPOSITORY = "rm -rf /srv/rpms\n"
PREPARED = f"""\
set -e
cp -a /etc/os-release /root/os-release.before; rm /etc/os-release
printf 'ID="rocky"\\nID_LIKE="rhel centos fedora"\\nVERSION_ID="8.10"\\nNAME="Rocky Linux"\\n' >/etc/os-release
mkdir -p /etc/rpm /etc/yum.repos.d
echo '%_dbpath /var/lib/rpm' >/etc/rpm/macros
printf '[main]\\ngpgcheck=False\\nbest=True\\nclean_requirements_on_remove=True\\n' >/etc/dnf/dnf.conf
printf '[main]\\nenabled = false\\n' >/etc/dnf/plugins/local.conf
: >{LOCKS}
printf '[local]\\nname=local\\nbaseurl=file:///srv/rpms\\ngpgcheck=0\\nmetadata_expire=1\\n' >/etc/yum.repos.d/local.repo
dnf -q -y install desk-1.0 libdesk-1.0
dnf -q mark remove libdesk
echo edited >>{CONF}
systemctl restart desk
"""
CLEARED = f"""\
rpm -e --nodeps $(rpm -qa)
rm -rf /srv/rpms /var/lib/onprem-rollout /etc/desk* /etc/rpm/macros /etc/yum.repos.d /var/cache/dnf {LOCKS}
[ ! -L /root/os-release.before ] || {{ rm -f /etc/os-release; mv /root/os-release.before /etc/os-release; }}
systemctl daemon-reload
"""
NEWER = ("desk-1.0", "libdesk-1.0")  # what a repository that has only newer ones lacks


def desk(top: str, version: str, *, healthy: bool = True, more: str = "", leaves: str = "", requires: str = "libdesk = 2.0, desk-data") -> None:
    target = "multi-user" if version == "1.0" else "graphical"
    files = {"/usr/lib/desk/serve": SERVE.format(version=version, healthy=healthy), "/usr/lib/systemd/system/desk.service": UNIT.format(target=target)}
    conffiles = {CONF: f"of {version}\n", **({"/etc/desk.more": "more\n"} if version != "1.0" else {})}
    build(top, "desk", version, files, conffiles, SCRIPTS.format(more=more, leaves=leaves), f"AutoReqProv: no\nRequires: {requires}")


@pytest.fixture(scope="module")
def rpms(tmp_path_factory: pytest.TempPathFactory) -> Path:
    top = tmp_path_factory.mktemp("rpms")
    desk(str(top), "1.0", requires="libdesk")
    desk(str(top), "2.0")
    desk(str(top), "2.1", healthy=False, more=LOSES_REPOSITORY, leaves="exit 4\n")
    for version in ("1.0", "2.0"):
        build(str(top), "libdesk", version, {"/usr/lib/desk/library": f"library {version}\n"})
    build(str(top), "shell", "1", {}, head="Provides: /bin/sh")  # the host has one, but its rpm database does not know that
    build(str(top), "desk-data", "1", {"/usr/share/desk/data": "data\n"})
    publish(str(top / "repo"))
    return top / "repo"


class Desk:
    """One host with desk 1.0, whose configuration the operator edited, and a repository that has newer ones."""

    def __init__(self, host: Host, playbook: Playbook, rpms: Path) -> None:
        self.host, self.playbook = host, playbook
        self.clear()
        host.copy(rpms, "/srv/rpms")
        host.run(PREPARED, timeout=120)
        self.await_answer("1.0 of 1.0\nedited\nlibrary 1.0")

    def clear(self) -> None:
        self.host.run(CLEARED, check=False, timeout=60)

    def await_answer(self, text: str) -> None:
        eventually(lambda: self.host.run("curl -s http://127.0.0.1:8091/", check=False).stdout.strip() == text, f"desk to answer {text!r}")

    def picture(self) -> str:
        """What the host's own tools say, and the bytes of what the packages brought."""
        return self.host.run(
            "rpm -qa --qf '%{NEVRA} %{FILESTATES}\\n' | sort; rpm -V --nodeps desk libdesk; dnf -q -C repoquery --installed --qf '%{name} %{reason}' | sort;"
            f"sha256sum /etc/desk* /usr/lib/desk/* {LOCKS}; ls /usr/share/desk; find /etc/systemd/system ! -name 'onprem-rollout-*' -printf '%p %l\\n' | sort;"
            "systemctl is-active desk; systemctl is-enabled desk",
            check=False,
            timeout=60,
        ).stdout

    def upgrade(self, version: str, **options: Any) -> Result:
        variables = {
            "rollout_release": {"name": "desk", "version": version},
            "rollout_payload": "onprem.rollout.package",
            "rollout_packages": ["desk={{ rollout_release.version }}"],
            "rollout_paths": [],
            "rollout_services": ["desk"],
            "rollout_rings": [{"name": self.host.ring}],
            "rollout_checks": [{"type": "http", "url": "http://127.0.0.1:8091/", "interval": 0.2, "deadline": 3}],
            **options,
        }
        return self.playbook("upgrade", variables, limit=self.host.name, timeout=300)


@pytest.fixture
def host(fleet: Fleet, playbook: Playbook, rpms: Path) -> Iterator[Desk]:
    host = Desk(fleet["web1"], playbook, rpms)
    yield host
    host.clear()


def test_a_good_rpm_stays_and_the_operators_configuration_with_it(host: Desk) -> None:
    result = host.upgrade("2.0")
    assert (result.rc, result.states) == (0, {"web1": "committed"}), str(result)
    host.await_answer("2.0 of 1.0\nedited\nlibrary 2.0")
    assert sorted(host.host.run("rpm -q desk libdesk desk-data").stdout.split()) == ["desk-2.0-1.noarch", "desk-data-1-1.noarch", "libdesk-2.0-1.noarch"]


def test_a_bad_rpm_goes_without_a_repository_and_whatever_its_scripts_say(host: Desk) -> None:
    before = host.picture()
    assert "libdesk dependency" in before
    assert "desk user" in before
    result = host.upgrade("2.1", rollout_package_manager="dnf")
    assert (result.rc, result.states) == (2, {"web1": "restored"}), str(result)
    assert "no such file" in host.host.run("ls /srv/rpms 2>&1", check=False).stdout.lower(), "the release was to take the repository with it"
    host.await_answer("1.0 of 1.0\nedited\nlibrary 1.0")
    assert host.picture() == before


def test_an_rpm_that_could_not_come_back_is_refused(host: Desk, tmp_path: Path) -> None:
    host.host.run(f"rm -f {' '.join(f'/srv/rpms/noarch/{name}-1.noarch.rpm' for name in NEWER)}; dnf -q clean all", timeout=60)
    before = host.picture()
    result = host.upgrade("2.0")
    assert (result.rc, result.states) == (2, {"web1": "refused"}), str(result)
    assert "an rpm cannot be built again from its installed files" in result.stdout, str(result)
    assert host.picture() == before


def test_what_a_versionlock_holds_is_refused_by_name_and_its_lock_stays(host: Desk) -> None:
    host.host.run(f"echo 'desk-0:1.0-1.*' >{LOCKS}")
    before = host.picture()
    result = host.upgrade("2.0")
    assert (result.rc, result.states) == (2, {"web1": "refused"}), str(result)
    assert "a versionlock or an exclude keeps desk-2.0 away" in result.stdout, str(result)
    assert host.picture() == before
