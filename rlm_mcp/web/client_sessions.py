"""How many MCP sessions one tenant has open, so that nobody takes all there are.

Only clients of before 2026 open any. The SDK closes one that was not used for half an hour and says so to nobody, so
that is done here too, by the same clock.
"""

from __future__ import annotations

import time
from collections.abc import Callable

from mcp.server.streamable_http_manager import DEFAULT_SESSION_IDLE_TIMEOUT
from mcp_types.version import HANDSHAKE_PROTOCOL_VERSIONS
from starlette.datastructures import Headers
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from ..callers import tenant_of
from ..tenants import Tenant
from .answers import too_many

_HEADER = "mcp-session-id"


class ClientSessions:
    """Lets each tenant have half of the sessions at most."""

    def __init__(self, app: ASGIApp, *, most: int, clock: Callable[[], float] = time.monotonic) -> None:
        self.app = app
        self._most = max(1, most // 2)
        self._clock = clock
        self._used_at: dict[Tenant, dict[str, float]] = {}

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        tenant, headers = tenant_of(), Headers(scope=scope)
        session = headers.get(_HEADER)
        if session is None and _is_of_before(headers, scope) and self._open(tenant) >= self._most:
            text = f"{self._most} sessions are open already ([http] client_sessions). Nothing was done; end some."
            await too_many(text, retry_seconds=60)(scope, receive, send)
            return

        async def watched(message: Message) -> None:
            if message["type"] == "http.response.start":
                self._note(tenant, session, scope["method"], message)
            await send(message)

        await self.app(scope, receive, watched)

    def _note(self, tenant: Tenant, session: str | None, method: str, message: Message) -> None:
        sessions, status = self._used_at.setdefault(tenant, {}), int(message["status"])
        opened = Headers(raw=message.get("headers", [])).get(_HEADER) if session is None else None
        if session in sessions and (status == 404 or method == "DELETE"):
            del sessions[session]
        elif session in sessions:
            sessions[session] = self._clock()
        elif opened is not None and status < 400:
            sessions[opened] = self._clock()
        if not sessions:
            del self._used_at[tenant]

    def _open(self, tenant: Tenant) -> int:
        sessions = self._used_at.get(tenant, {})
        if len(sessions) >= self._most:
            over = self._clock() - DEFAULT_SESSION_IDLE_TIMEOUT
            for each in [name for name, used_at in sessions.items() if used_at <= over]:
                del sessions[each]
        return len(sessions)


def _is_of_before(headers: Headers, scope: Scope) -> bool:
    version = headers.get("mcp-protocol-version")
    return scope["method"] == "POST" and (version is None or version in HANDSHAKE_PROTOCOL_VERSIONS)
