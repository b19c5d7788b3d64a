"""A small server of one project: runs each line it reads as a cell, and answers with a line."""

from __future__ import annotations

import json
import os
import sys
from contextlib import AbstractAsyncContextManager
from pathlib import Path
from typing import Any

import anyio
import anyio.to_thread

from rlm_sandboxes import Limits
from rlm_sandboxes.local import LocalSandbox
from rlm_sessions import Care, Places, identify, open_manager


def _sandbox(kind: str, root: str) -> AbstractAsyncContextManager[Any]:
    if kind == "local":
        return LocalSandbox()
    from rlm_sandboxes.docker import DockerSandbox
    from tests.docker.engine import engine_of

    engine = engine_of(os.environ)
    return DockerSandbox(engine.image, engine=engine.host, pull="never", state=root)


async def main(root: str, durable: str, kind: str) -> None:
    """Serve until the input ends, or until killed."""
    care = Care(limits=Limits(wall_seconds=60), policy="off", durable=durable == "durable")
    async with (
        _sandbox(kind, root) as sandbox,
        open_manager(sandbox, Places(Path(root)), care=care) as manager,
    ):
        session = await manager.session(identify(named="crashes"))
        while line := await anyio.to_thread.run_sync(sys.stdin.readline, abandon_on_cancel=True):
            result = await session.run(json.loads(line))
            error = None if result.error is None else str(result.error)
            answer = {"value": result.value, "error": error, "lost": result.lost, "notes": result.notes}
            await anyio.to_thread.run_sync(_say, json.dumps(answer))


def _say(line: str) -> None:
    print(line, flush=True)


if __name__ == "__main__":
    anyio.run(main, sys.argv[1], sys.argv[2], sys.argv[3])
