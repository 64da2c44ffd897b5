# Copyright: onprem.rollout contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""The console program: what a sysadmin at the host, and the revert timer, restore it with. See _program.py."""

import json
import os
import sys
import time
from typing import Any, Callable, Dict, List, Optional

from . import _retention, _revert, _timer
from ._compare import KINDS
from ._errors import RolloutError
from ._fence import VARIABLE
from ._record import Record, iso, label, load, open_transaction, renew
from ._restore import restore
from ._store import locked, show
from ._transaction import progress

OK, FAILED, OPEN, INCONSISTENT, DAMAGED = 0, 1, 3, 4, 5
Verb = Callable[[str, Any], int]
EPILOG = """
Nothing here needs a network, a controller or Ansible. Run it as the user that owns the directory it lies in, as a rule root.

  {program} status             what this host runs, and whether a change is half done
  {program} restore --check    what putting it back would do
  {program} restore            put it back: files, services, then its health checks
  {program} verify             read every snapshot and name what is damaged
  {program} log                what happened here before

A restore may be interrupted and run again. If it cannot be proven healthy, the host is marked inconsistent and nothing
touches it by itself any more; repair what the message names, then: restore --force

exit codes: 0 fine, or nothing to do; 1 failed, the message says why; 2 wrong usage; 3 status: a transaction is open;
            4 the host is inconsistent; 5 verify: a snapshot is damaged
"""


def main(state_dir: str, arguments: List[str]) -> int:
    """Run one verb. The state directory is the one the program lies in."""
    options = _parse(show(_timer.program(state_dir)), arguments)
    verbs = {"status": _status, "restore": _restore, "verify": _verify, "log": _log, "progress": _progress}  # type: Dict[str, Verb]
    try:
        return verbs[options.verb](state_dir, options)
    except RolloutError as error:
        _say("{0}: {1}".format(error.reason, error), sys.stderr)
        return INCONSISTENT if error.reason in ("inconsistent", "restore_failed") else FAILED
    except OSError as error:
        _say("The system said: {0}.".format(error), sys.stderr)
        return FAILED


