# Copyright: onprem.rollout contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The fleet with the service "shop" on it: known state, rollouts, and what every host is asked after them."""

from __future__ import annotations

import http.client
import json
import subprocess
from collections.abc import Iterable, Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import releases
import yaml
from fleet import Fleet, Host, eventually
from playbook import Playbook, Result, Run

HERE = Path(__file__).resolve().parent
REPO = HERE.parents[2]
EXAMPLE = REPO / "inventories" / "example" / "hosts.yml"
STATE_DIR = "var/lib/onprem-rollout"
TIMER_UNITS = [f"etc/systemd/system/onprem-rollout-revert.{kind}" for kind in ("service", "timer")]
# Directories in which the revert timer came and went.
TIMER_MOVES = tuple(f"etc/systemd/system{below}" for below in ("", "/multi-user.target.wants", "/timers.target.wants"))
Files = dict[str, tuple[str, ...]]  # path: kind, mode, owner, mtime, link target or SHA-256


@dataclass(frozen=True)
class Picture:
    """A host at one moment, read from outside."""

    files: Files
    state: Files
    record: dict[str, Any]
    payload: str  # the processes that still carry a transaction
    unit: list[str]  # active?, enabled?


def take(host: Host) -> Picture:
    script = (HERE / "files" / "look.sh").read_bytes()
    found = subprocess.run(host.inside("sh", "-s"), input=script, stdout=subprocess.PIPE, check=True, timeout=30)
    entries, digests, record, payload, unit = found.stdout.decode(errors="surrogateescape").split("--\0")
    sums = {line[66:]: line[:64] for line in digests.split("\0") if line}
    files: Files = {}  # without the unit files of the revert timer, which stay, and may not be enabled when nothing is half done
    for about, target in zip(*[iter(entries.split("\0")[:-1])] * 2, strict=True):
        kind, mode, owner, mtime, path = about.split(" ", 4)
        files[path] = (kind, mode, owner, mtime, target or sums.get(path, ""))
    for path in TIMER_UNITS:
        files.pop(path, None)
    state = {path: files.pop(path) for path in list(files) if path.startswith(STATE_DIR)}
    return Picture(files, state, json.loads(record.strip("\0") or "{}"), payload.strip("\0"), unit.split())


def ask(host: Host, page: str) -> tuple[int, str]:
    """Status and text of a page of the service; (0, why) without an answer."""
    connection = http.client.HTTPConnection(host.address, 8080, timeout=3)
    try:
        connection.request("GET", page)
        answer = connection.getresponse()
        return answer.status, answer.read().decode().strip()
    except (OSError, http.client.HTTPException) as error:
        return 0, str(error)
    finally:
        connection.close()


def with_release(before: Files, version: str) -> Files:
    """The files of a host once the release is on it; names only of what the payload itself writes about it."""
    home, built = f"opt/shop/releases/{version}", f"{releases.build_releases.BUILT}.0000000000"
    digest = releases.build_releases.hashlib.sha256
    added = {
        f"{home}/{name}": ("f", "755" if name.endswith(".py") else "644", "0:0", built, digest(content).hexdigest())
        for name, content in releases.members(version).items()
    }
    return {**before, **added}


