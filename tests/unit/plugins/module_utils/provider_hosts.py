# Copyright: onprem.rollout contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Hosts of every provider: files, btrfs (a real file system in an image), and command (shell scripts around rsync)."""

import os
import shutil
import tempfile
import time

import pytest

from ansible_collections.onprem.rollout.plugins.module_utils import _providers, _snapshot
from ansible_collections.onprem.rollout.tests.unit.plugins.module_utils.host_helpers import (
    Host,
    fingerprint,
    sh,
)

HOOKS = {
    "take": 'echo take >>"$store/log"; rm -rf "$copy" "$copy.sums"; rsync -aAXH "$tree/" "$copy/"; '
    'find "$copy" -type f -exec sha256sum {} + >"$copy.new"; mv "$copy.new" "$copy.sums"',
    "restore": 'echo restore >>"$store/log"; test -e "$copy.sums"; rsync -aAXH --checksum --delete "$copy/" "$tree/"',
    "drop": 'echo drop >>"$store/log"; test ! -e "$store/stuck" || { echo "the snapshot is open" >&2; exit 5; }; rm -rf "$copy" "$copy.sums"',
    "verify": 'sha256sum --quiet --check "$copy.sums" 2>/dev/null',
}


class Files:
    def __init__(self, place):
        self.host = Host(place)
        self.options = {"provider": "files", "provider_commands": {}}

    def left(self):
        """Everything that a snapshot needs, after all were dropped."""
        return [name for part in ("objects", "packs") for _top, _dirs, names in os.walk(os.path.join(self.host.state_dir, part)) for name in names]

    def damage(self):
        for top, _dirs, names in os.walk(os.path.join(self.host.state_dir, "packs")):
            for name in names:
                if name.endswith(".pack"):
                    overwrite(os.path.join(top, name))


class Btrfs(Files):
    def __init__(self, image):
        self.image = image
        self.top = tempfile.mkdtemp(dir=image.mount)
        os.rmdir(self.top)
        sh("btrfs", "subvolume", "create", self.top)
        super().__init__(self.top)
        self.options = {"provider": "btrfs", "provider_commands": {}}

    def left(self):
        hidden = [".onprem-rollout"] if os.path.exists(os.path.join(self.top, ".onprem-rollout")) else []
        return hidden + sh("btrfs", "subvolume", "list", "-o", self.top).split() + super().left()

    def damage(self):
        self.image.damage()


class Command(Files):
    def __init__(self, place):
        super().__init__(place)
        self.store = os.path.join(self.host.top, "store")
        os.mkdir(self.store)
        self.options = {"provider": "command", "provider_commands": {name: self.hook(text) for name, text in HOOKS.items()}}

    def hook(self, text):
        return ["sh", "-c", 'set -eu; tree=$1; store=$2; copy="$store/$ROLLOUT_SNAPSHOT"; ' + text, "sh", self.host.tree, self.store]

    def left(self):
        return [name for name in os.listdir(self.store) if name not in ("log", "stuck")] + super().left()

    def log(self):
        with open(os.path.join(self.store, "log"), encoding="ascii") as source:
            return source.read().split()

    def damage(self):
        for top, _dirs, names in os.walk(self.store):
            for name in names:
                if name == "big":
                    overwrite(os.path.join(top, name))


def overwrite(path):
    size = os.stat(path).st_size
    with open(path, "r+b") as out:
        out.write(b"?" * size)


def provider_of(kind, request, place):
    if kind == "btrfs":
        return Btrfs(request.getfixturevalue("image"))
    if kind == "command" and shutil.which("rsync") is None:
        pytest.skip("its scripts need rsync; runs in make test and CI")
    return (Command if kind == "command" else Files)(place)


def inside(host):
    found = fingerprint(host.tree)
    del found[os.fsencode(host.tree)]
    return found


def take(provider, name="s1", created="1"):
    host = provider.host
    how = _providers.Provider(provider.options["provider"], provider.options["provider_commands"])
    return _providers.take(host.state_dir, name, _snapshot.resolve(host.paths(), host.state_dir), created, provider=how)


def awaited(condition):
    deadline = time.monotonic() + 20
    while not condition():
        assert time.monotonic() < deadline
        time.sleep(0.02)
