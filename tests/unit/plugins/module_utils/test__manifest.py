# Copyright: onprem.rollout contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

import base64
import os

from ansible_collections.onprem.rollout.plugins.module_utils import _snapshot
from ansible_collections.onprem.rollout.tests.unit.plugins.module_utils.host_helpers import write


def test_each_file_has_its_own_attributes_whatever_the_one_before_it_has(host):
    wanted = {"a": b"one", "b": b"one", "c": None, "d": b"two", "e": None}
    for name, value in wanted.items():
        path = os.path.join(host.tree, "app/data", "x" + name)
        write(path, name.encode())
        if value:
            os.setxattr(path, "user.rollout", value)
    snapshot = _snapshot.take(host.state_dir, "s1", _snapshot.resolve(host.paths(), host.state_dir), "now")
    found = {os.path.basename(path): entry.get("xattrs") for path, entry in snapshot.entries()}
    given = {name: {"user.rollout": base64.b64encode(value).decode()} if value else None for name, value in wanted.items()}
    assert {name: found[b"x" + name.encode()] for name in wanted} == given
