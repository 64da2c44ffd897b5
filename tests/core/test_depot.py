# Copyright: onprem.rollout contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""The depot fails in mid-rollout: an outage is no verdict on a release."""

from __future__ import annotations

import hashlib
import http.server
import io
import tarfile
import threading

import pytest


@pytest.fixture
def depot():
    """Serves content, but only the first time it is asked for."""

    class Handler(http.server.BaseHTTPRequestHandler):
        def do_GET(self):
            if server.asked:
                self.send_error(503)
                return
            server.asked += 1
            self.send_response(200)
            self.send_header("Content-Length", str(len(server.content)))
            self.end_headers()
            self.wfile.write(server.content)

        def log_message(self, *_words):
            pass

    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    server.asked, server.content = 0, tarball(b"2.0\n")
    thread = threading.Thread(target=server.serve_forever, daemon=True)
    thread.start()
    yield server
    server.shutdown()
    thread.join()
    server.server_close()


def tarball(version: bytes) -> bytes:
    out = io.BytesIO()
    with tarfile.open(fileobj=out, mode="w:gz") as archive:
        member = tarfile.TarInfo("version")
        member.size = len(version)
        archive.addfile(member, io.BytesIO(version))
    return out.getvalue()


def test_an_outage_of_the_depot_sends_no_healthy_host_back(fleet, depot):
    hosts = fleet(standard=3)
    artifact = {
        "url": f"http://127.0.0.1:{depot.server_port}/shop.tar.gz",
        "size": len(depot.content),
        "sha256": hashlib.sha256(depot.content).hexdigest(),
    }
    for host in hosts.hosts:
        (hosts.app(host) / "current").unlink()
    result = hosts.run(
        rollout_payload="onprem.rollout.archive",
        archive_dest="{{ app }}",
        rollout_release={"name": "shop", "version": "2.0", "artifacts": [artifact]},
        rollout_rings=[{"name": "standard", "serial": ["100%"], "concurrency": 1}],
        rollout_checks=[{"name": "tree", "type": "file", "path": "{{ app }}"}],
    )
    assert (result.rc, sorted(result.states.values())) == (2, ["committed", "held", "restored"]), result.out
    assert "an artifact could not be fetched" in result.out
    (back,) = [host for host, state in result.states.items() if state == "restored"]
    assert not hosts.record(back).get("failed")
