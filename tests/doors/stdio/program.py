"""A small server over standard input and output, as the tests start it. Its exit code is the signal's, as the command's is."""

from __future__ import annotations

import asyncio
import os
import subprocess
import sys
from typing import Any

import anyio
import mcp_types as types
from mcp.server import ServerRequestContext
from mcp.server.lowlevel import Server

from rlm_mcp.stdio import Stopped, serve_stdio

NAMES = ("echo", "sleep", "big", "progress", "print", "spawn", "unprintable", "memory")


async def list_tools(
    _context: ServerRequestContext[Any, Any], _params: types.PaginatedRequestParams | None
) -> types.ListToolsResult:
    return types.ListToolsResult(
        tools=[types.Tool(name=each, description=each, input_schema={"type": "object"}) for each in NAMES]
    )


async def call_tool(
    context: ServerRequestContext[Any, Any], params: types.CallToolRequestParams
) -> types.CallToolResult:
    text = await act(context, params.name, params.arguments or {})
    return types.CallToolResult(content=[types.TextContent(type="text", text=text)])


async def act(context: ServerRequestContext[Any, Any], name: str, arguments: dict[str, Any]) -> str:
    match name:
        case "echo":
            return str(arguments.get("text", ""))
        case "sleep":
            return await sleep(float(arguments.get("seconds", 3600)))
        case "big":
            return "x" * int(arguments["size"])
        case "progress":
            for step in range(3):
                await context.session.report_progress(step, 3, f"step {step}")
            return "reported"
        case "print":
            print("on sys.stdout")
            os.write(1, b"on descriptor 1\n")
            subprocess.run(["echo", "from a child"], check=True)  # noqa: ASYNC221 -- it is all that happens
            return repr(os.read(0, 10))
        case "spawn":
            return str(subprocess.Popen(["sleep", "3600"]).pid)  # noqa: ASYNC220
        case "unprintable":
            return "half a pair: \ud800"
        case _:
            return await anyio.Path("/proc/self/status").read_text()


async def sleep(seconds: float) -> str:
    tell("asleep")
    try:
        await anyio.sleep(seconds)
    except asyncio.CancelledError:
        tell("cancelled")
        raise
    return "slept"


def tell(text: str) -> None:
    print(text, file=sys.stderr, flush=True)


async def main() -> int:
    server = Server[Any]("test", on_list_tools=list_tools, on_call_tool=call_tool)
    try:
        await serve_stdio(server, first_request=lambda: tell("first answer written"))
    except Stopped as stopped:
        return 128 + stopped.signal_number
    finally:
        tell("cleaned up")
    return 0


if __name__ == "__main__":
    sys.exit(anyio.run(main))
