# Copyright: onprem.rollout contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Real tarballs, good and hostile. Runs on Python 3.6 too, as the code does."""

import hashlib
import io
import os
import stat
import tarfile

import pytest

from ansible_collections.onprem.rollout.plugins.module_utils import _unpack
from ansible_collections.onprem.rollout.plugins.module_utils._errors import Refused, RolloutError

KINDS = {
    "file": tarfile.REGTYPE,
    "dir": tarfile.DIRTYPE,
    "link": tarfile.SYMTYPE,
    "hard": tarfile.LNKTYPE,
    "char": tarfile.CHRTYPE,
    "block": tarfile.BLKTYPE,
    "fifo": tarfile.FIFOTYPE,
    "odd": b"Z",
}


def tarball(path, members, mode="w:gz", form=tarfile.GNU_FORMAT):
    """Write a tarball of (kind, name, content or target, and whatever else to set)."""
    with tarfile.open(str(path), mode, format=form) as tar:
        for kind, name, content, *more in members:
            info = tarfile.TarInfo(name)
            info.type, info.mode, info.mtime = KINDS[kind], 0o644, 1000000000
            for key, value in dict(*more).items():
                setattr(info, key, value)
            if kind in ("link", "hard"):
                info.linkname = content
                tar.addfile(info)
            elif kind == "file":
                data = content.encode() if isinstance(content, str) else content
                info.size = len(data)
                tar.addfile(info, io.BytesIO(data))
            else:
                tar.addfile(info)
    return path


def unpack(path, directory, **options):
    with open(str(path), "rb") as source:
        members = _unpack.plan(source, **options)
        _unpack.write(source, members, os.fsencode(str(directory)))


def look(directory):
    """What is there: name -> content, link target, or None for a directory."""
    found = {}
    for place, directories, files in os.walk(str(directory)):
        for name in directories + files:
            path = os.path.join(place, name)
            key = os.path.relpath(path, str(directory))
            if os.path.islink(path):
                found[key] = "-> " + os.readlink(path)
            elif os.path.isdir(path):
                found[key] = None
            else:
                with open(path) as source:
                    found[key] = source.read()
    return found


GOOD = [
    ("a file", [("file", "a", "1")], 0, {"a": "1"}),
    ("an empty file", [("file", "a", "")], 0, {"a": ""}),
    ("parents that the archive leaves out", [("file", "x/y/a", "1")], 0, {"x": None, "x/y": None, "x/y/a": "1"}),
    ("a leading ./", [("dir", "./", None), ("file", "./a", "1")], 0, {"a": "1"}),
    ("a directory twice", [("dir", "x", None), ("file", "x/a", "1"), ("dir", "x/", None)], 0, {"x": None, "x/a": "1"}),
    ("a directory after what is in it", [("file", "x/a", "1"), ("dir", "x", None, {"mode": 0o500})], 0, {"x": None, "x/a": "1"}),
    ("a link inside", [("file", "x/a", "1"), ("link", "b", "x/a")], 0, {"x": None, "x/a": "1", "b": "-> x/a"}),
    ("a link up, but inside", [("dir", "x/y", None), ("link", "x/y/b", "../../c")], 0, {"x": None, "x/y": None, "x/y/b": "-> ../../c"}),
    ("a link to the root", [("link", "x/self", "..")], 0, {"x": None, "x/self": "-> .."}),
    (
        "a link through a link, inside",
        [("dir", "x/y", None), ("link", "d", "x/y"), ("link", "e", "d/../a")],
        0,
        {"x": None, "x/y": None, "d": "-> x/y", "e": "-> d/../a"},
    ),
    ("a hard link", [("file", "a", "1"), ("hard", "x/b", "a")], 0, {"a": "1", "x": None, "x/b": "1"}),
    ("a hard link to a hard link", [("file", "a", "1"), ("hard", "b", "a"), ("hard", "c", "./b")], 0, {"a": "1", "b": "1", "c": "1"}),
    ("strip", [("dir", "top", None), ("file", "top/a", "1"), ("hard", "top/b", "top/a"), ("file", "README", "r")], 1, {"a": "1", "b": "1"}),
    ("a long name", [("file", "n" * 200 + "/" + "m" * 200, "1")], 0, {"n" * 200: None, "n" * 200 + "/" + "m" * 200: "1"}),
    ("dots that are no parents", [("file", "..a/b..", "1")], 0, {"..a": None, "..a/b..": "1"}),
]


