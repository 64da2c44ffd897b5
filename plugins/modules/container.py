#!/usr/bin/python
# Copyright: onprem.rollout contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

DOCUMENTATION = r"""
module: container
short_description: Install an image by its digest and run it as a service
version_added: 0.1.0
author: onprem.rollout contributors (@onprem-rollout)
description:
  - Brings an image into podman's store, from its registry or from an OCI archive, and has systemd run it as C(<name>.service).
  - The image is asked for by its digest and proven to have it. A tag alone is refused.
  - The images that ran before are pinned, so that a restore which puts the file back needs no registry.
  - An interrupted run can be repeated. Needs podman and systemd on the host, and root.
options:
  name:
    description:
      - The name of the service and of the container. Letters and digits, with single C(.), C(_) or C(-) in between.
    type: str
    required: true
  image:
    description: The image with registry and digest, such as C(registry.example.com/shop@sha256:...).
    type: str
    required: true
  path:
    description:
      - An OCI archive of the image on the controller, as C(podman save --format oci-archive) makes it. It is verified there, and
        transferred only to hosts that do not have the image.
      - A relative path is looked up in the working directory and then as with M(ansible.builtin.copy).
      - Mutually exclusive with O(src) and O(url). Without any of them the image is pulled from its registry.
    type: path
  src:
    description: The OCI archive on the host.
    type: path
  url:
    description: Where the host fetches the OCI archive, with C(http://), C(https://) or C(file://).
    type: str
  size:
    description: The size of the archive in bytes. Nothing longer is ever fetched. Needed with O(path), O(src) and O(url).
    type: int
  sha256:
    description: The SHA-256 of the archive, 64 lower-case hex digits. Needed with O(path), O(src) and O(url).
    type: str
  authfile:
    description: A file on the host with the credentials of the registry, as C(podman login --authfile) writes it.
    type: path
  runner:
    description:
      - V(quadlet) writes C(/etc/containers/systemd/<name>.container), which needs podman 4.4 and cgroups v2. V(unit) writes
        C(/etc/systemd/system/<name>.service), for any other host.
      - V(auto) takes V(quadlet) where the host can do it and has no such unit.
    type: str
    choices: [auto, quadlet, unit]
    default: auto
  content:
    description:
      - The whole quadlet or unit, in place of the one that O(ports) to O(command) make. It must name O(image) as it is given, and
        run the container as O(name) or C(systemd-<name>).
    type: str
  ports:
    description: Ports to publish, as C(podman run --publish) takes them.
    type: list
    elements: str
    default: []
  volumes:
    description: Volumes, as C(podman run --volume) takes them.
    type: list
    elements: str
    default: []
  environment:
    description: Variables of the environment. They can be read by everybody on the host; give a secret with C(--env-file) or C(--secret) in O(arguments).
    type: dict
    default: {}
  network:
    description: The network, as C(podman run --network) takes it.
    type: str
  arguments:
    description: More arguments for C(podman run), such as C(--memory=1g).
    type: list
    elements: str
    default: []
  command:
    description: What the container runs in place of the command of the image.
    type: list
    elements: str
    default: []
  keep:
    description: How many images that ran before stay pinned, from 1 on. The one that a restore goes back to always does.
    type: int
    default: 3
  pull_timeout:
    description: How many seconds the registry may take before it counts as away.
    type: int
    default: 540
  timeout:
    description: How many seconds the restart may take.
    type: int
    default: 300
  max_bytes:
    description: How many bytes the archive may have when unpacked. 64 GiB if not given.
    type: int
    default: 68719476736
attributes:
  check_mode:
    description: Says what would change and changes nothing; nothing is fetched or transferred.
    support: full
  diff_mode:
    description: Shows the quadlet or unit before and after.
    support: full
  idempotent:
    description: When the container runs this image, since its file was written like this, nothing happens.
    support: full
  platform:
    description: Target OS that can be operated against.
    support: full
    platforms: posix
"""

EXAMPLES = r"""
- name: Run shop 2.0, pulled from its registry
  onprem.rollout.container:
    name: shop
    image: registry.example.com/shop@sha256:9f86d081884c7d659a2feaa0c55ad015a3bf4f1b2b0b822cd15d6c15b0f00a08
    ports: ["8080:80"]
    volumes: ["/srv/shop:/data"]

- name: Run it on a host that reaches no registry
  onprem.rollout.container:
    name: shop
    image: registry.example.com/shop@sha256:9f86d081884c7d659a2feaa0c55ad015a3bf4f1b2b0b822cd15d6c15b0f00a08
    path: /srv/releases/shop-2.0.oci.tar
    size: 73400320
    sha256: 60303ae22b998861bce3b28f33eec1be758a213c86c93c076dbe9f558c11c752
    ports: ["8080:80"]
"""

