# Copyright: onprem.rollout contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Stops a process of the host at an exact place: when it opens a file, in a phase of the record. Runs on the host, as root.

    gate.py PHASE DIRECTORY FILE NTH

The kernel asks this program before it opens anything in DIRECTORY (fanotify). The NTH time that a Python program opens FILE (a
pattern; "." is the directory itself) while the record is in PHASE, that process gets SIGSTOP, and only then the open goes on: it
stands before its next step. Its pid is then in /run/gate/held. Killed, this program lets everything through.
"""

import ctypes
import fnmatch
import json
import os
import queue
import signal
import struct
import sys
import threading

RECORD = "/var/lib/onprem-rollout/record.json"
HELD = "/run/gate/held"
CLASS_CONTENT, ADD, OPEN_PERM, ON_CHILD, ON_DIRECTORY = 0x04, 0x01, 0x00010000, 0x08000000, 0x40000000
ALLOW = 1
EVENT = struct.Struct("=IBBHQii")  # length, version, reserved, header, mask, fd, pid


def phase():
    try:
        with open(RECORD) as source:
            return (json.load(source)["transaction"] or {}).get("phase")
    except (OSError, ValueError):
        return None


def is_module(pid):
    """A module of ours, or any other Python program, but not the revert timer, which only looks again and again."""
    try:
        with open(f"/proc/{pid}/cmdline", "rb") as source:
            words = source.read().split(b"\0")
        return os.path.basename(os.readlink(f"/proc/{pid}/exe")).startswith("python3") and b"revert" not in words
    except OSError:
        return False


class Gate:
    def __init__(self, wanted, directory, file, nth):
        self.wanted, self.directory, self.file, self.left = wanted, directory, file, nth
        self.events = queue.Queue()
        libc = ctypes.CDLL(None, use_errno=True)
        self.group = libc.fanotify_init(CLASS_CONTENT, os.O_RDONLY)
        mask = ctypes.c_uint64(OPEN_PERM | ON_CHILD | ON_DIRECTORY)
        if self.group < 0 or libc.fanotify_mark(self.group, ADD, mask, -100, os.fsencode(directory)) < 0:
            sys.exit(f"fanotify on {directory}: {os.strerror(ctypes.get_errno())}")

    def listen(self):
        """Our own opens are let through here, whatever decide() is at, for it opens the record itself."""
        while True:
            content = memoryview(os.read(self.group, 4096))
            while content:
                length, _version, _reserved, _header, _mask, fd, pid = EVENT.unpack_from(content)
                content = content[length:]
                if pid == os.getpid():
                    self.allow(fd)
                else:
                    self.events.put((fd, pid))

    def decide(self):
        while True:
            fd, pid = self.events.get()
            if self.left and is_module(pid) and self.is_it(fd) and phase() == self.wanted:
                self.left -= 1
                if not self.left:
                    os.kill(pid, signal.SIGSTOP)
                    with open(HELD + ".new", "w") as out:
                        out.write(f"{pid}\n")
                    os.rename(HELD + ".new", HELD)
            self.allow(fd)

    def is_it(self, fd):
        opened = os.readlink(f"/proc/self/fd/{fd}")
        return fnmatch.fnmatchcase(opened, os.path.normpath(os.path.join(self.directory, self.file)))

    def allow(self, fd):
        os.write(self.group, struct.pack("=iI", fd, ALLOW))
        os.close(fd)


if __name__ == "__main__":
    os.makedirs(os.path.dirname(HELD), exist_ok=True)
    gate = Gate(sys.argv[1], sys.argv[2], sys.argv[3], int(sys.argv[4]))
    threading.Thread(target=gate.listen, daemon=True).start()
    with open("/run/gate/ready", "w") as out:
        out.write("ready")
    gate.decide()
