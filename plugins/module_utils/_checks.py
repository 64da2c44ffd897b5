# Copyright: onprem.rollout contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Health checks: a table of what each type takes, a validation of plain data, and a run of all of them at once.

    problems = validate(checks)            # a list of sentences; also for inventory data nobody has templated yet
    results = run(checks, defaults)        # one mapping per check, in the order of the checks
    sick = failed(results)                 # required and not ok; describe(sick) says it in one line

A check is well when C(consecutive) attempts in a row succeed. Attempts are C(interval) seconds apart; none begins after
C(deadline) seconds, and each may take C(timeout) seconds. There is always one attempt.
"""

import re
import threading
import time
from typing import Any, Callable, Dict, List, Mapping, NamedTuple, Optional, Tuple

from . import _probes
from ._errors import RolloutError

LEVELS = ("required", "advisory")
STATES = ("active", "inactive", "failed", "activating", "deactivating", "reloading")
DEFAULTS = {"interval": 1.0, "deadline": 30.0, "consecutive": 1, "timeout": 5.0}  # type: Dict[str, Any]
SECONDS = re.compile(r"([0-9]+(?:\.[0-9]+)?)([smh]?)\Z")
UNITS = {"": 1, "s": 1, "m": 60, "h": 3600}
GRACE = 5.0
REQUIRED = object()
Result = Dict[str, Any]
Reader = Callable[[Any], Any]


# Readers: each turns a raw value into the one that is used, or raises ValueError saying what to write instead.


def _text(raw: Any) -> str:
    if not isinstance(raw, str) or not raw:
        raise ValueError("write a text that is not empty")
    return str(raw)


def _path(raw: Any) -> str:
    if not isinstance(raw, str) or not raw.startswith("/") or "\0" in raw:
        raise ValueError("write an absolute path")
    return str(raw)


def _url(raw: Any) -> str:
    if not isinstance(raw, str) or not re.match(r"https?://[^/?#@\s]+([/?#]\S*)?\Z", raw):
        raise ValueError("write an http:// or https:// URL, without a user name and without blanks")
    return str(raw)


def _whole(low: int, high: int, what: str) -> Reader:
    def read(raw: Any) -> int:
        if isinstance(raw, bool) or not isinstance(raw, (int, str)) or not re.match(r"[0-9]+\Z", str(raw)):
            raise ValueError("write {0}, a number from {1} to {2}".format(what, low, high))
        if not low <= int(raw) <= high:
            raise ValueError("write {0}, a number from {1} to {2}".format(what, low, high))
        return int(raw)

    return read


def _status(raw: Any) -> List[int]:
    codes = list(raw) if isinstance(raw, (list, tuple)) else [raw]
    if not codes:
        raise ValueError("write at least one status")
    return [_whole(100, 599, "an HTTP status or a list of them")(code) for code in codes]


def _seconds(raw: Any) -> float:
    match = SECONDS.match(str(raw)) if isinstance(raw, (int, float, str)) and not isinstance(raw, bool) else None
    if match is None:
        raise ValueError('write seconds from 0 on, or a number with s, m or h, such as "2m"')
    return float(match.group(1)) * UNITS[match.group(2)]


def _timeout(raw: Any) -> float:
    seconds = _seconds(raw)
    if seconds <= 0:
        raise ValueError("write seconds, more than 0")
    return seconds


def _flag(raw: Any) -> bool:
    words = {"true": True, "yes": True, "false": False, "no": False}
    if str(raw).lower() not in words:
        raise ValueError("write true or false")
    return words[str(raw).lower()]


def _argv(raw: Any) -> List[str]:
    if not isinstance(raw, (list, tuple)) or not raw or not all(isinstance(word, (str, int, float)) for word in raw):
        raise ValueError("write a list: the program and its arguments, such as [/usr/bin/test, -e, /run/app.pid]")
    return [str(word) for word in raw]


def _choice(*allowed: str) -> Reader:
    def read(raw: Any) -> str:
        if raw not in allowed:
            raise ValueError("allowed: {0}".format(", ".join(allowed)))
        return str(raw)

    return read


Option = NamedTuple("Option", [("read", Reader), ("default", Any)])
OPTIONS = {
    "http": {
        "url": Option(_url, REQUIRED),
        "status": Option(_status, [200]),
        "contains": Option(_text, None),
        "validate_certs": Option(_flag, True),
    },
    "tcp": {"host": Option(_text, "127.0.0.1"), "port": Option(_whole(1, 65535, "a port"), REQUIRED)},
    "systemd": {"unit": Option(_text, REQUIRED), "state": Option(_choice(*STATES), "active")},
    "command": {
        "argv": Option(_argv, REQUIRED),
        "rc": Option(_whole(0, 255, "a return code"), 0),
        "contains": Option(_text, None),
    },
    "file": {
        "path": Option(_path, REQUIRED),
        "state": Option(_choice("present", "absent"), "present"),
        "contains": Option(_text, None),
    },
}  # type: Dict[str, Dict[str, Option]]
COMMON = {
    "name": Option(_text, None),
    "type": Option(_choice(*OPTIONS), REQUIRED),
    "level": Option(_choice(*LEVELS), "required"),
    "interval": Option(_seconds, None),
    "deadline": Option(_seconds, None),
    "consecutive": Option(_whole(1, 1000, "how many successes in a row"), None),
    "timeout": Option(_timeout, None),
}
TARGET = {"http": "url", "tcp": "port", "systemd": "unit", "command": "argv", "file": "path"}


def _unknown(raw: Any) -> bool:
    """Whether nobody can know the value before it is templated."""
    if isinstance(raw, str):
        return "{{" in raw or "{%" in raw
    return isinstance(raw, (list, tuple)) and any(_unknown(item) for item in raw)


def validate(checks: Any, where: str = "checks", templated: bool = False) -> List[str]:
    """Everything wrong with the checks: one sentence each, with the check, the value, and what is allowed.

    Unless they are C(templated), a text with a template in it is taken as right: its value is not known yet.
    """
    return _parse(checks, where, templated, {})[1]


def _parse(checks: Any, where: str, templated: bool, defaults: Mapping[str, Any]) -> Tuple[List[Dict[str, Any]], List[str]]:
    if checks is None or (not templated and isinstance(checks, str) and _unknown(checks)):
        return [], []
    if not isinstance(checks, (list, tuple)):
        return [], ["{0}: {1!r}: write a list of checks".format(where, checks)]
    problems = []  # type: List[str]
    base = dict(DEFAULTS)
    for key in sorted(key for key, value in defaults.items() if value is not None):
        base[key] = _read(COMMON[key], defaults[key], "default {0} of {1}".format(key, where), templated, problems)
    parsed = [_parse_check(raw, base, "{0}[{1}]".format(where, index), templated, problems) for index, raw in enumerate(checks)]
    return parsed, problems


def _parse_check(raw: Any, base: Mapping[str, Any], where: str, templated: bool, problems: List[str]) -> Dict[str, Any]:
    if not templated and isinstance(raw, str) and _unknown(raw):
        return {}
    if not isinstance(raw, Mapping):
        problems.append("{0}: {1!r}: a check is a mapping with at least a type".format(where, raw))
        return {}
    if isinstance(raw.get("name"), str):
        where = "{0} ({1})".format(where, raw["name"])
    kind = raw.get("type")
    if not templated and _unknown(kind):
        return {}
    if not isinstance(kind, str) or kind not in OPTIONS:
        seen = "is missing" if kind is None else repr(kind)
        problems.append("{0}.type: {1}: allowed: {2}".format(where, seen, ", ".join(OPTIONS)))
        return {}
    options = dict(COMMON, **OPTIONS[kind])
    for option in raw:
        if option not in options:
            allowed = ", ".join(sorted(options))
            problems.append("{0}.{1}: {2!r}: no such option of {3}; allowed: {4}".format(where, option, raw[option], kind, allowed))
    check = {}  # type: Dict[str, Any]
    for option, spec in options.items():
        value = raw.get(option)
        if value is not None:
            check[option] = _read(spec, value, "{0}.{1}".format(where, option), templated, problems)
        elif spec.default is REQUIRED:
            problems.append("{0}.{1}: is missing; every {2} check needs it".format(where, option, kind))
        else:
            check[option] = base.get(option, spec.default)
    _coherent(check, where, problems)
    target = check.get(TARGET[kind])
    check["name"] = check.get("name") or "{0} {1}".format(kind, " ".join(target) if isinstance(target, list) else target)
    return check


def _read(spec: Option, raw: Any, where: str, templated: bool, problems: List[str]) -> Any:
    """The value; None when it is wrong, which was then reported, or not known yet."""
    if not templated and _unknown(raw):
        return None
    try:
        return spec.read(raw)
    except ValueError as error:
        problems.append("{0}: {1!r}: {2}".format(where, raw, error))
        return None


def _coherent(check: Mapping[str, Any], where: str, problems: List[str]) -> None:
    if check.get("state") == "absent" and check.get("contains") is not None:
        problems.append("{0}.contains: {1!r}: a file that is absent contains nothing; leave it out".format(where, check["contains"]))
    timing = [check.get(key) for key in ("consecutive", "interval", "deadline")]
    if None in timing:  # reported already, or not known yet
        return
    consecutive, interval, deadline = timing  # type: Any, Any, Any
    if (consecutive - 1) * interval > deadline:
        problems.append(
            "{0}.consecutive: {1}: {1} successes {2:g} s apart cannot happen within {3:g} s; raise the deadline or lower the interval".format(
                where, consecutive, interval, deadline
            )
        )


class Clock:
    """Where time comes from. Tests have their own, which does not wait."""

    def now(self) -> float:
        return time.monotonic()

    def wait(self, stop: threading.Event, seconds: float) -> None:
        """Return after C(seconds), or at once when there is no reason to go on."""
        stop.wait(seconds)


class _Watch(threading.Thread):
    """One check, asked until it is well or its deadline is over."""

    def __init__(self, check: Dict[str, Any], clock: Clock, stop: threading.Event) -> None:
        super(_Watch, self).__init__(name=check["name"], daemon=True)
        self.check, self.clock, self.stopped = check, clock, stop
        self.probe = _probes.PROBES[check["type"]]
        self.ok, self.seen, self.seconds, self.attempts = False, "no answer", 0.0, 0

    def run(self) -> None:
        check, began, streak = self.check, self.clock.now(), 0
        while not self.stopped.is_set():
            self.attempts += 1
            well, seen = self._attempt()
            streak = streak + 1 if well else 0
            self.seconds = self.clock.now() - began
            self.ok, self.seen = streak >= check["consecutive"], seen
            if well and not self.ok:
                self.seen = "{0}, but only {1} in a row".format(seen, streak)
            left = check["deadline"] - self.seconds
            if self.ok or left <= 0:
                return
            self.clock.wait(self.stopped, min(check["interval"], left))

    def _attempt(self) -> Tuple[bool, str]:
        try:
            return self.probe(self.check, self.check["timeout"])
        except Exception as error:  # a thread that dies would leave a check without a result
            return False, "the check itself failed: {0}: {1}".format(type(error).__name__, error)

    def result(self) -> Result:
        check = self.check
        expected = _probes.EXPECTED[check["type"]](check)
        if check["consecutive"] > 1:
            expected += ", {0} times in a row".format(check["consecutive"])
        return {
            "name": check["name"],
            "type": check["type"],
            "level": check["level"],
            "ok": self.ok,
            "seen": self.seen,
            "expected": expected,
            "seconds": round(self.seconds, 3),
            "attempts": self.attempts,
        }


def run(checks: Any, defaults: Optional[Mapping[str, Any]] = None, clock: Optional[Clock] = None) -> List[Result]:
    """Run all checks at the same time and wait for the last one. RolloutError when they are not valid.

    C(defaults) may give interval, deadline, consecutive and timeout; a check's own value wins.
    """
    parsed, problems = _parse(checks, "checks", True, defaults or {})
    if problems:
        raise RolloutError("The health checks are not valid:\n  " + "\n  ".join(problems), "checks", problems=problems)
    stop = threading.Event()
    watches = [_Watch(check, clock or Clock(), stop) for check in parsed]
    try:
        for watch in watches:
            watch.start()
        began = time.monotonic()
        for watch in watches:
            # A name server or a disk that hangs is not bounded by any timeout, so the check is left behind.
            patience = watch.check["deadline"] + 2 * watch.check["timeout"] + GRACE
            watch.join(max(0.0, began + patience - time.monotonic()))
            if watch.is_alive():
                watch.seconds, watch.ok = time.monotonic() - began, False
    finally:
        stop.set()
    return [watch.result() for watch in watches]


def failed(results: List[Result]) -> List[Result]:
    """The results that say the host is not well: required checks that are not ok."""
    return [result for result in results if result["level"] == "required" and not result["ok"]]


def describe(results: List[Result]) -> str:
    """The results in one line: each check with what was seen, what was expected, and after how long."""
    return "; ".join(
        "{name}: {seen}, expected {expected}, after {seconds:.1f} s and {attempts} attempt{0}".format("s" * (item["attempts"] != 1), **item) for item in results
    )
