# Copyright: onprem.rollout contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""A job that is cancelled is told by SIGTERM; core would leave without a word. While an L(Interrupt) is there, that ends it as a Ctrl-C does."""

from __future__ import annotations

import os
import signal
import threading
from types import FrameType
from typing import Any


class Interrupt:
    """seen: one of the two has come. It does nothing outside of the main thread, or where SIGINT is ignored."""

    def __init__(self) -> None:
        self.seen = False
        self._before: dict[int, Any] = {}
        self._process = os.getpid()
        if threading.current_thread() is threading.main_thread() and callable(signal.getsignal(signal.SIGINT)):
            for number in (signal.SIGINT, signal.SIGTERM):
                self._before[number] = signal.signal(number, self._end)

    def forget(self) -> None:
        for number, before in self._before.items():
            signal.signal(number, before)
        self._before.clear()

    def _end(self, number: int, frame: FrameType | None) -> None:
        if os.getpid() == self._process or number == signal.SIGINT:
            self.seen = True
            self._before[signal.SIGINT](signal.SIGINT, frame)  # core's own from 2.18 on: it tells the workers
        else:
            signal.signal(number, signal.SIG_DFL)
            os.kill(os.getpid(), number)
