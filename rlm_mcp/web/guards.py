"""Which names the server answers to, and which web pages may speak to it.

A page on the internet can have a name of its own point at this machine (DNS rebinding), and then speak to the
server with the browser of somebody who can reach it. The name it used is in Host, and whose page it is in Origin.
"""

from __future__ import annotations

import ipaddress
import re
from collections.abc import Iterable

from starlette.datastructures import Headers
from starlette.types import ASGIApp, Receive, Scope, Send

from .answers import refusal

_LOOPBACK_NAMES = frozenset({"localhost", "127.0.0.1", "::1"})
_METHODS = frozenset({"GET", "POST", "DELETE", "OPTIONS"})
_HOST = re.compile(r"(\[[0-9a-f:.]+\]|[^\[\]:/@?#\s]+)(?::(\d{1,5}))?")
_ORIGIN = re.compile(r"(https?)://([^/@?#\s]+)")


class Guard:
    """Lets through what came by a name of the server's, and from no page that it does not know."""

    def __init__(
        self, app: ASGIApp, *, bound: str, allowed_hosts: Iterable[str], allowed_origins: Iterable[str]
    ) -> None:
        self.app = app
        self._bound = bound.lower()
        self._hosts = frozenset(each.lower() for each in allowed_hosts)
        self._origins = frozenset(each.lower().rstrip("/") for each in allowed_origins)

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        headers = Headers(scope=scope)
        app = self.app
        if scope["method"] not in _METHODS or (scope["method"] == "OPTIONS" and not _is_preflight(headers)):
            app = refusal(405, "This method is not known here.", headers={"Allow": "GET, POST, DELETE"})
        elif not self._knows_host(headers.get("host", ""), local_address(scope)):
            app = refusal(
                421,
                "This server does not answer to the name in the Host header. If it is one of its names, add it "
                "to allowed_hosts in [http] of the server's rlm.toml.",
            )
        elif not all(map(self._knows_origin, headers.getlist("origin"))):
            app = refusal(
                403,
                "Pages from this origin may not use this server. If this one is to be trusted, add it to "
                "allowed_origins in [http] of the server's rlm.toml.",
            )
        await app(scope, receive, send)

    def _knows_host(self, host: str, local: str) -> bool:
        match = _HOST.fullmatch(host.lower())
        if match is None:
            return False
        name = plain_address(match[1].strip("[]"))
        if name == local or name == self._bound:
            return True
        if name in _LOOPBACK_NAMES and is_loopback(local):
            return True
        return _listed(match[1], match[2], self._hosts)

    def _knows_origin(self, origin: str) -> bool:
        match = _ORIGIN.fullmatch(origin.lower())
        host = _HOST.fullmatch(match[2]) if match else None
        if match is None or host is None:
            return False
        if host[1].strip("[]") in _LOOPBACK_NAMES:
            return True
        return _listed(f"{match[1]}://{host[1]}", host[2], self._origins)


def local_address(scope: Scope) -> str:
    """Return the address that a connection came in on."""
    return plain_address(str((scope.get("server") or ("", None))[0]))


def plain_address(text: str) -> str:
    """Return an address as it is written in a Host header; names as they are."""
    try:
        address = ipaddress.ip_address(text.partition("%")[0])
    except ValueError:
        return text
    mapped = address.ipv4_mapped if isinstance(address, ipaddress.IPv6Address) else None
    return str(mapped or address)


def is_loopback(name: str) -> bool:
    """Return whether only this machine can reach an address."""
    try:
        return ipaddress.ip_address(plain_address(name)).is_loopback
    except ValueError:
        return name == "localhost"


def _listed(name: str, port: str | None, listed: frozenset[str]) -> bool:
    exact = name if port is None else f"{name}:{port}"
    return exact in listed or f"{name}:*" in listed


def _is_preflight(headers: Headers) -> bool:
    return "origin" in headers and "access-control-request-method" in headers
