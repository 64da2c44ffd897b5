# Copyright: onprem.rollout contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""What the revert timer runs: looks at the record, and restores this host when its time is over.

    no open transaction, an inconsistent or a held one    disarm, for good
    restoring, and nobody holds the lock               restore again: whoever restored it died
    any other phase                                    restore once the deadline is reached

It is asked many times for each change, so what only a restore needs is imported by the restore.
"""

import os
import time
from typing import Any, Callable, Dict, List, Optional

from . import _services, _timer
from ._errors import RolloutError
from ._process import run
from ._record import Record, iso, load, open_transaction
from ._store import locked, release_reserve

BY = "timer"
Check = Callable[[Any], List[Dict[str, Any]]]
LOCK_WAIT = 1.0
OVER, WAITING, RESTORED = "over", "waiting", "restored"
LOG = "revert.log"
NOTICE = "<5>"  # how the journal is told the level; below it are only systemd's words on each start


def revert(
    state_dir: str,
    clock: Callable[[], float] = time.time,
    uptime: Callable[[], float] = _timer.boottime,
    check: Optional[Check] = None,
    command: _services.Command = run,
) -> str:
    """Ask once: OVER, WAITING or RESTORED. RolloutError when the host could not be restored."""
    if not os.path.isdir(state_dir):
        return OVER
    if _judge(load(state_dir), clock, uptime) == WAITING:
        return WAITING  # without the lock, which whoever works on the host may need
    try:
        with locked(state_dir, wait=LOCK_WAIT):
            record = load(state_dir)
            verdict = _judge(record, clock, uptime)
            if verdict == OVER:
                release_reserve(state_dir)  # a commit that was killed may have left it
                _timer.disarm(state_dir, command)
            elif verdict == RESTORED:
                from . import _checks, _restore

                _restore.settle(state_dir, record, _reason(record["transaction"]), clock, check or _checks.run, command, by=BY)
            return verdict
    except RolloutError as error:
        if error.reason == "locked":
            return WAITING
        raise


def _judge(record: Record, clock: Callable[[], float], uptime: Callable[[], float]) -> str:
    found = open_transaction(record)
    if found is None or found["phase"] in ("inconsistent", "held") or not found.get("revert"):
        return OVER
    if found["phase"] == "restoring" or _timer.remaining(found["revert"], clock(), uptime()) <= 0:
        return RESTORED
    return WAITING


def _reason(transaction: Dict[str, Any]) -> str:
    if transaction["phase"] == "restoring":
        return ""  # the reason that it was begun for stays
    return "revert timer: nobody committed within {0:g} s, found in phase {1}".format(transaction["revert"]["seconds"], transaction["phase"])


def note(state_dir: str, text: str) -> None:
    """One more line in the timer's own log, and in the journal; the same again is no news."""
    print(NOTICE + text, flush=True)
    fd = os.open(os.path.join(state_dir, LOG), os.O_RDWR | os.O_APPEND | os.O_CREAT | os.O_NOFOLLOW, 0o600)
    try:
        ending = " {0}\n".format(text).encode("utf-8", "backslashreplace")
        size = os.fstat(fd).st_size
        if size < len(ending) or os.pread(fd, len(ending), size - len(ending)) != ending:
            os.write(fd, iso(time.time()).encode("ascii") + ending)
    finally:
        os.close(fd)


def main(state_dir: str, arguments: List[str]) -> int:
    """C(revert) asks once, C(revert --wait) until there is nothing left to wait for. 1 when the host could not be restored."""
    while True:
        verdict = ""
        try:
            verdict = revert(state_dir)
            if verdict == RESTORED:
                note(state_dir, "restored by its revert timer: {0}".format(load(state_dir)["transaction"].get("reason")))
        except (RolloutError, OSError) as error:
            if os.path.isdir(state_dir):
                note(state_dir, "the revert timer could not restore this host: {0}".format(error))
        if verdict in (OVER, RESTORED) or not os.path.isdir(state_dir):
            return 0
        if "--wait" not in arguments:
            return 0 if verdict == WAITING else 1
        time.sleep(_pause(state_dir))


def _pause(state_dir: str) -> float:
    """Until the deadline, but no longer than systemd's timer would."""
    try:
        armed = (load(state_dir)["transaction"] or {}).get("revert")
    except (RolloutError, OSError):
        armed = None
    if not armed:
        return 1.0
    left = _timer.remaining(armed, time.time(), _timer.boottime())
    return max(0.2, min(left, float(_timer.interval(armed))))
