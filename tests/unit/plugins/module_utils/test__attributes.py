# Copyright: onprem.rollout contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

import errno
import os

import pytest

from ansible_collections.onprem.rollout.plugins.module_utils import _putback, _snapshot
from ansible_collections.onprem.rollout.tests.unit.plugins.module_utils.host_helpers import fingerprint, write

LABEL, OTHER = b"system_u:object_r:httpd_sys_content_t:s0\0", b"unconfined_u:object_r:user_home_t:s0\0"


def label(path, value=LABEL):
    try:
        os.setxattr(path, "security.selinux", value, follow_symlinks=False)
    except OSError as error:
        if error.errno != errno.ENOTSUP:
            raise
        pytest.skip("this file system keeps no labels")


@pytest.mark.skipif(os.geteuid() != 0, reason="labels files as SELinux does; runs as root, as in make test and CI")
def test_selinux_labels_come_back_on_everything_that_has_one(tmp_path):
    """On a kernel without SELinux they are attributes like others, which is all that we do with them."""
    top, state = str(tmp_path / "tree"), str(tmp_path / "state")
    os.mkdir(top)
    names = {name: os.path.join(top, name) for name in ("file", "relabelled", "dir", "link", "pipe", "gone")}
    for name in ("file", "relabelled", "gone"):
        write(names[name], b"old")
    os.mkdir(names["dir"])
    os.symlink("file", names["link"])
    os.mkfifo(names["pipe"])
    for path in [top] + sorted(names.values()):
        label(path)
    before = fingerprint(top)
    snapshot = _snapshot.take(state, "s1", [os.fsencode(top)], "now")
    os.unlink(names["file"])
    write(names["file"], b"new")  # as a payload that writes anew: no label, or that of the directory
    for name in ("relabelled", "dir", "pipe"):
        label(names[name], OTHER)
    os.unlink(names["link"])
    os.symlink("dir", names["link"])
    os.unlink(names["gone"])
    assert {path: kind for kind, path in _putback.put_back(state, snapshot).listed} == {
        os.fsencode(path): kind
        for path, kind in (
            (top, "metadata"),
            (names["dir"], "metadata"),
            (names["relabelled"], "metadata"),
            (names["pipe"], "metadata"),
            (names["file"], "replaced"),
            (names["link"], "replaced"),
            (names["gone"], "created"),
        )
    }
    assert fingerprint(top) == before
