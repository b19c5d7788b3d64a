"""The log of a server: one line for each request, and what the parts below have to say.

There is nothing in it that a reader of logs should not have: no token, no argument, no text of a client's. Lines are
written by a thread of their own, so that a terminal or a pipe that stands still does not stop the server; when too
many wait, further ones are dropped and counted.
"""

from __future__ import annotations

import logging
import re
import threading
import time
from collections.abc import Generator
from contextlib import contextmanager
from queue import SimpleQueue
from typing import Any, TextIO

import structlog
from mcp.server.auth.middleware.bearer_auth import AuthenticatedUser
from starlette.datastructures import Headers
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from ..callers import TenantToken
from .tokens import OWNER_NAME

_MOST_WAITING = 10_000
_FLUSH_SECONDS = 2.0
_LONGEST = 300
_BELOW = ("mcp", "uvicorn", "sse_starlette", "httpx2")  # who speaks to us while serving over HTTP
_WORD = re.compile(r"[A-Za-z][A-Za-z0-9_./-]{0,40}")
_SESSION_ID = re.compile(r"[0-9a-f]{32}")
_LONG_WORD = re.compile(r"[A-Za-z0-9_~+/=-]{24,}|[0-9a-f]{8}(?:-[0-9a-f]{4}){3}-[0-9a-f]{12}")


class LogLines:
    """Writes lines to a stream without anybody waiting for it."""

    def __init__(self, stream: TextIO, *, readable: bool = False) -> None:
        self._stream = stream
        self._lines: SimpleQueue[str | None] = SimpleQueue()
        self._dropped = 0
        self._thread = threading.Thread(target=self._write, name="log", daemon=True)
        self._logger: Any = structlog.wrap_logger(
            self,
            processors=_processors(readable=readable),
            wrapper_class=structlog.make_filtering_bound_logger(logging.INFO),
            context_class=dict,
        )

    def note(self, event: str, **facts: object) -> None:
        """Write a line."""
        self._logger.info(event, **facts)

    def warn(self, event: str, **facts: object) -> None:
        """Write a line that somebody should look at."""
        self._logger.warning(event, **facts)

    def info(self, line: str) -> None:
        """Take in a line that is ready to be written, for structlog."""
        if self._lines.qsize() >= _MOST_WAITING:
            self._dropped += 1
            return
        self._lines.put(line)

    warning = info

    @contextmanager
    def open(self) -> Generator[LogLines]:
        """Write, while in this context, what is noted, and what the libraries below warn of."""
        self._thread.start()
        handler, before = _Below(self), [logging.getLogger(name) for name in _BELOW]
        kept = [(each, each.propagate, each.level) for each in before]
        for each in before:
            each.addHandler(handler)
            each.propagate = False
            each.setLevel(logging.WARNING)
        try:
            yield self
        finally:
            for each, propagate, level in kept:
                each.removeHandler(handler)
                each.propagate = propagate
                each.setLevel(level)
            self._lines.put(None)

    def flush(self) -> None:
        """Wait a moment for what is still to be written, after the end. Blocking."""
        self._thread.join(_FLUSH_SECONDS)

    def _write(self) -> None:
        while (line := self._lines.get()) is not None:
            if self._dropped:
                line, self._dropped = f"{line}\n({self._dropped} lines were dropped)", 0
            try:
                self._stream.write(f"{line}\n")
                self._stream.flush()
            except (OSError, ValueError):
                return  # there is nobody to read it


class AccessLog:
    """Notes each request when it is over."""

    def __init__(self, app: ASGIApp, lines: LogLines, *, paths: frozenset[str]) -> None:
        self.app = app
        self._lines = lines
        self._paths = paths

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        began, status, count = time.monotonic(), 0, 0

        async def counted(message: Message) -> None:
            nonlocal status, count
            if message["type"] == "http.response.start":
                status = message["status"]
            else:
                count += len(message.get("body", b""))
            await send(message)

        try:
            await self.app(scope, receive, counted)
        finally:
            elapsed = round((time.monotonic() - began) * 1000, 1)
            self._lines.note("request", **self._facts(scope), status=status, ms=elapsed, bytes=count)

    def _facts(self, scope: Scope) -> dict[str, object]:
        headers, known = Headers(scope=scope), isinstance(scope.get("user"), AuthenticatedUser)
        facts: dict[str, object] = {
            "tenant": _tenant_name(scope),
            "client": (scope.get("client") or ("", 0))[0],
            "method": scope["method"],
            "path": scope["path"] if scope["path"] in self._paths else "(other)",
        }
        if known:  # what a stranger says of himself is worth nothing
            session = headers.get("mcp-session-id", "")
            facts["mcp_method"] = _word(headers.get("mcp-method"))
            facts["mcp_name"] = _word(headers.get("mcp-name"))
            facts["session"] = session[:8] if _SESSION_ID.fullmatch(session) else None
        return {key: value for key, value in facts.items() if value is not None}


class _Below(logging.Handler):
    """Passes on what the libraries below warn of, without their tracebacks, which show what clients sent."""

    def __init__(self, lines: LogLines) -> None:
        super().__init__(logging.WARNING)
        self._lines = lines

    def emit(self, record: logging.LogRecord) -> None:
        kind = record.exc_info[0].__name__ if record.exc_info and record.exc_info[0] else None
        facts: dict[str, object] = {"error": kind} if kind else {}
        self._lines.warn(_harmless(record.getMessage()), source=record.name, **facts)


def _harmless(text: str) -> str:
    """Return a text without what might be a token or the id of a session."""
    first = text.strip().partition("\n")[0][:_LONGEST]
    return _LONG_WORD.sub(lambda found: f"{found[0][:8]}...", first)


def _tenant_name(scope: Scope) -> str | None:
    user = scope.get("user")
    token = user.access_token if isinstance(user, AuthenticatedUser) else None
    return (token.tenant.name or OWNER_NAME) if isinstance(token, TenantToken) else None


def _word(text: str | None) -> str | None:
    """Return a name if it looks like one of the protocol's or of a tool."""
    if text is None:
        return None
    return text if _WORD.fullmatch(text) and not _LONG_WORD.fullmatch(text) else "(other)"


def _processors(*, readable: bool) -> list[Any]:
    shown: Any = (
        structlog.dev.ConsoleRenderer(colors=False) if readable else structlog.processors.JSONRenderer()
    )
    return [
        structlog.processors.add_log_level,
        structlog.processors.TimeStamper(fmt="iso", utc=True, key="timestamp" if readable else "time"),
        shown,
    ]
