"""The ways in which a client can reach the server, each with real parts: in memory, stdio, HTTP and SSE."""

from __future__ import annotations

import re
from collections.abc import AsyncGenerator, Callable
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from functools import partial
from subprocess import DEVNULL, PIPE
from typing import Any, TypeAlias

import anyio
import anyio.abc
import httpx2
from anyio.streams.text import TextReceiveStream
from mcp import Client, StdioServerParameters
from mcp.client.sse import sse_client
from mcp.client.streamable_http import streamable_http_client

from rlm_mcp.app import Surroundings, open_app
from rlm_mcp.server import make_server
from rlm_mcp.sources import Sources
from tests.e2e.grounds import Grounds

TOKEN = "a-token-for-the-tests-0123456789"
HEADERS = {"Authorization": f"Bearer {TOKEN}"}

Connect: TypeAlias = Callable[..., AbstractAsyncContextManager[Client]]
"""Connects a client, of which it takes the options."""
Way: TypeAlias = Callable[[Grounds], AbstractAsyncContextManager[Connect]]
"""Serves while its context is open."""


@asynccontextmanager
async def in_memory(grounds: Grounds) -> AsyncGenerator[Connect]:
    sources = Sources({}, grounds.environment, grounds.folder / "config")
    async with open_app(sources, Surroundings(None, grounds.project)) as app:
        yield partial(Client, make_server(app))


@asynccontextmanager
async def over_stdio(grounds: Grounds) -> AsyncGenerator[Connect]:
    command, *arguments = grounds.server
    yield partial(
        Client,
        StdioServerParameters(
            command=command, args=arguments, env=grounds.environment, cwd=str(grounds.project)
        ),
    )


@asynccontextmanager
async def over_http(grounds: Grounds) -> AsyncGenerator[Connect]:
    async with serving(grounds, "http") as url:
        yield partial(_http_client, url)


@asynccontextmanager
async def over_sse(grounds: Grounds) -> AsyncGenerator[Connect]:
    async with serving(grounds, "sse") as url:

        @asynccontextmanager
        async def connect(**options: Any) -> AsyncGenerator[Client]:
            async with Client(sse_client(url, headers=HEADERS), **options) as client:
                yield client

        yield connect


WAYS: dict[str, Way] = {"memory": in_memory, "stdio": over_stdio, "http": over_http, "sse": over_sse}


@asynccontextmanager
async def _http_client(url: str, **options: Any) -> AsyncGenerator[Client]:
    async with httpx2.AsyncClient(headers=HEADERS, timeout=60) as web:
        async with Client(streamable_http_client(url, http_client=web), **options) as client:
            yield client


@asynccontextmanager
async def serving(grounds: Grounds, transport: str) -> AsyncGenerator[str]:
    """Start the server as a process of its own that listens, and yield its URL. `TOKEN` opens it."""
    command = [*grounds.server, "--transport", transport, "--port", "0"]
    environment = grounds.environment | {"RLM_HTTP_TOKEN": TOKEN}
    process = await anyio.open_process(
        command, stdin=DEVNULL, stdout=DEVNULL, stderr=PIPE, env=environment, cwd=grounds.project
    )
    async with process, anyio.create_task_group() as tasks:
        try:
            with anyio.fail_after(30):
                url = await tasks.start(url_of, process)
            yield url
        finally:
            with anyio.CancelScope(shield=True):
                await _end(process)
            tasks.cancel_scope.cancel()


async def _end(process: anyio.abc.Process) -> None:
    process.terminate()
    try:
        with anyio.fail_after(20):
            await process.wait()
    except TimeoutError:
        process.kill()
        raise


async def url_of(process: anyio.abc.Process, *, task_status: anyio.abc.TaskStatus[str]) -> None:
    """Tell the URL that a server announces, and go on reading what the server says, which would else wait."""
    assert process.stderr is not None
    said, told = "", False
    async for text in TextReceiveStream(process.stderr):
        if told:
            continue
        said += text
        if found := re.search(r"listens at (\S+) ", said):
            told = True
            task_status.started(found[1])
    assert told, f"The server ended before it listened: {said}"
