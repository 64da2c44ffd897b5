# Copyright: onprem.rollout contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""What this run prints, and whether anybody still reads it."""

from __future__ import annotations

import os
import select


def drop_lost_output() -> None:
    """When nobody reads what is printed any more, go on without: hosts in change matter more than their story.

    Core would lose its results over it: an error in printing ends its thread, and the task that was just to be queued.
    """
    for fd in (1, 2):
        poll = select.poll()
        poll.register(fd, select.POLLOUT)
        if any(event & (select.POLLERR | select.POLLHUP | select.POLLNVAL) for _fd, event in poll.poll(0)):
            nowhere = os.open(os.devnull, os.O_WRONLY)
            os.dup2(nowhere, fd)
            os.close(nowhere)
