# Copyright: onprem.rollout contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Independent readers: what cp kept before any change, rsync, getfacl and getcap find again after the restore."""

import os
import shutil
import subprocess
import tempfile

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from ansible_collections.onprem.rollout.plugins.module_utils import _providers, _snapshot
from ansible_collections.onprem.rollout.tests.unit.plugins.module_utils.host_helpers import MEMORY, PACE, fingerprint, sh, write
from ansible_collections.onprem.rollout.tests.unit.plugins.module_utils.test__putback import CHANGES, NAMES, TREES, change, plant

LACKING = [name for name in ("rsync", "getfacl", "setfacl", "getcap", "setcap") if shutil.which(name) is None]
pytestmark = pytest.mark.skipif(
    os.geteuid() != 0 or bool(LACKING), reason="sets ACLs and capabilities; runs as root with acl, libcap2-bin and rsync, as in make test and CI"
)
MARKS = st.lists(
    st.tuples(st.sampled_from(["u:123:r", "g:456:rwx", "o::-", "cap_net_bind_service+ep", "cap_net_raw,cap_chown+eip"]), st.integers(0, 10**6)),
    max_size=6,
)


def mark(top, what, index):
    """Set an ACL or a capability on one of the paths there are, where it can have one."""
    paths = sorted(path for path in fingerprint(top) if not os.path.islink(path) and (os.path.isfile(path) or os.path.isdir(path)))
    path = paths[index % len(paths)]
    if not what.startswith("cap_"):
        sh("setfacl", "-m", what, path)
    elif os.path.isfile(path):
        sh("setcap", what, path)


def differences(copy, top):
    """What rsync would do to make the tree what the copy is."""
    lines = sh("rsync", "-naAXHc", "--delete", "--itemize-changes", copy + b"/", top + b"/").splitlines()
    return [line for line in lines if line.strip()]


def seen(top):
    """All ACLs and capabilities, whatever the order of the names in a directory."""
    acls = subprocess.run(["getfacl", "-R", "-P", "-n", "."], cwd=top, check=True, stdout=subprocess.PIPE).stdout
    capabilities = subprocess.run(["getcap", "-r", "."], cwd=top, check=True, stdout=subprocess.PIPE).stdout
    return sorted(acls.split(b"\n\n")), sorted(capabilities.splitlines())


def home(kind, request):
    if kind == "files":
        return tempfile.mkdtemp(dir=tempfile.gettempdir())
    place = tempfile.mkdtemp(dir=request.getfixturevalue("image").mount)
    os.rmdir(place)
    sh("btrfs", "subvolume", "create", place)
    return place


@pytest.mark.parametrize("kind", ["files", "btrfs"])
def test_the_readers_see_what_is_lost_and_that_it_comes_back(kind, request):
    place = home(kind, request)
    state, top, copy = tempfile.mkdtemp(dir=MEMORY), os.fsencode(place) + b"/tree", os.fsencode(place) + b"/copy"
    os.mkdir(top)
    for name in (b"acl", b"cap", b"content", b"first"):
        write(os.path.join(top, name), b"old")
    os.link(os.path.join(top, b"first"), os.path.join(top, b"linked"))
    sh("setfacl", "-m", "u:123:r", os.path.join(top, b"acl"))
    sh("setcap", "cap_net_raw+ep", os.path.join(top, b"cap"))
    sh("cp", "-a", top, copy)
    before = seen(top)
    snapshot = _providers.take(state, "s1", [top], "1", provider=_providers.Provider(kind, {}))
    assert differences(copy, top) == []
    sh("setfacl", "-b", os.path.join(top, b"acl"))
    sh("setcap", "-r", os.path.join(top, b"cap"))
    write(os.path.join(top, b"content"), b"new")
    sh("cp", "-a", "--remove-destination", os.path.join(copy, b"linked"), os.path.join(top, b"linked"))
    assert {line[11:].split()[0] for line in differences(copy, top)} >= {b"acl", b"cap", b"content", b"linked"}
    acls, capabilities = seen(top)
    assert acls != before[0]
    assert capabilities != before[1]
    _providers.put_back(state, snapshot)
    assert differences(copy, top) == []
    assert seen(top) == before
    assert _providers.drop(state, "s1")
    for path in (place, state):
        shutil.rmtree(path)


@pytest.mark.parametrize("kind", ["files", "btrfs"])
@settings(max_examples=20 // PACE, suppress_health_check=[HealthCheck.too_slow])
@given(old=st.dictionaries(NAMES, TREES, max_size=4), marks=MARKS, changes=CHANGES, others=MARKS)
def test_any_tree_comes_back_in_the_eyes_of_others(kind, request, old, marks, changes, others):
    place = home(kind, request)
    state = tempfile.mkdtemp(dir=MEMORY)
    try:
        top, copy = os.fsencode(place) + b"/tree", os.fsencode(place) + b"/copy"
        os.mkdir(top)
        for name, tree in old.items():
            plant(os.path.join(top, name), tree)
        for item in marks:
            mark(top, *item)
        sh("cp", "-a", top, copy)
        before = seen(top)
        snapshot = _providers.take(state, "s1", _snapshot.resolve([os.fsdecode(top)], state), "1", provider=_providers.Provider(kind, {}))
        for item in changes:
            change(top, *item)
        for item in others:
            mark(top, *item)
        _providers.put_back(state, snapshot)
        assert differences(copy, top) == []
        assert seen(top) == before
        assert _providers.drop(state, "s1")
    finally:
        for path in (place, state):
            shutil.rmtree(path, ignore_errors=True)