def _parse(program: str, arguments: List[str]) -> Any:
    import argparse

    parser = argparse.ArgumentParser(
        prog=program,
        description="Looks at this host's rollout, and puts the host back.",
        epilog=EPILOG.format(program=program),
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    verbs = parser.add_subparsers(dest="verb", metavar="VERB")
    verbs.required = True
    status = verbs.add_parser("status", help="what this host runs, and whether a change is half done")
    restoring = verbs.add_parser("restore", help="put this host back to what it was before the open transaction")
    restoring.add_argument("--transaction", metavar="ID", help="only if this is the open transaction; status shows its id")
    restoring.add_argument("--force", action="store_true", help="even if an earlier restore left the host inconsistent")
    restoring.add_argument("--check", action="store_true", help="say what it would do, and change nothing")
    verify = verbs.add_parser("verify", help="read every snapshot and name what is damaged")
    log = verbs.add_parser("log", help="what happened on this host before, and what its revert timer did")
    verbs.add_parser("progress", help="for a long payload: it is not stuck, so the revert timer begins anew")
    for verb in (status, restoring, verify, log):
        verb.add_argument("--json", action="store_true", help="for machines")
    return parser.parse_args(arguments)


def _say(text: str, stream: Any = None) -> None:
    """One text, in any locale and whatever bytes it is made of."""
    stream = stream or sys.stdout
    stream.write(show(text).encode(stream.encoding or "ascii", "backslashreplace").decode(stream.encoding or "ascii") + "\n")


def _release(release: Optional[Dict[str, Any]]) -> str:
    return label(release) if release else "nothing that a rollout installed"


def _status(state_dir: str, options: Any) -> int:
    record = load(state_dir)
    found = open_transaction(record)
    if options.json:
        left = _left(found)
        _say(json.dumps({"record": record, "open": found is not None, "armed": _timer.is_armed(state_dir), "restores_in": left}, sort_keys=True))
    else:
        for line in _status_lines(state_dir, record, found):
            _say(line)
    if found is None:
        return OK
    return INCONSISTENT if found["phase"] == "inconsistent" else OPEN


def _left(found: Optional[Dict[str, Any]]) -> Optional[float]:
    if not found or not found.get("revert") or found["phase"] in ("inconsistent", "held"):
        return None
    return round(_timer.remaining(found["revert"], time.time(), _timer.boottime()), 1)


def _status_lines(state_dir: str, record: Record, found: Optional[Dict[str, Any]]) -> List[str]:
    last = record["transaction"]
    lines = ["installed:        {0}".format(_release(record["installed"])), "last known good:  {0}".format(record["last_known_good"] or "none yet")]
    if last is None:
        return lines + ["transaction:      none, this host was never changed by a rollout"]
    holder = last["holder"]
    lines += [
        "transaction:      {0}, phase {1} since {2}".format(last["id"], last["phase"], last["updated"]),
        "  release:        {0}, over {1}".format(label(last["release"]), _release(last["previous"])),
        "  begun:          {0} by {1} on {2}, process {3}".format(last["began"], holder.get("user"), holder.get("controller"), holder.get("pid")),
    ]
    lines += ["  reason:         {0}".format(last["reason"])] if last.get("reason") else []
    lines += ["  restored by:    {0}".format(last["reverted_by"])] if last.get("reverted_by") else []
    if found is None:
        return lines + ["It is over: nothing is half done here."]
    left = _left(found)
    program = show(_timer.program(state_dir))
    if found["phase"] == "inconsistent":
        return lines + ["THIS HOST IS INCONSISTENT. Repair what the reason names, then: {0} restore --force".format(program)]
    if found["phase"] == "held":
        return lines + ["THIS HOST IS HELD: its change cannot be undone. To put its files back all the same: {0} restore --force".format(program)]
    if left is not None:
        armed = "" if _timer.is_armed(state_dir) else ", but NOBODY IS THERE TO DO IT"
        when = "restores this host in {0:.0f} s unless it hears of progress".format(left) if left > 0 else "is due now"
        lines.append("  revert timer:   {0}{1}".format(when, armed))
    else:
        lines.append("  revert timer:   none")
    return lines + ["It is half done. To wait no longer and put this host back: {0} restore".format(program)]


def _restore(state_dir: str, options: Any) -> int:
    found = open_transaction(load(state_dir)) or {}
    wanted = options.transaction or found.get("id", "")
    if not wanted or wanted != found.get("id"):
        if options.transaction:
            raise RolloutError("Transaction {0} is not open on this host. See: status".format(options.transaction), "no_transaction")
        _say("Nothing to restore: no transaction is open.")
        return OK
    reason = "restored by hand at the console, found in phase {0}".format(found["phase"])
    _changed, result, diff = restore(state_dir, "", wanted, reason, force=options.force, check_mode=options.check, by="console")
    if options.json:
        _say(json.dumps(result, sort_keys=True))
        return OK
    counts = ", ".join("{0} {1}".format(result["files"][kind], kind) for kind in KINDS)
    _say(diff.get("prepared", "").rstrip() or "no file differs from the snapshot")
    for check in result["checks"]:
        _say("check {0}: {1}".format(check.get("name"), "ok" if check.get("ok") else check.get("seen")))
    _say("{0}: {1}".format("would be restored" if options.check else result["outcome"], counts))
    return OK


def _verify(state_dir: str, options: Any) -> int:
    result = _retention.verify(state_dir)
    if options.json:
        _say(json.dumps(result, sort_keys=True))
    else:
        for found in result["snapshots"]:
            good = " (last known good)" if found["id"] == result["last_known_good"] else ""
            _say("{0}{1}: {2}".format(found["id"], good, "DAMAGED" if found["problems"] else "intact"))
            for problem in found["problems"]:
                _say("  {0}".format(problem))
        if not result["snapshots"]:
            _say("There is no snapshot on this host.")
    return DAMAGED if any(found["problems"] for found in result["snapshots"]) else OK


def _progress(state_dir: str, _options: Any) -> int:
    with locked(state_dir):
        record = load(state_dir)
        found = open_transaction(record) or {"phase": "over", "id": None}
        mark = os.environ.get(VARIABLE, found["id"])
        if found["phase"] != "changing" or mark != found["id"] or found.get("evicted"):
            raise RolloutError("No payload of transaction {0} is at work here: the open one is {id}, phase {phase}".format(mark, **found), "phase")
        renew(state_dir, record, **progress(record, "changing", time.time()))
    return OK


def _log(state_dir: str, options: Any) -> int:
    history = load(state_dir)["history"]
    try:
        with open(os.path.join(state_dir, _revert.LOG), encoding="utf-8", errors="replace") as source:
            timer = source.read().splitlines()
    except FileNotFoundError:
        timer = []
    if options.json:
        _say(json.dumps({"history": history, "timer": timer}, sort_keys=True))
        return OK
    for past in history:
        by = ", by its revert timer" if past.get("reverted_by") == _revert.BY else ""
        line = "{0}  {1}  {2}{3}".format(past["ended"], label(past["release"]), past["outcome"], by)
        _say("{0}: {1}".format(line, past["reason"]) if past.get("reason") else line)
    for line in timer:
        _say("revert timer: {0}".format(line))
    if not history and not timer:
        _say("Nothing happened on this host before {0}.".format(iso(time.time())))
    return OK
