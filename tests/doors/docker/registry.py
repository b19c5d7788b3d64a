"""A registry with one small image, which has no Python, for engines on this machine."""

from __future__ import annotations

import gzip
import hashlib
import io
import json
import platform
import tarfile
import threading
from collections.abc import Generator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import cast

_ARCHITECTURES = {"x86_64": "amd64", "aarch64": "arm64"}
_OF_DOCKER = "application/vnd.docker."
_MANIFEST = f"{_OF_DOCKER}distribution.manifest.v2+json"


class Registry(ThreadingHTTPServer):
    """Hands its image out as soon as it may. `serving` starts one."""

    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), _Handler)
        self.may_go_on = threading.Event()
        layer = _layer()
        packed = gzip.compress(layer, mtime=0)
        config = json.dumps(_config(layer)).encode()
        self.blobs = {_digest(each): each for each in (packed, config)}
        described = _described(config, f"{_OF_DOCKER}container.image.v1+json")
        layers = [_described(packed, f"{_OF_DOCKER}image.rootfs.diff.tar.gzip")]
        told = {"schemaVersion": 2, "mediaType": _MANIFEST, "config": described, "layers": layers}
        self.manifest = json.dumps(told).encode()

    @property
    def image(self) -> str:
        """The name of the image."""
        return f"127.0.0.1:{self.server_port}/without-python:1"


@contextmanager
def serving() -> Generator[Registry]:
    """Run a registry."""
    with Registry() as registry:
        thread = threading.Thread(target=registry.serve_forever, args=(0.05,))
        thread.start()
        try:
            yield registry
        finally:
            registry.may_go_on.set()
            registry.shutdown()
            thread.join()


class _Handler(BaseHTTPRequestHandler):
    @property
    def _registry(self) -> Registry:
        return cast("Registry", self.server)

    def do_HEAD(self) -> None:
        self.do_GET()

    def do_GET(self) -> None:
        *_, kind, name = ["", *self.path.strip("/").split("/")]
        if kind == "manifests":
            self._send(self._registry.manifest, _MANIFEST)
        elif kind == "blobs":
            self._registry.may_go_on.wait()
            self._send(self._registry.blobs[name], "application/octet-stream")
        else:
            self._send(b"{}", "application/json")

    def _send(self, body: bytes, kind: str) -> None:
        self.send_response(200)
        self.send_header("Content-Type", kind)
        self.send_header("Content-Length", str(len(body)))
        self.send_header("Docker-Content-Digest", _digest(body))
        self.end_headers()
        if self.command == "GET":
            self.wfile.write(body)

    def log_message(self, format: str, *args: object) -> None:  # noqa: A002 -- the name that it has there
        """Say nothing."""


def _layer() -> bytes:
    target = io.BytesIO()
    with tarfile.open(fileobj=target, mode="w") as archive:
        entry = tarfile.TarInfo("etc/nothing")
        archive.addfile(entry, io.BytesIO())
    return target.getvalue()


def _config(layer: bytes) -> dict[str, object]:
    architecture = _ARCHITECTURES.get(platform.machine(), platform.machine())
    rootfs = {"type": "layers", "diff_ids": [_digest(layer)]}
    return {"architecture": architecture, "os": "linux", "config": {}, "rootfs": rootfs}


def _described(body: bytes, kind: str) -> dict[str, object]:
    return {"mediaType": kind, "size": len(body), "digest": _digest(body)}


def _digest(body: bytes) -> str:
    return f"sha256:{hashlib.sha256(body).hexdigest()}"