@pytest.mark.parametrize("form", [tarfile.GNU_FORMAT, tarfile.PAX_FORMAT], ids=["gnu", "pax"])
@pytest.mark.parametrize("members, strip, expected", [case[1:] for case in GOOD], ids=[case[0] for case in GOOD])
def test_good(tmp_path, members, strip, expected, form):
    unpack(tarball(tmp_path / "t", members, form=form), tmp_path / "out", strip=strip)
    assert look(tmp_path / "out") == expected


BAD = [
    ("an absolute name", [("file", "/etc/x", "1")], {}, "'/etc/x', which leads out"),
    ("a name with ..", [("file", "../x", "1")], {}, "'../x', which leads out"),
    ("a name with .. in the middle", [("file", "a/../../x", "1")], {}, "which leads out"),
    ("a directory with ..", [("dir", "a/..", None)], {}, "which leads out"),
    ("a .. that strip would drop", [("file", "../x", "1")], {"strip": 1}, "which leads out"),
    ("an absolute link", [("link", "a", "/etc")], {}, "the link 'a', which leads out"),
    ("a link up and out", [("link", "a", "../x")], {}, "the link 'a', which leads out"),
    ("a link out by far", [("link", "x/a", "../../../etc")], {}, "the link 'x/a', which leads out"),
    ("a link that strip moves out", [("link", "top/a", "../b")], {"strip": 1}, "the link 'a', which leads out"),
    ("an empty link", [("link", "a", "")], {}, "the link 'a', which leads out"),
    ("a link out through a link that looks harmless", [("link", "x/y/d", "../.."), ("link", "e", "x/y/d/../z")], {}, "the link 'e', which leads out"),
    ("the same, the other way round", [("link", "e", "x/y/d/../z"), ("link", "x/y/d", "../..")], {}, "the link 'e', which leads out"),
    ("links in a circle", [("link", "a", "b"), ("link", "b", "a")], {}, "leads through more than 40 links"),
    ("a file through a link", [("link", "d", "x"), ("file", "d/a", "1")], {}, "'d/a', which would be written through the link 'd'"),
    ("a file through a link that comes later", [("file", "d/a", "1"), ("link", "d", "x")], {}, "written through the link 'd'"),
    ("a link through a link", [("link", "d", "x"), ("link", "d/a", "b")], {}, "written through the link 'd'"),
    ("a file inside a file", [("file", "d", "1"), ("file", "d/a", "1")], {}, "written through the file 'd'"),
    ("a file instead of a link", [("link", "a", "b"), ("file", "a", "1")], {}, "'a' twice"),
    ("a link instead of a file", [("file", "a", "1"), ("link", "./a", "b")], {}, "'a' twice"),
    ("a link instead of a directory", [("dir", "a", None), ("link", "a/", "b")], {}, "'a' twice"),
    ("a hard link out", [("hard", "a", "/etc/passwd")], {}, "the hard link 'a' to '/etc/passwd', which leads out"),
    ("a hard link up", [("hard", "a", "../x")], {}, "the hard link 'a' to '../x', which leads out"),
    ("a hard link to nothing", [("hard", "a", "b")], {}, "no file earlier in the archive"),
    ("a hard link to what comes later", [("hard", "a", "b"), ("file", "b", "1")], {}, "no file earlier in the archive"),
    ("a hard link to a link", [("link", "b", "c"), ("hard", "a", "b")], {}, "no file earlier in the archive"),
    ("a hard link to what strip drops", [("file", "b", "1"), ("hard", "top/a", "b")], {"strip": 1}, "no file earlier in the archive"),
    ("a character device", [("char", "null", None, {"devmajor": 1, "devminor": 3})], {}, "'null', which is a device"),
    ("a block device", [("block", "sda", None, {"devmajor": 8})], {}, "'sda', which is a device"),
    ("a FIFO", [("fifo", "p", None)], {}, "'p', which is a FIFO"),
    ("nothing", [], {}, "nothing to unpack"),
    ("nothing after strip", [("file", "a", "1")], {"strip": 1}, "nothing to unpack after strip=1"),
    ("too many bytes", [("file", "a", "x" * 600), ("file", "b", "x" * 401)], {"max_bytes": 1000}, "more than 1000 bytes"),
    ("too many members", [("file", str(number), "") for number in range(4)], {"max_members": 3}, "more than 3 members"),
]


