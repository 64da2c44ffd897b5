# Copyright: onprem.rollout contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Texts that people sign with C(ssh-keygen -Y sign), checked offline against a file of allowed signers; and who is who.

A namespace says what a signature is for, so that one of an approval is none of a waiver.
"""

from __future__ import annotations

import os
import re
import stat
import subprocess
import tempfile
from collections.abc import Collection

APPROVAL = "onprem-rollout"
WAIVER = "onprem-rollout-waiver"
KEYGEN_LIMIT = 10.0  # seconds
LARGEST = 64 * 1024  # bytes of a text or a signature
NEVER = float("inf")
UNKNOWN_KEY = "was signed with a key that allowed_signers does not have for that name"
FLAWS = {
    "namespace does not match": "was signed for another purpose, and not with -n {namespace}",
    "incorrect signature": "has a signature of another text: one of them was changed",
    "key has expired": "was signed with a key that allowed_signers says has expired",
    "key is not yet valid": "was signed with a key that allowed_signers says is not valid yet",
    "parse signature": "has a signature that is none",
    "incomplete message": "has a signature that is none",
    "invalid format": "has a signature that is none",
}


class CannotAsk(Exception):
    """Nobody can say now whether a signature counts."""


def sign(text: str, key: str, namespace: str) -> str:
    """The signature, armored. key: the path of a private key without a passphrase, or of a public key whose private half an agent has."""
    code, out, said = _keygen("sign", namespace, "-f", key, text=text)
    if code:
        raise CannotAsk(f"{key} could not sign: {_last(said)}")
    return out


def verify(text: str, signature: str, by: str, allowed_signers: str, namespace: str) -> tuple[str, str]:
    """The fingerprint of the key that signed, and why the signature does not count, or nothing."""
    with tempfile.NamedTemporaryFile("w", encoding="utf-8", errors="surrogateescape", prefix="onprem-rollout-") as file:
        file.write(signature)
        file.flush()
        code, out, said = _keygen("verify", namespace, "-f", allowed_signers, "-I", by, "-s", file.name, text=text)
    if code == 0:
        key = re.search(r"key (\S+)\s*\Z", out)
        return key[1] if key else "", ""
    if "allowed keys file" in said.lower():
        raise CannotAsk(f"allowed_signers cannot be read: {_last(said)}")
    refused = f"has a signature that ssh-keygen refuses: {_last(said)}" if said.strip() else UNKNOWN_KEY
    return "", next((flaw.replace("{namespace}", namespace) for word, flaw in FLAWS.items() if word in said.lower()), refused)


def _keygen(verb: str, namespace: str, *options: str, text: str) -> tuple[int, str, str]:
    argv = ["ssh-keygen", "-Y", verb, "-n", namespace, *options]
    try:
        done = subprocess.run(
            argv,
            input=text.encode("utf-8", "surrogateescape"),
            capture_output=True,
            timeout=KEYGEN_LIMIT,
            env={**os.environ, "LC_ALL": "C"},
            start_new_session=True,
            check=False,
        )
    except subprocess.TimeoutExpired as error:
        raise CannotAsk(f"ssh-keygen did not end within {KEYGEN_LIMIT:g} s") from error
    except OSError as error:
        raise CannotAsk(f"ssh-keygen cannot be started: {error.strerror}; install OpenSSH's client on the controller") from error
    out, said = done.stdout.decode("utf-8", "replace"), done.stderr.decode("utf-8", "replace")
    if done.returncode not in (0, 255):
        raise CannotAsk(f"ssh-keygen -Y {verb} ended with {done.returncode}: {said.strip().partition(chr(10))[0]}; it needs OpenSSH 8.1 or newer")
    return done.returncode, out, said


def _last(said: str) -> str:
    return said.strip().rpartition("\n")[2]


def person(name: str) -> str:
    """Who it is, whatever the machine or the domain: R(ada) for R(ada on ctl1, pid 7) and R(Ada@example.org)."""
    return name.partition(" on ")[0].partition("@")[0].strip().casefold()


def launchers(launcher: str, others: Collection[str]) -> set[str]:
    """The people who launched this run or another one."""
    return {found for name in (launcher, *others) if (found := person(name))}


def read_text(path: str, what: str, largest: float) -> str:
    """A regular file of at most so many bytes; CannotAsk."""
    try:
        fd = os.open(path, os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC)
        with open(fd, "rb") as source:
            found = os.fstat(fd)
            if not stat.S_ISREG(found.st_mode) or found.st_size > largest:
                raise CannotAsk(f"{what} {path} is no regular file" + (f" of at most {largest:g} bytes" if largest < NEVER else ""))
            return source.read().decode("utf-8", "surrogateescape")
    except OSError as error:
        raise CannotAsk(f"{what} {path}: {error.strerror}") from error
