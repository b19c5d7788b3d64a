"""A client that writes lines and reads lines, and knows nothing better."""

from __future__ import annotations

import io
import json
import os
import pty
import socket
import subprocess
import sys
import tty
from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager
from typing import IO, Any, Literal, Self

import anyio
import anyio.to_thread

Kind = Literal["pipes", "sockets", "terminal"]
PROGRAM = [sys.executable, "-m", "tests.doors.stdio.program"]
MODERN = {
    "io.modelcontextprotocol/protocolVersion": "2026-07-28",
    "io.modelcontextprotocol/clientInfo": {"name": "raw", "version": "1"},
    "io.modelcontextprotocol/clientCapabilities": {},
}


class Raw:
    """A server that was started, and the other ends of its streams."""

    def __init__(self, process: subprocess.Popen[bytes], to: IO[bytes], of: io.BufferedReader) -> None:
        self.process = process
        self.to = to
        self.of = of
        self._ids = 0

    async def send(self, *lines: bytes | dict[str, Any]) -> None:
        data = b"".join(
            each if isinstance(each, bytes) else json.dumps(each).encode() + b"\n" for each in lines
        )
        await anyio.to_thread.run_sync(self._write, data, abandon_on_cancel=True)

    def _write(self, data: bytes) -> None:
        view = memoryview(data)
        while view:
            view = view[self.to.write(view) :]

    async def receive(self) -> dict[str, Any]:
        line = await anyio.to_thread.run_sync(self.of.readline, abandon_on_cancel=True)
        answer: dict[str, Any] = json.loads(line)
        return answer

    async def begins_to_answer(self) -> None:
        """Wait until there is something to read, and leave it there."""
        await anyio.to_thread.run_sync(self.of.peek, 1, abandon_on_cancel=True)

    async def rest(self) -> bytes:
        """Return what comes on standard output up to its end."""
        return await anyio.to_thread.run_sync(self.of.read, abandon_on_cancel=True)

    def request(self, method: str, **params: Any) -> dict[str, Any]:
        self._ids += 1
        return {"jsonrpc": "2.0", "id": self._ids, "method": method, "params": params}

    def call(self, name: str, **arguments: Any) -> dict[str, Any]:
        return self.request("tools/call", name=name, arguments=arguments, _meta=MODERN)

    async def ask(self, request: dict[str, Any]) -> dict[str, Any]:
        await self.send(request)
        return await self.receive()

    async def text_of(self, name: str, **arguments: Any) -> str:
        answer = await self.ask(self.call(name, **arguments))
        text: str = answer["result"]["content"][0]["text"]
        return text

    async def told(self, text: str) -> None:
        """Wait until the server says `text` on standard error."""
        assert self.process.stderr is not None
        while line := await anyio.to_thread.run_sync(self.process.stderr.readline, abandon_on_cancel=True):
            if text in line.decode():
                return
        raise AssertionError(f"the server ended without saying {text!r}")

    async def said(self) -> str:
        """Return all that is left to read of standard error."""
        assert self.process.stderr is not None
        return (await anyio.to_thread.run_sync(self.process.stderr.read, abandon_on_cancel=True)).decode()

    async def hang_up(self) -> None:
        self.to.close()

    async def ended(self) -> int:
        """Wait until the server is gone, and return its exit code."""
        return await anyio.to_thread.run_sync(self.process.wait, abandon_on_cancel=True)

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(self, *_: object) -> None:
        self.process.kill()
        self.process.wait()
        assert self.process.stderr is not None
        for stream in (self.to, self.of, self.process.stderr):
            stream.close()


@asynccontextmanager
async def served(kind: Kind = "pipes", *, program: list[str] = PROGRAM) -> AsyncGenerator[Raw]:
    """Start the small server, or another program, with standard streams of a kind."""
    theirs_in, ours_out = _pair(kind)
    if kind == "terminal":
        theirs_out, ours_in = os.dup(theirs_in), os.dup(ours_out)
    else:
        ours_in, theirs_out = _pair(kind, turned=True)
    process = subprocess.Popen(  # noqa: ASYNC220 -- it is given away to a class that waits in threads
        program, stdin=theirs_in, stdout=theirs_out, stderr=subprocess.PIPE
    )
    os.close(theirs_in)
    os.close(theirs_out)
    async with Raw(process, os.fdopen(ours_out, "wb", 0), os.fdopen(ours_in, "rb")) as raw:
        yield raw


def _pair(kind: Kind, *, turned: bool = False) -> tuple[int, int]:
    if kind == "terminal":
        ours, theirs = pty.openpty()
        tty.setraw(theirs)
        return theirs, ours
    if kind == "pipes":
        return os.pipe()
    one, other = socket.socketpair()
    return one.detach(), other.detach()