@pytest.mark.parametrize("members, options, expected", [case[1:] for case in BAD], ids=[case[0] for case in BAD])
def test_refused_before_anything_is_written(tmp_path, members, options, expected):
    archive = tarball(tmp_path / "t", [("file", "first", "1")] * bool(members and not options) + members)
    with pytest.raises(Refused) as caught:
        unpack(archive, tmp_path / "out", **options)
    assert expected in str(caught.value)
    assert caught.value.reason == "bad_archive"
    assert os.listdir(str(tmp_path)) == ["t"]


def test_just_small_enough(tmp_path):
    unpack(tarball(tmp_path / "t", [("file", "a", "x" * 600), ("file", "b", "x" * 400)]), tmp_path / "out", max_bytes=1000, max_members=2)
    assert sorted(look(tmp_path / "out")) == ["a", "b"]


@pytest.mark.parametrize("mode", ["w", "w:gz", "w:bz2", "w:xz"])
def test_compressions(tmp_path, mode):
    unpack(tarball(tmp_path / "t", [("file", "a", "x" * 3000000)], mode), tmp_path / "out")
    assert os.path.getsize(str(tmp_path / "out" / "a")) == 3000000


def test_modes_and_times(tmp_path):
    old = os.umask(0o077)
    try:
        archive = tarball(
            tmp_path / "t",
            [
                ("file", "x/plain", "1"),
                ("file", "suid", "1", {"mode": 0o6777}),
                ("file", "secret", "1", {"mode": 0o040}),
                ("dir", "locked", None, {"mode": 0o1000}),
                ("file", "ancient", "1", {"mtime": 0}),
            ],
        )
        unpack(archive, tmp_path / "out")
    finally:
        os.umask(old)
    modes = {name: stat.S_IMODE(os.stat(str(tmp_path / "out" / name)).st_mode) for name in ["", "x"] + sorted(look(tmp_path / "out"))}
    assert modes == {
        "": 0o755,
        "x": 0o755,
        "x/plain": 0o644,
        "suid": 0o755,
        "secret": 0o640,
        "locked": 0o700,
        "ancient": 0o644,
    }
    assert os.stat(str(tmp_path / "out" / "x" / "plain")).st_mtime == 1000000000
    assert os.stat(str(tmp_path / "out" / "ancient")).st_mtime == 0


@pytest.mark.parametrize("mtime, expected", [("nan", 0), ("inf", 0), ("-5", 0), ("1e300", 2**33), ("1.5", 1)])
def test_strange_times_of_pax_headers(tmp_path, mtime, expected):
    unpack(tarball(tmp_path / "t", [("file", "a", "1", {"pax_headers": {"mtime": mtime}})], form=tarfile.PAX_FORMAT), tmp_path / "out")
    assert os.stat(str(tmp_path / "out" / "a")).st_mtime == expected


def test_names_that_are_not_utf_8(tmp_path):
    unpack(tarball(tmp_path / "t", [("file", "caf\udce9", "1")], form=tarfile.GNU_FORMAT), tmp_path / "out")
    assert os.listdir(os.fsencode(str(tmp_path / "out"))) == [b"caf\xe9"]


