"""How the real server ends while cells are at work and sessions awake: with the right code, and all that it started."""

from __future__ import annotations

import json
import signal
import sys
from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from subprocess import DEVNULL, PIPE
from typing import Any

import anyio
import anyio.abc
import httpx2
import pytest
from anyio.streams.buffered import BufferedByteReceiveStream
from mcp import Client
from mcp.client.sse import sse_client
from mcp.client.streamable_http import streamable_http_client

from tests.e2e.grounds import Grounds, Running, all_ended, descendants, running
from tests.e2e.ways import HEADERS, TOKEN, url_of

PATIENCE_SECONDS = 60
BOUND_SECONDS = 10  # after which something hangs: how soon it is over is measured elsewhere
AWAKE = ("one", "two", "three")
STARTED_AT_LEAST = (
    len(AWAKE) + 3
)  # guests of those and of the cell at work, what they came from, who watches over it

BEGUN = "open('begun', 'w').close()\n"
CELLS = {
    "computing": f"{BEGUN}while True: pass",
    "asleep": f"import time\n{BEGUN}time.sleep(1000)",
    "stubborn": f"{BEGUN}while True:\n try:\n  while True: pass\n except BaseException: pass",
}
CODES = {
    signal.SIGTERM: 128 + signal.SIGTERM,
    signal.SIGINT: 128 + signal.SIGINT,
    signal.SIGKILL: -signal.SIGKILL,
}


@dataclass
class Lines:
    """A client that speaks to a server over stdio in lines of JSON."""

    to: anyio.abc.ByteSendStream
    of: BufferedByteReceiveStream
    asked: int = 0

    async def greet(self) -> None:
        about = {"name": "test", "version": "1"}
        await self.ask("initialize", protocolVersion="2025-11-25", capabilities={}, clientInfo=about)
        await self._write({"method": "notifications/initialized"})

    async def run(self, code: str, project: str) -> str:
        """Run a cell, and return what it says."""
        arguments = {"code": code, "project": project}
        answer = await self.ask("tools/call", name="execute_python", arguments=arguments)
        return str(answer["content"][0]["text"])

    async def begin(self, code: str) -> None:
        """Begin a cell in the project that the server was started in, and do not wait."""
        await self._request("tools/call", name="execute_python", arguments={"code": code})

    async def ask(self, method: str, **params: Any) -> Any:
        await self._request(method, **params)
        while True:
            message = json.loads(await self.of.receive_until(b"\n", 1024 * 1024))
            if message.get("id") == self.asked:
                return message["result"]

    async def _request(self, method: str, **params: Any) -> None:
        self.asked += 1
        await self._write({"id": self.asked, "method": method, "params": params})

    async def _write(self, message: dict[str, Any]) -> None:
        await self.to.send(json.dumps({"jsonrpc": "2.0", **message}).encode() + b"\n")


@asynccontextmanager
async def over_stdio(grounds: Grounds, command: list[str]) -> AsyncGenerator[tuple[anyio.abc.Process, Lines]]:
    """Start a server, or what starts one, and greet it. Whoever does not end it fails by its being killed."""
    process = await anyio.open_process(
        command, stdin=PIPE, stdout=PIPE, stderr=None, env=environment(grounds), cwd=grounds.project
    )
    try:
        assert process.stdin is not None and process.stdout is not None
        lines = Lines(process.stdin, BufferedByteReceiveStream(process.stdout))
        await lines.greet()
        yield process, lines
    finally:
        await _put_away(process)


async def _put_away(process: anyio.abc.Process) -> None:
    if process.returncode is None:
        process.kill()
    with anyio.CancelScope(shield=True):
        await process.wait()
        await process.aclose()


def environment(grounds: Grounds) -> dict[str, str]:
    return grounds.environment | {"RLM_SANDBOX_FILES": "write", "RLM_HTTP_TOKEN": TOKEN}


async def at_work(grounds: Grounds, lines: Lines, cell: str, pid: int) -> set[Running]:
    """Wake sessions and begin a cell; return all processes that there are then, the server's own among them."""
    for project in AWAKE:
        await lines.run("kept = 'before'", project)
    await lines.begin(CELLS[cell])
    await has_begun(grounds)
    return everything(pid)


