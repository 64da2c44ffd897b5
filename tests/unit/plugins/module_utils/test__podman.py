# Copyright: onprem.rollout contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Images in a store of podman's that is made for the test, from archives and from a registry on this machine."""

import hashlib
import io
import json
import os
import shutil
import subprocess

import pytest

from ansible_collections.onprem.rollout.plugins.module_utils import _podman
from ansible_collections.onprem.rollout.plugins.module_utils._errors import Refused, RolloutError
from ansible_collections.onprem.rollout.tests.unit.plugins.module_utils.oci import Image, Registry, packed

needs_podman = pytest.mark.skipif(os.geteuid() != 0 or not shutil.which("podman"), reason="needs root and podman")
ROOM = 1 << 30
HEX = "0123456789abcdef" * 4


def podman(*argv):
    return subprocess.run(("podman",) + argv, check=True, stdout=subprocess.PIPE, universal_newlines=True).stdout


class Store:
    """Images of the service shop, and what podman itself says of them."""

    def __init__(self, path):
        self.path, self.images = path, _podman.Images("shop", str(path / "cache"))

    def load(self, image, name="localhost/anything:latest", repository="registry.example.com/shop"):
        content = image.archive(name)
        return self.images.load(_podman.Reference(repository, image.digest), io.BytesIO(content), "shop.tar", ROOM)

    def names(self):
        listed = json.loads(podman("images", "--all", "--no-trunc", "--format", "json"))
        return {name: image["Id"] for image in listed for name in image.get("Names") or []}

    def ids(self):
        return set(podman("images", "--all", "--quiet", "--no-trunc").replace("sha256:", "").split())


@pytest.fixture
def store(tmp_path, monkeypatch):
    conf = tmp_path / "storage.conf"
    conf.write_text('[storage]\ndriver = "vfs"\ngraphroot = "{0}/root"\nrunroot = "{0}/run"\n'.format(tmp_path))
    (tmp_path / "registries.conf").write_text("")
    monkeypatch.setenv("CONTAINERS_STORAGE_CONF", str(conf))
    monkeypatch.setenv("CONTAINERS_REGISTRIES_CONF", str(tmp_path / "registries.conf"))
    yield Store(tmp_path)
    podman("rmi", "--all", "--force")


@pytest.fixture
def registry(store):
    serving = Registry(ONE, MANY)
    (store.path / "registries.conf").write_text('[[registry]]\nlocation = "{0}"\ninsecure = true\n'.format(serving.address))
    yield serving
    serving.close()


ONE, TWO, THREE = (Image({"version": text}) for text in (b"1", b"2", b"3"))
MANY = Image({"version": b"4"}, several=True)

PINNED = [
    ("registry.example.com/shop@sha256:" + HEX, "registry.example.com/shop"),
    ("registry.example.com:5000/team/shop_web:2.0@sha256:" + HEX, "registry.example.com:5000/team/shop_web"),
    ("registry:5000/shop@sha256:" + HEX, "registry:5000/shop"),
    ("localhost/a/b-c.d@sha256:" + HEX, "localhost/a/b-c.d"),
]


@pytest.mark.parametrize("image, repository", PINNED)
def test_an_image_with_a_digest(image, repository):
    assert _podman.parse(image) == (repository, "sha256:" + HEX)


@pytest.mark.parametrize(
    "image, why",
    [
        ("registry.example.com/shop:2.0", "a tag may be another image tomorrow"),
        ("registry.example.com/shop", "a tag may be another image tomorrow"),
        ("registry.example.com/shop@sha256:" + HEX[1:], "64 lower-case hex digits"),
        ("registry.example.com/shop@sha256:" + HEX.upper(), "64 lower-case hex digits"),
        ("registry.example.com/shop@sha512:" + HEX * 2, "64 lower-case hex digits"),
        ("shop@sha256:" + HEX, "with the registry"),
        ("team/shop@sha256:" + HEX, "with the registry"),
        ("registry.example.com/shop@sha256:" + HEX + "\n", "is not pinned"),
        ("registry.example.com/ --help@sha256:" + HEX, "is not pinned"),
        ("", "is not pinned"),
    ],
)
def test_an_image_that_could_be_another_is_refused(image, why):
    with pytest.raises(Refused) as error:
        _podman.parse(image)
    assert why in str(error.value)
    assert repr(image) in str(error.value)


@needs_podman
@pytest.mark.parametrize("image", [ONE, MANY], ids=["one architecture", "several"])
def test_an_archive_is_loaded_and_found_by_its_digest(store, image):
    found = store.load(image)
    assert image.digest in found.digests
    assert store.images.find("registry.example.com/shop@" + image.digest) == found
    assert found.tags == ["registry.example.com/shop:" + image.digest.replace(":", "-")]
    assert not os.path.exists(store.images.cache)
    assert store.load(image) == found


