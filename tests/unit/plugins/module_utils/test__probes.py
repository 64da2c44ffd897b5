# Copyright: onprem.rollout contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Probes against real servers on the loopback, real processes and real files."""

import http.server
import os
import socket
import socketserver
import subprocess
import sys
import threading

import pytest

from ansible_collections.onprem.rollout.plugins.module_utils import _checks, _probes


class Handler(http.server.BaseHTTPRequestHandler):
    """/status/<code>[/<text>] answers so; /to/<code> redirects there; /drip never ends; /cut breaks off; /mute is silent; what was asked is kept."""

    def do_GET(self):
        self.server.asked.append((self.path, self.request_version, sorted(self.headers.items())))
        what, *rest = self.path.strip("/").split("/")
        if what == "to":
            self.send_response(302)
            self.send_header("Location", "/status/" + rest[0])
            self.end_headers()
        elif what == "status":
            body = "/".join(rest[1:]).encode()
            self.send_response(int(rest[0]))
            self.send_header("Content-Length", str(len(body)))
            self.end_headers()
            self.wfile.write(body)
        elif what == "drip":
            self.send_response(200)
            self.end_headers()
            while not self.server.over.wait(0.05):
                self.wfile.write(b".")
        elif what == "cut":
            self.send_response(200)
            self.send_header("Content-Length", "100")
            self.end_headers()
            self.wfile.write(b"half")
        elif what == "mute":
            self.server.over.wait(10)

    def log_message(self, *args):
        pass


class Server(socketserver.ThreadingMixIn, http.server.HTTPServer):
    daemon_threads = True

    def handle_error(self, request, client_address):
        pass


class Address(str):
    """Of a server; remembers which."""

    def __new__(cls, text, server):
        self = super(Address, cls).__new__(cls, text)
        self.server = server
        return self


@pytest.fixture(scope="module")
def base():
    server = Server(("127.0.0.1", 0), Handler)
    server.over, server.asked = threading.Event(), []
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.02})
    thread.start()
    yield Address("http://127.0.0.1:{0}".format(server.server_port), server)
    server.over.set()
    server.shutdown()
    thread.join()
    server.server_close()


@pytest.fixture
def closed_port():
    """A port that is ours and where nobody listens."""
    with socket.socket() as holder:
        holder.bind(("127.0.0.1", 0))
        yield holder.getsockname()[1]


def probe(**check):
    [result] = _checks.run([dict(check, deadline=0)], {"timeout": check.get("timeout", 5)})
    return result["ok"], result["seen"]


HTTP = [
    ("/status/200", {}, (True, "status 200")),
    ("/status/500/cannot%20open", {}, (False, "status 500, body 'cannot%20open'")),
    ("/status/503", {}, (False, "status 503, body empty")),
    ("/status/204", {"status": [200, 204]}, (True, "status 204")),
    ("/status/404/gone", {"status": 404, "contains": "gone"}, (True, "status 404, body contains 'gone'")),
    ("/status/200/all-is-ok", {"contains": "ok"}, (True, "status 200, body contains 'ok'")),
    ("/status/200/sick", {"contains": "ok"}, (False, "status 200, body 'sick'")),
    ("/status/200", {"contains": "ok"}, (False, "status 200, body empty")),
    ("/status/500/ok", {"contains": "ok"}, (False, "status 500, body 'ok'")),
    ("/status/200/" + "x" * 200, {"contains": "ok"}, (False, "status 200, body '{0}'...".format("x" * 120))),
    ("/to/200", {}, (True, "status 200")),
    ("/to/500", {}, (False, "status 500, body empty")),
    ("/to/200", {"status": 302}, (True, "status 302")),
    ("/drip", {}, (True, "status 200")),
    ("/drip", {"contains": "ok", "timeout": 0.3}, (False, "status 200, then no answer within 0.3 s")),
    ("/cut", {"contains": "ok"}, (False, "status 200, body 'half'")),
    ("/cut", {"contains": "half"}, (True, "status 200, body contains 'half'")),
    ("/mute", {"timeout": 0.2}, (False, "no answer within 0.2 s")),
]


@pytest.mark.parametrize("path, options, expected", HTTP, ids=["{0}-{1}".format(case[0][:20], number) for number, case in enumerate(HTTP)])
def test_http(base, path, options, expected, monkeypatch):
    monkeypatch.setenv("http_proxy", "http://127.0.0.1:1")  # must not be used
    assert probe(type="http", url=base + path, **options) == expected


