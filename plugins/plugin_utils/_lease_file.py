# Copyright: onprem.rollout contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""The lease of a release whose ledger is a file: a lock on a file next to that.

A lock of fcntl and not of flock: a worker that outlives a killed ansible-playbook inherits the latter, and would keep the rollout.
"""

from __future__ import annotations

import errno
import fcntl
import hashlib
import os
import re
from contextlib import suppress

from ansible_collections.onprem.rollout.plugins.plugin_utils._ledger import LedgerError


class LeaseFile:
    """ledger: the path of the ledger's file. A lock whose file somebody takes away is lost, and is made anew when it is taken again."""

    def __init__(self, ledger: str, release: str) -> None:
        self._path = f"{ledger}.{slug(release)}.lease"
        self._fd: int | None = None
        self.tied_to = f"its lock {self._path}, which was taken away"

    @property
    def held(self) -> bool:
        try:
            return self._fd is not None and _is_at(self._fd, self._path)
        except OSError:
            return False

    def take(self) -> bool:
        if self._fd is not None and not self.held:
            os.close(self._fd)
            self._fd = None
        try:
            os.makedirs(os.path.dirname(self._path) or ".", 0o700, exist_ok=True)
            while self._fd is None:
                fd = os.open(self._path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
                if not _lock(fd):
                    os.close(fd)
                    return False
                if _is_at(fd, self._path):
                    self._fd = fd
                else:
                    os.close(fd)  # whoever had it took the file away after this opened it
        except OSError as error:
            raise LedgerError(f"the lock {self._path} cannot be taken: {error.strerror}") from error
        return True

    def taken(self) -> bool:
        if self.held:  # to close the file a second time would give the lock away
            return True
        try:
            fd = os.open(self._path, os.O_RDONLY | os.O_CLOEXEC)
        except FileNotFoundError:
            return False
        except OSError as error:
            raise LedgerError(f"the lock {self._path} cannot be looked at: {error.strerror}") from error
        try:
            return not _lock(fd, fcntl.LOCK_SH)
        finally:
            os.close(fd)

    def release(self) -> None:
        if self._fd is None:
            return
        with suppress(OSError):  # a file that nobody has locked says nothing
            if _is_at(self._fd, self._path):
                os.unlink(self._path)
        os.close(self._fd)
        self._fd = None


def slug(release: str) -> str:
    """The name of a release as part of a file's name; two names never give the same."""
    return f"{re.sub(r'[^A-Za-z0-9.+-]', '_', release)[:80]}-{hashlib.sha256(release.encode()).hexdigest()[:8]}"


def _lock(fd: int, how: int = fcntl.LOCK_EX) -> bool:
    try:
        fcntl.lockf(fd, how | fcntl.LOCK_NB)
    except OSError as error:
        if error.errno in (errno.EACCES, errno.EAGAIN):
            return False
        raise
    return True


def _is_at(fd: int, path: str) -> bool:
    try:
        return os.path.samestat(os.fstat(fd), os.stat(path))
    except FileNotFoundError:
        return False
