# Copyright: onprem.rollout contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

from __future__ import annotations

import hashlib
import io
import json
import tarfile
from pathlib import Path

import build_releases
import pytest
import yaml

from ansible_collections.onprem.rollout.plugins.plugin_utils import _policy


def contents(tarball: Path) -> dict[str, bytes]:
    with tarfile.open(tarball) as archive:
        return {member.name: (archive.extractfile(member) or io.BytesIO()).read() for member in archive}


@pytest.mark.parametrize("version", build_releases.VERSIONS)
def test_the_same_sources_give_the_same_bytes(tmp_path: Path, version: str) -> None:
    built = []
    for name in ("one", "two"):
        build_releases.build(tmp_path / name)
        built.append((tmp_path / name / "releases" / f"shop-{version}.tar.gz").read_bytes())
    assert built[0] == built[1]


@pytest.mark.parametrize(("version", "healthy"), [("1.0", True), ("2.0", True), ("2.1", False)])
def test_only_the_catalogue_of_the_bad_release_is_cut_off(demo_dir: Path, version: str, healthy: bool) -> None:
    files = contents(demo_dir / "releases" / f"shop-{version}.tar.gz")
    assert sorted(files) == ["VERSION", "catalogue.json", "server.py"]
    assert files["VERSION"] == f"{version}\n".encode()
    if healthy:
        assert json.loads(files["catalogue.json"])
    else:
        with pytest.raises(ValueError, match="line 4"):
            json.loads(files["catalogue.json"])


@pytest.mark.parametrize("version", ["2.0", "2.1"])
def test_a_release_file_is_what_the_policy_reads(demo_dir: Path, version: str) -> None:
    raw = yaml.safe_load((demo_dir / f"release-{version}.yml").read_text(encoding="utf-8"))
    release, problems = _policy.parse_release(raw["rollout_release"])
    assert problems == []
    assert release is not None
    assert release.label == f"shop {version}"
    content = Path(release.artifacts[0].location).read_bytes()
    assert (len(content), hashlib.sha256(content).hexdigest()) == (release.artifacts[0].size, release.artifacts[0].sha256)


def test_a_release_file_bears_any_path(tmp_path: Path) -> None:
    path = tmp_path / 'a: "strange" #dir' / "shop.tar.gz"
    raw = yaml.safe_load(build_releases.release_file("2.0", path, b"x"))
    assert raw["rollout_release"]["artifacts"][0]["path"] == str(path)


def test_what_is_installed_by_hand_has_no_release_file(demo_dir: Path) -> None:
    assert not (demo_dir / "release-1.0.yml").exists()
