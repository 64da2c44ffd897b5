# Copyright: onprem.rollout contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""What the tests of the host transaction share: a tree to upgrade, and a second pair of eyes that looks at it.

Nothing here uses the code under test to judge it: fingerprint() is os.walk, lstat and hashlib.
"""

import codecs
import hashlib
import json
import os
import stat
import subprocess
import sys

from ansible_collections.onprem.rollout.plugins.module_utils import _begin, _commit, _restore, _revert, _timer, _transaction

RUN = {"run": "controller-1", "controller": "controller", "pid": 1, "user": "tester", "job": None}
OTHER = {"run": "controller-2", "controller": "elsewhere", "pid": 2, "user": "somebody", "job": None}
MEMORY = "/dev/shm" if os.access("/dev/shm", os.W_OK) else None  # for tests that wait for a disk thousands of times
PACE = 3 if sys.version_info < (3, 7) else 1  # every step and example is played on one Python; the oldest shows that it goes the same ways
UNIQUE = b"one of a kind: 5d2c9b0e "
OLD = {"name": "shop", "version": "1.0", "digest": "1" * 64}
NEW = {"name": "shop", "version": "2.0", "digest": "2" * 64}


def fingerprint(top):
    """Every path below a directory (or the one file) with all that must come back: type, mode, owner, time, xattrs, links, content."""
    top = os.fsencode(top)
    found, links = {}, {}
    queue = [top]
    while queue:
        path = queue.pop()
        try:
            status = os.lstat(path)
        except FileNotFoundError:
            continue
        facts = [stat.S_IFMT(status.st_mode), stat.S_IMODE(status.st_mode), status.st_uid, status.st_gid, status.st_mtime_ns, status.st_rdev]
        facts.append(tuple((name, os.getxattr(path, name, follow_symlinks=False)) for name in sorted(os.listxattr(path, follow_symlinks=False))))
        if status.st_nlink > 1 and not stat.S_ISDIR(status.st_mode):
            links.setdefault((status.st_dev, status.st_ino), []).append(path)
        if stat.S_ISREG(status.st_mode):
            with open(path, "rb") as source:
                facts.append(hashlib.sha256(source.read()).hexdigest())
        elif stat.S_ISLNK(status.st_mode):
            facts.append(os.readlink(path))
        elif stat.S_ISDIR(status.st_mode):
            queue.extend(os.path.join(path, name) for name in os.listdir(path))
        found[path] = tuple(facts)
    for paths in links.values():
        for path in paths:
            found[path] += (tuple(sorted(paths)),)
    return found


def write(path, content, mode=0o644):
    with open(path, "wb") as out:
        out.write(content)
    os.chmod(path, mode)


def plant(top):
    """The old tree: what a small service looks like, with the things that are easily lost."""
    for name in ("app", "app/releases", "app/releases/1.0", "app/data", "app/empty", "app/locked"):
        os.mkdir(os.path.join(top, name))
    write(os.path.join(top, "app/releases/1.0/server"), b"#!/bin/sh\necho 1.0\n", 0o755)
    write(os.path.join(top, "app/releases/1.0/helper"), b"setuid\n", 0o4750)
    write(os.path.join(top, "app/data/config"), b"version=1.0\n", 0o640)
    write(os.path.join(top, "app/data/same"), b"not changed\n", 0o600)
    write(os.path.join(os.fsencode(top), b"app/data/caf\xe9"), b"latin1\n")
    write(os.path.join(top, "app/locked/key"), b"secret\n", 0o400)
    os.symlink("releases/1.0", os.path.join(top, "app/current"))
    os.symlink("/nowhere/at/all", os.path.join(top, "app/dangling"))
    write(os.path.join(top, "unit"), b"[Service]\n")
    os.chmod(os.path.join(top, "app/locked"), 0o555)
    for number, path in enumerate(sorted(fingerprint(top), reverse=True)):
        os.utime(path, ns=(10**18 + number, 10**18 + number * 1001), follow_symlinks=False)


def upgrade(top):
    """What a payload might do: every kind of change there is."""
    os.chmod(os.path.join(top, "app/locked"), 0o755)
    os.mkdir(os.path.join(top, "app/releases/2.0"))
    write(os.path.join(top, "app/releases/2.0/server"), b"#!/bin/sh\necho 2.0\n", 0o755)
    os.symlink("/etc", os.path.join(top, "app/releases/2.0/etc"))
    os.unlink(os.path.join(top, "app/current"))
    os.symlink("releases/2.0", os.path.join(top, "app/current"))
    write(os.path.join(top, "app/data/config"), b"version=2.0\n", 0o600)  # same size
    os.unlink(os.path.join(os.fsencode(top), b"app/data/caf\xe9"))
    os.rmdir(os.path.join(top, "app/empty"))
    write(os.path.join(top, "app/empty"), b"a file where a directory was\n")
    os.unlink(os.path.join(top, "app/dangling"))
    os.mkdir(os.path.join(top, "app/dangling"))
    write(os.path.join(top, "app/dangling/inside"), b"a directory where a link was\n")
    os.unlink(os.path.join(top, "app/releases/1.0/helper"))
    os.mkdir(os.path.join(top, "app/releases/1.0/helper"))
    os.unlink(os.path.join(top, "app/locked/key"))
    write(os.path.join(top, "unit"), b"[Service]\nType=exec\n", 0o600)
    os.makedirs(os.path.join(top, "new/etc"))
    write(os.path.join(top, "new/etc/conf"), b"was absent\n")


class Host:
    """A host in a temporary directory, with a clock that stands still and checks that say what they are told."""

    def __init__(self, top):
        self.top = str(top)
        self.state_dir = os.path.join(self.top, "state")
        self.tree = os.path.join(self.top, "tree")
        self.now = 1700000000.0
        self.healthy = True
        self.commands = []
        self.checked = []
        if not os.path.isdir(self.tree):
            os.mkdir(self.tree)
            plant(self.tree)

    def clock(self):
        return self.now

    def check(self, checks):
        self.checked.append(checks)
        result = {"name": "http", "type": "http", "level": "required", "seen": "500", "expected": "200", "seconds": 0.1, "attempts": 1}
        return [dict(result, ok=self.healthy) for _check in checks]

    def command(self, argv, _timeout):
        self.commands.append(argv)
        return 0, "ActiveState=active\nNeedDaemonReload=no\n" if argv[3:4] == ["show"] else ""

    def paths(self):
        return [os.path.join(self.tree, name) for name in ("app", "unit", "new/etc/conf")]

    def begin(self, check_mode=False, **options):
        base = {
            "state_dir": self.state_dir,
            "rollout": "r1",
            "release": NEW,
            "holder": RUN,
            "paths": self.paths(),
            "packages": [],
            "package_manager": "auto",
            "services": [],
            "restart": ["restart-it"],
            "checks": [{"type": "file", "path": "/"}],
            "min_free": 0,
            "lease": 600,
            "keep": 3,
            "keep_days": 0,
            "keep_bytes": 0,
            "exclude": [],
            "cross_mounts": False,
            "immutable": "refuse",
            "provider": "files",
            "provider_commands": {},
            "revert_after": 0,
            "payload_timeout": 0,
            "quarantine": 7 * 86400,
        }
        base.update(options)
        return _begin.begin(base, check_mode, self.clock, self.check, self.command)

    def verifying(self, holder=RUN):
        return _transaction.verifying(self.state_dir, holder, self.clock)

    def retrying(self, holder=RUN, wait=0):
        return _transaction.retrying(self.state_dir, holder, self.clock, wait=wait)

    def awaiting_commit(self, holder=RUN):
        return _transaction.awaiting_commit(self.state_dir, holder, self.clock)

    def commit(self, holder=RUN, check_mode=False, **options):
        return _commit.commit(self.state_dir, holder, 0, check_mode, self.clock, self.check, command=self.command, **options)

    def restore(self, run="controller-1", **options):
        return _restore.restore(self.state_dir, run, clock=self.clock, check=self.check, command=self.command, **options)

    def revert(self, later=0):
        """What the timer does when it fires, as if so many seconds had gone by."""
        return _revert.revert(self.state_dir, lambda: self.now + later, lambda: _timer.boottime() + later, self.check, self.command)

    def record(self):
        with open(os.path.join(self.state_dir, "record.json"), encoding="utf-8") as source:
            return json.load(source)

    def phase(self):
        return self.record()["transaction"]["phase"]


def as_nobody(top, action):
    """Run C(action) without root, in a process of its own; its exception text, or an empty text."""
    if os.geteuid() != 0:
        action()
        return ""
    for path in fingerprint(top):
        status = os.lstat(path)
        os.chown(path, 65534, 65534, follow_symlinks=False)
        if not stat.S_ISLNK(status.st_mode):
            os.chmod(path, stat.S_IMODE(status.st_mode))  # chown took the setuid bit away
    reader, writer = os.pipe()
    codecs.lookup("ascii")  # nobody may not be able to read the Python that runs the tests
    pid = os.fork()
    if pid == 0:
        message = "the child died"
        try:
            os.setgroups([])
            os.setgid(65534)
            os.setuid(65534)
            action()
            message = ""
        except BaseException as error:
            message = f"{type(error).__name__}: {error}"
        finally:
            os.write(writer, message.encode("utf-8", "backslashreplace"))
            os._exit(0)
    os.close(writer)
    with os.fdopen(reader, "rb") as source:
        message = source.read().decode("utf-8")
    os.waitpid(pid, 0)
    return message


def sh(*argv):
    return subprocess.run(argv, check=True, stdout=subprocess.PIPE, stderr=subprocess.STDOUT).stdout


class Image:
    """A btrfs of its own, whose disk can be damaged."""

    def __init__(self, place):
        self.file, self.mount = os.path.join(place, "image"), os.path.join(place, "mount")
        os.mkdir(self.mount)
        with open(self.file, "wb") as out:
            out.truncate(200 * 1024 * 1024)
        sh("mkfs.btrfs", "-q", self.file)
        sh("mount", "-o", "loop", self.file, self.mount)

    def damage(self):
        sh("umount", self.mount)
        found = 0
        with open(self.file, "r+b") as image:
            content = image.read()
            while content.find(UNIQUE, found) >= 0:
                found = content.find(UNIQUE, found) + 1
                image.seek(found - 1)
                image.write(b"?" * len(UNIQUE))
        if not found:
            raise RuntimeError("the content is not on the disk")
        sh("mount", "-o", "loop", self.file, self.mount)


def park(host):
    """Bring a host to where it waits for its commit."""
    host.begin()
    upgrade(host.tree)
    host.verifying()
    host.awaiting_commit()
