# Copyright: onprem.rollout contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Which ledger O(rollout_ledger) names, and who writes to it."""

from __future__ import annotations

import os
import time
from collections.abc import Mapping
from typing import Any

from ansible_collections.onprem.rollout.plugins.plugin_utils import _holder
from ansible_collections.onprem.rollout.plugins.plugin_utils._ledger import Ledger
from ansible_collections.onprem.rollout.plugins.plugin_utils._ledger_file import LedgerFile
from ansible_collections.onprem.rollout.plugins.plugin_utils._ledger_postgresql import LedgerPostgresql, at_in_path, without_password

POSTGRESQL = ("postgresql://", "postgres://")


def default_place() -> str:
    """The file that is used when nobody names one."""
    return os.path.join(os.environ.get("XDG_STATE_HOME") or os.path.expanduser("~/.local/state"), "onprem-rollout", "ledger.jsonl")


def place_problem(place: Any) -> str:
    """What is wrong with the name of a ledger; nothing if nothing is."""
    if not isinstance(place, str) or not place.strip():
        return "write the path of a file, or postgresql://..."
    if place.startswith(POSTGRESQL) and at_in_path(place):
        return "write what is special in the user's name and the password by its number: %2F for /, %40 for @, %3A for :"
    if place.startswith(POSTGRESQL) or "://" not in place:
        return ""
    return "is neither a path nor postgresql://..."


def shown(place: Any) -> Any:
    """The same for people to read, without a password."""
    return without_password(place) if isinstance(place, str) and "://" in place else place


def open_ledger(place: str, who: str) -> Ledger:
    """The ledger of that name. Nothing is read or written yet."""
    if place.startswith(POSTGRESQL):
        return LedgerPostgresql(place, who, time.time)
    return LedgerFile(os.path.abspath(os.path.expanduser(place)), who, time.time)


def missing(ledger: Ledger) -> str:
    """Why a ledger that should be there is none, or nothing. One that cannot be asked may be there."""
    return "" if ledger.exists() else "there is no such ledger; give the rollout_ledger of the upgrade, whose first run makes it"


def user(variables: Mapping[str, Any]) -> str:
    """Who started this: in AWX the user who launched the job, elsewhere the one of the process."""
    return _holder.user(variables)


def who(variables: Mapping[str, Any], pid: int) -> str:
    """Who started this and where, for people to read."""
    here = {"user": user(variables), "controller": _holder.controller(), "pid": pid, "job": _holder.job(variables)}
    return _holder.describe(here)
