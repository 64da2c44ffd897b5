# Copyright: onprem.rollout contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""The file by which systemd runs a container: a quadlet, or on a podman older than 4.4 the unit that a quadlet would become.

Pure. Words of systemd's own (C(%) and C($)) are taken literally.
"""

import re
from typing import Any, Dict, List, Optional

PLAIN = re.compile(r"[A-Za-z0-9_@:,./=+-]+\Z")
HEAD = "# Written by onprem.rollout.container, which keeps these images, the current one first:"
ORDER = re.compile(re.escape(HEAD) + r"((?: sha256:[0-9a-f]{64})+)$", re.MULTILINE)
QUADLET = """\
[Unit]
Description={name}, a container
Wants=network-online.target
After=network-online.target

[Container]
ContainerName={name}
Image={image}
{options}
[Service]
Restart=on-failure

[Install]
WantedBy=multi-user.target
"""
UNIT = """\
[Unit]
Description={name}, a container
Wants=network-online.target
After=network-online.target
RequiresMountsFor=%t/containers

[Service]
Environment=PODMAN_SYSTEMD_UNIT=%n
Type=notify
NotifyAccess=all
Restart=on-failure
TimeoutStopSec=70
SyslogIdentifier=%N
ExecStartPre=/bin/rm -f %t/%N.cid
ExecStart={program} run --name {name} --cidfile=%t/%N.cid --replace --rm --cgroups=no-conmon --sdnotify=conmon -d {options}
ExecStop={program} stop --ignore -t 10 --cidfile=%t/%N.cid
ExecStopPost={program} rm -v -f --ignore --cidfile=%t/%N.cid

[Install]
WantedBy=multi-user.target
"""


def literal(text: str) -> str:
    return text.replace("%", "%%").replace("$", "$$")


def word(text: str) -> str:
    """One word of a command line of systemd's."""
    return text if PLAIN.match(text) else '"{0}"'.format(literal(text).replace("\\", "\\\\").replace('"', '\\"'))


def quadlet(name: str, image: str, options: Dict[str, Any]) -> str:
    """C(options): ports, volumes, environment, network, arguments and command, all of text."""
    lines = ["PublishPort=" + literal(port) for port in options["ports"]]
    lines += ["Volume=" + literal(volume) for volume in options["volumes"]]
    lines += ["Environment=" + word("{0}={1}".format(*item)) for item in sorted(options["environment"].items())]
    lines += ["Network=" + literal(options["network"])] if options["network"] else []
    lines += ["PodmanArgs=" + word(argument) for argument in options["arguments"]]
    lines += ["Exec=" + " ".join(word(each) for each in options["command"])] if options["command"] else []
    return QUADLET.format(name=name, image=image, options="".join(line + "\n" for line in lines))


def unit(name: str, image: str, options: Dict[str, Any], program: str = "/usr/bin/podman") -> str:
    """The same as a unit that needs no generator."""
    words = [each for port in options["ports"] for each in ("--publish", port)]
    words += [each for volume in options["volumes"] for each in ("--volume", volume)]
    words += [each for item in sorted(options["environment"].items()) for each in ("--env", "{0}={1}".format(*item))]
    words += ["--network", options["network"]] if options["network"] else []
    words += options["arguments"] + [image] + options["command"]
    return UNIT.format(name=name, program=program, options=" ".join(word(each) for each in words))


def with_order(content: str, digests: List[str]) -> str:
    """The content below a line that says which images are kept, so that a restore brings this back too."""
    return "{0} {1}\n{2}".format(HEAD, " ".join(digests), content)


def order(content: Optional[str]) -> List[str]:
    """The digests that such a file names, its current one first; none for a file that is not ours."""
    found = ORDER.match(content or "")
    return found.group(1).split() if found else []


def images(content: Optional[str]) -> List[str]:
    """What somebody else's quadlet names as its image, if it does."""
    return re.findall(r"^Image=(\S+)\s*$", content or "", re.MULTILINE)
