# Copyright: onprem.rollout contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""No host goes below the epoch that it committed, or into what is declared vulnerable, unless somebody else signed for it."""

from __future__ import annotations

import subprocess

TOGETHER = [{"name": "standard", "serial": ["100%"]}]


def release(version, **more):
    return {"rollout_release": {"name": "shop", "version": version, "artifacts": [], **more}}


def test_who_committed_an_epoch_takes_nothing_older_whoever_asks(fleet):
    hosts = fleet(standard=2)
    assert hosts.run(rollout_rings=TOGETHER, **release("2.0", epoch=2)).rc == 0
    records = {host: hosts.record(host) for host in hosts.hosts}
    plan = hosts.run("onprem.rollout.plan", rollout_rings=TOGETHER, **release("1.9", epoch=1))
    assert "standard0 (refused: it must not run here: its epoch is 1, and shop 2.0, committed here on" in plan.out
    older = hosts.run(rollout_rings=TOGETHER, **release("1.9"))
    assert (older.rc, set(older.states.values())) == (2, {"refused"}), older.out
    assert "its epoch is 0" in older.out
    assert {host: hosts.record(host) for host in hosts.hosts} == records
    newer = hosts.run(rollout_rings=TOGETHER, **release("2.1", epoch=2, vulnerable=["vers:semver/<2.1"]))
    assert newer.rc == 0, newer.out
    again = hosts.run(rollout_rings=TOGETHER, **release("2.0", epoch=2))
    assert "2.0 is in the range vers:semver/<2.1, which is declared vulnerable" in again.out
    assert (again.rc, {hosts.version(host) for host in hosts.hosts}) == (2, {"2.1"})


def test_a_host_that_goes_back_to_what_is_unsafe_is_quarantined_until_it_is_mended(fleet):
    hosts = fleet(standard=2)
    assert hosts.run(rollout_rings=TOGETHER, **release("1.9", epoch=1)).rc == 0
    bad = hosts.run(rollout_rings=TOGETHER, broken=["standard0"], rollout_quarantine="notes", **release("2.0", epoch=2))
    assert (bad.rc, set(bad.states.values())) == (2, {"restored"}), bad.out
    for host in hosts.hosts:
        assert hosts.record(host)["quarantined"]["why"] == "shop 2.0 has epoch 2: everything older is unsafe"
        assert (hosts.app(host).parent / "quarantined").exists()
    assert "!! QUARANTINED: standard0 runs what is unsafe, to be mended until" in bad.out
    status = hosts.run("onprem.rollout.status", **release("2.0", epoch=2)).out
    assert "!! QUARANTINED: standard0 runs what is unsafe" in status
    good = hosts.run(rollout_rings=TOGETHER, **release("2.1", epoch=2))
    assert (good.rc, [hosts.record(host).get("quarantined") for host in hosts.hosts]) == (0, [None, None]), good.out


def test_a_waiver_signed_by_somebody_else_lets_its_hosts_go_below_once(fleet):
    hosts = fleet(standard=2)
    keys = hosts.root / "keys"
    keys.mkdir()
    subprocess.run(["ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-C", "bob", "-f", str(keys / "bob")], check=True)
    (keys / "allowed").write_text(f"bob@example.org {(keys / 'bob.pub').read_text()}")
    hosts.variables = {"rollout_rings": TOGETHER, "rollout_waivers": str(hosts.root / "waivers"), "rollout_waiver_signers": str(keys / "allowed")}
    (hosts.root / "waivers").mkdir()
    assert hosts.run(**release("2.0", epoch=2)).rc == 0
    signing = {"rollout_key": str(keys / "bob"), "rollout_by": "bob@example.org", "rollout_why": "CHG-4711", "rollout_expires": "2099-01-01T00:00:00Z"}
    signed = hosts.run("onprem.rollout.waive", "--limit", "standard0", **signing, **release("1.9", epoch=1))
    assert signed.rc == 0, signed.out
    mixed = hosts.run(**release("1.9", epoch=1))
    assert mixed.states == {"standard0": "committed", "standard1": "refused"}, mixed.out
    assert "standard0: below its floor, but let in by the waiver" in mixed.out
    record = hosts.record("standard0")
    assert (record["floors"]["shop"]["epoch"], record["waivers"][0]["by"], hosts.version("standard0")) == (2, "bob@example.org", "1.9")
    assert [entry.data["host"] for entry in hosts.ledger() if entry.kind == "waived"] == ["standard0"]
    back = hosts.run(**release("2.0", epoch=2))
    assert back.states == {"standard0": "committed", "standard1": "skipped"}, back.out
    replayed = hosts.run(rollout_replan=True, **release("1.9", epoch=1))
    assert replayed.states["standard0"] == "refused", replayed.out
    assert "was used here on" in replayed.out


def test_what_is_wrong_with_floors_and_waivers_is_told_before_anybody_is_touched(fleet):
    hosts = fleet(standard=1)
    wrong = hosts.run(rollout_vulnerable=["vers:semver/<3", "old"], rollout_waivers="gone", rollout_quarantine="no.such.role", **release("2.0", epoch=-1))
    assert wrong.rc == 1
    for said in ("rollout_vulnerable[0]", "rollout_vulnerable[1]", "rollout_waiver_signers", "rollout_release.epoch", "no.such.role"):
        assert said in wrong.out, wrong.out
    assert hosts.untouched("standard0")
