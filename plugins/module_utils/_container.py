# Copyright: onprem.rollout contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""What the module container does: first all of it is decided from what the host has, then it is done.

    intent = intend(images, options)    # the same in check mode
    act(images, options, intent)

Interrupted anywhere, the next run finds what is missing: an image that is not in the store is fetched, a file that differs is
written, and a container that does not run that image since after the file was written is restarted.
"""

import contextlib
import fcntl
import os
import re
import shutil
from typing import Any, Dict, Iterator, List, NamedTuple, Optional, Tuple

from . import _process, _quadlet, _services, _unpack
from ._errors import Refused, RolloutError
from ._podman import Image, Images, Reference, at, parse, podman
from ._store import fsync_dir, remove_quietly, write_file

QUADLETS = "/etc/containers/systemd"
UNITS = "/etc/systemd/system"
GENERATORS = ("/usr/lib/systemd/system-generators", "/lib/systemd/system-generators", "/etc/systemd/system-generators")
GENERATOR = "podman-system-generator"
SHOW = 30.0
UNIFIED = "/sys/fs/cgroup/cgroup.controllers"  # quadlet needs cgroups v2
RUNNING = re.compile(r"^([0-9a-f]{64}) (-?[0-9]+) (true|false)$", re.MULTILINE)
Options = Dict[str, Any]
Intent = NamedTuple(
    "Intent",
    [
        ("reference", Reference),
        ("runner", str),
        ("path", str),
        ("content", str),
        ("before", Optional[str]),
        ("previous", Optional[Image]),
        ("fetch", bool),
        ("write", bool),
        ("restart", bool),
        ("remove", List[str]),
    ],
)


def intend(images: Images, options: Options) -> Intent:
    """What is to be done for the options of the module, by what the host has now."""
    reference = parse(options["image"])
    if not _services.present():
        raise Refused("The container {0} is run by systemd, which does not run this host. Nothing was changed.".format(options["name"]), "no_systemd")
    if os.geteuid() != 0:
        raise Refused("This runs as uid {0}, whose podman has other images than root's. Nothing was changed. Use become.".format(os.geteuid()), "not_root")
    runner = choose(options)
    path, before = _file(runner, options["name"]), _read(_file(runner, options["name"]))
    image, running = images.find(at(reference)), _container(options["name"])
    previous = _previous(images, reference, before, running)
    kept = _kept(reference.digest, previous, before, options["keep"])
    content = _quadlet.with_order(_content(options, reference, runner), kept)
    fetch, write = image is None, content != before
    started = bool(image and running and running[0] == image.id and running[2] and (write or running[1] >= os.stat(path).st_mtime_ns))
    restart = fetch or write or not started or not _state(options)["active"]
    remove = sorted(set(images.pinned()).difference(kept)) if restart else []
    return Intent(reference, runner, path, content, before, previous, fetch, write, restart, remove)


def choose(options: Options) -> str:
    """quadlet or unit; a host that has a unit of this name keeps it, because it would hide what a quadlet becomes."""
    name, runner = options["name"], options["runner"]
    able = os.path.exists(UNIFIED) and any(os.path.lexists(os.path.join(place, GENERATOR)) for place in GENERATORS)
    hidden = os.path.lexists(_file("unit", name))
    if runner == "auto" and options["content"]:
        runner = "quadlet" if re.search(r"^\[Container\]", options["content"], re.MULTILINE) else "unit"
    if runner == "auto":
        return "quadlet" if able and not hidden else "unit"
    if runner == "quadlet" and not able:
        raise Refused(
            "This host cannot run quadlets, which need podman 4.4 or newer and cgroups v2. Nothing was changed. Set runner to unit, or to auto.", "no_quadlet"
        )
    if runner == "quadlet" and hidden:
        raise Refused(
            "{0} exists and would hide a quadlet of that name. Nothing was changed. Remove it, or have runner unit.".format(_file("unit", name)),
            "two_units",
        )
    if runner == "unit" and os.path.lexists(_file("quadlet", name)):
        raise Refused(
            "{0} exists and would be hidden by a unit of that name. Nothing was changed. Remove it, or set runner to quadlet.".format(_file("quadlet", name)),
            "two_units",
        )
    return str(runner)


def _file(runner: str, name: str) -> str:
    return os.path.join(QUADLETS, name + ".container") if runner == "quadlet" else os.path.join(UNITS, name + ".service")


def _read(path: str) -> Optional[str]:
    try:
        with open(path, encoding="utf-8", errors="surrogateescape") as source:
            return source.read()
    except FileNotFoundError:
        return None


def _content(options: Options, reference: Reference, runner: str) -> str:
    if options["content"]:
        if at(reference) not in options["content"]:
            raise Refused(
                "The template of {0} does not name the image {1}, so something else would run. Nothing was changed. Write Image={{{{ container_image }}}} "
                "there.".format(options["name"], at(reference)),
                "bad_template",
            )
        return str(options["content"])
    if runner == "quadlet":
        return _quadlet.quadlet(options["name"], at(reference), options)
    return _quadlet.unit(options["name"], at(reference), options, shutil.which("podman") or "/usr/bin/podman")


def _container(name: str) -> Optional[Tuple[str, int, bool]]:
    """The image id of the service's container, when it was started in ns, and whether it runs; None when there is no container."""
    code, output = podman(["container", "inspect", "--format", "{{.Image}} {{.State.StartedAt.UnixNano}} {{.State.Running}}", "--", name, "systemd-" + name])
    found = RUNNING.search(output)
    if not found and code == 0:
        raise RolloutError("podman container inspect {0} says what nobody can read: {1}".format(name, _process.last_line(output)), "podman")
    return (found.group(1), int(found.group(2)), found.group(3) == "true") if found else None


