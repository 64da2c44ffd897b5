# Copyright: onprem.rollout contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The ways in: what the README shows, and a job runner."""

from __future__ import annotations

import os
from pathlib import Path

import ansible_runner.interface
import pytest
import yaml
from releases import GOOD, SICK
from shop import EXAMPLE, HERE, REPO, Shop

THREE = {"shop2.example.com": "web3", "shop3.example.com": "web4", "shop10.example.com": "web6"}


def test_the_example_of_the_readme_plans_upgrades_and_tells(shop: Shop, tmp_path: Path) -> None:
    """inventories/example as it is, and a second inventory that says where three of its hosts are."""
    places = tmp_path / "places.yml"
    hosts = {name: {"ansible_host": shop.fleet[real].address} for name, real in THREE.items()}
    places.write_text(yaml.safe_dump({"all": {"hosts": hosts, "vars": yaml.safe_load(shop.fleet.inventory.read_text())["all"]["vars"]}}))
    extra = {"rollout_release": shop.release(GOOD)}

    def run(verb: str):  # type: ignore[no-untyped-def]
        return shop.playbook(verb, extra, inventory=EXAMPLE.parent, args=("-i", str(places)), limit=",".join(THREE))

    plan = run("plan")
    assert plan.rc == 2, str(plan)
    for needed in ("ring standard: 2 hosts; concurrency 4", "ring critical: 1 host; concurrency 1", "snapshot: up to", "to do: 3 hosts to upgrade"):
        assert needed in plan.stdout, str(plan)
    shop.verify({})

    upgrade = run("upgrade")
    assert (upgrade.rc, upgrade.states) == (0, dict.fromkeys(THREE, "committed")), str(upgrade)
    assert "ROLLOUT DONE: shop 2.0\n" in upgrade.last_words
    shop.verify(dict.fromkeys(THREE.values(), f"committed {GOOD}"))

    status = run("status")
    assert status.rc == 0, str(status)
    assert "status: all hosts are settled" in status.stdout, str(status)
    for name in THREE:
        assert f"{name}: runs shop 2.0" in status.stdout, str(status)
    again = run("plan")
    assert again.rc == 0, str(again)
    assert "nothing to do" in again.stdout, str(again)


def test_a_job_runner_sees_a_halted_rollout_as_awx_would(shop: Shop, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for name in [name for name in os.environ if name.startswith(("ANSIBLE_", "MOLECULE_"))]:
        monkeypatch.delenv(name)  # Molecule's own settings; a job has its own
    directory = tmp_path / "job"
    directory.mkdir()
    job = ansible_runner.interface.run(
        private_data_dir=str(directory),
        playbook="onprem.rollout.upgrade",
        inventory=[str(shop.fleet.inventory), str(shop.inventory)],
        extravars={"rollout_release": shop.release(SICK), "rollout_ledger": str(tmp_path / "ledger.jsonl")},
        envvars={"ANSIBLE_COLLECTIONS_PATH": str(REPO / ".build"), "ANSIBLE_ROLES_PATH": str(HERE / "roles"), "ANSIBLE_PIPELINING": "1", "AWX_JOB_ID": "4711"},
        quiet=True,
        timeout=120,
    )
    printed = "".join(event.get("stdout", "") + "\n" for event in job.events)
    assert (job.status, job.rc) == ("failed", 2), printed
    events = list(job.events)
    failed = {(event["event_data"]["host"], event["event_data"]["task"]) for event in events if event["event"] == "runner_on_failed"}
    ((canary, task),) = failed
    assert task == "Prove the host healthy", failed
    assert not [event for event in events if event["event"] == "runner_on_unreachable"]

    (stats,) = [event["event_data"] for event in events if event["event"] == "playbook_on_stats"]
    assert not stats["failures"], stats
    assert stats["rescued"] == {canary: 1}, stats
    data = stats["artifact_data"]["onprem_rollout"]
    assert data["halted"] == "failures", data
    assert {name for name, item in data["hosts"].items() if item["state"] == "held"} == {host.name for host in shop.fleet} - {canary}
    assert data["hosts"][canary]["state"] == "restored", data
    assert "ROLLOUT HALTED: shop 2.1" in printed, printed
    assert "exit code: 2" in printed, printed
    now = shop.verify({canary: f"restored {SICK}"})
    assert now[canary].record["transaction"]["holder"]["job"] == "4711"
