"""A small server of one project: runs each line it reads as a cell, and answers with a line."""

from __future__ import annotations

import json
import sys
from pathlib import Path

import anyio
import anyio.to_thread

from rlm_sandboxes import Limits
from rlm_sandboxes.local import LocalSandbox
from rlm_sessions import Care, Places, identify, open_manager


async def main(root: str, durable: str) -> None:
    """Serve until the input ends, or until killed."""
    care = Care(limits=Limits(wall_seconds=60), policy="off", durable=durable == "durable")
    async with LocalSandbox() as sandbox, open_manager(sandbox, Places(Path(root)), care=care) as manager:
        session = await manager.session(identify(named="crashes"))
        while line := await anyio.to_thread.run_sync(sys.stdin.readline, abandon_on_cancel=True):
            result = await session.run(json.loads(line))
            error = None if result.error is None else str(result.error)
            answer = {"value": result.value, "error": error, "lost": result.lost, "notes": result.notes}
            await anyio.to_thread.run_sync(_say, json.dumps(answer))


def _say(line: str) -> None:
    print(line, flush=True)


if __name__ == "__main__":
    anyio.run(main, sys.argv[1], sys.argv[2])
