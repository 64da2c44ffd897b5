# Copyright: onprem.rollout contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

import os
import shutil
import socket
import subprocess

import pytest

from ansible_collections.onprem.rollout.plugins.module_utils import _capture, _putback, _snapshot
from ansible_collections.onprem.rollout.tests.unit.plugins.module_utils.host_helpers import fingerprint, write


class Tree:
    def __init__(self, top):
        self.state, self.top = str(top / "state"), str(top / "tree")
        os.mkdir(self.top)

    def __truediv__(self, name):
        return os.path.join(self.top, name)

    def take(self):
        return _snapshot.take(self.state, "s1", [os.fsencode(self.top)], "now", _capture.Rules(immutable="lift"))

    def linked_twins(self):
        """Two files of two names each, that differ in nothing but that."""
        for name in ("a", "b"):
            write(self / name, b"content")
            os.utime(self / name, ns=(10**18, 10**18))
            os.link(self / name, self / (name + ".too"))


@pytest.fixture
def tree(tmp_path):
    return Tree(tmp_path)


def test_files_that_became_one_file_are_two_again(tree):
    tree.linked_twins()
    before = fingerprint(tree.top)
    snapshot = tree.take()
    for name in ("b", "b.too"):
        os.unlink(tree / name)
        os.link(tree / "a", tree / name)
    assert fingerprint(tree.top) != before
    assert [os.path.basename(path) for kind, path in _putback.preview(snapshot).listed if kind == "replaced"] == [b"b"]
    _putback.put_back(tree.state, snapshot)
    assert fingerprint(tree.top) == before
    assert _putback.preview(snapshot).listed == []


def listen(tree, name):
    here = os.getcwd()
    os.chdir(tree.top)  # the path of a socket has little room
    try:
        with socket.socket(socket.AF_UNIX) as listener:
            listener.bind(name)
    finally:
        os.chdir(here)


@pytest.mark.parametrize("make", [lambda path: write(path, b"new"), os.mkdir])
def test_what_took_the_place_of_a_socket_goes_and_a_new_socket_stays(tree, make):
    listen(tree, "replaced")
    listen(tree, "renewed")
    snapshot = tree.take()
    for name in ("replaced", "renewed"):
        os.unlink(tree / name)
    make(tree / "replaced")
    listen(tree, "renewed")
    _putback.put_back(tree.state, snapshot)
    assert os.listdir(tree.top) == ["renewed"]
    assert _putback.preview(snapshot).listed == []


def flagged(*paths):
    shown = subprocess.run(["lsattr", *paths], check=True, stdout=subprocess.PIPE).stdout.decode().splitlines()
    return ["i" in line.split()[0] for line in shown]


@pytest.mark.skipif(os.geteuid() != 0 or shutil.which("chattr") is None, reason="sets the immutable flag; runs as root, as in make test and CI")
@pytest.mark.parametrize("changed", [["a"], ["a.too"], ["a", "a.too"]])
def test_an_immutable_file_of_two_names_comes_back_with_both(tree, changed):
    tree.linked_twins()
    subprocess.run(["chattr", "+i", tree / "a"], check=True)
    before = fingerprint(tree.top)
    snapshot = tree.take()
    try:
        subprocess.run(["chattr", "-i", tree / "a"], check=True)
        for name in changed:
            os.unlink(tree / name)
        subprocess.run(["chattr", "+i"] + [tree / name for name in ("a", "a.too") if name not in changed] + [tree.top], check=True)
        _putback.put_back(tree.state, snapshot)
        assert fingerprint(tree.top) == before
        assert flagged(tree / "a", tree / "a.too", tree / "b") == [True, True, False]
    finally:
        subprocess.run(["chattr", "-R", "-i", tree.top], check=False)
