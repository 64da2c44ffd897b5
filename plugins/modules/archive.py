#!/usr/bin/python
# Copyright: onprem.rollout contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

DOCUMENTATION = r"""
module: archive
short_description: Install a release tarball, switch to it and restart the service
version_added: 0.1.0
author: onprem.rollout contributors (@onprem-rollout)
description:
  - Unpacks a tarball into C(releases/<version>) under O(dest), lets the link C(current) lead there, and restarts the service.
  - The size and the SHA-256 of the tarball are verified before it is unpacked. It is refused as a whole, before anything is
    written, when a member would escape the directory, is a device or a FIFO, or appears twice.
  - The switch is one rename, and a release directory is whole or not there, so an interrupted run can be repeated.
  - Set-id bits and permission for others to write are dropped; everything belongs to the user that runs the module.
options:
  path:
    description:
      - The tarball on the controller. It is verified there, and transferred only to hosts that do not have the release.
      - A relative path is looked up in the working directory and then as with M(ansible.builtin.copy).
      - Mutually exclusive with O(src) and O(url).
    type: path
  src:
    description: The tarball on the host.
    type: path
  url:
    description: Where the host fetches the tarball, with C(http://), C(https://) or C(file://).
    type: str
  size:
    description: The size of the tarball in bytes. Nothing longer is ever fetched.
    type: int
    required: true
  sha256:
    description: The SHA-256 of the tarball, 64 lower-case hex digits.
    type: str
    required: true
  dest:
    description: The directory of the service, an absolute path. It is made when missing.
    type: path
    required: true
  version:
    description: The version of the release, which names its directory.
    type: str
    required: true
  strip:
    description: How many leading components of the member names are dropped. A member with no more than these is left out.
    type: int
    default: 0
  unit:
    description: A systemd unit that is restarted. Mutually exclusive with O(command).
    type: str
  command:
    description: A program and its arguments, run without a shell in O(dest), that restarts the service.
    type: list
    elements: str
  timeout:
    description: How many seconds the restart may take.
    type: int
    default: 300
  keep:
    description: How many releases stay. The current one and the one before it always do.
    type: int
    default: 3
  max_bytes:
    description: How many bytes the release may have when unpacked. 8 GiB if not given.
    type: int
    default: 8589934592
attributes:
  check_mode:
    description: Says what would change and changes nothing; nothing is fetched or transferred.
    support: full
  diff_mode:
    description: Shows the current release and the releases kept, before and after.
    support: full
  idempotent:
    description: When the same archive is already the current release and its restart succeeded, nothing happens.
    support: full
  platform:
    description: Target OS that can be operated against.
    support: full
    platforms: posix
"""

EXAMPLES = r"""
- name: Install 2.0 from a tarball on the controller
  onprem.rollout.archive:
    path: /srv/releases/shop-2.0.tar.gz
    size: 1048576
    sha256: 9f86d081884c7d659a2feaa0c55ad015a3bf4f1b2b0b822cd15d6c15b0f00a08
    dest: /opt/shop
    version: "2.0"
    unit: shop.service

- name: Install 2.0 from a server, for a service without systemd
  onprem.rollout.archive:
    url: https://depot.example.com/shop-2.0.tar.gz
    size: 1048576
    sha256: 9f86d081884c7d659a2feaa0c55ad015a3bf4f1b2b0b822cd15d6c15b0f00a08
    dest: /opt/shop
    version: "2.0"
    strip: 1
    command: [/opt/shop/ctl, restart]
"""

RETURN = r"""
version:
  description: The version that is, or in check mode would be, current.
  returned: success
  type: str
previous:
  description: The version that was current before it, V(null) if there was none.
  returned: success
  type: str
directory:
  description: Where the release is unpacked.
  returned: success
  type: str
unpacked:
  description: Whether the tarball was unpacked by this run.
  returned: success
  type: bool
restarted:
  description: Whether the service was restarted by this run.
  returned: success
  type: bool
removed:
  description: The versions that were removed because of O(keep).
  returned: success
  type: list
  elements: str
reason:
  description: Why it failed, as one word.
  returned: failure
  type: str
  sample: digest
refused:
  description: Whether it was refused before anything was changed.
  returned: failure
  type: bool
output:
  description: What the restart printed.
  returned: when the restart fails
  type: str
"""

import re
from typing import Any, Dict, Tuple

from ansible.module_utils.basic import AnsibleModule

from ansible_collections.onprem.rollout.plugins.module_utils._archive import act, diff, intend
from ansible_collections.onprem.rollout.plugins.module_utils._errors import Refused, RolloutError, finish
from ansible_collections.onprem.rollout.plugins.module_utils._releases import Releases
from ansible_collections.onprem.rollout.plugins.module_utils._unpack import MAX_BYTES

ARGUMENTS: Dict[str, Any] = {
    "argument_spec": {
        "path": {"type": "path"},
        "src": {"type": "path"},
        "url": {"type": "str"},
        "size": {"type": "int", "required": True},
        "sha256": {"type": "str", "required": True},
        "dest": {"type": "path", "required": True},
        "version": {"type": "str", "required": True},
        "strip": {"type": "int", "default": 0},
        "unit": {"type": "str"},
        "command": {"type": "list", "elements": "str"},
        "timeout": {"type": "int", "default": 300},
        "keep": {"type": "int", "default": 3},
        "max_bytes": {"type": "int", "default": MAX_BYTES},
    },
    "mutually_exclusive": [("path", "src", "url"), ("unit", "command")],
    "supports_check_mode": True,
}


def _validate(params: Dict[str, Any]) -> None:
    wrong = [
        (not params["dest"].startswith("/") or not params["dest"].strip("/"), "dest", "write an absolute path other than /"),
        (params["size"] < 1, "size", "write the size of the tarball in bytes, from 1 on"),
        (not re.match(r"[0-9a-f]{64}\Z", params["sha256"]), "sha256", "write the 64 lower-case hex digits that sha256sum prints"),
        (params["strip"] < 0, "strip", "write a number from 0 on"),
        (params["keep"] < 1, "keep", "write a number from 1 on"),
        (params["timeout"] < 1, "timeout", "write seconds, from 1 on"),
        (params["max_bytes"] < 1, "max_bytes", "write a number of bytes, from 1 on"),
        (params["path"] is not None, "path", "is a file of the controller, so call this through Ansible; on the host, use src"),
    ]
    problems = ["{0}: {1!r}: {2}".format(name, params[name], remedy) for bad, name, remedy in wrong if bad]
    if problems:
        raise Refused("The options of archive are not valid: " + "; ".join(problems), "options")


def run(module: AnsibleModule) -> Tuple[bool, Dict[str, Any], Dict[str, Any]]:
    """Make the release current and running. The result and the diff are the same in check mode."""
    params = module.params
    _validate(params)
    releases = Releases(params["dest"])
    directory = releases.path(params["version"])
    try:
        if module.check_mode:
            intent = intend(releases, params)
        else:
            with releases.locked():
                intent = intend(releases, params)
                act(releases, params, intent)
    except OSError as error:
        raise RolloutError("{0} cannot be written: {1}.".format(error.filename or params["dest"], error.strerror or error), "write") from error
    changed = bool(intent.unpack or intent.switch or intent.restart or intent.remove)
    result = {
        "version": params["version"],
        "previous": intent.previous,
        "directory": directory,
        "unpacked": intent.unpack,
        "restarted": intent.restart,
        "removed": intent.remove,
    }
    return changed, result, diff(releases, params, intent)


def main() -> None:
    finish(AnsibleModule(**ARGUMENTS), run)


if __name__ == "__main__":
    main()
