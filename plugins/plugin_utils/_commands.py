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
EXTRA_VARS = "--extra-vars"
FLAGS = "vCDbkKJ"  # they take no value, so that others may stand behind them after one dash
SHORT = re.compile(rf"(-[{FLAGS}]*)e(=?)(.*)\Z", re.DOTALL)
HIDDEN = "HIDDEN"


class Commands:
    """argv: this ansible-playbook's; playbooks: those of its arguments that are playbooks."""

    def __init__(self, argv: Sequence[str] = (), playbooks: Sequence[str] = ()) -> None:
        self._program = argv[0].rpartition("/")[2] if argv else "ansible-playbook"
        self._words = list(_read(argv[1:]))
        self._playbooks = set(playbooks)

    def same(self) -> str:
        """The command that was given."""
        words = [self._program]
        for word, value, apart in self._words:
            shown = "" if value is None else _hide(value)
            words += [word, shown] if apart else [word + shown]
        return shlex.join(words)

    def other(self, playbook: str, *more: str) -> str:
        """Another playbook of the collection with the same inventory, login and variables, but for those that are hidden."""
        words = ["ansible-playbook", f"onprem.rollout.{playbook}"]
        for word, value, _apart in self._words:
            if value is None:
                words += [] if word in self._playbooks else _without_check(word)
                continue
            short = SHORT.match(word)
            words += _without_check(short[1]) if short else []
            known = _hide(value, drop=True)
            words += ["-e", known] if known else []
        return shlex.join([*words, *more])


def _read(argv: Sequence[str]) -> Iterator[tuple[str, str | None, bool]]:
    """Each word; what is given to --extra-vars, however that is written, and whether it is a word of its own."""
    words = iter(argv)
    for word in words:
        name, equals, value = word.partition("=")
        short = SHORT.match(word)
        if len(name) > 2 and EXTRA_VARS.startswith(name):
            yield (f"{name}=", value, False) if equals else (name, next(words, ""), True)
        elif short and short[3]:
            yield f"{short[1]}e{short[2]}", short[3], False
        elif short:
            yield word, next(words, ""), True
        else:
            yield word, None, False


def _without_check(word: str) -> list[str]:
    """The word without what asks for check mode and diffs, which not every playbook takes."""
    if any(len(word) >= least and option.startswith(word) for option, least in (("--check", 4), ("--diff", 3))):
        return []
    flags = re.match(rf"-[{FLAGS}]+", word)
    if flags:
        word = flags[0].translate({ord("C"): None, ord("D"): None}) + word[flags.end() :]
    return [] if word == "-" else [word]


def _hide(given: str, drop: bool = False) -> str:
    """One value of --extra-vars, @file, key=value pairs, JSON or YAML, with its secrets hidden; or dropped, with what they are part of."""
    if given.startswith("@"):
        return given
    if given.lstrip()[:1] in ("{", "["):
        return _hide_json(given, drop)
    try:
        pairs = shlex.split(given)
    except ValueError:
        return "" if drop else HIDDEN
    shown = [f"{key}={HIDDEN}" if equals and _is_secret(key, value) else pair for pair in pairs for key, equals, value in [pair.partition("=")]]
    if drop:
        shown = [pair for pair in shown if not pair.endswith(f"={HIDDEN}")]
    return given if shown == pairs else shlex.join(shown)


def _hide_json(given: str, drop: bool) -> str:
    try:
        data = _hide_data("", json.loads(given))
    except ValueError:
        return "" if drop else HIDDEN
    if not drop:
        return json.dumps(data)
    known = {key: value for key, value in data.items() if HIDDEN not in json.dumps(value)} if isinstance(data, Mapping) else {}
    return json.dumps(known) if known else ""


def _hide_data(key: str, data: Any) -> Any:
    if _is_secret(key, data if isinstance(data, str) else ""):
        return HIDDEN
    if isinstance(data, Mapping):
        return {name: _hide_data(str(name), value) for name, value in data.items()}
    return [_hide_data("", item) for item in data] if isinstance(data, list) else data


def _is_secret(key: str, value: str) -> bool:
    inside = value.lstrip()[:1] in ("{", "[") and SECRET.search(value)
    asked = "://" in value and any(SECRET.search(name) for name in re.findall(r"[?&]([^=&]+)=", value))
    return bool(SECRET.search(key) or inside or asked or re.search(r"://[^/@]*:[^/@]*@", value))
