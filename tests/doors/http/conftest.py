"""What the tests of HTTP share: a small server behind the real door, clients of both eras, and plain sockets."""

from __future__ import annotations

import io
import json
from collections.abc import AsyncGenerator, Callable, Mapping
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import anyio
import httpx2
import pytest
from mcp import Client
from mcp.client.sse import sse_client
from mcp.client.streamable_http import streamable_http_client
from mcp.server.lowlevel import Server
from mcp_types import CallToolResult, ListToolsResult, TextContent, Tool

from rlm_mcp.app import App, Surroundings, open_app
from rlm_mcp.callers import tenant_of
from rlm_mcp.http import Door, Transport, open_http
from rlm_mcp.sources import Sources
from rlm_mcp.web.connections import Patience

ALICE, BOB, ACCOUNT = "alices-token-0123456789", "bobs-token-0123456789abc", "the-accounts-token-012345"
MODERN, LEGACY = "2026-07-28", "legacy"
INITIALIZE = {
    "jsonrpc": "2.0",
    "id": 1,
    "method": "initialize",
    "params": {
        "protocolVersion": "2025-06-18",
        "capabilities": {},
        "clientInfo": {"name": "test", "version": "1"},
    },
}


@dataclass
class Probe:
    """A server with tools that show what the door does, and what became of them."""

    begun: anyio.Event = field(default_factory=anyio.Event)
    go_on: anyio.Event = field(default_factory=anyio.Event)
    cancelled: anyio.Event = field(default_factory=anyio.Event)
    calls: int = 0

    def server(self) -> Server[Any]:
        """Return the server."""
        return Server("probe", on_list_tools=self._list, on_call_tool=self._call)

    async def _list(self, ctx: Any, params: Any) -> ListToolsResult:
        names = ("whose", "wait", "steps", "much")
        return ListToolsResult(
            tools=[Tool(name=name, description=name, input_schema={"type": "object"}) for name in names]
        )

    async def _call(self, ctx: Any, params: Any) -> CallToolResult:
        self.calls += 1
        said = await getattr(self, f"_{params.name}")(ctx, params.arguments or {})
        return CallToolResult(content=[TextContent(text=said)])

    async def _whose(self, ctx: Any, arguments: Any) -> str:
        return tenant_of().name or "the account"

    async def _wait(self, ctx: Any, arguments: Any) -> str:
        self.begun.set()
        try:
            await self.go_on.wait()
        except BaseException:
            self.cancelled.set()
            raise
        return "done"

    async def _steps(self, ctx: Any, arguments: Any) -> str:
        for number in (1, 2, 3):
            await ctx.session.report_progress(number, 3, f"step {number}")
        return "three steps"

    async def _much(self, ctx: Any, arguments: Any) -> str:
        return "x" * int(arguments["characters"])


@pytest.fixture
def probe() -> Probe:
    return Probe()


@pytest.fixture
def flags(flags: dict[str, object], tmp_path: Path) -> dict[str, object]:
    config = tmp_path / "config"
    config.mkdir(exist_ok=True)
    (config / "rlm.toml").write_text(
        f'[http.tokens]\nalice = "{ALICE}"\nbob = "{BOB}"\nowner = "{ACCOUNT}"\n', encoding="utf-8"
    )
    return {**flags, "http.port": 0, "http.shutdown_seconds": 0.0}


@dataclass
class Served:
    """A door that is open, and how to come in by it."""

    door: Door
    log: io.StringIO
    transport: Transport

    @property
    def url(self) -> str:
        return self.door.url

    @property
    def base(self) -> str:
        return f"http://127.0.0.1:{self.door.port}"

    @asynccontextmanager
    async def client(
        self, token: str = ALICE, *, mode: str = MODERN, **options: Any
    ) -> AsyncGenerator[Client]:
        """Connect as somebody."""
        headers = {"Authorization": f"Bearer {token}"}
        if self.transport == "sse":
            async with Client(sse_client(self.url, headers=headers), mode=mode, **options) as client:
                yield client
            return
        async with httpx2.AsyncClient(headers=headers, timeout=60) as web:
            way = streamable_http_client(self.url, http_client=web)
            async with Client(way, mode=mode, **options) as client:
                yield client

    async def post(
        self,
        message: object,
        headers: Mapping[str, str] | None = None,
        *,
        token: str | None = ALICE,
        content: bytes | None = None,
    ) -> httpx2.Response:
        """Post a message as no well-behaved client would."""
        sent = {"Content-Type": "application/json", "Accept": "application/json, text/event-stream"}
        if token is not None:
            sent["Authorization"] = f"Bearer {token}"
        sent |= headers or {}
        body = json.dumps(message).encode() if content is None else content
        async with httpx2.AsyncClient(timeout=30) as web:
            return await web.post(f"{self.base}/mcp", content=body, headers=sent)

    async def get(self, path: str, *, token: str | None = ALICE, **headers: str) -> httpx2.Response:
        """Ask for a path."""
        sent = {name.replace("_", "-"): value for name, value in headers.items()}
        if token is not None:
            sent["Authorization"] = f"Bearer {token}"
        async with httpx2.AsyncClient(timeout=30) as web:
            return await web.get(f"{self.base}{path}", headers=sent)


Serve = Callable[..., AbstractAsyncContextManager[Served]]


@pytest.fixture
def serve(probe: Probe, flags: dict[str, object], project: Path, tmp_path: Path) -> Serve:
    """Open the door with further settings, given as http settings by their names."""

    @asynccontextmanager
    async def opened(
        transport: Transport = "streamable-http",
        *,
        make: Callable[[App], Server[Any]] | None = None,
        new_token: bool = False,
        patience: Patience | None = None,
        **http: object,
    ) -> AsyncGenerator[Served]:
        given = {**flags, **{f"http.{name}": value for name, value in http.items()}}
        log = io.StringIO()
        async with open_app(Sources(given, {}, tmp_path / "config"), Surroundings(None, project)) as app:
            server = make(app) if make else probe.server()
            async with open_http(
                app, server, transport, new_token=new_token, patience=patience, log=log
            ) as door:
                yield Served(door, log, transport)

    return opened


async def converse(port: int, said: bytes, *, until: Callable[[bytes], bool] | None = None) -> bytes:
    """Say something to a port, and return what comes back until it is closed or enough."""
    heard = b""
    async with await anyio.connect_tcp("127.0.0.1", port) as stream:
        await stream.send(said)
        try:
            while not (until and until(heard)):
                heard += await stream.receive()
        except (anyio.EndOfStream, anyio.BrokenResourceError):
            pass
    return heard


async def status_of(port: int, *, host: str | None = None, path: str = "/mcp", **headers: str) -> int:
    """Return the status of a request whose Host and headers are chosen freely."""
    lines = [
        f"POST {path} HTTP/1.1",
        "Content-Length: 2",
        "Content-Type: application/json",
        "Connection: close",
    ]
    lines += [f"Host: {host}"] if host is not None else []
    lines += [f"{name.replace('_', '-')}: {value}" for name, value in headers.items()]
    heard = await converse(port, ("\r\n".join(lines) + "\r\n\r\n{}").encode("latin-1"))
    return int(heard.split(b" ", 2)[1])
