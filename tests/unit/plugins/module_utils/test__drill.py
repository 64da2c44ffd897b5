# Copyright: onprem.rollout contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

import json
import os
import subprocess

import pytest

from ansible_collections.onprem.rollout.plugins.module_utils import _drill, _record
from ansible_collections.onprem.rollout.plugins.module_utils._errors import Refused, RolloutError
from ansible_collections.onprem.rollout.plugins.module_utils._process import run
from ansible_collections.onprem.rollout.tests.unit.plugins.module_utils.host_helpers import NEW, OLD, fingerprint, upgrade, write


def options(host, **more):
    base = {
        "state_dir": host.state_dir,
        "release": NEW,
        "paths": host.paths(),
        "exclude": [],
        "cross_mounts": False,
        "packages": [],
        "package_manager": "auto",
        "services": [],
        "irreversible": "",
        "transaction": "",
        "problem": "",
    }
    return dict(base, **more)


def rehearse(host, spoil=lambda: None, **more):
    _drill.begin(options(host), host.clock, host.command)
    begun = host.begin()[1]
    upgrade(host.tree)
    host.restore(failed=True)
    spoil()
    return _drill.end(options(host, transaction=begun["transaction"], **more), host.clock, host.command)[1]


def test_a_drill_passes_and_the_record_is_as_before(host):
    old = fingerprint(os.path.join(host.tree, "app"))
    result = rehearse(host)
    assert (result["outcome"], result["drill"]["differences"]) == ("passed", [])
    assert fingerprint(os.path.join(host.tree, "app")) == old
    record = host.record()
    (drill,) = record.pop("drills")
    assert (drill["release"], drill["ok"]) == (NEW, True)
    assert record == {"schema": 1, "installed": None, "last_known_good": None, "transaction": None, "history": []}
    assert os.listdir(os.path.join(host.state_dir, "snapshots")) == []
    assert not os.path.exists(os.path.join(host.state_dir, "drill.json"))
    assert _record.drilled(_record.load(host.state_dir), NEW["digest"])


SPOILS = [
    ("chmod", lambda tree: os.chmod(tree + "/app/data/same", 0o644), "app/data/same: mode"),
    ("time", lambda tree: os.utime(tree + "/app/data/same", (1, 1)), "app/data/same: mtime"),
    ("same size", lambda tree: write(tree + "/app/data/config", b"version=9.9\n", 0o640), "app/data/config: mtime, content"),
    ("gone", lambda tree: os.unlink(tree + "/app/dangling"), "app/dangling: is gone"),
    ("new", lambda tree: os.mkdir(tree + "/app/empty/new"), "app/empty/new: was not there"),
    ("linked", lambda tree: os.link(tree + "/app/data/same", tree + "/same"), "app/data/same: links"),
    ("another link", lambda tree: (os.unlink(tree + "/app/current"), os.symlink("releases/9.9", tree + "/app/current")), "app/current: mtime, target"),
    ("absent", lambda tree: (os.makedirs(tree + "/new/etc"), write(tree + "/new/etc/conf", b"")), "new/etc/conf: was not there"),
]


@pytest.mark.parametrize("spoil, found", [case[1:] for case in SPOILS], ids=[case[0] for case in SPOILS])
def test_whatever_differs_is_named(host, spoil, found):
    result = rehearse(host, lambda: spoil(host.tree))
    assert result["outcome"] == "failed"
    assert any(difference.endswith(found) for difference in result["drill"]["differences"]), result["drill"]["differences"]
    assert not _record.drilled(host.record(), NEW["digest"])


def test_extended_attributes_are_compared(host):
    path = host.tree + "/app/data/same"
    try:
        os.setxattr(path, "user.drill", b"1")
    except OSError:
        pytest.skip("this file system has no extended attributes")
    found = _drill.look([path])
    os.setxattr(path, "user.drill", b"2")
    assert _drill.compare(found, _drill.look([path])) == [path + ": xattrs"]


def test_a_problem_on_the_way_fails_a_drill_without_differences(host):
    result = rehearse(host, problem="web: saw 500")
    assert (result["outcome"], result["drill"]["problem"], result["drill"]["count"]) == ("failed", "web: saw 500", 0)
    assert not host.record().get("failed")


def test_a_host_that_is_not_restored_keeps_its_transaction(host):
    _drill.begin(options(host), host.clock, host.command)
    begun = host.begin()[1]
    result = _drill.end(options(host, transaction=begun["transaction"]), host.clock, host.command)[1]
    assert (result["drill"]["problem"], host.phase()) == ("the host is changing: None", "changing")


def test_a_change_that_did_not_begin_fails_the_drill(host):
    _drill.begin(options(host), host.clock, host.command)
    assert _drill.end(options(host), host.clock, host.command)[1]["drill"]["problem"] == "the change did not begin"


def test_what_cannot_be_drilled_is_refused(host):
    with pytest.raises(Refused, match="cannot be undone: schema 7"):
        _drill.begin(options(host, irreversible="schema 7"), host.clock, host.command)
    assert not os.path.exists(host.state_dir)
    host.begin()
    with pytest.raises(Refused, match="is in a transaction"):
        _drill.begin(options(host), host.clock, host.command)
    with pytest.raises(RolloutError, match=r"No drill of shop 2\.0 was begun"):
        _drill.end(options(host), host.clock, host.command)
    host.restore()
    write(os.path.join(host.state_dir, "record.json"), json.dumps(dict(host.record(), installed=NEW)).encode())
    with pytest.raises(Refused, match=r"runs shop 2\.0 already"):
        _drill.begin(options(host), host.clock, host.command)


@pytest.mark.parametrize("results, passed", [([], False), ([True], True), ([True, False], False), ([False, True], True)])
def test_the_last_drill_of_a_release_counts(results, passed):
    drills = [{"release": NEW, "ok": ok} for ok in results] + [{"release": OLD, "ok": not passed}]
    assert _record.drilled({"drills": drills}, NEW["digest"]) is passed


def test_what_is_left_out_of_the_snapshot_is_left_out_of_the_drill(host):
    def names(*exclude):
        return {os.path.relpath(path, host.tree) for path in _drill.look([host.tree + "/app"], exclude)}

    whole = names()
    assert whole - names("same", "*.pid") == {"app/data/same"}
    assert whole - names(host.tree + "/app/releases/*") == {path for path in whole if path.startswith("app/releases/")}
    assert names("app") == whole


def test_another_file_system_is_not_looked_at():
    assert not any(path.startswith("/dev/shm/") for path in _drill.look(["/dev"]))


@pytest.mark.skipif(not os.path.exists("/var/lib/dpkg/status"), reason="reads dpkg's database; runs on Debian and Ubuntu, as in CI")
def test_all_packages_are_compared_when_a_release_changes_some():
    found = _drill._installed({"packages": ["dpkg"], "package_manager": "apt"}, run)
    assert found == json.loads(json.dumps(_drill._installed({"packages": ["dpkg"], "package_manager": "apt"}, run)))
    assert found["dpkg"][0] == subprocess.run(["dpkg-query", "-W", "-f", "${Version}", "dpkg"], stdout=subprocess.PIPE, check=True).stdout.decode()
    assert _drill._installed({"packages": [], "package_manager": "auto"}, run) == {}
