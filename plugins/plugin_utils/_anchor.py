# Copyright: onprem.rollout contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""The head of the ledger, for the worker processes that are forked from the one that writes it."""

from __future__ import annotations

from ansible_collections.onprem.rollout.plugins.plugin_utils._ledger import START, Head

_head = START


def drop(head: Head) -> None:
    """From here on hosts that begin keep this head."""
    global _head
    _head = head


def current() -> Head:
    """The head when this process was forked; START in a run without a ledger."""
    return _head