RETURN = r"""
image:
  description: The image that runs or, in check mode, would run.
  returned: success
  type: str
previous:
  description: The digest of the image that a restore goes back to, V(null) if there is none.
  returned: success
  type: str
file:
  description: The quadlet or the unit.
  returned: success
  type: str
fetched:
  description: Whether the image was brought into the store by this run.
  returned: success
  type: bool
restarted:
  description: Whether the service was restarted by this run.
  returned: success
  type: bool
removed:
  description: The digests of the images that are not pinned any more because of O(keep).
  returned: success
  type: list
  elements: str
reason:
  description: Why it failed, as one word.
  returned: failure
  type: str
  sample: digest
rc:
  description: 21 when the registry is away, by which a payload asks to be run again later.
  returned: when the registry is away
  type: int
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
from typing import Any, Dict

from ansible.module_utils.basic import AnsibleModule

from ansible_collections.onprem.rollout.plugins.module_utils._container import act, diff, intend, locked
from ansible_collections.onprem.rollout.plugins.module_utils._errors import Outcome, Refused, RolloutError, finish
from ansible_collections.onprem.rollout.plugins.module_utils._podman import NAME, REFERENCE, Images, at, remedy

ARGUMENTS: Dict[str, Any] = {
    "argument_spec": {
        "name": {"type": "str", "required": True},
        "image": {"type": "str", "required": True},
        "path": {"type": "path"},
        "src": {"type": "path"},
        "url": {"type": "str"},
        "size": {"type": "int"},
        "sha256": {"type": "str"},
        "authfile": {"type": "path"},
        "runner": {"type": "str", "choices": ["auto", "quadlet", "unit"], "default": "auto"},
        "content": {"type": "str"},
        "ports": {"type": "list", "elements": "str", "default": []},
        "volumes": {"type": "list", "elements": "str", "default": []},
        "environment": {"type": "dict", "default": {}},
        "network": {"type": "str"},
        "arguments": {"type": "list", "elements": "str", "default": []},
        "command": {"type": "list", "elements": "str", "default": []},
        "keep": {"type": "int", "default": 3},
        "pull_timeout": {"type": "int", "default": 540},
        "timeout": {"type": "int", "default": 300},
        "max_bytes": {"type": "int", "default": 68719476736},
    },
    "mutually_exclusive": [("path", "src", "url")],
    "required_by": {"src": ["size", "sha256"], "url": ["size", "sha256"]},
    "supports_check_mode": True,
}
WORDS = ("ports", "volumes", "network", "arguments", "command", "environment")


def _validate(params: Dict[str, Any]) -> None:
    wrong = [
        (not NAME.match(params["name"]), "name", "write letters and digits, with single . _ or - in between"),
        (not REFERENCE.match(params["image"]), "image", remedy(params["image"])),
        (params["size"] is not None and params["size"] < 1, "size", "write the size of the archive in bytes, from 1 on"),
        (not re.match(r"[0-9a-f]{64}\Z", params["sha256"] or "0" * 64), "sha256", "write the 64 lower-case hex digits that sha256sum prints"),
        (params["path"] is not None, "path", "is a file of the controller, so call this through Ansible; on the host, use src"),
    ]
    wrong += [(params[name] < 1, name, "write a whole number from 1 on") for name in ("keep", "pull_timeout", "timeout", "max_bytes")]
    wrong += [("" in params[name], name, "leave the empty word out: podman's generator drops it and all that follows") for name in ("arguments", "command")]
    wrong += [(bool(re.search(r"[\0\n\r]", _text(params[name]))), name, "write it without a line break") for name in WORDS]
    problems = ["{0}: {1!r}: {2}".format(name, params[name], text) for bad, name, text in wrong if bad]
    if problems:
        raise Refused("The options of container are not valid: " + "; ".join(problems), "options")


def _text(value: Any) -> str:
    items = ["{0}={1}".format(*item) for item in value.items()] if isinstance(value, dict) else value
    return " ".join(items) if isinstance(items, list) else str(items or "")


def run(module: AnsibleModule) -> Outcome:
    """Have the container run this image. The result and the diff are the same in check mode."""
    params = dict(module.params)
    _validate(params)
    images = Images(params["name"])
    try:
        if module.check_mode:
            intent = intend(images, params)
        else:
            with locked():
                intent = intend(images, params)
                act(images, params, intent)
    except OSError as error:
        raise RolloutError("{0} cannot be written: {1}.".format(error.filename or params["name"], error.strerror or error), "write") from error
    result = {
        "image": at(intent.reference),
        "previous": intent.previous.digest if intent.previous else None,
        "file": intent.path,
        "fetched": intent.fetch,
        "restarted": intent.restart,
        "removed": intent.remove,
    }
    return intent.restart, result, diff(intent)


def main() -> None:
    finish(AnsibleModule(**ARGUMENTS), run)


if __name__ == "__main__":
    main()
