# Copyright: onprem.rollout contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""A service that is a package with a unit, a configuration file and a library: what a restore brings back without a repository.

Judged by dpkg-query, apt-mark, dpkg -V and systemctl on the host.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from fleet import Fleet, Host, eventually
from playbook import Playbook, Result, Run

from ansible_collections.onprem.rollout.tests.unit.plugins.module_utils.debs import build, repository

CONF = "/etc/till.conf"
UNIT = """\
[Service]
ExecStart=/usr/bin/python3 -IB /usr/lib/till/serve
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
        self.wfile.write((VERSION + " " + open("/etc/till.conf").read() + open("/usr/lib/till/library").read()).encode())
http.server.ThreadingHTTPServer(("127.0.0.1", 8090), Handler).serve_forever()
"""
POSTINST = "#!/bin/sh\nset -e\n{more}systemctl daemon-reload\nsystemctl reenable --quiet till\nsystemctl restart till\n"
PRERM = '#!/bin/sh\n{more}if [ "$1" = remove ]; then systemctl disable --quiet --now till; fi\n'
LOSES_REPOSITORY = "rm -rf /srv/repository\n"


def till(directory: Path, version: str, *, healthy: bool = True, more: str = "", leaves: str = "", depends: str = "libtill") -> str:
    target = "multi-user" if version == "1.0" else "graphical"
    files = {"/usr/lib/till/serve": SERVE.format(version=version, healthy=healthy), "/lib/systemd/system/till.service": UNIT.format(target=target)}
    conffiles = {CONF: f"of {version}\n", **({"/etc/till.more": "more\n"} if version != "1.0" else {})}
    scripts = {"postinst": POSTINST.format(more=more), "prerm": PRERM.format(more=leaves)}
    return build(directory, "till", version, files, conffiles, scripts, Depends=depends)


@pytest.fixture(scope="module")
def debs(tmp_path_factory: pytest.TempPathFactory) -> dict[str, str]:
    directory = tmp_path_factory.mktemp("debs")
    new = "libtill (>= 2), till-data"
    return {
        "1.0": till(directory, "1.0"),
        "2.0": till(directory, "2.0", depends=new),
        "2.1": till(directory, "2.1", depends=new, healthy=False, more=LOSES_REPOSITORY),
        "2.2": till(directory, "2.2", depends=new, more=LOSES_REPOSITORY + "echo it cannot be configured >&2\nexit 3\n", leaves="exit 4\n"),
        "2.3": till(directory, "2.3", depends=new, more=LOSES_REPOSITORY + "sleep 600\n"),
        "lib1": build(directory, "libtill", "1", {"/usr/lib/till/library": "library 1\n"}),
        "lib2": build(directory, "libtill", "2", {"/usr/lib/till/library": "library 2\n"}),
        "data": build(directory, "till-data", "1", {"/usr/share/till/data": "data\n"}),
    }


class Till:
    """One host with till 1.0, whose configuration the operator edited, and a repository that has newer ones."""

    def __init__(self, host: Host, playbook: Playbook, directory: Path, debs: dict[str, str]) -> None:
        self.host, self.playbook, self.directory, self.debs = host, playbook, directory, debs

    def install(self, published: list[str], held: bool = False) -> None:
        self.clear()
        repository(str(self.directory / "repository"), [self.debs[name] for name in published])
        self.host.copy(self.directory / "repository", "/srv/repository")
        for name in ("lib1", "1.0"):
            self.host.copy(Path(self.debs[name]), f"/root/{name}.deb")
        self.host.run(
            "mkdir -p /etc/apt/off && mv /etc/apt/sources.list* /etc/apt/off; mkdir -p /etc/apt/sources.list.d;"
            "echo 'deb [trusted=yes] file:/srv/repository ./' >/etc/apt/sources.list;"
            "dpkg -i /root/lib1.deb /root/1.0.deb && apt-mark auto libtill && rm /root/*.deb && apt-get update",
            timeout=60,
        )
        if held:
            self.host.run("apt-mark hold till")
        self.host.run(
            f"echo edited >>{CONF}; mkdir -p /etc/systemd/system/till.service.d; "
            "printf '[Service]\\nNice=5\\n' >/etc/systemd/system/till.service.d/nice.conf; systemctl daemon-reload; systemctl restart till"
        )
        self.await_answer("1.0 of 1.0\nedited\nlibrary 1")

    def clear(self) -> None:
        self.host.run(
            "systemctl unmask till; dpkg --purge --force-all till libtill till-data; rm -rf /srv/repository /var/lib/onprem-rollout /etc/till* "
            "/etc/systemd/system/till.service.d; systemctl daemon-reload; [ ! -d /etc/apt/off ] || "
            "{ rm -rf /etc/apt/sources.list*; mv /etc/apt/off/* /etc/apt; rmdir /etc/apt/off; }",
            check=False,
            timeout=60,
        )

    def await_answer(self, text: str) -> None:
        eventually(lambda: self.host.run("curl -s http://127.0.0.1:8090/", check=False).stdout.strip() == text, f"till to answer {text!r}")

    def picture(self) -> str:
        """What the host's own tools say, and the bytes of what the packages brought; the units of the revert timer stay after the first change."""
        return self.host.run(
            "dpkg-query -W -f '${Package} ${Version} ${db:Status-Abbrev} ${Conffiles}\\n';"
            "apt-mark showauto; apt-mark showhold; dpkg -V till libtill; dpkg --audit;"
            "find /etc /usr/lib/till /usr/share/till /lib/systemd/system/till.service -type f ! -path /etc/ld.so.cache ! -name 'onprem-rollout-*' -print0"
            " 2>/dev/null | sort -z | xargs -0 sha256sum; find /etc/systemd/system ! -name 'onprem-rollout-*' -printf '%p %l\\n' | sort;"
            "systemctl is-active till; systemctl is-enabled till;"
            "systemctl show --property=Nice till; ls /srv /etc/apt | grep -v repository"
        ).stdout

    def upgrade(self, version: str, **options: Any) -> Result:
        return self.start(version, **options).wait(180)

    def start(self, version: str, **options: Any) -> Run:
        variables = {
            "rollout_release": {"name": "till", "version": version},
            "rollout_payload": "onprem.rollout.package",
            "rollout_packages": ["till={{ rollout_release.version }}"],
            "rollout_paths": [],
            "rollout_services": ["till"],
            "rollout_rings": [{"name": self.host.ring}],
            "rollout_checks": [{"type": "http", "url": "http://127.0.0.1:8090/", "interval": 0.2, "deadline": 3}],
            "package_manager": "apt",
            **options,
        }
        return self.playbook.start("upgrade", variables, limit=self.host.name)


