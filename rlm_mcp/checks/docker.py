"""Whether a container engine is there, and can be used where sessions are to run in one."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

import anyio
import anyio.to_thread

from ..clients import Machine
from ..environments import Docker, environment_of
from .results import Case, Check

if TYPE_CHECKING:
    from rlm_sandboxes.docker import Facts

_SECONDS = 2.0
_QUESTION = b"GET /_ping HTTP/1.0\r\nHost: docker\r\n\r\n"
_NO_CODE = 'Until that is mended no code can run. environment = "local" in [rlm] needs no engine.'


async def docker(case: Case) -> list[Check]:
    """Say what engine there is."""
    environment = environment_of(case.settings)
    if isinstance(environment, Docker):
        return [await _used(environment)]
    machine = await anyio.to_thread.run_sync(Machine.here)
    command = await anyio.to_thread.run_sync(machine.program, "docker")
    engine = await _engine(case.sources.environment, machine.home)
    found = f'{command or "no `docker` on the PATH"}; {engine}; not used, because environment is "local"'
    return [Check("Docker", "info", found)]


async def _used(environment: Docker) -> Check:
    """Open the engine as a server would, and say what it is."""
    from rlm_sandboxes import SandboxUnavailable
    from rlm_sandboxes.docker import DockerSandbox

    from ..opened import sandbox_of

    try:
        async with sandbox_of(replace(environment, warm=0)) as sandbox:
            assert isinstance(sandbox, DockerSandbox)
            return _told(sandbox.facts, environment, copies=sandbox.copies_files)
    except SandboxUnavailable as problem:
        return Check("Docker", "fail", str(problem), _NO_CODE)


def _told(facts: Facts, environment: Docker, *, copies: bool) -> Check:
    who = (
        "of an ordinary user (rootless)"
        if facts.rootless
        else "of root, with users mapped"
        if facts.remapped
        else "of root"
    )
    files = "projects are copied to it" if copies else "projects are shown to it"
    runtime = environment.runtime or facts.default_runtime
    found = f"engine {facts.version} {who} at {facts.address}, runtime {runtime}; {files}"
    more = {
        "address": facts.address,
        "version": facts.version,
        "rootless": facts.rootless,
        "remote": facts.remote,
        "runtime": runtime,
        "runtimes": list(facts.runtimes),
        "image": environment.image,
    }
    return Check("Docker", "ok", found, "", more)


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
