# Copyright: onprem.rollout contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""A service that is a container: a bad image goes, and the one before it runs again, with no registry to be had.

Judged by podman, systemctl and curl on the host. The hosts are containers themselves, with podman in them; what is set for that
is in NESTED and nowhere else.
"""

from __future__ import annotations

import hashlib
import json
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from fleet import Fleet, Host, eventually
from playbook import Playbook, Result, Run

from ansible_collections.onprem.rollout.tests.unit.plugins.module_utils.oci import Image, Registry

FILES = Path(__file__).resolve().parent / "files"
REPO = FILES.parents[3]
REPOSITORY = "registry.invalid/shop"
UNIT = "/etc/systemd/system/kiosk.service"
PORT = "8091"
NESTED = """\
set -e
command -v podman >/dev/null || { apt-get update -qq; DEBIAN_FRONTEND=noninteractive apt-get install -qq --no-install-recommends podman runc netavark; }
mkdir -p /etc/containers
printf '[storage]\\ndriver = "vfs"\\ngraphroot = "/var/lib/containers/storage"\\nrunroot = "/run/containers/storage"\\n' >/etc/containers/storage.conf
printf '[engine]\\nruntime = "runc"\\ncgroup_manager = "cgroupfs"\\n' >/etc/containers/containers.conf
printf '' >/etc/containers/registries.conf
"""
NESTED_ARGUMENTS = ["--cgroupns=private"]
CLEAR = """\
systemctl disable --now kiosk; rm -f /etc/systemd/system/kiosk.service; systemctl daemon-reload; systemctl reset-failed kiosk
podman rm --all --force; podman rmi --all --force; rm -rf /var/lib/onprem-rollout
"""
TEMPLATE = """\
[Service]
Type=notify
NotifyAccess=all
ExecStart=/usr/bin/podman run --name kiosk --replace --rm -d --sdnotify=conmon --network host --cgroupns=private -e MESSAGE=templated {{ container_image }}
ExecStop=/usr/bin/podman stop kiosk
"""


@pytest.fixture(scope="module")
def images(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Image]:
    """Images of one program; 2.1 answers 500, 2.2 dies at its start."""
    program = tmp_path_factory.mktemp("serve") / "serve"
    subprocess.run(["cc", "-static", "-Os", "-s", "-o", str(program), str(FILES / "serve.c")], check=True)
    files = {"serve": program.read_bytes()}
    made = {version: Image(files, ["/serve", PORT, "200 OK", version]) for version in ("1.0", "2.0", "3.0")}
    return {**made, "2.1": Image(files, ["/serve", PORT, "500 Sick", "2.1"]), "2.2": Image(files, ["/nowhere"])}


class Kiosk:
    """One host that runs the container kiosk."""

    def __init__(self, host: Host, playbook: Playbook, directory: Path, images: dict[str, Image]) -> None:
        self.host, self.playbook, self.directory, self.images = host, playbook, directory, images

    def archive(self, version: str, name: str = "") -> dict[str, Any]:
        content = self.images[version].archive(name or f"{REPOSITORY}:{version}")
        path = self.directory / f"kiosk-{version}.tar"
        path.write_bytes(content)
        return {"path": str(path), "size": len(content), "sha256": hashlib.sha256(content).hexdigest()}

    def start(
        self, version: str, repository: str = REPOSITORY, artifacts: list[dict[str, Any]] | None = None, args: tuple[str, ...] = (), **options: Any
    ) -> Run:
        image = {"container_image": f"{repository}@{self.images[version].digest}"}
        artifacts = [self.archive(version)] if artifacts is None else artifacts
        variables = {
            "rollout_release": {"name": "kiosk", "version": version, "artifacts": artifacts, "variables": image},
            "rollout_payload": "onprem.rollout.container",
            "rollout_paths": ["/etc/containers/systemd/kiosk.container", "/etc/systemd/system/kiosk.service"],
            "rollout_services": ["kiosk"],
            "rollout_rings": [{"name": self.host.ring}],
            "rollout_checks": [{"type": "http", "url": f"http://127.0.0.1:{PORT}/", "interval": 0.2, "deadline": 3}],
            "container_network": "host",
            "container_arguments": NESTED_ARGUMENTS,
            "container_environment": {"MESSAGE": 'says "50%" of $HOME'},
            **options,
        }
        return self.playbook.start("upgrade", variables, limit=self.host.name, args=args)

    def upgrade(self, version: str, **options: Any) -> Result:
        return self.start(version, **options).wait(180)

    def install(self, *versions: str) -> None:
        """By rollouts; the first finds nothing to be healthy before it."""
        for version in versions:
            options = {} if version != versions[0] else {"rollout_checks": [{"type": "command", "argv": ["true"]}]}
            result = self.upgrade(version, **options)
            assert (result.rc, result.states) == (0, {"web1": "committed"}), str(result)
        self.await_answer(versions[-1])

    def await_answer(self, version: str, message: str = 'says "50%" of $HOME') -> None:
        wanted = f"{version} {message}".strip()
        eventually(lambda: self.host.run(f"curl -s http://127.0.0.1:{PORT}/", check=False).stdout.strip() == wanted, f"kiosk to answer {wanted!r}")

    def picture(self) -> str:
        """The unit, what runs, and what systemd thinks of it."""
        return self.host.run(
            f"cat {UNIT}; stat -c %y {UNIT}; podman ps --all --quiet | xargs -r podman inspect --format '{{{{.Name}}}} {{{{.Image}}}} {{{{.State.Status}}}}';"
            "systemctl is-active kiosk; systemctl is-enabled kiosk; find /etc/systemd/system /etc/containers/systemd -name '*kiosk*'",
            check=False,
        ).stdout

    def has(self, version: str) -> bool:
        return self.host.run(f"podman image inspect {REPOSITORY}@{self.images[version].digest}", check=False).returncode == 0


@pytest.fixture
def kiosk(fleet: Fleet, playbook: Playbook, tmp_path: Path, images: dict[str, Image]) -> Iterator[Kiosk]:
    kiosk = Kiosk(fleet["web1"], playbook, tmp_path, images)
    kiosk.host.run(NESTED, timeout=120)
    kiosk.host.run(CLEAR, check=False, timeout=60)
    yield kiosk
    kiosk.host.run(CLEAR, check=False, timeout=60)


def test_a_good_image_stays_and_the_ones_before_it_are_kept(kiosk: Kiosk, tmp_path: Path) -> None:
    kiosk.install("1.0", "2.0")
    assert kiosk.has("1.0")
    before = kiosk.picture()
    again = kiosk.upgrade("2.0")
    assert (again.rc, again.states) == (0, {"web1": "skipped"}), str(again)
    kiosk.host.run("rm -rf /var/lib/onprem-rollout")
    unchanged = kiosk.upgrade("2.0")
    assert (unchanged.rc, unchanged.states) == (0, {"web1": "committed"}), str(unchanged)
    assert kiosk.picture() == before
    kiosk.host.run("rm -rf /var/lib/onprem-rollout")
    would = kiosk.start("3.0", args=("--check", "--diff")).wait(60)
    assert "+ExecStart=/usr/bin/podman run --name kiosk" in would.stdout, str(would)
    assert kiosk.picture() == before
    assert not kiosk.has("3.0")
    template = tmp_path / "kiosk.service.j2"
    template.write_text(TEMPLATE)
    result = kiosk.upgrade("3.0", container_keep=1, container_template=str(template))
    assert (result.rc, result.states) == (0, {"web1": "committed"}), str(result)
    kiosk.await_answer("3.0", "templated")
    assert [version for version in ("1.0", "2.0", "3.0") if kiosk.has(version)] == ["2.0", "3.0"]


@pytest.mark.parametrize("version", ["2.1", "2.2"], ids=["sick", "dies at its start"])
def test_a_bad_image_goes_without_a_registry(kiosk: Kiosk, version: str) -> None:
    kiosk.install("1.0")
    kiosk.host.run("podman image prune --force")
    before = kiosk.picture()
    result = kiosk.upgrade(version)
    assert (result.rc, result.states) == (2, {"web1": "restored"}), str(result)
    kiosk.await_answer("1.0")
    assert kiosk.picture() == before


def test_a_bad_first_installation_leaves_nothing_that_runs(kiosk: Kiosk) -> None:
    before = kiosk.picture()
    checks = [{"type": "command", "argv": ["sh", "-c", f"[ ! -e {UNIT} ] || curl -sf http://127.0.0.1:{PORT}/"], "interval": 0.2, "deadline": 3}]
    result = kiosk.upgrade("2.1", rollout_checks=checks)
    assert (result.rc, result.states) == (2, {"web1": "restored"}), str(result)
    assert kiosk.picture() == before


def test_a_service_that_was_made_by_hand_from_a_tag_comes_back(kiosk: Kiosk) -> None:
    archive = kiosk.archive("1.0")
    kiosk.host.copy(Path(archive["path"]), "/root/kiosk.tar")
    kiosk.host.run(
        f"podman load --quiet --input /root/kiosk.tar; podman tag {REPOSITORY}:1.0 {REPOSITORY}:latest; rm /root/kiosk.tar;"
        f"podman create --name kiosk --network host {NESTED_ARGUMENTS[0]} {REPOSITORY}:latest; podman generate systemd --new --name kiosk >{UNIT};"
        "podman rm kiosk; systemctl daemon-reload; systemctl enable --now kiosk"
    )
    kiosk.await_answer("1.0", "")
    before = kiosk.picture()
    result = kiosk.upgrade("2.1", artifacts=[kiosk.archive("2.1", f"{REPOSITORY}:latest")])
    assert (result.rc, result.states) == (2, {"web1": "restored"}), str(result)
    kiosk.await_answer("1.0", "")
    assert kiosk.picture() == before


def test_a_power_cut_in_mid_change_is_undone_at_the_console(kiosk: Kiosk) -> None:
    kiosk.install("1.0")
    before = kiosk.picture()
    run = kiosk.start("2.1", rollout_checks=[{"type": "http", "url": f"http://127.0.0.1:{PORT}/", "deadline": 60}])
    eventually(lambda: kiosk.images["2.1"].digest in kiosk.host.read(UNIT).decode(), "the new unit", timeout=60)
    run.kill()
    kiosk.host.kill()
    kiosk.host.start()
    restored = kiosk.host.run("/var/lib/onprem-rollout/onprem-rollout restore", timeout=120).stdout
    kiosk.await_answer("1.0")
    assert kiosk.picture() == before, restored


def test_a_run_that_died_anywhere_is_repeated(kiosk: Kiosk, tmp_path: Path) -> None:
    options = []
    for version in ("1.0", "2.0"):
        archive = kiosk.archive(version)
        kiosk.host.copy(Path(archive.pop("path")), f"/root/{version}.tar")
        image = f"{REPOSITORY}@{kiosk.images[version].digest}"
        limits = {"keep": 3, "timeout": 60, "pull_timeout": 60, "max_bytes": 1 << 30}
        given = {"name": "kiosk", "image": image, "src": f"/root/{version}.tar", "network": "host", "arguments": NESTED_ARGUMENTS, "runner": "auto"}
        nothing = {"url": None, "authfile": None, "content": None, "ports": [], "volumes": [], "environment": {}, "command": []}
        options.append({**archive, **limits, **given, **nothing})
    there = "/root/lib/ansible_collections/onprem/rollout/plugins"
    kiosk.host.run(f"rm -rf {there}; mkdir -p {there}")
    kiosk.host.copy(REPO / "plugins" / "module_utils", there)
    kiosk.host.copy(FILES / "interrupted.py", "/root/interrupted.py")
    (tmp_path / "options.json").write_text(json.dumps(options))
    kiosk.host.copy(tmp_path / "options.json", "/root/options.json")
    steps = kiosk.host.run("python3 -IB /root/interrupted.py </root/options.json", timeout=300)
    assert int(steps.stdout) > 8, steps
    kiosk.host.run("systemctl is-active kiosk; rm -rf /root/lib /root/*.tar")


def test_a_registry_that_is_away_is_no_verdict_on_the_release(kiosk: Kiosk) -> None:
    kiosk.install("1.0")
    gateway = kiosk.host.run("ip route show default").stdout.split()[2]
    registry = Registry(kiosk.images["2.0"], address=gateway)
    kiosk.host.run(f"printf '[[registry]]\\nlocation = \"{registry.address}\"\\ninsecure = true\\n' >/etc/containers/registries.conf")
    before = kiosk.picture()
    registry.status = 503
    options: dict[str, Any] = {"repository": f"{registry.address}/shop", "artifacts": [], "rollout_retry_wait": 1}
    away = kiosk.upgrade("2.0", **options, rollout_retry_for=1)
    assert (away.rc, away.states) == (2, {"web1": "restored"}), str(away)
    assert "asks to be run again later (exit 21)" in away.stdout, str(away)
    assert kiosk.picture() == before
    run = kiosk.start("2.0", **options, rollout_retry_for=40)
    eventually(lambda: "asks to be run again later (exit 21)" in run.stdout, "the payload to be told that the registry is away", timeout=60)
    registry.status = None
    back = run.wait(120)
    registry.close()
    assert (back.rc, back.states) == (0, {"web1": "committed"}), str(back)
    kiosk.await_answer("2.0")
