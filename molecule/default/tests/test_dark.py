# Copyright: onprem.rollout contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""A host goes dark in mid-payload: on every ansible-core, because what happens then is decided inside of it (ansible#56265).

Three runs at the same time, one of each core, each with two hosts and a ledger of its own: the first comes back, the second does not.
"""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest
from fleet import Fleet, eventually
from playbook import Playbook, Result
from releases import GOOD
from shop import REPO, Shop, take

PAIRS = {"2.16": ("web1", "web2"), "2.19": ("web3", "web4"), "2.21": ("web5", "web6")}
RINGS = [{"name": "pair", "hosts": "all", "serial": ["100%"]}]


@dataclass
class Dark:
    shop: Shop
    cores: dict[str, Path]
    missing: str
    results: dict[str, Result]

    def of(self, core: str) -> Result:
        if core not in self.cores:
            pytest.skip(f"{self.missing or 'ONPREM_ROLLOUT_CORES leaves it out'} (ansible-core {core})")
        return self.results[core]


def find_cores() -> tuple[dict[str, Path], str]:
    """The ansible-playbook of each core of the matrix, and what is said of those that this machine cannot run."""
    # Found by a PATH without the environment that runs this, so that theirs are not made from it.
    own = str(Path(sys.executable).parent)
    path = os.pathsep.join(part for part in os.environ["PATH"].split(os.pathsep) if part != own)
    which = ["sh", "-c", 'echo "core $ONPREM_ROLLOUT_CORE $(command -v ansible-playbook)"']
    done = subprocess.run([REPO / "tests" / "tools" / "on-cores", *which], env={**os.environ, "PATH": path}, stdout=subprocess.PIPE, text=True, check=True)
    found = done.stdout.splitlines()
    cores = dict(line.split(" ", 2)[1:] for line in found if line.startswith("core "))
    return {core: Path(path) for core, path in cores.items()}, "; ".join(line for line in found if line.startswith("matrix shrinks"))


@pytest.fixture(scope="module")
def dark(all_hosts: Fleet, inventory: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Dark]:
    """After the runs: everybody went dark, the first of each pair came back, the second is still dark."""
    cores, missing = find_cores()
    directory = tmp_path_factory.mktemp("dark")
    shop = Shop(all_hosts, Playbook(inventory, REPO / ".build", directory), directory)
    shop.reset()
    try:
        runs = {
            core: shop.start(
                GOOD,
                payload="hangs",
                rings=RINGS,
                limit=",".join(PAIRS[core]),
                core=path,
                rollout_reconnect_timeout=12,
                rollout_ledger=str(directory / f"ledger-{core}.jsonl"),
            )
            for core, path in cores.items()
        }
        for core, run in runs.items():
            shop.await_payload(*PAIRS[core])
            assert run.running, str(run.wait())
        for core in cores:
            for name in PAIRS[core]:
                all_hosts[name].partition()
        for core, run in runs.items():
            back, _lost = PAIRS[core]
            eventually(lambda run=run, back=back: f"[{back}]: UNREACHABLE!" in run.stdout, f"{back} to be unreachable on {core}", timeout=60)
            all_hosts[back].heal()
        yield Dark(shop, cores, missing, {core: run.wait(180) for core, run in runs.items()})
    finally:
        shop.playbook.stop()
        for host in all_hosts:
            host.recover()


@pytest.mark.parametrize("core", PAIRS)
def test_a_host_that_comes_back_is_restored_by_the_same_run(dark: Dark, core: str) -> None:
    result, (back, lost) = dark.of(core), PAIRS[core]
    assert result.rc == 2, str(result)
    assert result.states == {back: "restored", lost: "lost"}, str(result)
    for needed in (f"restored: {back}: unreachable in", "proven by shop is healthy", f"lost: {lost}: unreachable in", "within 12 s", "exit code: 2"):
        assert needed in result.last_words, result.last_words
    dark.shop.verify({back: f"restored {GOOD}"}, hosts=[back])


@pytest.mark.parametrize("core", PAIRS)
def test_a_host_that_does_not_come_back_is_settled_first_by_the_next_upgrade(dark: Dark, core: str) -> None:
    first, (_back, lost), shop = dark.of(core), PAIRS[core], dark.shop
    assert first.states[lost] == "lost", str(first)
    shop.fleet[lost].heal()
    now = take(shop.fleet[lost])
    assert now.record["transaction"]["phase"] == "changing"
    assert now.payload
    assert now.files != shop.before[lost].files

    result = shop.upgrade(GOOD, rings=RINGS, limit=",".join(PAIRS[core]), core=dark.cores[core])
    assert (result.rc, set(result.states.values())) == (0, {"committed"}), str(result)
    assert f"{lost}: was left half done by an earlier run, now restored" in result.stdout, str(result)
    after = shop.verify(dict.fromkeys(PAIRS[core], f"committed {GOOD}"), hosts=PAIRS[core])
    assert [item["outcome"] for item in after[lost].record["history"]] == ["restored", "committed"]
