"""The older HTTP transport: one stream on which everything comes back, and an address to post to."""

from __future__ import annotations

from collections.abc import Generator
from contextlib import contextmanager
from typing import Any

from mcp.server.context import ServerRequestContext
from mcp.server.lowlevel import Server
from mcp.server.sse import SseServerTransport
from starlette.applications import Starlette
from starlette.routing import Mount, Route
from starlette.types import Receive, Scope, Send

from .answers import refusal
from .work import Work

SSE, MESSAGES = "/sse", "/messages/"


class SseStream:
    """Serves one client for as long as it listens."""

    def __init__(self, server: Server[Any], transport: SseServerTransport, *, most: int) -> None:
        self._server = server
        self._transport = transport
        self._most = most
        self._open = 0

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if self._open >= self._most:
            await refusal(503, "Too many sessions are open. Nothing was done; try again later.")(
                scope, receive, send
            )
            return
        self._open += 1
        try:
            async with self._transport.connect_sse(scope, receive, send) as (reading, writing):
                await self._server.run(reading, writing, self._server.create_initialization_options())
        finally:
            self._open -= 1


def sse_app(server: Server[Any], *, body_bytes: int, client_sessions: int) -> Starlette:
    """Return what serves the older transport."""
    transport = SseServerTransport(MESSAGES, max_request_body_size=body_bytes)
    stream = SseStream(server, transport, most=client_sessions)
    routes = [
        Route(SSE, endpoint=stream, methods=["GET"]),
        Mount(MESSAGES, app=transport.handle_post_message),
    ]
    return Starlette(routes=routes)


@contextmanager
def calls_counted(server: Server[Any], work: Work) -> Generator[None]:
    """Have the calls of this transport counted as work: a request is answered long before its call is over."""

    async def count(ctx: ServerRequestContext[Any], call_next: Any) -> Any:
        if ctx.request_id is None or ctx.method == "subscriptions/listen":
            return await call_next(ctx)
        with work.call():
            return await call_next(ctx)

    server.middleware.append(count)
    try:
        yield
    finally:
        server.middleware.remove(count)
