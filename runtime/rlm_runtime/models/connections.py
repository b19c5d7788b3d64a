"""Connections to one model server, one by one: who opens them decides which is used when.

A pool would look at all of its connections for each request. What goes out here leaves in one piece, head and body,
which spares both sides half of the work of a short request. A proxy is a pool in its own right, and is taken as it is.
"""

from __future__ import annotations

import json
import ssl
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from typing import Any, TypeAlias, cast
from urllib.request import getproxies, proxy_bypass

import httpcore2
import httpx2

from rlm_runtime.models.json_values import Json
from rlm_runtime.models.wire_http import IDLE_SECONDS, parts_of

Connection: TypeAlias = httpcore2.AsyncHTTPConnection | httpcore2.AsyncConnectionPool

FAILURES = (
    httpcore2.TimeoutException,
    httpcore2.NetworkError,
    httpcore2.ProtocolError,
    httpcore2.ProxyError,
    httpcore2.UnsupportedProtocol,
)

_MOST_BYTES_HELD_BACK = 256 * 1024


@dataclass(frozen=True, repr=False)
class Ways:
    """What every connection to a server needs, worked out once. It is never shown: the key is in its headers."""

    url: httpcore2.URL
    headers: Sequence[tuple[bytes, bytes]]
    new: Callable[[], Connection]

    def request(self, body: Json, *, connect_seconds: float) -> httpcore2.Request:
        """Return a request with this body."""
        content = json.dumps(body, ensure_ascii=False).encode("utf-8", "replace")
        headers = [*self.headers, (b"content-length", b"%d" % len(content))]
        patience = {"timeout": {"connect": connect_seconds}}
        return httpcore2.Request("POST", self.url, headers=headers, content=content, extensions=patience)


def ways_to(url: str, headers: Mapping[str, str]) -> Ways:
    """Read the certificates and look for a proxy: what takes a moment. Raise `ValueError` for what is no address."""
    parts = parts_of(url)
    if parts.scheme not in {"http", "https"} or not parts.hostname:
        raise ValueError("it should be like https://host/v1")
    try:
        address = httpx2.URL(url)
    except httpx2.InvalidURL as problem:
        raise ValueError(str(problem)) from None
    trusted = (
        httpx2.create_ssl_context() if parts.scheme == "https" else ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    )
    target = _url_of(address)
    named = [(b"host", address.netloc), *httpx2.Headers(dict(headers)).raw]
    proxy = _proxy_for(parts.scheme, parts.hostname)
    if proxy is not None:
        return Ways(target, named, lambda: _through(httpx2.Proxy(proxy), trusted))
    backend, origin = _InOnePiece(), target.origin
    return Ways(
        target,
        named,
        lambda: httpcore2.AsyncHTTPConnection(
            origin, trusted, keepalive_expiry=IDLE_SECONDS, network_backend=backend
        ),
    )


def is_at_rest(connection: Connection) -> bool:
    """Whether a connection has had its answer to the end, so that it can carry another request."""
    return isinstance(connection, httpcore2.AsyncConnectionPool) or connection.is_idle()


def is_still_there(connection: Connection) -> bool:
    """Whether the server has not closed a connection at rest meanwhile, as far as it can be told."""
    return isinstance(connection, httpcore2.AsyncConnectionPool) or not connection.has_expired()


# ---- what carries them


class _InOnePiece(httpcore2.AsyncNetworkBackend):
    """Connections over which a request goes out as a whole, not its head before its body."""

    def __init__(self) -> None:
        usual = cast("Callable[[], httpcore2.AsyncNetworkBackend]", httpcore2.AnyIOBackend)
        self._usual = usual()

    async def connect_tcp(self, *address: Any, **options: Any) -> httpcore2.AsyncNetworkStream:
        return _Held(await self._usual.connect_tcp(*address, **options))


class _Held(httpcore2.AsyncNetworkStream):
    """Holds back what is written until an answer is waited for.

    A server may refuse a request before it has all of it: what cannot be written is no failure while an answer can
    be read.
    """

    def __init__(self, inner: httpcore2.AsyncNetworkStream) -> None:
        self._inner = inner
        self._held = b""

    async def write(self, buffer: bytes, timeout: float | None = None) -> None:  # noqa: ASYNC109 -- as it is there
        self._held += buffer
        if len(self._held) > _MOST_BYTES_HELD_BACK:
            await self._let_go(timeout)

    async def read(self, max_bytes: int, timeout: float | None = None) -> bytes:  # noqa: ASYNC109
        if self._held:
            with suppress(httpcore2.WriteError):
                await self._let_go(timeout)
        return await self._inner.read(max_bytes, timeout)

    async def aclose(self) -> None:
        await self._inner.aclose()

    async def start_tls(
        self,
        ssl_context: ssl.SSLContext,
        server_hostname: str | None = None,
        timeout: float | None = None,  # noqa: ASYNC109
    ) -> httpcore2.AsyncNetworkStream:
        return _Held(await self._inner.start_tls(ssl_context, server_hostname, timeout))

    def get_extra_info(self, info: str) -> Any:
        return self._inner.get_extra_info(info)

    async def _let_go(self, timeout: float | None) -> None:  # noqa: ASYNC109
        held, self._held = self._held, b""
        await self._inner.write(held, timeout)


def _url_of(address: httpx2.URL) -> httpcore2.URL:
    return httpcore2.URL(
        scheme=address.raw_scheme, host=address.raw_host, port=address.port, target=address.raw_path
    )


def _through(proxy: httpx2.Proxy, trusted: ssl.SSLContext) -> httpcore2.AsyncConnectionPool:
    address = _url_of(proxy.url)
    one: dict[str, Any] = {"max_connections": 1, "keepalive_expiry": IDLE_SECONDS, "ssl_context": trusted}
    if address.scheme.startswith(b"socks"):
        return httpcore2.AsyncSOCKSProxy(address, proxy_auth=proxy.raw_auth, **one)
    return httpcore2.AsyncHTTPProxy(
        address, proxy_auth=proxy.raw_auth, proxy_headers=proxy.headers.raw, **one
    )


def _proxy_for(scheme: str, host: str) -> str | None:
    proxies = getproxies()
    if proxy_bypass(host):
        return None
    proxy = proxies.get(scheme) or proxies.get("all")
    return proxy if not proxy or "://" in proxy else f"http://{proxy}"
