# Copyright: onprem.rollout contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Hosts whose payload ran no task, for the worker processes that are forked from the one that hears what tasks report."""

from __future__ import annotations

_hosts: set[str] = set()

WHY = "the payload ran no task, so the release cannot have been installed"


def mark(host: str, idle: bool) -> None:
    """From here on the host does not commit, or does."""
    if idle:
        _hosts.add(host)
    else:
        _hosts.discard(host)


def marked(host: str) -> bool:
    """Whether it was marked when this process was forked; nobody is where the engine sees to it in another way."""
    return host in _hosts
