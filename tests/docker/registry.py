"""A registry of container images on the loopback, which lets in one user: Debian's `docker-registry`."""

from __future__ import annotations

import base64
import json
import shutil
import subprocess
from collections.abc import Generator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from .engine import Engine
from .far import LOOPBACK, free_port, serving

USER, PASSWORD = "reader", "secret"
_HASHED = "$2b$04$HphaInA.tBFW.igFGFA8feJAE8jriZqjv5ZJWw800dTnbh1AM8k06"


@dataclass(frozen=True)
class Registry:
    """Where the registry answers, where its images lie, and a folder of Docker's settings that knows the password."""

    name: str
    images: Path
    settings: Path

    def push(self, engine: Engine, image: str) -> str:
        """Have the engine push one of its images; return its name in the registry. The engine keeps none of it."""
        pushed = f"{self.name}/{image}"
        docker(engine, "tag", image, pushed)
        docker(engine, "--config", str(self.settings), "push", pushed)
        docker(engine, "rmi", pushed)
        docker(engine, "rmi", image)
        return pushed

    def lose_layers(self) -> None:
        """Lose what the images are made of, and keep what says so."""
        blobs = self.images / "docker/registry/v2/blobs"
        for blob in blobs.rglob("data"):
            if blob.read_bytes()[:2] == b"\x1f\x8b":
                blob.unlink()


@contextmanager
def open_registry(folder: Path) -> Generator[Registry]:
    """Start a registry."""
    registry = Registry(f"{LOOPBACK}:{free_port()}", folder / "images", folder / "settings")
    registry.settings.mkdir()
    token = base64.b64encode(f"{USER}:{PASSWORD}".encode()).decode()
    (registry.settings / "config.json").write_text(json.dumps({"auths": {registry.name: {"auth": token}}}))
    (folder / "users").write_text(f"{USER}:{_HASHED}\n")
    settings = {
        "version": 0.1,
        "log": {"level": "info", "accesslog": {"disabled": True}},
        "storage": {"filesystem": {"rootdirectory": str(registry.images)}},
        "http": {"addr": registry.name},
        "auth": {"htpasswd": {"realm": "tests", "path": str(folder / "users")}},
    }
    (folder / "config.yml").write_text(json.dumps(settings))
    command = [shutil.which("docker-registry") or "docker-registry", "serve", str(folder / "config.yml")]
    with serving(command, "listening on"):
        yield registry


def docker(engine: Engine, *words: str, given: bytes = b"") -> str:
    """Run Docker's own command."""
    command = ["docker", "--host", engine.host, *words]
    ran = subprocess.run(command, input=given, capture_output=True, timeout=60, check=False)
    assert not ran.returncode, ran.stderr.decode()
    return ran.stdout.decode().strip()
