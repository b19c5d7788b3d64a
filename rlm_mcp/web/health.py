"""Whether the server is up (/health), and whether it can do what it is there for (/ready).

Both say so to everybody, and nothing more.
"""

from __future__ import annotations

import time
from collections.abc import Awaitable, Callable

import anyio
from starlette.responses import JSONResponse
from starlette.types import ASGIApp, Receive, Scope, Send

from .work import Work

HEALTH, READY = "/health", "/ready"

_TRY_SECONDS = 10.0
_PAUSE_SECONDS = 5.0  # before what failed is tried again, however often somebody asks


class Readiness:
    """Whether sessions can be opened, as far as that can be known without opening one."""

    def __init__(self, prepare: Callable[[], Awaitable[object]], work: Work) -> None:
        self._prepare = prepare
        self._work = work
        self._trying = anyio.Lock()
        self._failed_at: float | None = None

    async def __call__(self) -> bool:
        if self._work.stopping:
            return False
        async with self._trying:
            if self._failed_at is not None and time.monotonic() - self._failed_at < _PAUSE_SECONDS:
                return False
            ready = await self._try()
            self._failed_at = None if ready else time.monotonic()
            return ready

    async def _try(self) -> bool:
        try:
            with anyio.fail_after(_TRY_SECONDS):
                await self._prepare()
        except Exception:  # noqa: BLE001 -- why it failed is told to whoever opens a session, and to no stranger
            return False
        return True


class Health:
    """Answers the two questions, and lets everything else through."""

    def __init__(self, app: ASGIApp, *, ready: Callable[[], Awaitable[bool]]) -> None:
        self.app = app
        self._ready = ready

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        app = self.app
        if scope["path"] in (HEALTH, READY):
            app = await self._answer(scope)
        await app(scope, receive, send)

    async def _answer(self, scope: Scope) -> ASGIApp:
        headers = {"Cache-Control": "no-store"}
        if scope["method"] not in ("GET", "HEAD"):
            return JSONResponse({"status": "no"}, status_code=405, headers={**headers, "Allow": "GET, HEAD"})
        if scope["path"] == HEALTH:
            return JSONResponse({"status": "up"}, headers=headers)
        if await self._ready():
            return JSONResponse({"status": "ready"}, headers=headers)
        return JSONResponse({"status": "not ready"}, status_code=503, headers=headers)
