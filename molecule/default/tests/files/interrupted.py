# Copyright: onprem.rollout contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""On a host: installs one image over another, killed before each program that changes something and each file that it puts in place, and then again.

Its standard input has the options of the module for both. It prints how many steps there were.
"""

import json
import os
import subprocess
import sys

sys.path[:0] = ["/root/lib"]
from ansible_collections.onprem.rollout.plugins.module_utils import _container, _podman  # noqa: E402 - found by the line above

CHANGES = {"pull", "tag", "untag", "rmi", "daemon-reload", "enable", "restart"}
KILLED = 77
old, new = json.load(sys.stdin)
images = _podman.Images(old["name"])
digests = sorted(_podman.parse(options["image"]).digest for options in (old, new))


def install(options):
    with _container.locked():
        intent = _container.intend(images, options)
        _container.act(images, options, intent)
    return intent.restart


def expect(seen, wanted, step):
    if seen != wanted:
        raise SystemExit(f"killed at step {step}: {seen!r}, not {wanted!r}")


def killed_at(step):
    """Install the new one in a process of its own that dies before its change number C(step). Whether it died there."""
    pid = os.fork()
    if pid == 0:
        changes = []

        def dying(call, is_change):
            def counted(words, *rest, **options):
                changes.extend([words] if is_change(words) else [])
                if len(changes) == step:
                    os._exit(KILLED)
                return call(words, *rest, **options)

            return counted

        subprocess.Popen = dying(subprocess.Popen, lambda words: bool(CHANGES.intersection(words)))
        os.replace = dying(os.replace, lambda _path: True)
        code = 1
        try:
            install(new)
            code = 0
        finally:
            os._exit(code)
    code = os.waitpid(pid, 0)[1] >> 8
    expect(code in (0, KILLED), True, step)
    return code == KILLED


install(old)
step = 1
while killed_at(step):
    install(new)
    running = _container._container(new["name"])
    expect(running and running[0], images.find(new["image"]).id, step)
    expect(images.pinned(), digests, step)
    install(old)
    images.drop(_podman.parse(new["image"]).digest)
    step += 1
expect((install(new), os.path.exists(images.cache)), (False, False), step)
print(step - 1)
