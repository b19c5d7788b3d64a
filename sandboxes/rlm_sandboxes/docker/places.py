"""Where the engine is, as Docker's own command finds it: by DOCKER_HOST, else by a context, else the usual socket.

Reads the environment and Docker's folder of settings, and speaks to no engine. Docker's SDK knows less of both.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ..errors import EngineUnavailable

USUAL = "unix:///var/run/docker.sock"
_USUAL_WITH_TLS = "tcp://localhost:2376"
_LOCAL = ("unix://", "http+unix://", "npipe://", "/")


@dataclass(frozen=True)
class Keys:
    """What an engine and we know one another by. What is None is not used."""

    authority: Path | None
    certificate: tuple[Path, Path] | None
    verify: bool


@dataclass(frozen=True)
class Place:
    """Where an engine is said to be."""

    address: str
    keys: Keys | None = None

    @property
    def remote(self) -> bool:
        """Whether it may be another machine, whose files are not ours."""
        return not self.address.startswith(_LOCAL)


def find_place(address: str | None, environment: Mapping[str, str]) -> Place:
    """Return where the engine is, at `address` or where Docker's own command would look."""
    keys = _keys_of(environment)
    named = address or environment.get("DOCKER_HOST")
    if named:
        return Place(named, keys if named.startswith(("tcp:", "https:")) else None)
    context = environment.get("DOCKER_CONTEXT") or _current_context(environment)
    if context != "default":
        return _read_context(context, _settings(environment))
    return Place(_USUAL_WITH_TLS, keys) if keys else Place(USUAL)


def _settings(environment: Mapping[str, str]) -> Path:
    return Path(environment.get("DOCKER_CONFIG") or Path(environment.get("HOME") or Path.home(), ".docker"))


def _keys_of(environment: Mapping[str, str]) -> Keys | None:
    verify = bool(environment.get("DOCKER_TLS_VERIFY"))
    if not verify and not environment.get("DOCKER_TLS"):
        return None
    return _keys_in(Path(environment.get("DOCKER_CERT_PATH") or _settings(environment)), verify=verify)


def _keys_in(folder: Path, *, verify: bool) -> Keys:
    authority, certificate, key = (folder / name for name in ("ca.pem", "cert.pem", "key.pem"))
    ours = (certificate, key) if certificate.exists() and key.exists() else None
    return Keys(authority if authority.exists() else None, ours, verify)


def _current_context(environment: Mapping[str, str]) -> str:
    try:
        found: dict[str, Any] = json.loads((_settings(environment) / "config.json").read_bytes())
        return str(found.get("currentContext") or "default")
    except (OSError, ValueError, AttributeError):
        return "default"


def _read_context(name: str, settings: Path) -> Place:
    label = hashlib.sha256(name.encode()).hexdigest()
    try:
        found: dict[str, Any] = json.loads((settings / "contexts/meta" / label / "meta.json").read_bytes())
        endpoint: dict[str, Any] = found["Endpoints"]["docker"]
        address = str(endpoint["Host"])
    except (OSError, ValueError, KeyError, TypeError) as problem:
        raise EngineUnavailable(
            f"that of Docker's context {name!r}",
            "there is no such context",
            "See `docker context ls`; choose one by `docker context use` or DOCKER_CONTEXT, or set DOCKER_HOST.",
        ) from problem
    folder = settings / "contexts/tls" / label / "docker"
    if not folder.is_dir() or not address.startswith(("tcp:", "https:")):
        return Place(address)
    return Place(address, _keys_in(folder, verify=not endpoint.get("SkipTLSVerify")))
