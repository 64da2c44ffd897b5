# Copyright: onprem.rollout contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""The runs that the ledger knows to have ended, for the worker processes that are forked from the one that reads it."""

from __future__ import annotations

from collections.abc import Mapping, Set
from typing import Any

_ended: Set[str] = frozenset()


def drop(runs: Set[str]) -> None:
    """From here on hosts that these runs left half done may be settled, wherever those ran."""
    global _ended
    _ended = runs


def has_ended(holder: Mapping[str, Any]) -> bool:
    """Whether the run that holds a host said in the ledger that it ended; False in a run without a ledger."""
    return str(holder.get("run", "")).partition("#")[0] in _ended
