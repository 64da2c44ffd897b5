# Copyright: onprem.rollout contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Fixtures of the fleet's cases: `fleet`, `playbook`, `shop`, `inventory`."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path

import pytest
from fleet import Fleet
from playbook import Playbook
from shop import Shop

REPO = Path(__file__).resolve().parents[3]


@pytest.fixture(scope="session")
def inventory() -> Path:
    """The inventory of the fleet that is up: the one Molecule made for this run, else the one of `make fleet-up`."""
    path = Path(os.environ.get("MOLECULE_EPHEMERAL_DIRECTORY") or REPO / ".build" / "fleet" / "dev") / "fleet.yml"
    if not path.is_file():
        pytest.fail(f"no fleet is up: {path} does not exist; make one with `make fleet-up`")
    return path


@pytest.fixture(scope="session")
def all_hosts(inventory: Path) -> Fleet:
    return Fleet(inventory)


@pytest.fixture
def fleet(all_hosts: Fleet) -> Iterator[Fleet]:
    """Every host, reachable and running; what a case does to them from outside is undone after it."""
    yield all_hosts
    all_hosts.recover()


@pytest.fixture
def playbook(inventory: Path, tmp_path: Path) -> Iterator[Playbook]:
    """Runs the collection's playbooks; what a case leaves running is killed."""
    runner = Playbook(inventory, REPO / ".build", tmp_path)
    yield runner
    runner.stop()


@pytest.fixture
def shop(fleet: Fleet, playbook: Playbook, tmp_path: Path) -> Shop:
    """The fleet with shop 1.0 on every host, installed by hand, running, and no record."""
    shop = Shop(fleet, playbook, tmp_path)
    shop.reset()
    return shop
