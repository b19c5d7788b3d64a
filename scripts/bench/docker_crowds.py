"""Many sessions in containers: ten that are opened at once, cells in all of them at once, and the memory of each."""

from __future__ import annotations

import time
from collections.abc import AsyncGenerator, Callable
from concurrent.futures import ThreadPoolExecutor
from contextlib import AsyncExitStack, ExitStack, asynccontextmanager
from functools import partial
from typing import NamedTuple

import anyio
import anyio.to_thread

from rlm_sandboxes import Sandbox
from rlm_sandboxes.docker import DockerSandbox
from rlm_sandboxes.local import LocalSandbox
from rlm_sessions import Session, guest_program, open_session

from . import memory, processes
from .common import LASTING, in_thread, well
from .containers import CELL, DOCKER_RUN, PRINTED, Bench, docker
from .drivers import Driver
from .measuring import Contender, Row, Table, in_turns
from .observed import ObservedProcess, ObservedSandbox

_MANY = 10
_TURNS = 20
_REST_SECONDS = 1.0  # after a while without a cell, a session comes to rest
_SELDOM = 1
_BARE = f"{DOCKER_RUN}: a Python that waits"


# ---- speed


async def measure_speed(bench: Bench, rounds: int) -> list[Table]:
    """Measure ten that are opened at once, until each has answered, and cells in ten at once."""
    async with (
        DockerSandbox(bench.image) as sandbox,
        DockerSandbox(bench.image, warm=_MANY) as warm,
        LocalSandbox() as local,
    ):
        with bench.drivers() as drivers:
            contenders: dict[str, Contender] = {
                "docker, warm containers": partial(_all_from_warm, warm),
                "docker, cold containers": partial(_all_opened, sandbox),
                "local": partial(_all_opened, local),
                DOCKER_RUN: in_thread(partial(_all_run, bench)),
                **{name: in_thread(partial(_all_of_peer, driver)) for name, driver in drivers.items()},
            }
            found = await in_turns(contenders, rounds=rounds, seldom=dict.fromkeys(drivers, _SELDOM))
        places: dict[str, Sandbox] = {"local": local, "docker": sandbox}
        rates = {name: [await _rate(place) for _ in range(rounds)] for name, place in places.items()}
    title = f"{_MANY} sessions that are opened at once, until each has answered {CELL}"
    return [
        Table(title, [Row(name, values) for name, values in found.items()], DOCKER_RUN),
        Table(
            f"Cells in a second in {_MANY} sessions at once",
            [Row(name, values, "cells/s") for name, values in rates.items()],
            "local",
        ),
    ]


async def _all_from_warm(sandbox: DockerSandbox) -> float:
    await sandbox.warm_up(guest_program())
    seconds = await _all_opened(sandbox)
    await sandbox.warm_up(guest_program())  # so that the next ones slow nobody down
    return seconds


async def _all_opened(sandbox: Sandbox) -> float:
    """Return how long it takes until the last of some sessions has answered; closing is not counted."""
    answered = 0
    seconds = 0.0
    all_answered = anyio.Event()
    began = time.perf_counter()

    async def open_one() -> None:
        nonlocal answered, seconds
        async with open_session(sandbox) as session:
            well(await session.run(CELL))
            answered += 1
            if answered == _MANY:
                seconds = time.perf_counter() - began
                all_answered.set()
            await all_answered.wait()

    async with anyio.create_task_group() as tasks:
        for _ in range(_MANY):
            tasks.start_soon(open_one)
    return seconds


def _all_run(bench: Bench) -> float:
    began = time.perf_counter()
    with ThreadPoolExecutor(_MANY) as threads:
        answers = list(threads.map(bench.run, [PRINTED] * _MANY))
    assert answers == ["2"] * _MANY
    return time.perf_counter() - began


def _all_of_peer(driver: Driver) -> float:
    try:
        return driver.seconds("crowd", count=_MANY, code=PRINTED, printed="\n".join(["2"] * _MANY))
    finally:
        driver.ask("close")


@asynccontextmanager
async def _sessions(sandbox: Sandbox) -> AsyncGenerator[list[Session], None]:
    async with AsyncExitStack() as stack:
        opened = [
            await stack.enter_async_context(open_session(sandbox, limits=LASTING)) for _ in range(_MANY)
        ]
        for session in opened:
            well(await session.run(CELL))
        yield opened


async def _rate(sandbox: Sandbox) -> float:
    async def run_in(session: Session) -> None:
        for _ in range(_TURNS):
            well(await session.run(CELL))

    async with _sessions(sandbox) as sessions:
        began = time.perf_counter()
        async with anyio.create_task_group() as tasks:
            for session in sessions:
                tasks.start_soon(run_in, session)
        return _MANY * _TURNS / (time.perf_counter() - began)


# ---- memory


class _Bytes(NamedTuple):
    """What comes free when a session ends: of the guest, and of the engine."""

    guest: float
    engine: float


async def measure_memory(bench: Bench, rounds: int) -> list[Table]:
    """Look at the memory of some idle sessions, and of what the engine has running for each of them."""
    async with DockerSandbox(bench.image) as sandbox, LocalSandbox() as local:
        contained, taken = await _look_at(sandbox, _in_container)
        near, taken_near = await _look_at(local, lambda process: _Bytes(_own([process.pid]), 0.0))
    with ExitStack() as stack:
        standing = [stack.enter_context(bench.standing()) for _ in range(_MANY)]
        bare = [_family(container) for container in standing]
    own = {
        "local: the guest": [one.guest for one in near],
        "docker: the guest and its guard": [one.guest for one in contained],
        "docker: the engine's process beside it": [one.engine for one in contained],
        "local, by what the machine has left": [taken_near],
        "docker, by what the machine has left": [taken],
        _BARE: [one.guest for one in bare],
        f"{DOCKER_RUN}: the engine's process beside it": [one.engine for one in bare],
    }
    rows = [Row(name, values, "bytes") for name, values in own.items() if values]
    note = "What a machine has left is changed by all who use it."
    return [Table(f"Memory of an idle session, one of {_MANY}: its own", rows, _BARE, [note])]


async def _look_at(sandbox: Sandbox, find: Callable[[ObservedProcess], _Bytes]) -> tuple[list[_Bytes], float]:
    """Return the memory of idle sessions, and what each took of this machine's."""
    observed = ObservedSandbox(sandbox)
    before = memory.available()
    async with _sessions(observed):
        await anyio.sleep(_REST_SECONDS)
        taken = (before - memory.available()) / _MANY
        found = [await anyio.to_thread.run_sync(find, process) for process in observed.processes]
    return found, taken


def _in_container(process: ObservedProcess) -> _Bytes:
    return _family(process.container)


def _family(container: str) -> _Bytes:
    """Return how much the processes in a container have, and that of the engine which waits for their end."""
    first = int(docker("inspect", "--format", "{{.State.Pid}}", container))
    return _Bytes(_own(processes.family(first)), _own([processes.parent(first)]))


def _own(pids: list[int]) -> float:
    return float(sum(one.own for pid in pids if (one := memory.memory_of(pid))))
