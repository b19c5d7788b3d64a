"""Speaking with the program in `tests/programs/probe`."""

from __future__ import annotations

import json
from typing import Any

from rlm_sandboxes import Process


async def tell(process: Process, do: str, **facts: Any) -> None:
    """Send one request."""
    await process.send(json.dumps({"do": do, **facts}).encode() + b"\n")


async def hear(process: Process) -> Any:
    """Return the next answer."""
    data = b""
    while not data.endswith(b"\n"):
        data += await process.receive()
    return json.loads(data)


async def ask(process: Process, do: str, **facts: Any) -> Any:
    """Send one request and return its answer."""
    await tell(process, do, **facts)
    return await hear(process)


async def evaluate(process: Process, code: str) -> str:
    """Return what an expression comes to inside the sandbox."""
    return str(await ask(process, "evaluate", code=code))
