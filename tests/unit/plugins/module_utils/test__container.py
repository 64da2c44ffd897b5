# Copyright: onprem.rollout contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""What runs a container on which host. That it runs, and comes back, is shown on the fleet (test_containers.py)."""

import pytest

from ansible_collections.onprem.rollout.plugins.module_utils import _container
from ansible_collections.onprem.rollout.plugins.module_utils._errors import Refused
from ansible_collections.onprem.rollout.plugins.module_utils._podman import Reference

IMAGE = "registry.example.com/shop@sha256:" + "a" * 64
QUADLET, UNIT, GENERATOR, V2 = "quadlets/shop.container", "units/shop.service", "generators/podman-system-generator", "v2"
MODERN = [GENERATOR, V2]


@pytest.fixture
def planted(tmp_path, monkeypatch):
    def plant(paths):
        for path in paths:
            (tmp_path / path).parent.mkdir(exist_ok=True)
            (tmp_path / path).write_text("")

    monkeypatch.setattr(_container, "QUADLETS", str(tmp_path / "quadlets"))
    monkeypatch.setattr(_container, "UNITS", str(tmp_path / "units"))
    monkeypatch.setattr(_container, "GENERATORS", (str(tmp_path / "none"), str(tmp_path / "generators")))
    monkeypatch.setattr(_container, "UNIFIED", str(tmp_path / V2))
    return plant


@pytest.mark.parametrize(
    "there, runner, content, chosen",
    [
        (MODERN, "auto", None, "quadlet"),
        ([*MODERN, QUADLET], "auto", None, "quadlet"),
        ([*MODERN, UNIT], "auto", None, "unit"),
        ([GENERATOR], "auto", None, "unit"),
        ([V2], "auto", None, "unit"),
        (MODERN, "unit", None, "unit"),
        (MODERN, "auto", "[Service]\nExecStart=podman run " + IMAGE, "unit"),
        (MODERN, "auto", "[Unit]\n[Container]\nImage=" + IMAGE, "quadlet"),
        ([GENERATOR], "quadlet", None, "no_quadlet"),
        ([V2], "auto", "[Container]\nImage=" + IMAGE, "no_quadlet"),
        ([*MODERN, UNIT], "quadlet", None, "two_units"),
        ([*MODERN, QUADLET], "unit", None, "two_units"),
        ([*MODERN, QUADLET], "auto", "[Service]\nExecStart=podman run " + IMAGE, "two_units"),
    ],
)
def test_what_runs_it(planted, there, runner, content, chosen):
    planted(there)
    options = {"name": "shop", "runner": runner, "content": content}
    if chosen in ("quadlet", "unit"):
        assert _container.choose(options) == chosen
        return
    with pytest.raises(Refused) as error:
        _container.choose(options)
    assert error.value.reason == chosen


def test_a_template_that_names_another_image_is_refused():
    options = {"name": "shop", "content": "[Container]\nImage=registry.example.com/shop:latest\n"}
    reference = Reference(*IMAGE.split("@"))
    with pytest.raises(Refused, match="does not name the image " + IMAGE):
        _container._content(options, reference, "quadlet")
    given = dict(options, content="[Container]\nImage={0}\n".format(IMAGE))
    assert _container._content(given, reference, "quadlet") == given["content"]


@pytest.mark.parametrize(
    "digest, previous, order, keep, kept",
    [
        ("b", "a", [], 3, "ba"),
        ("c", "b", ["b", "a"], 3, "cba"),
        ("c", "b", ["b", "a"], 1, "cb"),
        ("b", "a", ["b", "a"], 3, "ba"),
        ("a", "b", ["b", "a"], 1, "ab"),
        ("c", "a", ["b", "a"], 1, "ca"),
        ("a", None, [], 1, "a"),
    ],
)
def test_which_images_are_kept(digest, previous, order, keep, kept):
    digests = {letter: "sha256:" + letter * 64 for letter in "abc"}
    before = _container._quadlet.with_order("", [digests[each] for each in order]) if order else None
    image = _container.Image("id", digests[previous], [], []) if previous else None
    assert _container._kept(digests[digest], image, before, keep) == [digests[each] for each in kept]