@pytest.fixture
def host(fleet: Fleet, playbook: Playbook, tmp_path: Path, debs: dict[str, str]) -> Iterator[Till]:
    host = Till(fleet["web1"], playbook, tmp_path, debs)
    yield host
    host.clear()


NEWER = ["2.0", "2.1", "2.2", "2.3", "lib1", "lib2", "data"]


def test_a_good_package_stays_and_the_operators_configuration_with_it(host: Till) -> None:
    host.install([*NEWER, "1.0"])
    result = host.upgrade("2.0")
    assert (result.rc, result.states) == (0, {"web1": "committed"}), str(result)
    host.await_answer("2.0 of 1.0\nedited\nlibrary 2")
    assert host.host.run("dpkg-query -W -f '${Package}=${Version} ' till libtill till-data").stdout == "libtill=2 till=2.0 till-data=1 "
    again = host.upgrade("2.0")
    assert (again.rc, again.states) == (0, {"web1": "skipped"}), str(again)


BAD = [
    pytest.param("2.1", [*NEWER, "1.0"], id="sick, the old one in the repository"),
    pytest.param("2.1", NEWER, id="sick, the old one rebuilt"),
    pytest.param("2.2", NEWER, id="cannot be configured"),
    pytest.param("2.3", NEWER, id="hangs"),
]


@pytest.mark.parametrize("version, published", BAD)
def test_a_bad_package_goes_without_a_repository(host: Till, version: str, published: list[str]) -> None:
    host.install(published)
    before = host.picture()
    result = host.upgrade(version, rollout_payload_timeout=15 if version == "2.3" else 120)
    assert (result.rc, result.states) == (2, {"web1": "restored"}), str(result)
    assert host.host.run("ls /srv").stdout == "", "the release was to take the repository with it"
    host.await_answer("1.0 of 1.0\nedited\nlibrary 1")
    assert host.picture() == before


def test_a_power_cut_in_mid_configuration_is_undone_at_the_console(host: Till) -> None:
    host.install(NEWER)
    before = host.picture()
    run = host.start("2.3")
    eventually(lambda: host.host.run("pgrep -f 'till.postinst [c]onfigure'", check=False).stdout, "the release to hang in its configuration", timeout=60)
    run.kill()
    host.host.kill()
    host.host.start()
    assert host.host.run("dpkg-query -W -f '${Version}' till").stdout == "2.3"
    restored = host.host.run("/var/lib/onprem-rollout/onprem-rollout restore", timeout=120).stdout
    host.await_answer("1.0 of 1.0\nedited\nlibrary 1")
    assert host.picture() == before, restored


def test_holds_come_back(host: Till) -> None:
    host.install(NEWER, held=True)
    before = host.picture()
    refused = host.upgrade("2.1")
    assert (refused.rc, refused.states) == (2, {"web1": "restored"}), str(refused)
    assert host.picture() == before
    host.host.run("rm -rf /var/lib/onprem-rollout")
    result = host.upgrade("2.1", package_allow_held=True)
    assert (result.rc, result.states) == (2, {"web1": "restored"}), str(result)
    assert host.picture() == before


def test_a_version_that_no_repository_has_is_refused(host: Till) -> None:
    host.install(NEWER)
    before = host.picture()
    result = host.upgrade("9.9")
    assert (result.rc, result.states) == (2, {"web1": "refused"}), str(result)
    assert "apt cannot install till=9.9: Version '9.9' for 'till' was not found" in result.stdout, str(result)
    assert host.picture() == before


def test_two_names_of_one_unit_are_refused(host: Till) -> None:
    host.install(NEWER)
    host.host.run("ln -s /lib/systemd/system/till.service /etc/systemd/system/cash.service; systemctl daemon-reload")
    result = host.upgrade("2.0", rollout_services=["till", "cash.service"])
    assert (result.rc, result.states) == (2, {"web1": "refused"}), str(result)
    assert "services names one unit 2 times" in result.stdout, str(result)
    host.host.run("rm /etc/systemd/system/cash.service")
