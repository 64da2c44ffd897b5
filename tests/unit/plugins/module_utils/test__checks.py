# Copyright: onprem.rollout contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Validation, and the loop of a check under a clock that does not wait. The probes have their own tests."""

import threading

import pytest

from ansible_collections.onprem.rollout.plugins.module_utils import _checks, _probes
from ansible_collections.onprem.rollout.plugins.module_utils._errors import RolloutError

RIGHT = [
    ("none", None),
    ("an empty list", []),
    ("http", [{"type": "http", "url": "http://127.0.0.1:8080/health?deep=1", "status": [200, "204"], "contains": "ok", "validate_certs": "no"}]),
    ("https, IPv6", [{"type": "http", "url": "https://[::1]:8443"}]),
    ("tcp", [{"type": "tcp", "port": "22"}, {"type": "tcp", "host": "db", "port": 5432}]),
    ("systemd", [{"type": "systemd", "unit": "shop.service", "state": "inactive"}]),
    ("command", [{"type": "command", "argv": ["/bin/sleep", 1], "rc": 3, "contains": "x"}]),
    ("file", [{"type": "file", "path": "/x", "contains": "y"}, {"type": "file", "path": "/x", "state": "absent"}]),
    ("common", [{"type": "tcp", "port": 1, "name": "n", "level": "advisory", "interval": 0.5, "deadline": "2m", "consecutive": "3", "timeout": "1s"}]),
    ("options left empty", [{"type": "tcp", "port": 1, "name": None, "host": None}]),
]


@pytest.mark.parametrize("checks", [case[1] for case in RIGHT], ids=[case[0] for case in RIGHT])
def test_right(checks):
    assert _checks.validate(checks) == []
    assert _checks.validate(checks, templated=True) == []


UNKNOWN = [
    "{{ checks }}",
    ["{{ check }}"],
    [{"type": "{{ kind }}", "whatever": 1}],
    [{"type": "tcp", "port": "{{ port }}", "deadline": "{{ patience }}", "consecutive": 9, "interval": "{{ i }}"}],
    [{"type": "http", "url": "{{ base }}/health", "status": "{{ codes }}", "validate_certs": "{{ tls }}"}],
    [{"type": "http", "url": "http://x/", "status": ["{{ code }}", 200]}],
    [{"type": "systemd", "unit": "{{ unit }}", "state": "{% if x %}active{% endif %}"}],
    [{"type": "command", "argv": "{{ argv }}", "rc": "{{ rc }}"}, {"type": "command", "argv": ["{{ program }}", 1]}],
    [{"type": "file", "path": "{{ root }}/x", "state": "{{ state }}", "contains": "{{ x }}"}],
    [{"type": "tcp", "port": 1, "level": "{{ level }}", "name": "port of {{ inventory_hostname }}"}],
]


@pytest.mark.parametrize("checks", UNKNOWN, ids=str)
def test_templates_are_taken_as_right(checks):
    assert _checks.validate(checks) == []


def test_templates_are_not_taken_as_right_on_the_host():
    assert _checks.validate([{"type": "tcp", "port": "{{ port }}"}], templated=True) == ["checks[0].port: '{{ port }}': write a port, a number from 1 to 65535"]


