"""Serving clients over HTTP: streamable HTTP, and the older transport with server-sent events.

Whoever comes needs a token, which says whose projects he sees. What a request passes on its way in, from the outside:

    log · health · names and origins · wrong tokens · token · share of the tenant · account of work · body · protocol

The app is opened around this by whoever calls it, and closed after it, which puts all sessions to sleep.
"""

from __future__ import annotations

import os
import signal
import socket
import sys
from collections.abc import AsyncGenerator, Callable, Generator
from contextlib import AsyncExitStack, asynccontextmanager, contextmanager
from dataclasses import dataclass
from typing import Any, Literal, TextIO

import anyio
import anyio.abc
import anyio.to_thread
import uvicorn
from mcp.server.auth.middleware.auth_context import AuthContextMiddleware
from mcp.server.auth.middleware.bearer_auth import BearerAuthBackend, RequireAuthMiddleware
from mcp.server.auth.routes import build_resource_metadata_url, create_protected_resource_routes
from mcp.server.auth.settings import AuthSettings
from mcp.server.lowlevel import Server
from mcp.server.transport_security import TransportSecuritySettings
from starlette.authentication import AuthenticationError
from starlette.middleware.authentication import AuthenticationMiddleware
from starlette.middleware.cors import CORSMiddleware
from starlette.requests import HTTPConnection
from starlette.responses import Response
from starlette.routing import BaseRoute, Router
from starlette.types import ASGIApp, Receive, Scope, Send

from .app import App
from .callers import TenantToken
from .errors import DoorError
from .settings import HttpSection
from .tenants import OWNER
from .web.access_log import AccessLog, LogLines
from .web.answers import refusal
from .web.bodies import Bodies
from .web.client_sessions import ClientSessions
from .web.connections import Connections, Patience
from .web.guards import Guard, is_loopback
from .web.health import HEALTH, READY, Health, Readiness
from .web.limits import Attempts, Limits
from .web.oauth import NotAnswered, open_introspection
from .web.sse import MESSAGES, SSE, calls_counted, sse_app
from .web.tokens import Accepted, Keys, OtherTokens, keys_of
from .web.work import AtWork, Work

Transport = Literal["streamable-http", "sse"]

MCP = "/mcp"

_PATHS = frozenset({MCP, SSE, MESSAGES, HEALTH, READY})
_ANY_ADDRESS = {"0.0.0.0": "127.0.0.1", "::": "[::1]"}  # noqa: S104 -- to say where that is reached from here
_CORS_HEADERS = (
    "Authorization",
    "Content-Type",
    "Last-Event-ID",
    "Mcp-Method",
    "Mcp-Name",
    "Mcp-Session-Id",
    "MCP-Protocol-Version",
)
_KEEP_ALIVE_SECONDS = 10
_LAST_WORDS_SECONDS = 1  # to write what was answered when all work is over
_SETTLE_SECONDS = 0.1


class AddressUnusable(DoorError):
    """The server cannot listen where it is told to."""

    def __init__(self, host: str, port: int, problem: OSError) -> None:
        self.host, self.port = host, port
        super().__init__(
            f"The server cannot listen on {host}, port {port}: {problem.strerror or problem}. Nothing is served. "
            "Choose another address with --host and --port, or with host and port in [http] of the user's rlm.toml; "
            "port 0 is any that is free."
        )


class ServingFailed(DoorError):
    """The web server ended before it had begun."""

    def __init__(self) -> None:
        super().__init__("The web server could not start, and nothing is served. Its log says why.")


@dataclass(frozen=True)
class _Started:
    """What was made when the server started."""

    address: tuple[str, int]
    keys: Keys
    transport: Transport


class Door:
    """A server that listens."""

    def __init__(
        self,
        started: _Started,
        web: _Web,
        work: Work,
        connections: Connections,
        leave: Callable[[], None],
    ) -> None:
        host, self.port = started.address
        host = _ANY_ADDRESS.get(host, f"[{host}]" if ":" in host else host)
        self.transport = started.transport
        self.url = f"http://{host}:{self.port}{MCP if self.transport == 'streamable-http' else SSE}"
        self.token = started.keys.made
        self.kept_in = started.keys.kept_in
        self._web = web
        self._work = work
        self._connections = connections
        self._leave = leave

    async def stop(self, *, grace_seconds: float) -> None:
        """Take no more, let calls at work end for so long, and then end them and all streams."""
        self._work.stopping = True
        self._web.stop_listening()
        self._leave()
        with anyio.move_on_after(grace_seconds):
            await self._work.until_idle()
        with anyio.CancelScope(shield=True):
            await anyio.sleep(_SETTLE_SECONDS)  # what was answered last is on its way out
            await self._work.end(within_seconds=_LAST_WORDS_SECONDS)
            self._web.should_exit = True
            await self._web.over.wait()
            self._connections.abort_all()


