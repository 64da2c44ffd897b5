# Copyright: onprem.rollout contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Waivers: signed, expiring permissions for named hosts to take a release that is below their floor.

A waiver is a file NAME.json and its signature NAME.json.sig beside it, made with C(ssh-keygen -Y sign -n onprem-rollout-waiver)
or the playbook C(waive). What was signed is all that is believed. It counts for the hosts that it names, one by one, for one release, until it
expires, if it was signed by a principal of the allowed signers who launched no run of the release, and if the file C(revoked) beside it does not list it.
Each host keeps the ids that were used on it, and takes none twice.
"""

from __future__ import annotations

import json
import os
from collections.abc import Collection, Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any

from ansible_collections.onprem.rollout.plugins.plugin_utils._ledger import ENCODER, stamp
from ansible_collections.onprem.rollout.plugins.plugin_utils._signatures import LARGEST, NEVER, WAIVER, CannotAsk, launchers, person, read_text, sign, verify
from ansible_collections.onprem.rollout.plugins.plugin_utils._verbs import end_of

KEYS = ("id", "by", "why", "expires", "hosts", "release")
REVOKED = "revoked"
ISO = "%Y-%m-%dT%H:%M:%SZ"


@dataclass(frozen=True, slots=True)
class Waivers:
    """by_host: the waiver of each host that has one, as C(begin) takes it. flaws: why the others do not count, each with its place."""

    by_host: Mapping[str, Mapping[str, str]] = field(default_factory=dict)
    flaws: tuple[str, ...] = ()


_current = Waivers()


def drop(waivers: Waivers) -> None:
    """What hosts that begin from here on are given."""
    global _current
    _current = waivers


def of(host: str) -> Mapping[str, str] | None:
    """The waiver of the host when this process was forked."""
    return _current.by_host.get(host)


def waiver_text(waiver: Mapping[str, Any]) -> str:
    """What is signed, to the byte."""
    return ENCODER.encode({key: waiver[key] for key in KEYS}) + "\n"


def read(directory: str, allowed_signers: str, release: Mapping[str, Any], launcher: str, now: float, earlier: Collection[str] = ()) -> Waivers:
    """The waivers that count for this release now. CannotAsk when nobody can tell; then none counts, and that is no verdict on any.

    release: with name, version and digest. now: seconds since 1970. launcher: of this run; earlier: of the others of this release.
    """
    if not person(launcher):
        raise CannotAsk("nobody knows who launched this run, and it must not be the signer")
    read_text(allowed_signers, "rollout_waiver_signers", NEVER)
    revoked = _revoked(directory)
    by_host: dict[str, Mapping[str, str]] = {}
    flaws: list[str] = []
    for path in _files(directory):
        try:
            text, signature = read_text(path, "the file", LARGEST), read_text(path + ".sig", "its signature", LARGEST)
        except CannotAsk as error:
            flaws.append(f"{path} cannot be read: {error}")
            continue
        waiver, flaw = _claim(text)
        flaw = flaw or _flaw(waiver, release, launcher, earlier, now, revoked) or verify(text, signature, waiver["by"], allowed_signers, WAIVER)[1]
        if flaw:
            flaws.append(f"{path} {flaw}")
            continue
        expires = stamp(end_of(waiver["expires"])[1])
        for host in waiver["hosts"]:
            by_host.setdefault(host, {"id": waiver["id"], "by": waiver["by"], "why": waiver["why"], "expires": expires[:19] + "Z"})
    return Waivers(by_host, tuple(flaws))


def _files(directory: str) -> Iterator[str]:
    try:
        names = sorted(name for name in os.listdir(directory) if name.endswith(".json"))
    except OSError as error:
        raise CannotAsk(f"rollout_waivers {directory} cannot be listed: {error.strerror}") from error
    return (os.path.join(directory, name) for name in names)


def _revoked(directory: str) -> frozenset[str]:
    path = os.path.join(directory, REVOKED)
    return frozenset(read_text(path, "the list", NEVER).split()) if os.path.lexists(path) else frozenset()


def _claim(text: str) -> tuple[dict[str, Any], str]:
    """What the text says, and what is wrong with its form."""
    try:
        said = json.loads(text)
    except (ValueError, RecursionError):
        said = None
    if not isinstance(said, dict) or set(said) != set(KEYS):
        return {}, f"is no JSON object of {', '.join(KEYS)}"
    texts = all(isinstance(said[key], str) and said[key].strip() and said[key].isprintable() for key in ("id", "by", "why", "expires"))
    if not texts or any(character.isspace() for character in said["id"]) or not person(said["by"]):
        return {}, "needs id (without spaces), by, why and expires as texts"
    hosts, release = said["hosts"], said["release"]
    if not isinstance(hosts, list) or not hosts or not all(isinstance(host, str) and host for host in hosts):
        return {}, "names no hosts"
    if not isinstance(release, dict) or not {"name", "version"} <= set(release) <= {"name", "version", "digest"}:
        return {}, "names no release by name, version and, if it shall be that very build, digest"
    return said, ""


def _flaw(waiver: Mapping[str, Any], release: Mapping[str, Any], launcher: str, earlier: Collection[str], now: float, revoked: frozenset[str]) -> str:
    if any(value != release.get(key) for key, value in waiver["release"].items()):
        return f"is for {waiver['release']['name']} {waiver['release']['version']}" + (", another build" if "digest" in waiver["release"] else "")
    if waiver["id"] in revoked:
        return "is revoked"
    if person(waiver["by"]) in launchers(launcher, earlier):
        return "is by the launcher" if person(waiver["by"]) == person(launcher) else "is by the launcher of an earlier run of it"
    why, end = end_of(waiver["expires"])
    if why:
        return f"expires {waiver['expires']!r}, which {why}"
    return f"expired at {waiver['expires']}" if now >= end else ""


def write(path: str, waiver: Mapping[str, Any], key: str) -> None:
    """Sign the waiver and write it and its signature; CannotAsk when that cannot be. One that lacks its signature does not count."""
    text = waiver_text(waiver)
    signature = sign(text, key, WAIVER)
    try:
        os.makedirs(os.path.dirname(path), mode=0o700, exist_ok=True)
        for place, content in ((f"{path}.sig", signature), (path, text)):
            with open(os.open(place, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600), "w", encoding="utf-8") as file:
                file.write(content)
                file.flush()
                os.fsync(file.fileno())
    except OSError as error:
        raise CannotAsk(f"{error.filename or path} cannot be written: {error.strerror}") from error