WRONG = [
    ({"type": "tcp"}, "checks: {'type': 'tcp'}: write a list of checks"),
    (["tcp"], "checks[0]: 'tcp': a check is a mapping with at least a type"),
    ([{}], "checks[0].type: is missing: allowed: http, tcp, systemd, command, file"),
    ([{"type": "ping", "name": "up"}], "checks[0] (up).type: 'ping': allowed: http, tcp, systemd, command, file"),
    ([{"type": ["tcp"]}], "checks[0].type: ['tcp']: allowed: http, tcp, systemd, command, file"),
    ([{"type": "tcp"}], "checks[0].port: is missing; every tcp check needs it"),
    ([{"type": "tcp", "port": 0}], "checks[0].port: 0: write a port, a number from 1 to 65535"),
    ([{"type": "tcp", "port": True}], "checks[0].port: True: write a port, a number from 1 to 65535"),
    (
        [{"type": "tcp", "port": 1, "prot": 1, "name": "db"}],
        "checks[0] (db).prot: 1: no such option of tcp; allowed: consecutive, deadline, host, interval, level, name, port, timeout, type",
    ),
    ([{"type": "tcp", "port": 1, "level": "optional"}], "checks[0].level: 'optional': allowed: required, advisory"),
    ([{"type": "tcp", "port": 1, "interval": -1}], 'checks[0].interval: -1: write seconds from 0 on, or a number with s, m or h, such as "2m"'),
    ([{"type": "tcp", "port": 1, "timeout": 0}], "checks[0].timeout: 0: write seconds, more than 0"),
    ([{"type": "tcp", "port": 1, "deadline": "soon"}], "checks[0].deadline: 'soon': write seconds from 0 on, or a number with s, m or h, such as \"2m\""),
    ([{"type": "tcp", "port": 1, "consecutive": 0}], "checks[0].consecutive: 0: write how many successes in a row, a number from 1 to 1000"),
    (
        [{"type": "tcp", "port": 1, "consecutive": 4, "interval": 2, "deadline": 5}],
        "checks[0].consecutive: 4: 4 successes 2 s apart cannot happen within 5 s; raise the deadline or lower the interval",
    ),
    ([{"type": "http", "url": "ftp://x"}], "checks[0].url: 'ftp://x': write an http:// or https:// URL, without a user name and without blanks"),
    ([{"type": "http", "url": "http://user@x/"}], "checks[0].url: 'http://user@x/': write an http:// or https:// URL, without a user name and without blanks"),
    ([{"type": "http", "url": "http://x", "status": "ok"}], "checks[0].status: 'ok': write an HTTP status or a list of them, a number from 100 to 599"),
    ([{"type": "http", "url": "http://x", "status": []}], "checks[0].status: []: write at least one status"),
    ([{"type": "http", "url": "http://x", "validate_certs": "maybe"}], "checks[0].validate_certs: 'maybe': write true or false"),
    (
        [{"type": "systemd", "unit": "x", "state": "running"}],
        "checks[0].state: 'running': allowed: active, inactive, failed, activating, deactivating, reloading",
    ),
    (
        [{"type": "command", "argv": "test -e x"}],
        "checks[0].argv: 'test -e x': write a list: the program and its arguments, such as [/usr/bin/test, -e, /run/app.pid]",
    ),
    ([{"type": "file", "path": "x"}], "checks[0].path: 'x': write an absolute path"),
    ([{"type": "file", "path": "/x", "state": "absent", "contains": "y"}], "checks[0].contains: 'y': a file that is absent contains nothing; leave it out"),
]


@pytest.mark.parametrize("checks, problem", WRONG, ids=[problem[:60] for _checks_, problem in WRONG])
def test_wrong(checks, problem):
    assert _checks.validate(checks) == [problem]
    with pytest.raises(RolloutError) as caught:
        _checks.run(checks)
    assert caught.value.reason == "checks"
    assert problem in str(caught.value)


def test_every_problem_at_once_and_where_it_came_from():
    problems = _checks.validate([{"type": "tcp", "port": "x", "level": "y"}, {"type": "nope"}], "rollout_checks of web1")
    assert [text.split(":")[0] for text in problems] == [
        "rollout_checks of web1[0].level",
        "rollout_checks of web1[0].port",
        "rollout_checks of web1[1].type",
    ]


class FakeClock(_checks.Clock):
    """Every thread has its own time, which only waiting moves."""

    def __init__(self):
        self.local = threading.local()

    def now(self):
        return getattr(self.local, "now", 100.0)

    def wait(self, stop, seconds):
        self.local.now = self.now() + seconds


def script(monkeypatch, answers):
    """Let the probe tcp answer as scripted for its port, the last answer for ever."""
    asked = dict.fromkeys(answers, 0)

    def probe(options, timeout):
        given = answers[options["port"]]
        answer = given[min(asked[options["port"]], len(given) - 1)]
        asked[options["port"]] += 1
        if isinstance(answer, Exception):
            raise answer
        return answer, "up" if answer else "down"

    monkeypatch.setitem(_probes.PROBES, "tcp", probe)