class Shop:
    def __init__(self, fleet: Fleet, playbook: Playbook, directory: Path) -> None:
        self.fleet, self.playbook, self.directory = fleet, playbook, directory
        self.before: dict[str, Picture] = {}
        example = yaml.safe_load(EXAMPLE.read_text())["all"]["vars"]
        # What the README shows, but with the patience of a test.
        self.variables = {
            **example,
            "rollout_rings": [{key: value for key, value in ring.items() if key != "soak"} for ring in example["rollout_rings"]],
            "rollout_checks": [{**check, "interval": 0.2, "deadline": 3} for check in example["rollout_checks"]],
            # Of its own for every case: nobody inherits a connection that another case has cut.
            "ansible_control_path_dir": f"/run/{fleet[0].container.rpartition('-')[0]}/{directory.name[-12:]}",
        }

    # --- a known state ---

    def reset(self) -> None:
        """Every host as it was before anybody heard of rollouts: 1.0 by hand, running, no record."""
        script = (HERE / "files" / "reset.sh").read_text()

        def one(host: Host) -> Picture:
            subprocess.run(host.inside("sh", "-c", script), input=releases.by_hand(host.ring), check=True, timeout=60, capture_output=True)
            self.await_version(host, releases.INSTALLED)
            return take(host)

        self.before = self._each(self.fleet, one)

    def look(self) -> None:
        """What the hosts are now is what they are to be again."""
        self.before = self._each(self.fleet, take)

    def await_version(self, host: Host, version: str) -> None:
        eventually(lambda: ask(host, "/version") == (200, version), f"shop {version} on {host.name}")

    def _each(self, hosts: Iterable[Host], what: Any) -> dict[str, Any]:
        hosts = list(hosts)
        with ThreadPoolExecutor(len(hosts) or 1) as pool:
            return dict(zip([host.name for host in hosts], pool.map(what, hosts), strict=True))

    # --- rollouts ---

    def release(self, version: str) -> dict[str, Any]:
        return releases.release(version, self.directory)

    @property
    def inventory(self) -> Path:
        path = self.directory / "shop.yml"
        path.write_text(yaml.safe_dump({"all": {"vars": self.variables}}))
        return path

    def start(self, version: str, *, rings: Any = None, payload: str = "", verb: str = "upgrade", **options: Any) -> Run:
        """An upgrade to this version, running. Other keywords are the playbook's, or extra vars if they begin with rollout_ or hangs_."""
        extra = {
            "rollout_release": self.release(version),
            **({"rollout_rings": rings} if rings else {}),
            **({"rollout_payload": payload} if payload else {}),
            **{name: options.pop(name) for name in list(options) if name.startswith(("rollout_", "hangs_"))},
        }
        args = ("-i", str(self.inventory), *options.pop("args", ()))
        env = {"ANSIBLE_ROLES_PATH": str(HERE / "roles"), **options.pop("env", {})}
        return self.playbook.start(verb, extra, args=args, env=env, **options)

    def upgrade(self, version: str, *, timeout: float = 120, **options: Any) -> Result:
        return self.start(version, **options).wait(timeout)

    def await_payload(self, *hosts: str) -> None:
        """Wait until the payload `hangs` hangs there."""
        for name in hosts:
            eventually(lambda name=name: self.fleet[name].run("test -e /run/shop/hanging", check=False).returncode == 0, f"the payload to hang on {name}")

    # --- what everybody is asked afterwards ---

    def verify(self, expected: Mapping[str, str], hosts: Iterable[str] | None = None) -> dict[str, Picture]:
        """Ask every host of the fleet, or these: is it "untouched" (the default), "restored VERSION" or "committed VERSION"?"""
        asked = [host for host in self.fleet if hosts is None or host.name in hosts]
        unknown = set(expected) - {host.name for host in asked}
        assert not unknown, f"these hosts are not asked: {unknown}"

        def one(host: Host) -> Picture:
            what, _space, version = expected.get(host.name, "untouched").partition(" ")
            return self._verify(host, what, version)

        return self._each(asked, one)

    def _verify(self, host: Host, what: str, version: str) -> Picture:
        now, before = take(host), self.before[host.name]
        runs = version if what == "committed" else releases.INSTALLED
        assert (host.name, ask(host, "/version")) == (host.name, (200, runs))
        assert ask(host, "/health")[0] == 200, f"{host.name}: {ask(host, '/health')}"
        assert now.unit == ["active", "enabled"], f"{host.name}: {now.unit}"
        assert not now.payload, f"a payload still runs on {host.name}: {now.payload}"
        if what == "committed":
            same(host, self._own(now.files, version), with_release(before.files, version), moved=("opt/shop", "opt/shop/current", "opt/shop/releases"))
            assert now.files["opt/shop/current"][4] == f"releases/{version}"
        else:
            same(host, now.files, before.files)
        getattr(self, f"_record_{what}")(host, now, version)
        return now

    def _own(self, files: Files, version: str) -> Files:
        """Without the payload's note about the release and the new directory, which carry the time of the upgrade."""
        return {path: entry for path, entry in files.items() if path not in (f"opt/shop/releases/.{version}.json", f"opt/shop/releases/{version}")}

    def _record_untouched(self, host: Host, now: Picture, _version: str) -> None:
        assert not now.record, f"{host.name}: {now.record}"

    def _record_restored(self, host: Host, now: Picture, version: str) -> None:
        self._record(host, now, "restored", version)
        assert now.record["transaction"]["reason"], now.record
        assert now.record["installed"] == now.record["transaction"]["previous"], now.record

    def _record_committed(self, host: Host, now: Picture, version: str) -> None:
        self._record(host, now, "committed", version)
        assert now.record["installed"] == now.record["transaction"]["release"], now.record
        assert now.record["last_known_good"] == now.record["transaction"]["snapshot"], now.record

    def _record(self, host: Host, now: Picture, phase: str, version: str) -> None:
        transaction = now.record["transaction"]
        assert (host.name, transaction["phase"], transaction["release"]["version"]) == (host.name, phase, version), now.record
        assert now.record["history"][-1]["outcome"] == phase, now.record
        modes = {path: entry[1:3] for path, entry in now.state.items()}
        assert modes[STATE_DIR] == ("700", "0:0"), modes
        assert modes[f"{STATE_DIR}/record.json"] == ("600", "0:0"), modes


def same(host: Host, now: Files, before: Files, moved: tuple[str, ...] = ()) -> None:
    """Byte for byte, mode for mode, owner for owner, to the nanosecond; of what moved only kind, mode and owner are compared."""

    def kept(files: Files) -> Files:
        return {path: entry[:3] if path in moved + TIMER_MOVES else entry for path, entry in files.items()}

    first, second = kept(before), kept(now)
    differing = {path: (first.get(path), second.get(path)) for path in {*first, *second} if first.get(path) != second.get(path)}
    assert not differing, f"{host.name}: before and now differ: {differing}"
