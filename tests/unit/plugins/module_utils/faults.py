# Copyright: onprem.rollout contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Faults at every step: the k-th call that changes a file system is the last one, or fails.

The product code has no hooks for this. What is replaced are the functions through which all its changes go, and the start of programs.
"""

import contextlib
import errno
import fcntl
import os
import subprocess

from ansible_collections.onprem.rollout.plugins.module_utils import _btrfs

CALLS = ("replace", "rename", "fsync", "unlink", "rmdir", "mkdir", "symlink", "write", "ftruncate", "fchmod", "chmod", "chown", "utime")
KILLED = 77
PLACES = [(os, name) for name in CALLS] + [(fcntl, "ioctl"), (subprocess, "Popen")]
IOCTLS = (_btrfs.SNAPSHOT, _btrfs.DESTROY)


@contextlib.contextmanager
def hooked(before):
    """Call C(before(name, arguments)) before each changing call; what it returns, if anything, replaces the call."""
    originals = {name: getattr(module, name) for module, name in PLACES}

    def hook(name):
        def call(*arguments, **options):
            if name == "ioctl" and arguments[1] not in IOCTLS:
                return originals[name](*arguments, **options)
            instead = before(name, arguments, options)
            return originals[name](*arguments, **options) if instead is None else instead

        return call

    for module, name in PLACES:
        setattr(module, name, hook(name))
    try:
        yield originals
    finally:
        for module, name in PLACES:
            setattr(module, name, originals[name])


def killed_at(step, action):
    """Run C(action) in a process of its own that dies at the changing call number C(step). Whether it died there."""
    pid = os.fork()
    if pid == 0:
        code = 1
        try:
            count = [0]

            def before(name, arguments, _options):
                count[0] += 1
                if count[0] == step:
                    if name == "write":  # die in the middle of it
                        originals["write"](arguments[0], bytes(arguments[1])[: len(arguments[1]) // 2])
                    os._exit(KILLED)

            with hooked(before) as originals:
                action()
            code = 0
        finally:
            os._exit(code)
    code = os.waitpid(pid, 0)[1] >> 8
    if code not in (0, KILLED):
        raise RuntimeError(f"the action failed by itself at step {step}")
    return code == KILLED


def failing_at(step, action):
    """Run C(action) with the changing call number C(step), and only that one, failing as a bad disk does."""
    count = [0]

    def before(_name, _arguments, _options):
        count[0] += 1
        if count[0] == step:
            raise OSError(errno.EIO, os.strerror(errno.EIO))

    with hooked(before):
        try:
            action()
        except Exception as error:
            return count[0] >= step, error
    return count[0] >= step, None
