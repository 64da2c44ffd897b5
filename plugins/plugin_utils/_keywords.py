# Copyright: onprem.rollout contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Play keywords and options of ansible-playbook that fight a rollout, and what to give instead."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from ansible_collections.onprem.rollout.plugins.plugin_utils._policy import Problem

INSTEAD = {
    "ignore_errors": "leave it out; a payload that failed would be committed",
    "ignore_unreachable": "leave it out; a host that went dark would be taken for a good one",
    "serial": "give wave sizes with serial in rollout_rings instead",
    "max_fail_percentage": "give max_failures in rollout_rings instead",
    "any_errors_fatal": "give max_failures: 0 in rollout_rings instead; it would send healthy hosts into their rescue",
}
HARMLESS: dict[str, tuple[Any, ...]] = {"tags": ("all",), "skip_tags": (), "start_at_task": ()}


def keyword_problems(play: str, keywords: Mapping[str, Any], any_errors_fatal: bool) -> list[Problem]:
    """keywords: of the play; any_errors_fatal: by ansible.cfg, which the play's own then shows too."""
    found = [
        Problem(f"play {play!r}, {keyword}", value, INSTEAD[keyword])
        for keyword, value in keywords.items()
        if is_set(value) and (keyword != "any_errors_fatal" or not any_errors_fatal)
    ]
    return found + ([Problem("ansible.cfg, any_errors_fatal", True, INSTEAD["any_errors_fatal"])] if any_errors_fatal else [])


def option_problems(options: Mapping[str, Any]) -> list[Problem]:
    return [
        Problem(f"--{option.replace('_', '-')}", options[option], "leave it out; a host transaction runs whole or not at all")
        for option, harmless in HARMLESS.items()
        if options.get(option) and options[option] != harmless and list(options[option]) != list(harmless)
    ]


def is_set(value: Any) -> bool:
    """A keyword that the play gives: 0 is a value of max_fail_percentage, and in Python it equals False."""
    return value is not None and value is not False and value != []
