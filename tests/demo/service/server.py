# Copyright: onprem.rollout contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""The demo's service "shop": server.py ADDRESS PORT

Its version and its articles are files of the release it was started from, read at start: what it answers is what runs,
not what lies on the disk by now.
"""

from __future__ import annotations

import json
import os
import signal
import sys
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

RELEASE = Path(__file__).resolve().parent
VERSION = (RELEASE / "VERSION").read_text(encoding="utf-8").strip()


def load_catalogue() -> tuple[int, str]:
    """The status and text of /health."""
    try:
        articles = json.loads((RELEASE / "catalogue.json").read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        return 500, f"catalogue.json: {error}"
    return 200, f"ok, {len(articles)} articles"


HEALTH = load_catalogue()


class Shop(BaseHTTPRequestHandler):
    def do_GET(self) -> None:
        pages = {"/health": HEALTH, "/version": (200, VERSION), "/pid": (200, str(os.getpid()))}
        status, text = pages.get(self.path, (404, "no such page"))
        body = f"{text}\n".encode()
        self.send_response(status)
        self.send_header("Content-Type", "text/plain; charset=utf-8")
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)


if __name__ == "__main__":
    signal.signal(signal.SIGTERM, lambda *_args: sys.exit(0))
    ThreadingHTTPServer((sys.argv[1], int(sys.argv[2])), Shop).serve_forever()
