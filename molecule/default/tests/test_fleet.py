# Copyright: onprem.rollout contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The fleet itself is what the cases take it for, and the faults they use are real."""

from __future__ import annotations

from pathlib import Path

from fleet import Fleet, Host
from playbook import Playbook, Result

PING = """\
- hosts: all
  gather_facts: false
  tasks:
    - ansible.builtin.ping:
"""


def ping(playbook: Playbook, directory: Path, host: Host) -> Result:
    path = directory / "ping.yml"
    path.write_text(PING)
    return playbook(str(path), limit=host.name, timeout=60)


def expect(rc: int, result: Result) -> None:
    assert result.rc == rc, str(result)


def test_every_host_is_a_machine(fleet: Fleet) -> None:
    assert len(fleet) == 6
    assert {host.ring for host in fleet} == {"early", "standard", "critical"}
    for host in fleet:
        assert host.run("systemctl is-system-running").stdout.strip() == "running"
        assert host.testinfra.service("ssh").is_running
        assert host.testinfra.file("/proc/1/comm").content_string.strip() == "systemd"
        assert host.testinfra.run("python3 -c 'import ssl, json'").rc == 0
        assert host.address in host.run("ip -4 addr").stdout


def test_a_power_cut_keeps_disk_and_address(fleet: Fleet, playbook: Playbook, tmp_path: Path) -> None:
    host = fleet["web1"]
    host.run("echo kept > /var/tmp/kept; echo gone > /run/gone")
    host.kill()
    host.start()
    assert host.read("/var/tmp/kept") == b"kept\n"
    assert host.run("test -e /run/gone", check=False).returncode == 1
    expect(0, ping(playbook, tmp_path, host))


def test_a_partition_and_a_hang_are_felt_by_ansible_and_end(fleet: Fleet, playbook: Playbook, tmp_path: Path) -> None:
    host = fleet["web6"]
    expect(0, ping(playbook, tmp_path, host))
    host.partition()
    expect(4, ping(playbook, tmp_path, host))
    host.heal()
    expect(0, ping(playbook, tmp_path, host))
    host.pause()
    expect(4, ping(playbook, tmp_path, host))
    host.unpause()
    expect(0, ping(playbook, tmp_path, host))
