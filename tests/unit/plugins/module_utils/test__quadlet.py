# Copyright: onprem.rollout contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""What systemd is told to run: judged by systemd's own reading of words and, where podman has one, by its generator of units."""

import os
import re
import shlex
import shutil
import subprocess

import pytest

from ansible_collections.onprem.rollout.plugins.module_utils import _quadlet

IMAGE = "registry.example.com/shop@sha256:" + "0123456789abcdef" * 4
NONE = {"ports": [], "volumes": [], "environment": {}, "network": None, "arguments": [], "command": []}
ALL = {
    "ports": ["127.0.0.1:8080:80", "[::1]:8080:80"],
    "volumes": ["/srv/a shop:/data:ro"],
    "environment": {"GREETING": 'a "b" \\ 100% $HOME', "EMPTY": "", "PLAIN": "1"},
    "network": "host",
    "arguments": ["--label=what=a b", "--memory=1g"],
    "command": ["serve", "--name", "it's $1 and 5%", "back\\slash"],
}
SAID = [
    *("--publish", "127.0.0.1:8080:80", "--publish", "[::1]:8080:80", "--volume", "/srv/a shop:/data:ro"),
    *("--env", "EMPTY=", "--env", 'GREETING=a "b" \\ 100% $HOME', "--env", "PLAIN=1", "--network", "host"),
    *("--label=what=a b", "--memory=1g", IMAGE, "serve", "--name", "it's $1 and 5%", "back\\slash"),
]
generator = shutil.which("quadlet", path=os.pathsep.join([os.environ["PATH"], "/usr/libexec/podman", "/usr/lib/podman"]))


def words_of(unit):
    """The command of a unit, as systemd reads it: quotes and backslashes, then specifiers and variables."""
    line = re.search(r"^ExecStart=(.*)$", unit, re.MULTILINE).group(1)
    assert not re.search(r"(?<!%)%(?:%%)*[^%tN]|(?<!\$)\$(?:\$\$)*[^$]", line), "systemd would fill something in: " + line
    return [word.replace("%%", "%").replace("$$", "$") for word in shlex.split(line)]


def test_a_unit_runs_exactly_these_words():
    words = words_of(_quadlet.unit("shop", IMAGE, ALL))
    assert words[words.index("-d") + 1 :] == SAID
    assert words_of(_quadlet.unit("shop", IMAGE, NONE))[-2:] == ["-d", IMAGE]


@pytest.mark.skipif(generator is None, reason="needs the quadlet of podman 4.4 or newer; Debian 12, as in CI, has 4.3")
def test_a_quadlet_runs_the_same_words_as_a_unit(tmp_path):
    for name, options in (("all", ALL), ("none", NONE)):
        content = _quadlet.with_order(_quadlet.quadlet(name, IMAGE, options), ["sha256:" + "0" * 64])
        (tmp_path / (name + ".container")).write_text(content)
    told = subprocess.run([generator, "-dryrun"], env=dict(os.environ, QUADLET_UNIT_DIRS=str(tmp_path)), stdout=subprocess.PIPE, check=True)
    units = dict(re.findall(r"^---(\w+)\.service---\n(.*?)(?=^---|\Z)", told.stdout.decode(), re.MULTILINE | re.DOTALL))
    for name, options in (("all", ALL), ("none", NONE)):
        unit, quadlet = words_of(_quadlet.unit(name, IMAGE, options)), words_of(units[name])
        ours = [{"--volume": "-v", "--cgroups=no-conmon": "--cgroups=split"}.get(word, word) for word in unit]
        assert sorted(quadlet) == sorted(ours)
        assert quadlet[quadlet.index(IMAGE) :] == ours[ours.index(IMAGE) :]
        assert "Restart=on-failure" in units[name]


@pytest.mark.skipif(shutil.which("systemd-analyze") is None, reason="needs systemd-analyze; runs on hosts of systemd, as in CI")
def test_systemd_finds_nothing_wrong_with_a_unit(tmp_path):
    path = tmp_path / "shop.service"
    path.write_text(_quadlet.with_order(_quadlet.unit("shop", IMAGE, ALL, "/bin/true"), ["sha256:" + "0" * 64]))
    told = subprocess.run(["systemd-analyze", "verify", "--man=no", str(path)], stdout=subprocess.PIPE, stderr=subprocess.STDOUT)
    assert (told.returncode, told.stdout.decode()) == (0, "")


def test_the_order_of_images_is_read_again():
    digests = ["sha256:" + letter * 64 for letter in "abc"]
    content = _quadlet.with_order(_quadlet.quadlet("shop", IMAGE, NONE), digests)
    assert _quadlet.order(content) == digests
    assert _quadlet.images(content) == [IMAGE]


@pytest.mark.parametrize("content", [None, "", "[Container]\nImage=x\n", "# by hand\n" + _quadlet.HEAD + " sha256:" + "a" * 64])
def test_a_file_of_somebody_else_has_no_order(content):
    assert _quadlet.order(content) == []
