"""Many sessions at once: the memory of each, and whether a cell in one of many is slower than in one alone."""

from __future__ import annotations

import statistics
import time
from collections.abc import AsyncGenerator, Generator
from contextlib import AsyncExitStack, ExitStack, asynccontextmanager, contextmanager
from functools import partial

import anyio
import anyio.to_thread

from rlm_sandboxes import Sandbox
from rlm_sandboxes.local import LocalSandbox
from rlm_sessions import Session, open_session

from . import memory, peers
from .common import JUPYTER, LASTING, PLAIN, seconds_of, seconds_of_cell, well
from .measuring import Bar, Row, Table, shown
from .observed import ObservedSandbox

_MANY = 200
_FEW = 20
_CROWDS = (1, _FEW, _MANY)
_CELLS_EACH = 5
_CELL = "1+1"
_REST_SECONDS = 0.7  # a session that has come to rest is the idle one
_OWN = Bar(6_000_000, "<= 6 MB")
_NOT_SLOWER = Bar(1.1, "not slower (<= 1.1 x)")


@asynccontextmanager
async def _sessions(sandbox: Sandbox, count: int) -> AsyncGenerator[list[Session], None]:
    """Some sessions, each of which has run a cell."""
    async with AsyncExitStack() as stack:
        opened = [
            await stack.enter_async_context(open_session(sandbox, limits=LASTING)) for _ in range(count)
        ]
        for session in opened:
            well(await session.run(_CELL))
        yield opened


@contextmanager
def _repls(count: int) -> Generator[list[peers.PlainRepl], None, None]:
    with ExitStack() as stack:
        opened = [stack.enter_context(peers.plain_repl()) for _ in range(count)]
        for repl in opened:
            repl.ask(_CELL)
        yield opened


# ---- memory


async def measure_memory(rounds: int) -> list[Table]:
    """Measure idle sessions, few and many. Memory does not jitter, so one look at each of them is enough."""
    own: list[Row] = []
    part: list[Row] = []
    notes: list[str] = []
    async with LocalSandbox() as sandbox:
        for count in _CROWDS:
            looked, taken = await _look_at(sandbox, count)
            name = f"session, one of {count}"
            own.append(Row(name, [float(one.own) for one in looked] or [taken], "bytes", _OWN))
            part += [Row(name, [float(one.part) for one in looked], "bytes")] if looked else []
            notes.append(
                f"{count} sessions took {shown(taken, 'bytes')} each of what the machine had available"
            )
    beside = {
        f"{PLAIN}, one of {_FEW}": _memory_of_repls(),
        JUPYTER: await anyio.to_thread.run_sync(_memory_of_kernel),
    }
    for name, looked in beside.items():
        own.append(Row(name, [float(one.own) for one in looked], "bytes"))
        part.append(Row(name, [float(one.part) for one in looked], "bytes"))
    reference = f"{PLAIN}, one of {_FEW}"
    return [
        Table("Memory of an idle session: its own", own, reference, notes),
        Table(
            "Memory of an idle session: its part, if what is shared is divided by all that share it",
            part,
            reference,
        ),
    ]


async def _look_at(sandbox: Sandbox, count: int) -> tuple[list[memory.Memory], float]:
    """Return the memory of each session, where it can be seen, and what each took of this machine's."""
    observed = ObservedSandbox(sandbox)
    before = memory.available()
    async with _sessions(observed, count):
        await anyio.sleep(_REST_SECONDS)
        looked = [memory.memory_of(process.pid) for process in observed.processes]
        taken = (before - memory.available()) / count
    return [one for one in looked if one is not None], taken


def _memory_of_repls() -> list[memory.Memory]:
    with _repls(_FEW) as repls:
        return [one for repl in repls if (one := memory.memory_of(repl.pid))]


def _memory_of_kernel() -> list[memory.Memory]:
    with peers.kernel() as kernel:
        kernel.ask(_CELL)
        one = memory.memory_of(kernel.pid)
        return [one] if one else []


# ---- speed


async def measure_speed(rounds: int) -> list[Table]:
    """Measure cells in one session, in one of many after the other, and in all of many at once."""
    alone: list[float] = []
    among: list[float] = []
    at_once: list[float] = []
    async with LocalSandbox() as sandbox:
        for _ in range(rounds):
            async with _sessions(sandbox, 1) as (session,):
                alone += [await seconds_of_cell(session, _CELL) for _ in range(_MANY)]
            async with _sessions(sandbox, _MANY) as sessions:
                among += [
                    await seconds_of_cell(session, _CELL) for _ in range(_CELLS_EACH) for session in sessions
                ]
                at_once.append(await _all_at_once(sessions))
    plain_alone, plain_among = _plain(rounds)
    slower = statistics.median(among) / statistics.median(alone)
    plain_slower = statistics.median(plain_among) / statistics.median(plain_alone)
    rates = [
        Row(f"{_MANY} sessions at once", [_MANY * _CELLS_EACH / seconds for seconds in at_once], "cells/s")
    ]
    rates.append(Row("one session, one cell after the other", [1 / statistics.median(alone)], "cells/s"))
    return [
        Table(
            f"A cell in one of {_MANY} sessions, which take turns",
            [
                Row("one session alone", alone),
                Row(f"one of {_MANY} sessions", among),
                Row(f"one {PLAIN} alone", plain_alone),
                Row(f"one of {_MANY} plain subprocesses", plain_among),
            ],
            "one session alone",
        ),
        Table(
            f"How many times slower one of {_MANY} is than one alone",
            [Row("session", [slower], "x", _NOT_SLOWER), Row(PLAIN, [plain_slower], "x")],
        ),
        Table("Cells in a second", rates, "one session, one cell after the other"),
    ]


async def _all_at_once(sessions: list[Session]) -> float:
    async def run_in(session: Session) -> None:
        for _ in range(_CELLS_EACH):
            well(await session.run(_CELL))

    began = time.perf_counter()
    async with anyio.create_task_group() as tasks:
        for session in sessions:
            tasks.start_soon(run_in, session)
    return time.perf_counter() - began


def _plain(rounds: int) -> tuple[list[float], list[float]]:
    """Return the same for plain subprocesses, which are started only once because that takes them long."""
    with _repls(_MANY) as repls:
        turns = [seconds_of(partial(repl.ask, _CELL)) for _ in range(_CELLS_EACH) for repl in repls]
        return [seconds_of(lambda: repls[0].ask(_CELL)) for _ in range(_MANY * rounds)], turns
