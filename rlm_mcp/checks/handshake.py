"""The server started as a client would start it, and greeted. No part of the MCP library is used for that."""

from __future__ import annotations

import json
import subprocess
import sys
import time
from typing import Any

import anyio
import anyio.abc

from .results import Case, Check

_COMMAND = (
    sys.executable,
    "-P",
    "-m",
    "rlm_mcp",
    "serve",
)  # -P: the folder we are in is no place to import from
_GREETING = {
    "jsonrpc": "2.0",
    "id": 1,
    "method": "initialize",
    "params": {
        "protocolVersion": "2025-11-25",
        "capabilities": {},
        "clientInfo": {"name": "rlm-mcp doctor", "version": "1"},
    },
}
_LEAVING_SECONDS = 2.0
_MAX_LINE = 1024 * 1024
_SLOW_SECONDS = 5.0


async def handshake(case: Case) -> list[Check]:
    """Start the server over stdio, and say how long it took to answer."""
    began, answer, seconds = time.monotonic(), b"", 0.0
    process = await anyio.open_process(_COMMAND, stderr=subprocess.PIPE)
    said = bytearray()
    try:
        async with anyio.create_task_group() as tasks:
            tasks.start_soon(_collect, process, said)
            answer = await _greet(process)
            seconds = time.monotonic() - began
            await _leave(process)
            tasks.cancel_scope.cancel()
    finally:
        await _end(process)
    return [_heard(answer, seconds, said.decode("utf-8", "replace"))]


def _heard(answer: bytes, seconds: float, said: str) -> Check:
    try:
        heard: Any = json.loads(answer)
        result = heard["result"]
        version, server = str(result["protocolVersion"]), str(result["serverInfo"]["name"])
    except (ValueError, KeyError, TypeError):
        last = said.strip().splitlines()[-1:] or ["it said nothing"]
        found = f"no answer to the greeting: {last[0][:500]}"
        return Check("Handshake", "fail", found, "Start `rlm-mcp serve </dev/null` to see all that it says.")
    found = f"{server} answered within {seconds:.2f} s, with protocol {version}"
    more = {"seconds": round(seconds, 3), "protocol": version}
    if seconds > _SLOW_SECONDS:
        fix = "Where clients give up on it, raise MCP_TIMEOUT (milliseconds) for Claude Code."
        return Check("Handshake", "warn", found, fix, more)
    return Check("Handshake", "ok", found, "", more)


async def _greet(process: anyio.abc.Process) -> bytes:
    assert process.stdin is not None
    assert process.stdout is not None
    answer = b""
    try:
        await process.stdin.send(json.dumps(_GREETING).encode() + b"\n")
        while b"\n" not in answer and len(answer) < _MAX_LINE:
            answer += await process.stdout.receive()
    except (anyio.EndOfStream, anyio.BrokenResourceError, anyio.ClosedResourceError):
        pass
    return answer.partition(b"\n")[0]


async def _collect(process: anyio.abc.Process, said: bytearray) -> None:
    assert process.stderr is not None
    try:
        async for chunk in process.stderr:
            said += chunk
            del said[:-10_000]
    except (anyio.BrokenResourceError, anyio.ClosedResourceError):
        pass


async def _leave(process: anyio.abc.Process) -> None:
    """Hang up, as a client does, and wait for the server to go."""
    assert process.stdin is not None
    with anyio.move_on_after(_LEAVING_SECONDS):
        await process.stdin.aclose()
        await process.wait()


async def _end(process: anyio.abc.Process) -> None:
    with anyio.CancelScope(shield=True):
        if process.returncode is None:
            process.kill()
        await process.aclose()
