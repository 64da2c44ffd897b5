# Copyright: onprem.rollout contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

import mmap
import os
import tempfile
import time

import pytest

from ansible_collections.onprem.rollout.plugins.module_utils import _capture, _putback, _snapshot
from ansible_collections.onprem.rollout.tests.unit.plugins.module_utils.host_helpers import write


def notices(place):
    """Whether this file system ever gives a file another time for what is written through a mapping; those in memory do not."""
    with open(place, "r+b") as source, mmap.mmap(source.fileno(), 0) as mapped:
        before = os.fstat(source.fileno()).st_ctime_ns
        mapped.flush()
        os.fsync(source.fileno())
        time.sleep(0.02)
        mapped[0:1] = b"-"
        return os.fstat(source.fileno()).st_ctime_ns != before


def test_what_a_program_writes_through_a_mapping_is_noticed():
    with tempfile.TemporaryDirectory(dir="/var/tmp") as top:
        database, other = os.path.join(top, "database"), os.path.join(top, "other")
        for place in (database, other):
            write(place, b"." * 4096)
        if not notices(other):
            pytest.skip("/var/tmp is in memory")
        with open(database, "r+b") as source, mmap.mmap(source.fileno(), 0) as mapped:
            mapped[0:3] = b"old"
            time.sleep(2 * _capture.TICK / 1e9)
            snapshot = _snapshot.take(os.path.join(top, "state"), "s1", [os.fsencode(database)], "now")
            mapped[0:3] = b"new"
            _putback.put_back(os.path.join(top, "state"), snapshot)
        with open(database, "rb") as source:
            assert source.read(4) == b"old."