def _previous(images: Images, reference: Reference, before: Optional[str], running: Optional[Tuple[str, int, bool]]) -> Optional[Image]:
    """The image that a restore goes back to: the one that runs, or the one that the file names; None on a first installation."""
    ours = _quadlet.order(before)
    for name in ([running[0]] if running else []) + [images.pin_of(digest) for digest in ours[:2]] + _quadlet.images(before):
        image = images.find(name)
        if image and reference.digest not in image.digests:
            return image._replace(digest=([digest for digest in ours if digest in image.digests] + [image.digest])[0])
    return None


def _kept(digest: str, previous: Optional[Image], before: Optional[str], keep: int) -> List[str]:
    """The digest, and of those before it the C(keep) newest, the previous one first."""
    kept = [digest]
    for each in ([previous.digest] if previous else []) + _quadlet.order(before):
        if each not in kept:
            kept.append(each)
    return kept[: keep + 1]


def act(images: Images, options: Options, intent: Intent) -> None:
    """Do it. RolloutError when the image cannot be had or the service does not start."""
    if not intent.restart:
        return
    if intent.previous:
        images.pin(intent.previous)
    image = _fetch(images, options, intent.reference) if intent.fetch else images.find(at(intent.reference))
    if image is None:
        raise RolloutError("The image {0} is gone since this run began. Run this again.".format(at(intent.reference)), "artifact")
    images.pin(image._replace(digest=intent.reference.digest))
    if intent.write:
        _make(os.path.dirname(intent.path))
        write_file(intent.path, intent.content.encode("utf-8", "surrogateescape"), 0o644)
    _restart(options, intent)
    running = _container(options["name"])
    if running and running[2] and running[0] != image.id:
        raise RolloutError(
            "{0} runs the image {1}, not {2} with the digest {3}. Look at {4}.".format(
                options["name"], running[0], image.id, intent.reference.digest, intent.path
            ),
            "image",
            changed=True,
        )
    for digest in intent.remove:
        images.drop(digest)


def _fetch(images: Images, options: Options, reference: Reference) -> Image:
    src, url = options["src"], options["url"]
    if not src and not url and options["size"]:
        raise RolloutError("The image {0} was here, so its artifact was not brought, and is gone. Run this again.".format(at(reference)), "artifact")
    if not src and not url:
        return images.pull(reference, options["authfile"], options["pull_timeout"])
    from . import _fetch as fetching  # here, because importing an HTTP client costs more than most of what a host does

    path = src or images.cache + ".download"
    try:
        if url:
            os.makedirs(os.path.dirname(path), 0o700, exist_ok=True)
            remove_quietly(path)
            fetching.fetch(url, path, options["size"])
        origin = fetching.redacted(url) if url else src
        with _unpack.open_verified(path, options["size"], options["sha256"], origin) as source:
            return images.load(reference, source, origin, options["max_bytes"])
    finally:
        if url:
            remove_quietly(path)


@contextlib.contextmanager
def locked() -> Iterator[None]:
    """Keep a second run out, by a lock on the directory of the units. The kernel frees it when this process dies."""
    try:
        fd = os.open(UNITS, os.O_RDONLY | os.O_DIRECTORY)
    except OSError as error:
        raise Refused("{0} cannot be opened: {1}. The container is run by systemd, as root.".format(UNITS, error.strerror), "no_systemd") from error
    try:
        try:
            fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            raise Refused("Another run installs a container on this host. Wait until it ends.", "locked") from None
        yield
    finally:
        os.close(fd)


def _make(directory: str) -> None:
    if not os.path.isdir(directory):
        os.makedirs(directory, 0o755)
        fsync_dir(os.path.dirname(directory))


def _restart(options: Options, intent: Intent) -> None:
    unit = options["name"] + ".service"
    _systemctl(options, ["daemon-reload"])
    if intent.runner == "unit" and _state(options)["file"] == "disabled":
        _systemctl(options, ["enable", "--", unit])
    _systemctl(options, ["restart", "--", unit])


def _state(options: Options) -> Dict[str, Any]:
    unit = options["name"] + ".service"
    return _services.look([unit])[unit]


def _systemctl(options: Options, words: List[str]) -> None:
    code, output = _process.run(_services.SYSTEMCTL + words, options["timeout"])
    if code != 0:
        ended = "did not end within {0} s".format(options["timeout"]) if code is None else "ended with rc {0}".format(code)
        output += _process.run(["journalctl", "--no-pager", "--output=cat", "--lines=20", "--unit", options["name"] + ".service"], SHOW)[1]
        said = [line for line in output.splitlines() if "error" in line.lower()]
        raise RolloutError(
            "The container {0} is installed, but it was not started: systemctl {1} {2}: {3}. See journalctl -u {0} -n 50; the next run starts it again.".format(
                options["name"], " ".join(words), ended, _process.last_line("\n".join(said) or output) or "no output"
            ),
            "restart",
            changed=True,
            output=output[-2000:],
        )


def diff(intent: Intent) -> Dict[str, Any]:
    """The file before and after."""
    return {"before_header": intent.path, "after_header": intent.path, "before": intent.before or "", "after": intent.content}