@needs_podman
def test_what_was_saved_by_podman_is_loaded_too(store):
    tree = store.path / "tree.tar"
    tree.write_bytes(packed([("version", b"5")]))
    podman("import", "--quiet", str(tree), "registry.example.com/shop:5")
    podman("save", "--quiet", "--format", "oci-archive", "--output", str(store.path / "five.tar"), "registry.example.com/shop:5")
    podman("save", "--quiet", "--format", "docker-archive", "--output", str(store.path / "old.tar"), "registry.example.com/shop:5")
    podman("rmi", "--all", "--force")
    digest = json.loads(subprocess.check_output(["tar", "-xOf", str(store.path / "five.tar"), "index.json"]).decode())["manifests"][0]["digest"]
    reference = _podman.Reference("registry.example.com/shop", digest)
    with open(str(store.path / "old.tar"), "rb") as source, pytest.raises(Refused, match="is not an OCI archive"):
        store.images.load(reference, source, "old.tar", ROOM)
    assert store.ids() == set()
    with open(str(store.path / "five.tar"), "rb") as source:
        assert digest in store.images.load(reference, source, "five.tar", ROOM).digests


@needs_podman
def test_no_tag_in_use_is_moved(store):
    one = store.load(ONE)
    podman("tag", one.id, "registry.example.com/shop:latest")
    two = store.load(TWO, "registry.example.com/shop:latest")
    assert store.names()["registry.example.com/shop:latest"] == one.id != two.id


@needs_podman
def test_another_digest_is_refused_before_anything_is_loaded(store):
    with pytest.raises(Refused) as error:
        store.images.load(_podman.Reference("registry.example.com/shop", TWO.digest), io.BytesIO(ONE.archive()), "shop.tar", ROOM)
    assert ONE.digest in str(error.value)
    assert TWO.digest in str(error.value)
    assert "shop.tar" in str(error.value)
    assert store.ids() == set()
    assert not os.path.exists(store.images.cache)


@needs_podman
def test_an_archive_whose_content_is_not_what_its_digest_says(store):
    forged = Image({"version": b"1"})
    layer = max(forged.blobs, key=lambda digest: len(forged.blobs[digest]))
    forged.blobs[layer] = packed([("version", b"9")])
    with pytest.raises(RolloutError):
        store.load(forged)
    assert store.ids() == set()


@needs_podman
def test_a_load_that_died_is_repeated(store):
    os.makedirs(store.images.cache + "/blobs")
    assert ONE.digest in store.load(ONE).digests


@needs_podman
def test_pinned_images_stay_when_images_without_a_name_are_pruned(store):
    one, two = store.load(ONE), store.load(TWO)
    store.images.pin(one)
    podman("untag", one.id, one.tags[0])
    podman("untag", two.id)
    podman("image", "prune", "--force")
    assert store.ids() == {one.id}
    assert store.images.pinned() == [ONE.digest]


@needs_podman
def test_dropping_removes_what_nobody_else_names(store):
    one, two, three = (store.load(image) for image in (ONE, TWO, THREE))
    for image in (one, two, three):
        store.images.pin(image)
    _podman.Images("till", str(store.path / "cache")).pin(two)
    podman("tag", three.id, "localhost/mine:1")
    for image in (ONE, TWO, THREE):
        store.images.drop(image.digest)
        store.images.drop(image.digest)
    assert store.ids() == {two.id, three.id}
    kept = ["registry.example.com/shop:" + image.digest.replace(":", "-") for image in (TWO, THREE)]
    assert set(store.names()) == {"localhost/onprem-rollout/till:" + TWO.digest[7:], "localhost/mine:1"}.union(kept)
    assert store.images.pinned() == []


@needs_podman
@pytest.mark.parametrize("image", [ONE, MANY], ids=["one architecture", "several"])
def test_a_pull_is_found_by_its_digest(store, registry, image):
    reference = _podman.parse("{0}/team/shop:2.0@{1}".format(registry.address, image.digest))
    found = store.images.pull(reference, None, 60)
    assert image.digest in found.digests
    assert store.images.find(_podman.at(reference)) == found
    store.images.pin(found._replace(digest=image.digest))
    assert store.images.pinned() == [image.digest]
    store.images.drop(image.digest)
    assert store.ids() == set()


@needs_podman
@pytest.mark.parametrize("status, rc", [(500, 21), (503, 21), (429, 21), (404, None), (403, None)])
def test_a_registry_that_is_ill_is_asked_again_later(store, registry, status, rc):
    registry.status = status
    with pytest.raises(RolloutError) as error:
        store.images.pull(_podman.Reference(registry.address + "/shop", ONE.digest), None, 8)
    assert (error.value.reason, error.value.details.get("rc")) == ("fetch", rc), str(error.value)


@needs_podman
@pytest.mark.parametrize("place", ["closed", "registry.invalid:5000"])
def test_a_registry_that_is_away_is_asked_again_later(store, registry, place):
    registry.close()
    with pytest.raises(RolloutError) as error:
        store.images.pull(_podman.Reference((registry.address if place == "closed" else place) + "/shop", ONE.digest), None, 60)
    assert (error.value.reason, error.value.details.get("rc")) == ("fetch", 21), str(error.value)


@needs_podman
def test_an_image_the_registry_lacks_is_no_outage(store, registry):
    with pytest.raises(RolloutError) as error:
        store.images.pull(_podman.Reference(registry.address + "/shop", TWO.digest), None, 60)
    assert error.value.details.get("rc") is None
    assert TWO.digest in str(error.value)


def test_a_host_without_podman_is_refused(monkeypatch):
    monkeypatch.setenv("PATH", "/nowhere")
    with pytest.raises(Refused, match="podman cannot be started on this host: no such file or directory"):
        _podman.Images("shop").find("sha256:" + hashlib.sha256(b"").hexdigest())
