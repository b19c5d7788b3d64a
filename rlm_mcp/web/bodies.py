"""Takes in what a client sends, whole, before anybody looks at it: not too much, not too slowly, not too deep."""

from __future__ import annotations

from collections import Counter
from typing import Any

import anyio
from pydantic import TypeAdapter, ValidationError
from starlette.datastructures import Headers
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from ..callers import tenant_of
from ..settings import MIB
from ..tenants import Tenant
from .answers import PARSE_ERROR, last_refusal, refusal

_AT_ONCE = 4  # how many of the largest requests one tenant may have in memory, or more of smaller ones
_AT_ONCE_BYTES = 32 * MIB
_FEW = 100  # so few brackets cannot nest too deep
_json: TypeAdapter[Any] = TypeAdapter(Any)


class Bodies:
    """Reads the whole body of a request and then lets the request through."""

    def __init__(self, app: ASGIApp, *, most_bytes: int, seconds: float) -> None:
        self.app = app
        self._most = most_bytes
        self._at_once = max(_AT_ONCE * most_bytes, _AT_ONCE_BYTES)
        self._seconds = seconds
        self._held: Counter[Tenant] = Counter()

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["method"] != "POST":
            await self.app(scope, receive, send)
            return
        tenant, body = tenant_of(), bytearray()
        try:
            refused = await self._read(scope, receive, tenant, body)
            app = refused or _nesting(body) or self.app
            await app(scope, _replay(bytes(body), receive), send)
        except _Gone:
            return
        finally:
            self._give_back(tenant, len(body))

    async def _read(self, scope: Scope, receive: Receive, tenant: Tenant, body: bytearray) -> ASGIApp | None:
        if _declared(scope) > self._most:
            return self._too_large()
        with anyio.move_on_after(self._seconds):
            while True:
                message = await receive()
                if message["type"] == "http.disconnect":
                    raise _Gone
                part: bytes = message.get("body", b"")
                body += part
                self._held[tenant] += len(part)
                if len(body) > self._most:
                    return self._too_large()
                if self._held[tenant] > self._at_once:
                    return last_refusal(
                        429, "Too much is being sent at once. Nothing was done; send one by one."
                    )
                if not message.get("more_body", False):
                    return None
        return last_refusal(408, f"The request did not arrive whole within {self._seconds:g} seconds.")

    def _too_large(self) -> ASGIApp:
        return last_refusal(
            413,
            f"The request is larger than {self._most} bytes ([http] body_bytes). Nothing was done. Load large "
            "files by their path instead of sending what is in them.",
        )

    def _give_back(self, tenant: Tenant, count: int) -> None:
        self._held[tenant] -= count
        if self._held[tenant] <= 0:
            del self._held[tenant]


class _Gone(Exception):
    """The client went away before it had said all."""


def _declared(scope: Scope) -> int:
    text = Headers(scope=scope).get("content-length", "")
    return int(text) if text.isdecimal() and len(text) < 20 else 0


def _nesting(body: bytearray) -> ASGIApp | None:
    """Return the refusal of JSON that is broken or nested so deep that readers of it run out of stack."""
    if body.count(b"[") + body.count(b"{") <= _FEW:
        return None
    try:
        _json.validate_json(bytes(body))
    except ValidationError:
        return refusal(400, "Parse error: this is no JSON, or it is nested too deep.", code=PARSE_ERROR)
    return None


def _replay(body: bytes, receive: Receive) -> Receive:
    waiting: list[Message] = [{"type": "http.request", "body": body, "more_body": False}]

    async def replayed() -> Message:
        return waiting.pop() if waiting else await receive()

    return replayed
