# Copyright: onprem.rollout contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Real keys and real signatures, made by ssh-keygen."""

from __future__ import annotations

import json
import subprocess

import pytest

from ansible_collections.onprem.rollout.plugins.plugin_utils import _waivers
from ansible_collections.onprem.rollout.plugins.plugin_utils._ledger import stamp
from ansible_collections.onprem.rollout.plugins.plugin_utils._signatures import APPROVAL, CannotAsk, sign

NOW = 1_800_000_000.0
RELEASE = {"name": "shop", "version": "1.9", "digest": "1" * 64}
WAIVER = {
    "id": "w1",
    "by": "bob@example.org",
    "why": "CHG-4711",
    "expires": stamp(NOW + 1),
    "hosts": ["web1", "web2"],
    "release": {"name": "shop", "version": "1.9", "digest": "1" * 64},
}
GIVEN = {"id": "w1", "by": "bob@example.org", "why": "CHG-4711", "expires": "2027-01-15T08:00:01Z"}


@pytest.fixture(scope="module")
def keys(tmp_path_factory):
    """Private keys; those of ada, bob and carol are allowed."""
    directory = tmp_path_factory.mktemp("keys")
    for name in ("ada", "bob", "carol", "mallory"):
        subprocess.run(["ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-C", name, "-f", str(directory / name)], check=True)
    (directory / "allowed").write_text("".join(f"{name}@example.org {(directory / name).with_suffix('.pub').read_text()}" for name in ("ada", "bob", "carol")))
    return directory


@pytest.fixture
def read(keys, tmp_path):
    def read(launcher="ada on ctl1, pid 7", now=NOW, signers="allowed", earlier=()):
        return _waivers.read(str(tmp_path), str(keys / signers), RELEASE, launcher, now, earlier)

    return read


def put(directory, keys, name="one", key="bob", **changes):
    path = directory / f"{name}.json"
    _waivers.write(str(path), {**WAIVER, **changes}, str(keys / key))
    return path


def test_a_signed_waiver_lets_the_hosts_that_it_names(keys, tmp_path, read):
    path = put(tmp_path, keys)
    assert read() == _waivers.Waivers({"web1": GIVEN, "web2": GIVEN})
    assert {file.name: file.stat().st_mode & 0o777 for file in tmp_path.iterdir()} == {"one.json": 0o600, "one.json.sig": 0o600}
    assert json.loads(path.read_text()) == WAIVER


def test_one_made_with_ssh_keygen_alone_counts_too(keys, tmp_path, read):
    (tmp_path / "hand.json").write_text(json.dumps(WAIVER, indent=2))
    subprocess.run(["ssh-keygen", "-q", "-Y", "sign", "-n", "onprem-rollout-waiver", "-f", str(keys / "bob"), str(tmp_path / "hand.json")], check=True)
    assert set(read().by_host) == {"web1", "web2"}


WRONG = [
    ({"release": {"name": "shop", "version": "1.8"}}, "bob", "is for shop 1.8"),
    ({"release": {"name": "till", "version": "1.9"}}, "bob", "is for till 1.9"),
    ({"release": {**WAIVER["release"], "digest": "2" * 64}}, "bob", "is for shop 1.9, another build"),
    ({"expires": stamp(NOW)}, "bob", f"expired at {stamp(NOW)}"),
    ({"expires": "2030-01-01T00:00:00"}, "bob", "expires '2030-01-01T00:00:00', which does not say in which zone"),
    ({"by": "ada@example.org"}, "ada", "is by the launcher"),
    ({"by": "carol@example.org"}, "bob", "was signed with a key that allowed_signers does not have for that name"),
    ({}, "mallory", "was signed with a key that allowed_signers does not have for that name"),
    ({"id": "w0"}, "bob", "is revoked"),
    ({"id": "w 1"}, "bob", "needs id (without spaces), by, why and expires as texts"),
    ({"why": " "}, "bob", "needs id (without spaces), by, why and expires as texts"),
    ({"by": "@example.org"}, "bob", "needs id (without spaces), by, why and expires as texts"),
    ({"hosts": []}, "bob", "names no hosts"),
    ({"hosts": "all"}, "bob", "names no hosts"),
    ({"release": {"name": "shop"}}, "bob", "names no release by name, version and, if it shall be that very build, digest"),
]


@pytest.mark.parametrize("changes, key, why", WRONG, ids=[row[2] for row in WRONG])
def test_a_waiver_does_not_count_and_it_is_said_why(keys, tmp_path, read, changes, key, why):
    path = put(tmp_path, keys, key=key, **changes)
    (tmp_path / "revoked").write_text("w0\n")
    assert read() == _waivers.Waivers({}, (f"{path} {why}",))


def test_a_signature_for_another_purpose_or_of_another_text_does_not_count(keys, tmp_path, read):
    path = put(tmp_path, keys, "approval")
    (tmp_path / "approval.json.sig").write_text(sign(path.read_text(), str(keys / "bob"), APPROVAL))
    other = put(tmp_path, keys, "bent")
    other.write_text(other.read_text().replace("web2", "web3"))
    bare = put(tmp_path, keys, "bare")
    (tmp_path / "bare.json.sig").unlink()
    found = read()
    assert not found.by_host
    assert list(found.flaws) == [
        f"{path} was signed for another purpose, and not with -n onprem-rollout-waiver",
        f"{bare} cannot be read: its signature {bare}.sig: No such file or directory",
        f"{other} has a signature of another text: one of them was changed",
    ]


@pytest.mark.parametrize("text", ["", "[]", "{}", json.dumps({**WAIVER, "more": 1}), "[" * 100_000], ids=["empty", "list", "nothing", "more", "deep"])
def test_a_file_that_is_no_waiver_is_told(tmp_path, read, text):
    (tmp_path / "none.json").write_text(text)
    (tmp_path / "none.json.sig").write_text("none")
    assert read().flaws[0].startswith(f"{tmp_path / 'none.json'} ")
    assert not read().by_host


@pytest.mark.parametrize("launcher, signers, why", [("", "allowed", "nobody knows who launched this run"), ("ada", "gone", "rollout_waiver_signers")])
def test_what_cannot_be_told_lets_nobody(keys, tmp_path, read, launcher, signers, why):
    put(tmp_path, keys)
    with pytest.raises(CannotAsk, match=why):
        read(launcher=launcher, signers=signers)


def test_whoever_launched_an_earlier_run_of_the_release_does_not_count(keys, tmp_path, read):
    path = put(tmp_path, keys)
    assert read(earlier={"ada", "bob"}) == _waivers.Waivers({}, (f"{path} is by the launcher of an earlier run of it",))
