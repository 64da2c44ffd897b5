# Copyright: onprem.rollout contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Fixtures of the tests of on-host code."""

import os
import shutil
import tempfile

import pytest

from ansible_collections.onprem.rollout.tests.unit.plugins.module_utils.host_helpers import MEMORY, Host, Image, sh
from ansible_collections.onprem.rollout.tests.unit.plugins.module_utils.provider_hosts import provider_of


@pytest.fixture
def host(tmp_path):
    """A planted host whose record does not exist yet."""
    return Host(tmp_path)


@pytest.fixture(scope="session")
def image():
    """A btrfs, mounted while tests run."""
    lacking = [name for name in ("mkfs.btrfs", "btrfs") if shutil.which(name) is None]
    if os.geteuid() != 0 or lacking:
        pytest.skip("mounts a btrfs; runs as root with btrfs-progs, as in make test and CI")
    place = tempfile.mkdtemp(dir=MEMORY)
    made = Image(place)
    yield made
    sh("umount", made.mount)
    shutil.rmtree(place)


@pytest.fixture
def place():
    made = tempfile.mkdtemp(dir=MEMORY)
    yield made
    shutil.rmtree(made)


@pytest.fixture(params=["files", "btrfs", "command"])
def provider(request, place):
    return provider_of(request.param, request, place)


@pytest.fixture
def btrfs(request, place):
    return provider_of("btrfs", request, place)


@pytest.fixture
def command(request, place):
    return provider_of("command", request, place)