async def serve_http(
    app: App, server: Server[Any], *, transport: Transport, new_token: bool = False
) -> signal.Signals | None:
    """Serve until a signal comes, which is returned. Raise `DoorError` if that is not possible.

    The first signal lets calls at work end within `shutdown_seconds`; the second ends them at once.
    """
    with anyio.open_signal_receiver(signal.SIGINT, signal.SIGTERM) as signals:
        async with open_http(app, server, transport, new_token=new_token) as door:
            await anyio.to_thread.run_sync(_tell, announcement(door, app.settings.http))
            first = await anext(signals)
            async with anyio.create_task_group() as tasks:
                tasks.start_soon(_stop, door, app.settings.http.shutdown_seconds, tasks.cancel_scope)
                await anext(signals)
                tasks.cancel_scope.cancel()
            return first


async def _stop(door: Door, seconds: float, scope: anyio.CancelScope) -> None:
    await door.stop(grace_seconds=seconds)
    scope.cancel()


@asynccontextmanager
async def open_http(
    app: App,
    server: Server[Any],
    transport: Transport = "streamable-http",
    *,
    new_token: bool = False,
    patience: Patience | None = None,
    log: TextIO | None = None,
) -> AsyncGenerator[Door]:
    """Serve while in this context; at its end everything that is still at work is ended. Raise `DoorError`."""
    http, patience = app.settings.http, patience or Patience()
    work, connections = Work(), Connections(http.connections, patience)
    async with AsyncExitStack() as stack:
        keys = await anyio.to_thread.run_sync(lambda: keys_of(app.settings, new_token=new_token))
        others = await stack.enter_async_context(open_introspection(http)) if http.oauth_issuer else None
        listening = await anyio.to_thread.run_sync(_listening, http.host, http.port)
        stack.callback(listening.close)
        lines = _log_lines(app, log)
        stack.push_async_callback(_flush, lines)
        stack.enter_context(lines.open())
        inner = _protocol(server, transport, http)
        if transport == "sse":
            stack.enter_context(calls_counted(server, work))
        checked = _checked(inner, http, work, patience, keys, others)
        ready = Readiness(lambda: app.manager(OWNER), work)
        front = AccessLog(Health(checked, ready=ready), lines, paths=_PATHS)
        web = _Web(_config(_Split(front, inner), http, connections), listening)
        started = _Started(listening.getsockname()[:2], keys, transport)
        async with _running(web, connections):
            door = Door(started, web, work, connections, app.leave)
            try:
                yield door
            finally:
                await door.stop(grace_seconds=0)


def announcement(door: Door, http: HttpSection) -> str:
    """Return what is said when a server starts: where it is, how to add it, and the token if it is new."""
    kind = "http" if door.transport == "streamable-http" else "sse"
    shown = door.token or "YOUR-TOKEN"
    lines = [
        f"rlm-mcp listens at {door.url} ({door.transport}).",
        f'Add it with: claude mcp add --transport {kind} rlm {door.url} --header "Authorization: Bearer {shown}"',
    ]
    if door.token:
        lines.append(f"The token is shown only this once; its digest is kept in {door.kept_in}.")
    elif door.kept_in:
        lines.append(
            "The token is the one that was shown when it was made. For a new one, start with --new-token."
        )
    if not is_loopback(http.host):
        lines.append("Other machines can reach it, in the clear: put a proxy with TLS in front of it.")
        if not http.allowed_hosts:
            lines.append(
                "It answers only to its address, and to no name, until allowed_hosts in [http] has one."
            )
    return "\n".join(lines)


# ---- what a request passes


class _Split:
    """Gives requests to the checks, and the beginning and the end of the server to the protocol."""

    def __init__(self, checked: ASGIApp, inner: ASGIApp) -> None:
        self._checked = checked
        self._inner = inner

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        app = self._checked if scope["type"] == "http" else self._inner
        await app(scope, receive, send)


def _protocol(server: Server[Any], transport: Transport, http: HttpSection) -> ASGIApp:
    if transport == "sse":
        return sse_app(server, body_bytes=http.body_bytes, client_sessions=http.client_sessions)
    return server.streamable_http_app(
        streamable_http_path=MCP,
        max_request_body_size=http.body_bytes,
        max_sessions=http.client_sessions,
        transport_security=TransportSecuritySettings(
            enable_dns_rebinding_protection=False
        ),  # ours comes before
    )


def _checked(
    inner: ASGIApp, http: HttpSection, work: Work, patience: Patience, keys: Keys, others: OtherTokens | None
) -> ASGIApp:
    app: ASGIApp = Bodies(inner, most_bytes=http.body_bytes, seconds=patience.body_seconds)
    app = Limits(ClientSessions(AtWork(app, work), most=http.client_sessions), http)
    app = Router(
        routes=_metadata(http), default=_authenticated(app, http, keys, others), redirect_slashes=False
    )
    app = CORSMiddleware(  # the guard lets through no origin that may not be told
        app,
        allow_origin_regex=".*",
        allow_methods=("GET", "POST", "DELETE"),
        allow_headers=_CORS_HEADERS,
        expose_headers=("Mcp-Session-Id", "WWW-Authenticate", "Retry-After"),
    )
    return Guard(app, bound=http.host, allowed_hosts=http.allowed_hosts, allowed_origins=http.allowed_origins)