@pytest.mark.parametrize("path", ["/status/200", "/status/500", "/status/404/gone", "/cut"])
def test_http_asks_once(base, path):
    del base.server.asked[:]
    probe(type="http", url=base + path)
    assert [asked[0] for asked in base.server.asked] == [path]


def test_http_asks_the_same_with_urllib_and_without(base):
    del base.server.asked[:]
    for part in ("", "#part"):
        url = base + "/status/404/gone?of=us&more=%20" + part
        assert bool(_probes.PLAIN.match(url)) == (not part)
        assert probe(type="http", url=url) == (False, "status 404, body 'gone?of=us&more=%20'")
    plain, followed = base.server.asked
    assert plain == followed
    assert plain[:2] == ("/status/404/gone?of=us&more=%20", "HTTP/1.1")


ADDRESSES = [
    ("http://127.0.0.1", ("127.0.0.1", None, "")),
    ("http://shop.example:8080/health?deep=1", ("shop.example", "8080", "/health?deep=1")),
    ("https://shop.example/", None),
    ("http://[::1]/", None),
    ("http://user:word@shop.example/", None),
    ("http://shop.example?deep", None),
    ("http://shop.example/a b", None),
    ("http://shop.example/a\r\nX: y", None),
    ("http://shop.example/a\n", None),
    ("http://shop.example/\u00e4", None),
    ("HTTP://shop.example/", None),
]


@pytest.mark.parametrize("url, parts", ADDRESSES)
def test_only_a_plain_address_is_asked_without_urllib(url, parts):
    found = _probes.PLAIN.match(url)
    assert (found and found.groups()) == parts


def test_a_healthy_host_does_not_load_what_it_does_not_need(base):
    code = (
        "import sys; from {0} import _checks; [result] = _checks.run([{{'type': 'http', 'url': {1!r}}}]); assert result['ok'], result; "
        "print(sorted({{'http.client', 'urllib.request', 'ssl', 'tempfile', 'subprocess'}} & set(sys.modules)))"
    ).format(_checks.__name__.rpartition(".")[0], base + "/status/200")
    path = {"PYTHONPATH": os.pathsep.join(entry for entry in sys.path if entry)}
    shown = subprocess.run([sys.executable, "-S", "-c", code], stdout=subprocess.PIPE, env=dict(os.environ, **path), check=True).stdout
    assert shown.decode().strip() == "[]"


def test_http_where_nobody_listens(closed_port):
    assert probe(type="http", url="http://127.0.0.1:{0}/".format(closed_port)) == (False, "connection refused")


def test_http_where_somebody_speaks_another_protocol():
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        listener.listen(1)

        def babble():
            peer, _address = listener.accept()
            peer.sendall(b"SSH-2.0-x\r\n")
            peer.recv(1000)
            peer.close()

        thread = threading.Thread(target=babble)
        thread.start()
        ok, seen = probe(type="http", url="http://127.0.0.1:{0}/".format(listener.getsockname()[1]), timeout=2)
        thread.join()
    assert not ok
    assert seen


def test_https_where_somebody_speaks_http(base):
    ok, seen = probe(type="http", url=base.replace("http", "https"), validate_certs=False)
    assert not ok
    assert "ssl" in seen.lower()


def test_tcp(base, closed_port):
    assert probe(type="tcp", port=int(base.rsplit(":", 1)[1])) == (True, "connected")
    assert probe(type="tcp", port=closed_port) == (False, "connection refused")
    assert probe(type="tcp", host="x" * 300, port=1)[0] is False