LOOPS = [
    ("well at once", [True], {}, (True, "up", 0.0, 1)),
    ("well after a while", [False, False, True], {}, (True, "up", 2.0, 3)),
    ("never well", [False], {}, (False, "down", 30.0, 31)),
    ("one attempt", [False], {"deadline": 0}, (False, "down", 0.0, 1)),
    ("three in a row", [True, True, False, True], {"consecutive": 3}, (True, "up", 5.0, 6)),
    ("never three in a row", [True, True, False] * 20, {"consecutive": 3}, (False, "up, but only 1 in a row", 30.0, 31)),
    ("well at the very end", [False] * 5 + [True], {"deadline": 5}, (True, "up", 5.0, 6)),
    ("a last attempt at the deadline", [False, True], {"deadline": 5, "interval": 60}, (True, "up", 5.0, 2)),
    ("a fault of ours", [KeyError("x")], {"deadline": 0}, (False, "the check itself failed: KeyError: 'x'", 0.0, 1)),
]


@pytest.mark.parametrize("answers, options, expected", [case[1:] for case in LOOPS], ids=[case[0] for case in LOOPS])
def test_loop(monkeypatch, answers, options, expected):
    script(monkeypatch, {1: answers})
    [result] = _checks.run([dict({"type": "tcp", "port": 1}, **options)], clock=FakeClock())
    assert (result["ok"], result["seen"], result["seconds"], result["attempts"]) == expected


def test_results_come_in_the_order_of_the_checks(monkeypatch):
    script(monkeypatch, {port: [False] * (10 - port) + [True] for port in range(1, 10)})
    results = _checks.run([{"type": "tcp", "port": port} for port in range(1, 10)], clock=FakeClock())
    assert [result["name"] for result in results] == ["tcp {0}".format(port) for port in range(1, 10)]
    assert [result["attempts"] for result in results] == list(range(10, 1, -1))


def test_defaults_of_the_caller_and_of_a_check(monkeypatch):
    script(monkeypatch, {1: [False], 2: [False]})
    defaults = {"deadline": "4s", "interval": 2, "consecutive": None}
    results = _checks.run([{"type": "tcp", "port": 1}, {"type": "tcp", "port": 2, "deadline": 2}], defaults, FakeClock())
    assert [result["attempts"] for result in results] == [3, 2]


def test_a_wrong_default_is_named():
    with pytest.raises(RolloutError) as caught:
        _checks.run([], {"deadline": "x"})
    assert "default deadline of checks: 'x'" in str(caught.value)


def test_all_run_at_the_same_time(monkeypatch):
    """Each probe waits for all others: one after the other would never end well."""
    together = threading.Barrier(20, timeout=10)

    def probe(options, timeout):
        together.wait()
        return True, "met"

    monkeypatch.setitem(_probes.PROBES, "tcp", probe)
    results = _checks.run([{"type": "tcp", "port": port, "deadline": 0} for port in range(1, 21)])
    assert [result["seen"] for result in results] == ["met"] * 20


def test_a_probe_that_hangs_is_left_behind(monkeypatch):
    for_ever = threading.Event()
    monkeypatch.setitem(_probes.PROBES, "tcp", lambda options, timeout: (for_ever.wait(60), "late"))
    monkeypatch.setattr(_checks, "GRACE", 0.1)
    try:
        [result] = _checks.run([{"type": "tcp", "port": 1, "deadline": 0, "timeout": 0.1}])
    finally:
        for_ever.set()
    assert (result["ok"], result["seen"]) == (False, "no answer")
    assert result["seconds"] < 10


def test_summary(monkeypatch):
    script(monkeypatch, {1: [False], 2: [False], 3: [True]})
    results = _checks.run(
        [
            {"type": "tcp", "port": 1, "name": "shop", "deadline": 0, "consecutive": 1},
            {"type": "tcp", "port": 2, "level": "advisory"},
            {"type": "tcp", "port": 3, "consecutive": 2},
        ],
        clock=FakeClock(),
    )
    assert [result["name"] for result in _checks.failed(results)] == ["shop"]
    assert _checks.describe(results) == (
        "shop: down, expected a connection to 127.0.0.1:1, after 0.0 s and 1 attempt; "
        "tcp 2: down, expected a connection to 127.0.0.1:2, after 30.0 s and 31 attempts; "
        "tcp 3: up, expected a connection to 127.0.0.1:3, 2 times in a row, after 1.0 s and 2 attempts"
    )