def _authenticated(app: ASGIApp, http: HttpSection, keys: Keys, others: OtherTokens | None) -> ASGIApp:
    oauth = _oauth(http)
    resource = oauth.resource_server_url if oauth else None
    like = TenantToken(
        client_id="",
        scopes=list(http.oauth_scopes),
        resource=str(resource) if resource else None,
        tenant=OWNER,
    )
    accepted = Accepted(keys.keys, others=others, like=like)
    metadata = build_resource_metadata_url(resource) if resource else None
    app = AuthContextMiddleware(RequireAuthMiddleware(app, list(http.oauth_scopes), metadata))
    backend = BearerAuthBackend(accepted, resource_server_url=resource)
    return Attempts(AuthenticationMiddleware(app, backend=backend, on_error=_not_authenticated))


def _oauth(http: HttpSection) -> AuthSettings | None:
    if not http.oauth_issuer:
        return None
    given = {  # as texts: an address without a path must stay one
        "issuer_url": http.oauth_issuer,
        "resource_server_url": http.oauth_resource,
        "required_scopes": list(http.oauth_scopes),
        "validate_token_resource": True,
    }
    return AuthSettings.model_validate(given)


def _metadata(http: HttpSection) -> list[BaseRoute]:
    oauth = _oauth(http)
    if oauth is None or oauth.resource_server_url is None:
        return []
    return [
        *create_protected_resource_routes(
            resource_url=oauth.resource_server_url,
            authorization_servers=[oauth.issuer_url],
            scopes_supported=oauth.required_scopes,
        )
    ]


def _not_authenticated(_: HTTPConnection, problem: AuthenticationError) -> Response:
    if isinstance(problem, NotAnswered):
        return refusal(503, str(problem), headers={"Retry-After": "5"})
    return refusal(400, "The Authorization header cannot be read.")


# ---- the web server


class _Web(uvicorn.Server):
    """Uvicorn, which leaves the signals of the process to us, and tells when it has begun and when it is over."""

    def __init__(self, config: uvicorn.Config, listening: socket.socket) -> None:
        super().__init__(config)
        self._listening = listening
        self.over = anyio.Event()

    @contextmanager
    def capture_signals(self) -> Generator[None]:
        yield

    async def startup(self, sockets: list[socket.socket] | None = None) -> None:
        await super().startup(sockets)
        self._status.started()

    async def run_until_over(self, *, task_status: anyio.abc.TaskStatus[None]) -> None:
        """Serve until `should_exit` is set."""
        self._status = task_status
        try:
            await self.serve([self._listening])
        except SystemExit as problem:
            raise ServingFailed from problem
        finally:
            self.over.set()

    def stop_listening(self) -> None:
        """Let no new connection in."""
        for server in self.servers:
            server.close()


@asynccontextmanager
async def _running(web: _Web, connections: Connections) -> AsyncGenerator[None]:
    tasks = anyio.create_task_group()
    await tasks.__aenter__()
    try:
        await tasks.start(web.run_until_over)
        tasks.start_soon(connections.watch)
        yield
    finally:
        tasks.cancel_scope.cancel()
        await tasks.__aexit__(None, None, None)  # and not around the caller's block, whose errors are its own


def _config(app: ASGIApp, http: HttpSection, connections: Connections) -> uvicorn.Config:
    return uvicorn.Config(
        app,
        http=connections.protocol(),
        ws="none",
        lifespan="on",
        log_config=None,
        access_log=False,
        server_header=False,
        backlog=min(2048, max(16, http.connections)),
        limit_concurrency=2 * http.connections
        + 1,  # a request may be at work for longer than its connection lasts
        timeout_keep_alive=_KEEP_ALIVE_SECONDS,
        timeout_graceful_shutdown=_LAST_WORDS_SECONDS,
        reset_contextvars=True,  # nothing of one request may be seen in the next on the same connection
    )


def _listening(host: str, port: int) -> socket.socket:
    try:
        found = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE)
        family, kind, protocol, _, address = min(found, key=lambda each: each[0] != socket.AF_INET)
        listening = socket.socket(family, kind, protocol)
    except OSError as problem:
        raise AddressUnusable(host, port, problem) from problem
    try:
        listening.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        listening.bind(address)
        listening.listen(16)  # now, because another server that shares the port would fail only there
        listening.setblocking(False)
    except OSError as problem:
        listening.close()
        raise AddressUnusable(host, port, problem) from problem
    return listening


def _log_lines(app: App, log: TextIO | None) -> LogLines:
    readable = app.settings.rlm.verbose or os.environ.get("RLM_LOG_FORMAT") == "console"
    return LogLines(log or sys.stderr, readable=readable)


async def _flush(lines: LogLines) -> None:
    with anyio.CancelScope(shield=True):
        await anyio.to_thread.run_sync(lines.flush)


def _tell(text: str) -> None:
    sys.stderr.write(f"{text}\n")
    sys.stderr.flush()
