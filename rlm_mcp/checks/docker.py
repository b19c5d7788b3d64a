"""Whether a Docker engine is there. Sessions do not use one in this version."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

import anyio

from ..clients import Machine
from .results import Case, Check, State

_SECONDS = 2.0
_QUESTION = b"GET /_ping HTTP/1.0\r\nHost: docker\r\n\r\n"


async def docker(case: Case) -> list[Check]:
    """Say whether there is a command, a socket, and an answer."""
    machine = await anyio.to_thread.run_sync(Machine.here)
    command = await anyio.to_thread.run_sync(machine.program, "docker")
    engine = await _engine(case.sources.environment, machine.home)
    found = f"{command or 'no `docker` on the PATH'}; {engine}; not used in this version"
    state: State = "info"
    fix = ""
    if case.settings.rlm.environment == "docker":
        state, fix = (
            "fail",
            'Set environment = "local" in [rlm]: this version has no Docker sandbox, and runs no code elsewhere.',
        )
    return [Check("Docker", state, found, fix)]


async def _engine(environment: Mapping[str, str], home: Path) -> str:
    named = environment.get("DOCKER_HOST", "")
    if named and not named.startswith("unix://"):
        return "an engine elsewhere (DOCKER_HOST), which was not asked"
    usual = (Path("/var/run/docker.sock"), home / ".docker" / "run" / "docker.sock")
    sockets = (Path(named.removeprefix("unix://")),) if named else usual
    for socket in sockets:
        if await anyio.Path(socket).exists():
            return await _ping(socket)
    return f"no engine (no socket at {' or '.join(map(str, sockets))})"


async def _ping(socket: Path) -> str:
    try:
        with anyio.fail_after(_SECONDS):
            async with await anyio.connect_unix(socket) as stream:
                await stream.send(_QUESTION)
                answer = b""
                while b"\r\n" not in answer and len(answer) < 1000:
                    answer += await stream.receive()
    except (OSError, TimeoutError, anyio.EndOfStream, anyio.BrokenResourceError) as problem:
        why = getattr(problem, "strerror", None) or type(problem).__name__
        return f"no engine answers at {socket} ({why})"
    return f"an engine answers at {socket}" if b" 200 " in answer else f"an engine at {socket} refuses"
