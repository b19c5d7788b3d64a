"""How long it takes until there is a session in a container."""

from __future__ import annotations

import time
from functools import partial
from pathlib import Path

from rlm_sandboxes.docker import DockerSandbox
from rlm_sandboxes.local import LocalSandbox
from rlm_sessions import guest_program, open_session

from .common import clocked, in_thread, project_folder, seconds_to_open, well
from .containers import CELL, DOCKER_RUN, PRINTED, Bench, opened
from .measuring import Bar, Contender, Row, Table, in_turns

_WARM = Bar(0.060, "<= 60 ms")
_SELDOM = 4


async def measure(bench: Bench, rounds: int) -> list[Table]:
    """Measure a new session: in a fresh sandbox, in a container made for it, and in one that waited."""
    reference = f"{DOCKER_RUN}, first answer"
    with project_folder() as project, bench.drivers() as drivers:
        async with (
            DockerSandbox(bench.image) as cold,
            DockerSandbox(bench.image, warm=1) as warm,
            LocalSandbox() as local,
        ):
            await seconds_to_open(local)
            contenders: dict[str, Contender] = {
                "docker, warm container": partial(_from_warm, warm),
                "docker, warm container, first answer": partial(_from_warm, warm, code=CELL),
                "docker, warm container with a project": partial(_from_warm, warm, project=project),
                "docker, cold container": partial(seconds_to_open, cold),
                "docker, cold container, first answer": partial(seconds_to_open, cold, code=CELL),
                "docker, fresh sandbox, first answer": partial(_from_nothing, bench),
                "local, first answer": partial(seconds_to_open, local, code=CELL),
                reference: clocked(partial(bench.run, PRINTED)),
                **{
                    f"{name}, first answer": in_thread(partial(opened, driver))
                    for name, driver in drivers.items()
                },
            }
            seldom = {f"{name}, first answer": _SELDOM for name in drivers}
            found = await in_turns(contenders, rounds=rounds, seldom=seldom)
    bars = {name: _WARM for name in found if name.startswith("docker, warm")}
    rows = [Row(name, values, bar=bars.get(name)) for name, values in found.items()]
    return [Table("A new session", rows, reference)]


async def _from_warm(sandbox: DockerSandbox, *, project: Path | None = None, code: str = "") -> float:
    """Open a session in a container that waits; when this is over, the next one waits and slows nobody down."""
    await sandbox.warm_up(guest_program(), project)
    seconds = await seconds_to_open(sandbox, project=project, code=code)
    await sandbox.warm_up(guest_program(), project)
    return seconds


async def _from_nothing(bench: Bench) -> float:
    """Return how long the first answer takes when the engine was not even looked for before."""
    began = time.perf_counter()
    async with DockerSandbox(bench.image) as sandbox, open_session(sandbox) as session:
        well(await session.run(CELL))
        return time.perf_counter() - began
