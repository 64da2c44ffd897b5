# Copyright: onprem.rollout contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Fetching from a real server on the loopback, and from files."""

import http.server
import threading

import pytest

from ansible_collections.onprem.rollout.plugins.module_utils import _fetch
from ansible_collections.onprem.rollout.plugins.module_utils._errors import RolloutError

DATA = b"0123456789" * 1000


class Handler(http.server.BaseHTTPRequestHandler):
    """/plain, /long (more than declared, no length), /short (less than its Content-Length), /to/<path>, else 404."""

    def do_GET(self):
        path = self.path.split("?")[0]
        if path.startswith("/to/"):
            self.send_response(302)
            self.send_header("Location", path[3:] if path != "/to/file" else "file:///etc/passwd")
            self.end_headers()
        elif path in ("/plain", "/long", "/short"):
            self.send_response(200)
            if path != "/long":
                self.send_header("Content-Length", str(len(DATA)))
            self.end_headers()
            self.wfile.write(DATA * 3 if path == "/long" else DATA[:100] if path == "/short" else DATA)
        else:
            self.send_error(404)

    def log_message(self, *args):
        pass


@pytest.fixture(scope="module")
def base():
    server = http.server.HTTPServer(("127.0.0.1", 0), Handler)
    server.handle_error = lambda request, address: None
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.02})
    thread.start()
    yield "http://127.0.0.1:{0}".format(server.server_port)
    server.shutdown()
    thread.join()
    server.server_close()


CASES = [
    ("/plain", len(DATA), None, ""),
    ("/to/plain", len(DATA), None, ""),
    ("/plain", 9999, "should have 9999 bytes by its release, but the server gives 10000 bytes", "size"),
    ("/plain", 10001, "should have 10001 bytes by its release, but the server gives 10000 bytes", "size"),
    ("/long", 9999, "the server gives more than that", "size"),
    ("/long", 30001, "cannot be fetched: the server gave 30000 of 30001 bytes", "fetch"),
    ("/short", len(DATA), "cannot be fetched: IncompleteRead|cannot be fetched: the server gave 100 of 10000 bytes", "fetch"),
    ("/gone", 1, "cannot be fetched: the server answers 404 Not Found", "fetch"),
    ("/to/gone", 1, "cannot be fetched: the server answers 404 Not Found", "fetch"),
    ("/to/file", 1, "cannot be fetched: the server answers 302", "fetch"),
]


@pytest.mark.parametrize("path, size, message, reason", CASES)
def test_http(base, tmp_path, path, size, message, reason):
    target = tmp_path / "artifact"
    if message is None:
        _fetch.fetch(base + path, str(target), size)
        assert target.read_bytes() == DATA
        return
    with pytest.raises(RolloutError) as caught:
        _fetch.fetch(base + path, str(target), size)
    assert any(part in str(caught.value) for part in message.split("|"))
    assert caught.value.reason == reason
    assert base + path in str(caught.value)


def test_file(tmp_path):
    (tmp_path / "here").write_bytes(DATA)
    _fetch.fetch((tmp_path / "here").as_uri(), str(tmp_path / "there"), len(DATA))
    assert (tmp_path / "there").read_bytes() == DATA


BAD = [
    ("ftp://x/y", "bad_url"),
    ("/etc/passwd", "bad_url"),
    ("file:///no/such/file", "fetch"),
    ("http://127.0.0.1:1/", "fetch"),
    ("http://127.0.0.1:x/", "fetch"),
]


@pytest.mark.parametrize("url, reason", BAD)
def test_what_cannot_be_fetched(tmp_path, url, reason):
    with pytest.raises(RolloutError) as caught:
        _fetch.fetch(url, str(tmp_path / "artifact"), 1)
    assert caught.value.reason == reason
    assert url in str(caught.value)
    assert list(tmp_path.iterdir()) == []


def test_the_place_to_write_to_is_the_callers_problem(base, tmp_path):
    with pytest.raises(FileNotFoundError):
        _fetch.fetch(base + "/plain", str(tmp_path / "gone" / "artifact"), len(DATA))


REDACTED = [
    ("https://depot/shop.tar.gz", "https://depot/shop.tar.gz"),
    ("https://me:secret@depot/shop.tar.gz", "https://***@depot/shop.tar.gz"),
    ("https://depot/shop.tar.gz?token=secret", "https://depot/shop.tar.gz?***"),
]


@pytest.mark.parametrize("url, expected", REDACTED)
def test_redacted(url, expected):
    assert _fetch.redacted(url) == expected