def test_a_sparse_file_counts_as_it_will_be(tmp_path):
    # tarfile cannot write sparse files: this is a GNU 1.0 sparse file of 1 TiB whose only data is a map of one byte
    headers = {"GNU.sparse.major": "1", "GNU.sparse.minor": "0", "GNU.sparse.name": "a", "GNU.sparse.realsize": str(2**40)}
    data = b"1\n0\n1\n".ljust(512, b"\0") + b"x".ljust(512, b"\0")
    archive = tarball(tmp_path / "t", [("file", "GNUSparseFile.0/a", data, {"pax_headers": headers})], form=tarfile.PAX_FORMAT)
    with pytest.raises(Refused) as caught:
        unpack(archive, tmp_path / "out")
    assert "more than 8589934592 bytes" in str(caught.value)


def test_a_header_of_megabytes_is_not_read(tmp_path):
    archive = tarball(tmp_path / "t", [("file", "a", "1", {"pax_headers": {"comment": "x" * 3000000}})], form=tarfile.PAX_FORMAT)
    with pytest.raises(Refused) as caught:
        unpack(archive, tmp_path / "out")
    assert "a header of 3000" in str(caught.value)


def test_a_bomb_is_found_before_it_is_decompressed(tmp_path):
    """Judged by its header alone: the rest of this archive is missing, and whoever reads on finds that out."""
    archive = tarball(tmp_path / "t", [("file", "a", b"\0" * 64 * 1024 * 1024)])
    archive.write_bytes(_cut(archive.read_bytes()))
    with open(str(archive), "rb") as source, pytest.raises(Refused) as caught:
        _unpack.plan(source, max_bytes=1024 * 1024)
    assert "more than 1048576 bytes" in str(caught.value)


def _cut(data):
    return data[: len(data) // 2]


BROKEN = [
    ("no archive", "w", lambda data: b"hello, world\n" * 100),
    ("empty", "w", lambda data: b""),
    ("zstd", "w", lambda data: b"\x28\xb5\x2f\xfd" + data),
    ("cut tar", "w", _cut),
    ("cut gzip", "w:gz", _cut),
    ("cut bzip2", "w:bz2", _cut),
    ("cut xz", "w:xz", _cut),
]


@pytest.mark.parametrize("mode, damage", [case[1:] for case in BROKEN], ids=[case[0] for case in BROKEN])
def test_broken(tmp_path, mode, damage):
    archive = tarball(tmp_path / "t", [("file", "a", os.urandom(50000)), ("file", "b", os.urandom(50000))], mode)
    archive.write_bytes(damage(archive.read_bytes()))
    with pytest.raises(RolloutError) as caught:
        unpack(archive, tmp_path / "out")
    assert "The archive cannot be read" in str(caught.value) or "nothing to unpack" in str(caught.value)


DECLARED = [
    ("good", 5, hashlib.sha256(b"hello").hexdigest(), None, None),
    ("too short", 6, hashlib.sha256(b"hello").hexdigest(), "size", "has 5 bytes, but its release declares 6"),
    ("too long", 4, hashlib.sha256(b"hello").hexdigest(), "size", "has 5 bytes, but its release declares 4"),
    ("another", 5, "0" * 64, "digest", "has SHA-256 {0}, but its release declares {1}".format(hashlib.sha256(b"hello").hexdigest(), "0" * 64)),
]


@pytest.mark.parametrize("size, sha256, reason, message", [case[1:] for case in DECLARED], ids=[case[0] for case in DECLARED])
def test_open_verified(tmp_path, size, sha256, reason, message):
    path = tmp_path / "artifact"
    path.write_bytes(b"hello")
    if reason is None:
        with _unpack.open_verified(str(path), size, sha256) as source:
            assert source.read() == b"hello"
        return
    with pytest.raises(RolloutError) as caught:
        _unpack.open_verified(str(path), size, sha256)
    assert caught.value.reason == reason
    assert str(path) in str(caught.value)
    assert message in str(caught.value)


def test_open_verified_names_what_is_missing(tmp_path):
    with pytest.raises(RolloutError) as caught:
        _unpack.open_verified(str(tmp_path / "gone"), 1, "0" * 64)
    assert "gone cannot be read: No such file" in str(caught.value)
