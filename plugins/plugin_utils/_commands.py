# Copyright: onprem.rollout contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""The commands to go on with, made of the one that was given, without the secrets in it. Pure."""

from __future__ import annotations

import json
import re
import shlex
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

SECRET = re.compile(r"pass|secret|token|key|credential|auth", re.IGNORECASE)
EXTRA_VARS = ("-e", "--extra-vars")
HIDDEN = "HIDDEN"


class Commands:
    """argv: this ansible-playbook's; playbooks: those of its arguments that are playbooks."""

    def __init__(self, argv: Sequence[str] = (), playbooks: Sequence[str] = ()) -> None:
        self._argv = list(_redacted(argv))
        self._playbooks = set(playbooks)

    def same(self) -> str:
        """The command that was given."""
        return shlex.join(["ansible-playbook", *self._argv[1:]] if not self._argv else [self._argv[0].rpartition("/")[2], *self._argv[1:]])

    def other(self, playbook: str, *more: str) -> str:
        """Another playbook of the collection with the same inventory, login and variables, but for those that are hidden."""
        kept, words = [], iter(self._argv[1:])
        for word in words:
            if word in EXTRA_VARS:
                value = next(words, "")
                kept += [] if HIDDEN in value else [word, value]
            elif word not in self._playbooks and word not in ("-C", "--check", "-D", "--diff") and HIDDEN not in word:
                kept.append(word)
        return shlex.join(["ansible-playbook", f"onprem.rollout.{playbook}", *kept, *more])


def _redacted(argv: Sequence[str]) -> Iterator[str]:
    words = iter(argv)
    for word in words:
        if word in EXTRA_VARS:
            yield word
            yield _hide(next(words, ""))
        elif word.startswith("--extra-vars="):
            yield "--extra-vars=" + _hide(word.partition("=")[2])
        elif re.match(r"-e[^-]", word):
            yield "-e" + _hide(word[2:])
        else:
            yield word


def _hide(given: str) -> str:
    """One value of --extra-vars: @file, key=value pairs, JSON or YAML."""
    if given.startswith("@"):
        return given
    if given.lstrip()[:1] in ("{", "["):
        try:
            return json.dumps(_hide_data(json.loads(given)))
        except ValueError:
            return HIDDEN
    try:
        pairs = shlex.split(given)
    except ValueError:
        return HIDDEN
    shown = [f"{key}={HIDDEN}" if equals and _is_secret(key, value) else pair for pair in pairs for key, equals, value in [pair.partition("=")]]
    return given if shown == pairs else shlex.join(shown)


def _hide_data(data: Any) -> Any:
    if isinstance(data, Mapping):
        return {key: HIDDEN if isinstance(value, (str, int)) and _is_secret(str(key), str(value)) else _hide_data(value) for key, value in data.items()}
    return [_hide_data(item) for item in data] if isinstance(data, list) else data


def _is_secret(key: str, value: str) -> bool:
    return bool(SECRET.search(key) or re.search(r"://[^/@]*:[^/@]*@", value))
