# Copyright: onprem.rollout contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Releases of one service beside each other, and a link to the one that runs.

    dest/current -> releases/2.0          switched by one rename
    dest/releases/2.0/                    whole or not there: unpacked as .2.0.partial, flushed, renamed
    dest/releases/.2.0.json               its marker: from which archive, what ran before it, whether it was started

A marker says something only together with its directory. It is gone before the directory is replaced, and written
before the new directory gets its name, so that a crash in between leaves a release that counts as not there.
"""

import contextlib
import fcntl
import os
import re
from typing import IO, Any, Dict, Iterator, List, Optional

from . import _unpack
from ._errors import Refused
from ._store import free_bytes, fsync_dir, read_json, remove_quietly, to_bytes, write_json

VERSION = re.compile(r"[A-Za-z0-9][A-Za-z0-9.+~_-]{0,199}\Z")
Marker = Dict[str, Any]


class Releases:
    """The releases under C(dest), an absolute path."""

    def __init__(self, dest: str) -> None:
        self.dest = dest
        self.root = os.path.join(dest, "releases")
        self.link = os.path.join(dest, "current")

    @staticmethod
    def named(version: str) -> bool:
        """Whether this can be the name of a release: no slash, not hidden, neither C(.) nor C(..)."""
        return bool(VERSION.match(version))

    def path(self, version: str) -> str:
        """Where a release is, or will be. Refused when its version cannot name a directory."""
        if not self.named(version):
            raise Refused(
                "The version {0!r} cannot name a directory. Write letters, digits and . + ~ _ -, beginning with a letter or a digit.".format(version),
                "bad_version",
            )
        return os.path.join(self.root, version)

    def marker_path(self, version: str) -> str:
        return os.path.join(self.root, ".{0}.json".format(os.path.basename(self.path(version))))

    def marker(self, version: str) -> Optional[Marker]:
        """The marker of a release that is there; None when it is not, or when nobody knows what is in it."""
        try:
            marker = read_json(self.marker_path(version))
        except (OSError, ValueError):
            return None
        path = self.path(version)
        return marker if isinstance(marker, dict) and os.path.isdir(path) and not os.path.islink(path) else None

    def has(self, version: str, sha256: str, strip: int) -> bool:
        """Whether this very release is unpacked here."""
        marker = self.marker(version) or {}
        return marker.get("sha256") == sha256 and marker.get("strip") == strip

    def current(self) -> Optional[str]:
        """The version that C(current) leads to, or None when there is no link yet."""
        if not os.path.lexists(self.link):
            return None
        if not os.path.islink(self.link):
            raise Refused(
                "{0} is not a symbolic link, so it was not made by this module. Move it away, or choose another dest.".format(self.link),
                "bad_current",
            )
        target = os.path.normpath(os.path.join(self.dest, os.readlink(self.link)))
        version = os.path.basename(target)
        return version if os.path.dirname(target) == os.path.normpath(self.root) and self.named(version) else None

    @contextlib.contextmanager
    def locked(self) -> Iterator[None]:
        """Make the directories and keep a second run out of them. The kernel frees the lock when this process dies."""
        try:
            os.makedirs(self.root, 0o755, exist_ok=True)
            fd = os.open(self.root, os.O_RDONLY | os.O_DIRECTORY)
        except OSError as error:
            raise Refused("{0} cannot be made: {1}. Correct dest, or use become.".format(self.root, error.strerror), "dest") from error
        try:
            try:
                fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError:
                raise Refused("Another run works in {0}. Wait until it ends.".format(self.root), "locked") from None
            yield
        finally:
            os.close(fd)

    def install(self, version: str, source: IO[bytes], marker: Marker, max_bytes: int) -> None:
        """Unpack a verified archive as this release, in place of what has its name."""
        members = _unpack.plan(source, marker["strip"], max_bytes)
        needed, free = sum(member.size for member in members), free_bytes(self.root)
        if needed > free:
            raise Refused(
                "The release needs {0} bytes under {1}, where {2} are free. Nothing was unpacked. Free some space, or keep fewer releases.".format(
                    needed, self.root, free
                ),
                "no_space",
            )
        path, partial, old = self.path(version), self._hidden(version, "partial"), self._hidden(version, "old")
        _remove(partial)
        try:
            _unpack.write(source, members, to_bytes(partial))
        except BaseException:
            with contextlib.suppress(OSError):
                _remove(partial)
            raise
        self._retire(version)
        write_json(self.marker_path(version), marker)
        os.rename(partial, path)
        fsync_dir(self.root)
        _remove(old)

    def note(self, version: str, **changes: Any) -> None:
        """Change the marker of a release."""
        write_json(self.marker_path(version), dict(self.marker(version) or {}, **changes))

    def switch(self, version: str) -> None:
        """Let C(current) lead to this release: before or after, but at no time to nothing."""
        temp = os.path.join(self.dest, ".current.new")
        remove_quietly(temp)
        os.symlink(os.path.join("releases", version), temp)
        os.rename(temp, self.link)
        fsync_dir(self.dest)

    def surplus(self, keep: int, current: str, previous: Optional[str]) -> List[str]:
        """What is too much beside C(keep) releases when C(current) is current: the longest unused first, but never the
        current one nor the one before it.
        """
        protected = {current, previous}
        rest = sorted((name for name in self.versions() if name not in protected), key=lambda name: (self._since(name), name))
        kept = len(protected.intersection(self.versions() + [current]))
        return rest[: max(0, len(rest) + kept - keep)]

    def versions(self) -> List[str]:
        """What is unpacked here, by name."""
        with contextlib.suppress(FileNotFoundError, NotADirectoryError):
            return sorted(name for name in os.listdir(self.root) if VERSION.match(name) and os.path.isdir(os.path.join(self.root, name)))
        return []

    def remove(self, version: str) -> None:
        """Remove a release; a crash in between leaves nothing that counts as one."""
        self._retire(version)
        _remove(self._hidden(version, "old"))

    def clean(self) -> None:
        """Remove what an interrupted run left."""
        for name in os.listdir(self.root):
            if re.match(r"\..+\.(partial|old|download)\Z", name):
                _remove(os.path.join(self.root, name))

    def download_path(self, version: str) -> str:
        return self._hidden(version, "download")

    def _hidden(self, version: str, what: str) -> str:
        return os.path.join(self.root, ".{0}.{1}".format(version, what))

    def _retire(self, version: str) -> None:
        remove_quietly(self.marker_path(version))
        fsync_dir(self.root)
        _remove(self._hidden(version, "old"))
        with contextlib.suppress(FileNotFoundError):
            os.rename(self.path(version), self._hidden(version, "old"))

    def _since(self, version: str) -> float:
        """When the release last became the current one."""
        try:
            return float((self.marker(version) or {})["since"])
        except (KeyError, TypeError, ValueError):
            return os.stat(self.path(version)).st_mtime


def _remove(path: str) -> None:
    if os.path.isdir(path) and not os.path.islink(path):
        import shutil

        shutil.rmtree(to_bytes(path))
    else:
        remove_quietly(path)
