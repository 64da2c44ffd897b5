# Copyright: onprem.rollout contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Images of one service in podman's store, each known by its digest, and pinned as long as a restore may need it.

A pin is a name of the image, C(localhost/onprem-rollout/<service>:<hex digits of its digest>): podman removes no image that
has one when it prunes what has no name.
"""

import json
import os
import re
import shutil
from typing import IO, Any, Dict, List, NamedTuple, Optional, Tuple

from . import _unpack
from ._errors import Refused, RolloutError
from ._process import last_line, reason, run
from ._store import write_json

LATER = 21  # the return code by which a payload asks to be run again later
PATIENCE = 120.0
SHOWN = 300
CACHE = "/var/cache/onprem-rollout"
OCI = "image"
NAME = re.compile(r"[A-Za-z0-9]+(?:[._-][A-Za-z0-9]+)*\Z")
PINS = "localhost/onprem-rollout"
REFERENCE = re.compile(
    r"(?P<repository>(?:localhost|[a-z0-9-]+(?:\.[a-z0-9-]+)+|[a-z0-9-]+(?=:))(?::[0-9]+)?(?:/[a-z0-9]+(?:(?:\.|_|__|-+)[a-z0-9]+)*)+)"
    r"(?::[A-Za-z0-9_][A-Za-z0-9_.-]{0,127})?@(?P<digest>sha256:[0-9a-f]{64})\Z"
)
ID = re.compile(r"^[0-9a-f]{64}$", re.MULTILINE)
UNKNOWN = re.compile(r"no such image|image not known|unable to find|no such object", re.IGNORECASE)
# What podman says when the registry, or the way to it, is away; not when the registry answers that it lacks or refuses the image.
OUTAGE = re.compile(
    r"connection (refused|reset|timed out)|i/o timeout|no route to host|network is unreachable|no such host|server misbehaving"
    r"|temporary failure in name resolution|tls handshake timeout|context deadline exceeded|\bEOF\b|broken pipe|too ?many ?requests"
    r"|\b(429|50[0234])\b|service unavailable|bad gateway|gateway time-?out|internal server error",
    re.IGNORECASE,
)
Reference = NamedTuple("Reference", [("repository", str), ("digest", str)])
Image = NamedTuple("Image", [("id", str), ("digest", str), ("digests", List[str]), ("tags", List[str])])


def parse(image: str) -> Reference:
    """C(registry/name@sha256:...), also with a tag, which says nothing beside a digest. Refused for anything else."""
    found = REFERENCE.match(image)
    if not found:
        raise Refused("The image {0!r} is not pinned: {1}. Nothing was changed.".format(image, remedy(image)), "bad_image")
    return Reference(found.group("repository"), found.group("digest"))


def remedy(image: str) -> str:
    """What is wrong with an image that parse() refuses, in words."""
    what = "a tag may be another image tomorrow" if "@" not in image else "its digest is sha256: and 64 lower-case hex digits"
    return what + "; write registry.example.com/name@sha256:<digest>, with the registry, as skopeo inspect or podman image inspect print it"


class Images:
    """The images of the service C(name)."""

    def __init__(self, name: str, cache: str = CACHE) -> None:
        self.name = name
        self.pins_of = "{0}/{1}".format(PINS, name.lower())
        self.cache = os.path.join(cache, "container-" + name)
        self.made = "localhost/{0}:latest".format(OCI)  # what podman may call an image that it takes from there

    def find(self, reference: str) -> Optional[Image]:
        """The image of this name, digest or id, if the host has it."""
        code, output = podman(["image", "inspect", "--", reference])
        if code == 0:
            found = _json(output)[0]
            digest = found.get("Digest") or "sha256:" + found["Id"]
            return Image(found["Id"], digest, _digests(digest, found), found.get("RepoTags") or [])
        if code is not None and UNKNOWN.search(output):
            return None
        raise _failed(["image", "inspect", reference], code, output)

    def pull(self, reference: Reference, authfile: Optional[str], timeout: float) -> Image:
        """Have podman fetch the image from its registry. RolloutError with C(rc=LATER) when the registry is away."""
        wanted = at(reference)
        code, output = podman(["pull", "--quiet"] + (["--authfile", authfile] if authfile else []) + ["--", wanted], timeout)
        if code != 0:
            why = last_line(output, SHOWN) or ("no answer within {0:g} s".format(timeout) if code is None else "rc {0}".format(code))
            if code is None or OUTAGE.search(output.replace(reference.digest, "").replace(reference.repository, "")):
                msg = "The image {0} cannot be pulled now, its registry is away: {1}. The service was not changed; this can be run again later (exit {2})."
                raise RolloutError(msg.format(wanted, why, LATER), "fetch", rc=LATER)
            raise RolloutError("The image {0} cannot be pulled: {1}. The service was not changed.".format(wanted, why), "fetch")
        return self._proven(reference)

    def load(self, reference: Reference, source: IO[bytes], origin: str, max_bytes: int) -> Image:
        """Bring the image of a verified OCI archive into the store, under names of its own: no tag that is in use is moved."""
        self._clear()
        place = os.path.join(self.cache, OCI)
        os.makedirs(os.path.dirname(self.cache), 0o700, exist_ok=True)
        try:
            os.mkdir(self.cache, 0o700)
            _unpack.write(source, _unpack.plan(source, 0, max_bytes), os.fsencode(place))
            self._choose(os.path.join(place, "index.json"), reference, origin)
            output = self._run(["pull", "--quiet", "--", "oci:" + OCI], None, self.cache)  # podman makes a name of the path, which few would be good for
        finally:
            self._clear()
        found = ID.search(output)
        image = self.find(found.group(0)) if found else None
        if image is None:
            raise _failed(["pull", "oci:" + OCI], 0, output)
        self._run(["tag", image.id, "{0}:{1}".format(reference.repository, _tag(reference.digest))])
        if self.made in image.tags:
            self._run(["untag", image.id, self.made])
        return self._proven(reference)

    @staticmethod
    def _choose(index: str, reference: Reference, origin: str) -> None:
        """Leave in the index of the unpacked archive nothing but the image with this digest, and no name for it."""
        try:
            with open(index, encoding="utf-8") as file:
                content = json.load(file)
            found = {str(each["digest"]): each for each in content["manifests"]}
        except (OSError, ValueError, KeyError, TypeError):
            raise Refused(
                "The artifact {0} is not an OCI archive, which alone keeps the digest of an image: it has no readable index.json. Nothing was loaded. Save it "
                "with podman save --format oci-archive, or with skopeo copy --preserve-digests docker://... oci-archive:...".format(origin),
                "bad_archive",
            ) from None
        if reference.digest not in found:
            raise Refused(
                "The artifact {0} holds the image {1}, but the release asks for {2}. Nothing was loaded. Give the artifact of this release, or correct the "
                "digest.".format(origin, " and ".join(sorted(found)) or "of no digest", reference.digest),
                "digest",
            )
        write_json(index, dict(content, manifests=[dict(found[reference.digest], annotations={})]))

    def _proven(self, reference: Reference) -> Image:
        image = self.find(at(reference))
        if image is None or reference.digest not in image.digests:
            found = ", ".join(image.digests) if image else "no image of that name"
            raise RolloutError(
                "podman was asked for {0} and has {1}. The service was not changed. Look at podman images --digests.".format(at(reference), found), "digest"
            )
        return image

    def pin(self, image: Image) -> None:
        self._run(["tag", image.id, self.pin_of(image.digest)])

    def pinned(self) -> List[str]:
        """The digests of all images that are pinned for this service."""
        output = self._run(["images", "--no-trunc", "--format", "json", "--filter", "reference={0}:*".format(self.pins_of)])
        names = {name for image in _json(output) for name in image.get("Names") or []}  # of an image with two, each says both
        return sorted("sha256:" + name.rpartition(":")[2] for name in names if name.rpartition(":")[0] == self.pins_of)

    def drop(self, digest: str) -> None:
        """Take the pin off, and the image away if nobody else has a name for it and no container uses it."""
        image = self.find(self.pin_of(digest))
        if image is None:
            return
        names = [tag for tag in image.tags if tag in (self.pin_of(digest), self.made)]
        if all(tag in names or tag.endswith(":" + _tag(digest)) for tag in image.tags):
            names = image.tags
        self._run(["untag", image.id] + names)
        if names == image.tags:
            podman(["rmi", "--", image.id])  # refused while another container uses it

    def pin_of(self, digest: str) -> str:
        return "{0}:{1}".format(self.pins_of, digest.partition(":")[2])

    def _clear(self) -> None:
        if os.path.lexists(self.cache):
            shutil.rmtree(self.cache)

    @staticmethod
    def _run(argv: List[str], timeout: Optional[float] = PATIENCE, cwd: Optional[str] = None) -> str:
        code, output = podman(argv, timeout, cwd)
        if code != 0:
            raise _failed(argv, code, output)
        return output


def at(reference: Reference) -> str:
    """As podman run, pull and inspect take it."""
    return "{0.repository}@{0.digest}".format(reference)


def podman(argv: List[str], timeout: Optional[float] = PATIENCE, cwd: Optional[str] = None) -> Tuple[Optional[int], str]:
    """What podman ended with, and said. Refused on a host that has none."""
    try:
        return run(["podman"] + argv, timeout, cwd)
    except OSError as error:
        raise Refused("podman cannot be started on this host: {0}. Nothing was changed. Install it there.".format(reason(error)), "no_podman") from None


def _tag(digest: str) -> str:
    return digest.replace(":", "-")


def _digests(digest: str, found: Dict[str, Any]) -> List[str]:
    return sorted({digest}.union(name.partition("@")[2] for name in found.get("RepoDigests") or []))


def _json(output: str) -> Any:
    """What podman printed after its warnings, which go to the same place."""
    start = re.search(r"^\[", output, re.MULTILINE)
    return json.JSONDecoder().raw_decode(output[start.start() :])[0] if start else []


def _failed(argv: List[str], code: Optional[int], output: str) -> RolloutError:
    ended = "did not end in time" if code is None else "ended with rc {0}".format(code)
    return RolloutError("podman {0} {1}: {2}".format(" ".join(argv), ended, last_line(output, SHOWN) or "no output"), "podman")