async def has_begun(grounds: Grounds) -> None:
    while not await anyio.Path(grounds.project / "begun").exists():
        await anyio.sleep(0.02)


def everything(pid: int) -> set[Running]:
    found = descendants(pid)
    assert len(found) >= STARTED_AT_LEAST
    return found | {each for each in running() if each[0] == pid}


async def is_kept(grounds: Grounds, project: str) -> bool:
    """Return whether another server finds what was kept before."""
    async with over_stdio(grounds, grounds.server) as (_, lines):
        return "'before'" in await lines.run("kept", project)


@pytest.mark.parametrize("cell", ["computing", "stubborn"])
@pytest.mark.parametrize("how", ["end of input", *CODES], ids=str)
async def test_over_stdio_nothing_is_left_whatever_is_at_work(
    grounds: Grounds, cell: str, how: str | signal.Signals
) -> None:
    with anyio.fail_after(PATIENCE_SECONDS):
        async with over_stdio(grounds, grounds.server) as (server, lines):
            ours = await at_work(grounds, lines, cell, server.pid)

            if isinstance(how, signal.Signals):
                server.send_signal(how)
            else:
                await lines.to.aclose()

            with anyio.fail_after(BOUND_SECONDS):
                code = await server.wait()
                await all_ended(ours)
        kept = await is_kept(grounds, AWAKE[0])

    assert code == (CODES[how] if isinstance(how, signal.Signals) else 0)
    assert kept


PARENT = """
import subprocess, sys
child = subprocess.Popen(sys.argv[1:])
sys.stderr.write("started\\n")
child.wait()
"""


@pytest.mark.parametrize("cell", ["asleep", "stubborn"])
async def test_a_host_that_is_killed_takes_the_server_and_all_with_it(grounds: Grounds, cell: str) -> None:
    command = [sys.executable, "-c", PARENT, *grounds.server]
    with anyio.fail_after(PATIENCE_SECONDS):
        async with over_stdio(grounds, command) as (host, lines):
            ours = await at_work(grounds, lines, cell, host.pid)

            host.kill()  # and its pipes stay open here, so that the server does not see the end of its input

            with anyio.fail_after(BOUND_SECONDS):
                await all_ended(ours)
        kept = await is_kept(grounds, AWAKE[0])

    assert kept


@pytest.mark.parametrize("transport", ["http", "sse"])
@pytest.mark.parametrize("how", CODES, ids=str)
async def test_over_http_nothing_is_left_whatever_is_at_work(
    grounds: Grounds, transport: str, how: signal.Signals
) -> None:
    command = [*grounds.server, "--transport", transport, "--port", "0"]
    more = {"RLM_HTTP_SHUTDOWN_SECONDS": "0.2"}
    code = None
    with anyio.fail_after(PATIENCE_SECONDS):
        server = await anyio.open_process(
            command,
            stdin=DEVNULL,
            stdout=DEVNULL,
            stderr=PIPE,
            env=environment(grounds) | more,
            cwd=grounds.project,
        )
        try:
            async with anyio.create_task_group() as tasks:
                url = await tasks.start(url_of, server)
                tasks.start_soon(_work_over, transport, url)
                await has_begun(grounds)
                ours = everything(server.pid)

                server.send_signal(how)

                with anyio.fail_after(BOUND_SECONDS):
                    code = await server.wait()
                    await all_ended(ours)
                tasks.cancel_scope.cancel()
        finally:
            await _put_away(server)
        kept = await is_kept(grounds, AWAKE[0])

    assert code == CODES[how]
    assert kept


async def _work_over(transport: str, url: str) -> None:
    """Wake sessions and begin a cell, and mind nothing that happens to it."""
    try:
        async with httpx2.AsyncClient(headers=HEADERS, timeout=60) as web:
            way = (
                sse_client(url, headers=HEADERS)
                if transport == "sse"
                else streamable_http_client(url, http_client=web)
            )
            async with Client(way) as client:
                for project in AWAKE:
                    await client.call_tool("execute_python", {"code": "kept = 'before'", "project": project})
                await client.call_tool("execute_python", {"code": CELLS["asleep"]})
    except Exception:
        pass
