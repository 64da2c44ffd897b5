# Copyright: onprem.rollout contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Two rollouts at once: one run of a rollout at a time, one rollout on a host at a time, and operators who take hosts away."""

from __future__ import annotations

import getpass
import os
import signal
import socket
import time

from conftest import eventually

from ansible_collections.onprem.rollout.plugins.plugin_utils._ledger import Event
from ansible_collections.onprem.rollout.plugins.plugin_utils._ledger_file import LedgerFile

HERE = f"of {getpass.getuser()} on {socket.gethostname()}, pid "


def flat(result):
    return " ".join(result.out.split())


def hanging(fleet, env=None, **variables):
    """A run whose payload hangs on its only host."""
    hosts = fleet(standard=1)
    process = hosts.start(rollout_payload="hangs", env=env, **variables)
    eventually((hosts.root / "hosts" / "standard0" / "hanging").exists, process)
    return hosts, process


def test_a_second_run_is_refused_by_name_until_the_first_is_killed(fleet):
    hosts, first = hanging(fleet, env={"JOB_ID": "4711"})
    (lock,) = hosts.ledger_file.parent.glob("*.lease")
    lock.unlink()  # whoever tidies up gives the rollout to nobody
    second = hosts.run(rollout_payload="writes")
    assert second.rc == 1, second.out
    assert f"shop-2.0 is rolled out by another run, {HERE}{first.pid}, job 4711, since 20" in flat(second)
    assert "No host was touched" in flat(second)
    assert [entry.kind for entry in hosts.ledger()].count("started") == 1
    assert hosts.run("onprem.rollout.status").data["reason"]["kind"] == "running"
    os.kill(first.pid, signal.SIGKILL)  # its worker lives on
    first.wait()
    again = hosts.run(rollout_payload="writes")
    assert (again.rc, again.states) == (0, {"standard0": "committed"}), again.out


def test_a_host_that_was_taken_from_a_living_run_is_not_committed_by_it_and_the_next_run_settles_it(fleet):
    hosts = fleet(standard=1)
    hooks = {"rollout_drain": "marks_drain", "rollout_rejoin": "marks_rejoin"}
    first = hosts.start(rollout_rings=[{"name": "standard", "soak": 600}], **hooks)
    eventually(lambda: hosts.record("standard0").get("transaction", {}).get("phase") == "awaiting_commit", first)
    shown = hosts.run("onprem.rollout.unlock")
    assert (shown.rc, "changed=0" in shown.out) == (0, True), shown.out
    assert f"rollout shop-2.0: run by {HERE[3:]}{first.pid}, since 20" in flat(shown)
    assert f"standard0: held by rollout shop-2.0 {HERE}{first.pid}: awaiting_commit to shop 2.0 since 20" in flat(shown)
    kept = hosts.run("onprem.rollout.unlock", "-e", '{"rollout_evict": true, "rollout_why": "it hangs"}')
    assert (kept.rc, "that run is alive. It may be at work, so it was not touched" in flat(kept)) == (2, True), kept.out
    by_force = ["-e", '{"rollout_force_evict": true, "rollout_why": "it hangs"}']
    before = hosts.record("standard0")
    would = hosts.run("onprem.rollout.unlock", "--check", *by_force)
    assert (would.rc, "changed=1" in would.out, hosts.record("standard0") == before) == (0, True, True), would.out
    assert not [entry for entry in hosts.ledger() if entry.kind == "unlock"]
    taken, again = hosts.run("onprem.rollout.unlock", *by_force), hosts.run("onprem.rollout.unlock", *by_force)
    assert (taken.rc, "changed=1" in taken.out) == (0, True), taken.out
    assert (again.rc, "changed=0" in again.out, "from whom" in again.out) == (0, True, True), again.out
    (event,) = (entry.data for entry in hosts.ledger() if entry.kind == "unlock")
    assert (event["host"], event["why"], event["by"], event["forced"]) == ("standard0", "it hangs", getpass.getuser(), True)
    assert f"pid {first.pid}" in event["from"]
    traffic = hosts.root / "hosts" / "standard0" / "traffic"
    marks = traffic.read_text()
    LedgerFile(str(hosts.ledger_file), "ada", time.time).append([Event("promote", "shop-2.0", {})])
    result = hosts.finish(first)
    assert (result.rc, result.states) == (2, {"standard0": "refused"}), result.out
    assert "standard0 is taken from" in flat(result)
    assert "This host was taken from this run by" in flat(result)
    assert (hosts.record("standard0")["transaction"]["phase"], hosts.version("standard0")) == ("awaiting_commit", "2.0")
    assert traffic.read_text() == marks, "it is not drained and not brought back by the run that had it"
    settled = hosts.run("onprem.rollout.upgrade", "-e", "rollout_replan=true", **hooks)
    assert (settled.rc, settled.states) == (0, {"standard0": "committed"}), settled.out
    assert "was left half done by an earlier run, now restored" in settled.out
