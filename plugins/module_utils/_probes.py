# Copyright: onprem.rollout contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""One attempt of one check: each probe asks once and returns whether it is well and what was seen.

    PROBES[type](options, timeout) -> (ok, seen)      EXPECTED[type](options) -> what was expected

A probe raises nothing that the world can cause: an error is something seen.
"""

import contextlib
import errno
import os
import re
import socket
import stat
import time
from typing import Any, Callable, Dict, List, Match, Optional, Tuple

from ._process import last_line, reason, run

BODY = 1024 * 1024
CHUNK = 64 * 1024
SHOWN = 120
Options = Dict[str, Any]
Seen = Tuple[bool, str]


# An address that is asked without urllib: its import and that of http.client cost a host more than all the rest of a check.
PLAIN = re.compile(r"http://([A-Za-z0-9.-]+)(?::([0-9]+))?((?:/[!\"$-~]*)?)\Z")
ANSWER = re.compile(rb"HTTP/1\.[01] ([2-5][0-9][0-9])[ \r\n]")
REQUEST = "GET {0} HTTP/1.1\r\nAccept-Encoding: identity\r\nHost: {1}\r\nUser-Agent: {2}\r\nConnection: close\r\n\r\n"
AGENT = "onprem.rollout"


def _http(options: Options, timeout: float) -> Seen:
    until = time.monotonic() + timeout
    plain = PLAIN.match(options["url"])
    try:
        return (_ask(plain, options, timeout, until) if plain else None) or _follow(options, timeout, until)
    except (OSError, UnicodeError) as error:
        return False, _why(error, timeout)


def _ask(plain: Match[str], options: Options, timeout: float, until: float) -> Optional[Seen]:
    """The answer of one request; None when it sends us elsewhere. One that is wanted is known by its first line and not taken apart."""
    name, port, path = plain.groups()
    request = REQUEST.format(path or "/", name if port is None else "{0}:{1}".format(name, port), AGENT)
    with contextlib.closing(socket.create_connection((name, int(port or 80)), timeout)) as connection:
        connection.sendall(request.encode("ascii"))
        answer = ANSWER.match(connection.recv(16, socket.MSG_PEEK))
        status = int(answer.group(1)) if answer else 0
        if status in options["status"] and options["contains"] is None:
            return True, "status {0}".format(status)
        if 300 <= status < 400 and status not in options["status"]:
            return None
        from http.client import HTTPException, HTTPResponse

        response = HTTPResponse(connection, method="GET")
        try:
            response.begin()
        except HTTPException as error:
            return False, _why(error, timeout)
        return _judge(response, options, timeout, until)


def _follow(options: Options, timeout: float, until: float) -> Seen:
    """The same for https, redirects, and addresses that only urllib understands."""
    from http.client import HTTPException
    from urllib import error as errors
    from urllib import request as requests

    class Redirects(requests.HTTPRedirectHandler):
        """Follows redirects, except to a status that the check wants to see itself."""

        def redirect_request(self, req: Any, fp: Any, code: int, msg: str, headers: Any, newurl: str) -> Any:
            return None if code in options["status"] else super(Redirects, self).redirect_request(req, fp, code, msg, headers, newurl)

    # A proxy of the environment would answer for a service that is down.
    handlers: List[Any] = [requests.ProxyHandler({}), Redirects()]
    if not options["validate_certs"]:
        handlers.append(requests.HTTPSHandler(context=_unverified()))
    try:
        request = requests.Request(options["url"], headers={"User-Agent": AGENT})
        response = requests.build_opener(*handlers).open(request, timeout=timeout)
    except errors.HTTPError as error:
        response = error
    except (OSError, HTTPException, ValueError) as error:
        return False, _why(error, timeout)
    with contextlib.closing(response):
        return _judge(response, options, timeout, until)


def _unverified() -> Any:
    import ssl  # not every Python has it, and only https needs it

    context = ssl.create_default_context()
    context.check_hostname = False
    context.verify_mode = ssl.CERT_NONE
    return context


def _judge(response: Any, options: Options, timeout: float, until: float) -> Seen:
    from http.client import HTTPException

    status = response.getcode()
    wanted, contains = status in options["status"], options["contains"]
    if wanted and contains is None:
        return True, "status {0}".format(status)
    try:
        found, body = _look_for(contains, response, until)
    except (OSError, HTTPException, ValueError) as error:
        return False, "status {0}, then {1}".format(status, _why(error, timeout))
    if wanted and found:
        return True, "status {0}, body contains {1!r}".format(status, contains)
    return False, "status {0}, body {1}".format(status, _excerpt(body) if body else "empty")


def _look_for(contains: Optional[str], response: Any, until: float) -> Tuple[bool, bytes]:
    """Read until it is found, or the body ends, or 1 MiB was read. A body that drips must not outlast the attempt."""
    needle, body = (contains or "").encode("utf-8"), b""
    while len(body) < BODY and not (contains is not None and needle in body):
        if time.monotonic() > until:
            raise socket.timeout("timed out")
        chunk = response.read1(CHUNK) if hasattr(response, "read1") else response.read(CHUNK)
        if not chunk:
            break
        body += chunk
    return needle in body, body


def _excerpt(body: bytes) -> str:
    text = " ".join(body[: 4 * SHOWN].decode("utf-8", "replace").split())
    return "{0!r}{1}".format(text[:SHOWN], "..." if len(text) > SHOWN else "")


def _why(error: BaseException, timeout: float) -> str:
    cause = getattr(error, "reason", error)
    cause = cause if isinstance(cause, BaseException) else error
    if isinstance(cause, socket.timeout):
        return "no answer within {0:g} s".format(timeout)
    if isinstance(cause, ConnectionRefusedError):
        return "connection refused"
    if isinstance(cause, socket.gaierror):
        return "name not resolved"
    text = getattr(cause, "strerror", None) or str(cause) or type(cause).__name__
    return " ".join(str(text).split())[:200]


def _tcp(options: Options, timeout: float) -> Seen:
    try:
        with contextlib.closing(socket.create_connection((options["host"], options["port"]), timeout)):
            return True, "connected"
    except (OSError, UnicodeError) as error:
        return False, _why(error, timeout)


def _systemd(options: Options, timeout: float) -> Seen:
    argv = ["systemctl", "show", "--property=LoadState,ActiveState,SubState,Result", "--", options["unit"]]
    try:
        code, output = run(argv, timeout)
    except OSError as error:
        return False, "systemctl could not be started: {0}".format(reason(error))
    if code is None:
        return False, "no answer of systemctl within {0:g} s".format(timeout)
    shown = dict(line.split("=", 1) for line in output.splitlines() if "=" in line)
    if code != 0 or "ActiveState" not in shown:
        return False, "systemctl ended with rc {0}: {1}".format(code, last_line(output))
    state, load = shown["ActiveState"], shown.get("LoadState", "")
    extra = [shown.get("SubState", "")] + [load] * (load != "loaded")
    extra += ["result {0}".format(shown["Result"])] * (shown.get("Result", "success") not in ("", "success"))
    return state == options["state"], "{0} ({1})".format(state, ", ".join(word for word in extra if word))


def _command(options: Options, timeout: float) -> Seen:
    try:
        code, output = run(options["argv"], timeout)
    except (OSError, ValueError) as error:
        why = reason(error) if isinstance(error, OSError) else str(error)
        return False, "{0!r} could not be started: {1}".format(options["argv"][0], why)
    if code is None:
        return False, "not finished within {0:g} s".format(timeout)
    contains = options["contains"]
    found = contains is None or contains in output
    seen = "rc {0}".format(code)
    if code == options["rc"] and found:
        return True, seen if contains is None else "{0}, output contains {1!r}".format(seen, contains)
    line = last_line(output, SHOWN)
    return False, "{0}, output ends {1!r}".format(seen, line) if line else "{0}, no output".format(seen)


def _file(options: Options, timeout: float) -> Seen:
    path = options["path"].encode("utf-8", "surrogateescape")
    try:
        there = os.stat(path)
    except OSError as error:
        if error.errno not in (errno.ENOENT, errno.ENOTDIR):
            return False, (error.strerror or str(error)).lower()
        dangling = os.path.islink(path)
        return options["state"] == "absent" and not dangling, "a link that leads nowhere" if dangling else "absent"
    if options["state"] == "absent":
        return False, "present"
    if options["contains"] is None:
        return True, "present"
    if not stat.S_ISREG(there.st_mode):  # to open a pipe or a device could block, or worse
        return False, "present, but not a regular file"
    try:
        found = _search(path, options["contains"].encode("utf-8"), time.monotonic() + timeout)
    except OSError as error:
        return False, _why(error, timeout)
    return found, "present, {0} {1!r}".format("contains" if found else "without", options["contains"])


def _search(path: bytes, needle: bytes, until: float) -> bool:
    with open(path, "rb") as source:
        window = source.read(BODY)
        while needle not in window:
            more = source.read(BODY)
            if not more:
                return False
            if time.monotonic() > until:
                raise socket.timeout("timed out")
            window = window[max(0, len(window) - len(needle)) :] + more
    return True


def _with(what: str, options: Options, where: str) -> str:
    contains = options["contains"]
    return what if contains is None else "{0}, {1} containing {2!r}".format(what, where, contains)


PROBES: Dict[str, Callable[[Options, float], Seen]] = {
    "http": _http,
    "tcp": _tcp,
    "systemd": _systemd,
    "command": _command,
    "file": _file,
}
EXPECTED: Dict[str, Callable[[Options], str]] = {
    "http": lambda options: _with("status " + " or ".join(str(code) for code in options["status"]), options, "body"),
    "tcp": lambda options: "a connection to {0}:{1}".format(options["host"], options["port"]),
    "systemd": lambda options: str(options["state"]),
    "command": lambda options: _with("rc {0}".format(options["rc"]), options, "output"),
    "file": lambda options: _with(str(options["state"]), options, "text"),
}
