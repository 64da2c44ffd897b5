# Copyright: onprem.rollout contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

import hashlib
import os

from ansible_collections.onprem.rollout.plugins.module_utils import _objects, _tree


def test_a_large_file_that_grows_as_fast_as_it_is_read_is_given_up(tmp_path):
    with _objects.Objects(str(tmp_path)) as objects, open("/dev/zero", "rb") as endless:
        objects.prepare()
        assert objects.add_file(endless.fileno()) == hashlib.sha256(bytes(_tree.CHUNK)).hexdigest()


def test_a_pack_whose_index_cannot_be_read_stays(tmp_path):
    with _objects.Objects(str(tmp_path)) as objects:
        objects.prepare()
        objects.add(b"content")
        objects.finish()
    packs = tmp_path / "packs"
    (index,) = packs.glob("*.index")
    os.truncate(str(index), 3)
    with _objects.Objects(str(tmp_path)) as objects:
        assert len(objects.broken) == 1
        objects.sweep([])
    assert sorted(path.suffix for path in packs.iterdir()) == [".index", ".pack"]