COMMANDS = [
    ("rc as expected", {"argv": ["sh", "-c", "exit 3"], "rc": 3}, (True, "rc 3")),
    ("rc not as expected", {"argv": ["sh", "-c", "echo first; echo no database >&2; exit 1"]}, (False, "rc 1, output ends 'no database'")),
    ("silent", {"argv": ["false"]}, (False, "rc 1, no output")),
    ("output", {"argv": ["echo", "{{ x }}"], "contains": "{{ x }}"}, (True, "rc 0, output contains '{{ x }}'")),
    ("other output", {"argv": ["echo", "b"], "contains": "a"}, (False, "rc 0, output ends 'b'")),
    ("no shell", {"argv": ["echo", "$HOME;", "id"], "contains": "$HOME; id"}, (True, "rc 0, output contains '$HOME; id'")),
    ("too slow, with children", {"argv": ["sh", "-c", "sleep 60 & wait"], "timeout": 0.3}, (False, "not finished within 0.3 s")),
    ("a daemon left behind", {"argv": ["sh", "-c", "sleep 3 & echo up"], "contains": "up", "timeout": 2}, (True, "rc 0, output contains 'up'")),
    ("missing", {"argv": ["/no/such/program"]}, (False, "'/no/such/program' could not be started: no such file or directory")),
    ("impossible", {"argv": ["echo", "a\0b"]}, (False, "'echo' could not be started: embedded null byte")),
    ("killed", {"argv": ["sh", "-c", "kill -9 $$"]}, (False, "rc -9, no output")),
]


@pytest.mark.parametrize("options, expected", [case[1:] for case in COMMANDS], ids=[case[0] for case in COMMANDS])
def test_command(options, expected):
    assert probe(type="command", **options) == expected


FILES = [
    ("there", {"path": "file"}, (True, "present")),
    ("a directory", {"path": "."}, (True, "present")),
    ("not there", {"path": "gone"}, (False, "absent")),
    ("under a file", {"path": "file/x"}, (False, "absent")),
    ("a dangling link", {"path": "dangling"}, (False, "a link that leads nowhere")),
    ("absent", {"path": "gone", "state": "absent"}, (True, "absent")),
    ("not absent", {"path": "file", "state": "absent"}, (False, "present")),
    ("a dangling link is not absent", {"path": "dangling", "state": "absent"}, (False, "a link that leads nowhere")),
    ("with text", {"path": "file", "contains": "needle"}, (True, "present, contains 'needle'")),
    ("without text", {"path": "file", "contains": "haystack"}, (False, "present, without 'haystack'")),
    ("text across blocks", {"path": "large", "contains": "needle"}, (True, "present, contains 'needle'")),
    ("a FIFO is not opened", {"path": "fifo", "contains": "x"}, (False, "present, but not a regular file")),
]


@pytest.mark.parametrize("options, expected", [case[1:] for case in FILES], ids=[case[0] for case in FILES])
def test_file(tmp_path, options, expected):
    (tmp_path / "file").write_text("a needle in it")
    (tmp_path / "large").write_bytes(b"x" * (_probes.BODY - 3) + b"needle" + b"x" * 10)
    (tmp_path / "dangling").symlink_to("gone")
    os.mkfifo(str(tmp_path / "fifo"))
    assert probe(type="file", **dict(options, path=str(tmp_path / options["path"]))) == expected


SYSTEMD = [
    ("LoadState=loaded\nActiveState=active\nSubState=running\nResult=success", "active", (True, "active (running)")),
    ("LoadState=loaded\nActiveState=failed\nSubState=failed\nResult=exit-code", "active", (False, "failed (failed, result exit-code)")),
    ("LoadState=not-found\nActiveState=inactive\nSubState=dead\nResult=success", "active", (False, "inactive (dead, not-found)")),
    ("LoadState=loaded\nActiveState=inactive\nSubState=dead\nResult=success", "inactive", (True, "inactive (dead)")),
    ("Failed to connect to bus", "active", (False, "systemctl ended with rc 0: Failed to connect to bus")),
]


@pytest.mark.parametrize("output, state, expected", SYSTEMD)
def test_systemd(tmp_path, monkeypatch, output, state, expected):
    """With a program that answers like systemctl, which records how it was asked."""
    fake = tmp_path / "systemctl"
    fake.write_text('#!/bin/sh\necho "$@" > {0}/asked\ncat {0}/answer\n'.format(tmp_path))
    fake.chmod(0o755)
    (tmp_path / "answer").write_text(output + "\n")
    monkeypatch.setenv("PATH", "{0}:{1}".format(tmp_path, os.environ["PATH"]))
    assert probe(type="systemd", unit="shop.service", state=state) == expected
    assert (tmp_path / "asked").read_text() == "show --property=LoadState,ActiveState,SubState,Result -- shop.service\n"


def test_no_systemd(tmp_path, monkeypatch):
    monkeypatch.setenv("PATH", str(tmp_path))
    assert probe(type="systemd", unit="x") == (False, "systemctl could not be started: no such file or directory")
