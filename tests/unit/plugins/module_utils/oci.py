# Copyright: onprem.rollout contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Small images for tests, made without podman, in an OCI archive and in a registry on this machine."""

import hashlib
import http.server
import io
import json
import platform
import tarfile
import threading

INDEX = "application/vnd.oci.image.index.v1+json"
MANIFEST = "application/vnd.oci.image.manifest.v1+json"
ARCHITECTURES = {"x86_64": "amd64", "aarch64": "arm64"}


def sha256(content):
    return "sha256:" + hashlib.sha256(content).hexdigest()


def packed(files):
    """A tar of bytes by path."""
    out = io.BytesIO()
    with tarfile.open(fileobj=out, mode="w") as tar:
        for name, content in files:
            member = tarfile.TarInfo(name)
            member.size, member.mode = len(content), 0o755
            tar.addfile(member, io.BytesIO(content))
    return out.getvalue()


class Image:
    """An image of one layer: its blobs by digest, and the digest of its manifest."""

    def __init__(self, files, command=(), several=False):
        layer = packed(sorted(files.items()))
        machine = {"architecture": ARCHITECTURES.get(platform.machine(), platform.machine()), "os": "linux"}
        config = json.dumps(dict(machine, config={"Cmd": list(command)}, rootfs={"type": "layers", "diff_ids": [sha256(layer)]})).encode()
        self.blobs = {sha256(layer): layer, sha256(config): config}
        layers = [self._described("application/vnd.oci.image.layer.v1.tar", layer)]
        manifest = {"schemaVersion": 2, "mediaType": MANIFEST, "config": self._described("application/vnd.oci.image.config.v1+json", config), "layers": layers}
        self._publish(MANIFEST, manifest)
        if several:  # a digest for all architectures, of which ours is one
            ours = dict(self.described, platform=machine)
            other = dict(self._described(MANIFEST, b"elsewhere"), platform={"architecture": "s390x", "os": "linux"})
            self._publish(INDEX, {"schemaVersion": 2, "mediaType": INDEX, "manifests": [other, ours]})

    def _publish(self, kind, document):
        content = json.dumps(document).encode()
        self.described = self._described(kind, content)
        self.digest = self.described["digest"]
        self.blobs[self.digest] = content

    @staticmethod
    def _described(kind, content):
        return {"mediaType": kind, "digest": sha256(content), "size": len(content)}

    def archive(self, name="localhost/anything:latest"):
        """The bytes of an OCI archive, in which the image goes by that name."""
        index = {"schemaVersion": 2, "manifests": [dict(self.described, annotations={"org.opencontainers.image.ref.name": name})]}
        files = [("oci-layout", b'{"imageLayoutVersion": "1.0.0"}'), ("index.json", json.dumps(index).encode())]
        return packed(files + [("blobs/" + digest.replace(":", "/"), content) for digest, content in sorted(self.blobs.items())])


class Registry:
    """A registry that only gives, over HTTP. C(status): what it answers instead, when it is ill."""

    def __init__(self, *images, address="127.0.0.1"):
        self.status, self.blobs = None, {}
        for image in images:
            self.blobs.update(image.blobs)
        registry = self

        class Handler(http.server.BaseHTTPRequestHandler):
            def do_GET(self):
                content = registry.blobs.get(self.path.rpartition("/")[2])
                status = registry.status or (200 if content or self.path == "/v2/" else 404)
                content = (content or b"{}") if status == 200 else b'{"errors": [{"code": "MANIFEST_UNKNOWN", "message": "not here"}]}'
                kind = json.loads(content.decode()).get("mediaType", "application/json") if "/manifests/" in self.path else "application/octet-stream"
                self.send_response(status)
                self.send_header("Content-Type", kind)
                self.send_header("Content-Length", str(len(content)))
                self.end_headers()
                if self.command == "GET":
                    self.wfile.write(content)

            do_HEAD = do_GET

            def log_message(self, *_ignored):
                pass

        self.server = http.server.HTTPServer((address, 0), Handler)
        self.address = "{0}:{1}".format(address, self.server.server_port)
        threading.Thread(target=self.server.serve_forever, daemon=True).start()

    def close(self):
        self.server.shutdown()
        self.server.server_close()
