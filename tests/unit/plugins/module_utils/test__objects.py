# Copyright: onprem.rollout contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

import hashlib
import os

from ansible_collections.onprem.rollout.plugins.module_utils import _objects, _snapshot, _tree
from ansible_collections.onprem.rollout.tests.unit.plugins.module_utils.host_helpers import write


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


def test_large_contents_are_received_together_once_each_and_nothing_stays_half_received(host, monkeypatch):
    monkeypatch.setattr(_objects, "INCOMING_COUNT", 3)
    for number in range(8):
        write(os.path.join(host.tree, f"app/data/large{number}"), b"%d" % (number % 5) * (_objects.SMALL + 1))
    os.makedirs(os.path.join(host.state_dir, "objects"))
    write(os.path.join(host.state_dir, "objects/incoming.7"), b"of a run that died")
    paths = _snapshot.resolve(host.paths(), host.state_dir)
    stored = _snapshot.take(host.state_dir, "s1", paths, "now").facts["stored"]
    loose = [name for _top, _dirs, names in os.walk(os.path.join(host.state_dir, "objects")) for name in names]
    assert [len(name) for name in loose] == [64] * 5
    assert stored == 74 + 5 * (_objects.SMALL + 1)
    assert _snapshot.verify(host.state_dir, "s1") == []
