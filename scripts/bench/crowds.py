"""Many sessions at once: the memory of each, and whether a cell in one of many is slower than in one alone."""

from __future__ import annotations

import statistics
import time
from collections.abc import AsyncGenerator, Generator
from contextlib import AsyncExitStack, ExitStack, asynccontextmanager, contextmanager
from dataclasses import dataclass, field
from functools import partial

import anyio
import anyio.to_thread

from rlm_sandboxes import Sandbox
from rlm_sandboxes.local import LocalSandbox
from rlm_sessions import Session, open_session

from . import memory, peers
from .common import JUPYTER, LASTING, PLAIN, seconds_of, seconds_of_cell, well
from .measuring import Bar, Row, Table
from .observed import ObservedSandbox

_MANY = 200
_FEW = 20
_CROWDS = (1, _FEW, _MANY)
_TURNS = 5
_CELL = "1+1"
_REST_SECONDS = 1.0  # after a while without a cell, a session comes to rest
_OWN = Bar(6_000_000, "<= 6 MB")


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
    found: dict[str, list[memory.Memory]] = {}
    taken = 0.0
    async with LocalSandbox() as sandbox:
        for count in _CROWDS:
            found[f"session, one of {count}"], taken = await _look_at(sandbox, count)
    reference = f"{PLAIN}, one of {_FEW}"
    found[reference] = _memory_of_repls()
    found[JUPYTER] = await anyio.to_thread.run_sync(_memory_of_kernel)
    own = [
        Row(name, [float(one.own) for one in looked], "bytes", _OWN if "session" in name else None)
        for name, looked in found.items()
        if looked  # the kernel shows a jailed process's memory to root only
    ]
    own.append(Row(f"session, {_MANY} of them, by what the machine has left", [taken], "bytes", _OWN))
    part = [
        Row(name, [float(one.part) for one in looked], "bytes") for name, looked in found.items() if looked
    ]
    return [
        Table("Memory of an idle session: its own", own, reference),
        Table(
            "Memory of an idle session: its part, with what is shared divided by all that share it",
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


@dataclass
class _Crowd:
    """How long a cell took: in the only one there is, in one while the others rest, and in all by turns."""

    alone: list[float] = field(default_factory=list[float])
    others_idle: list[float] = field(default_factory=list[float])
    by_turns: list[float] = field(default_factory=list[float])
    at_once: list[float] = field(default_factory=list[float])  # cells in a second

    def times_slower(self, times: list[float]) -> float:
        return statistics.median(times) / statistics.median(self.alone)


async def measure_speed(rounds: int) -> list[Table]:
    """Measure cells in one session, in one of many, in each of many by turns, and in all of many at once."""
    ours, plain = _Crowd(), _Crowd()
    async with LocalSandbox() as sandbox:
        for _ in range(rounds):
            await _measure_sessions(sandbox, ours)
    _measure_repls(rounds, plain)
    alone = f"one {PLAIN} alone"
    rates = [
        Row(f"{_MANY} sessions at once", ours.at_once, "cells/s"),
        Row("one session, one cell after the other", [1 / statistics.median(ours.alone)], "cells/s"),
    ]
    return [
        Table(
            f"A cell in one of {_MANY}",
            [
                Row("one session alone", ours.alone),
                Row("one session, the others idle", ours.others_idle),
                Row("all sessions by turns", ours.by_turns),
                Row(alone, plain.alone),
                Row("all plain subprocesses by turns", plain.by_turns),
            ],
            alone,
        ),
        _slower(ours, plain),
        Table("Cells in a second", rates, "one session, one cell after the other"),
    ]


def _slower(ours: _Crowd, plain: _Crowd) -> Table:
    most = plain.times_slower(plain.by_turns)
    rows = [
        Row(
            "session, the others idle",
            [ours.times_slower(ours.others_idle)],
            "x",
            Bar(1.1, "not slower (<= 1.1 x)"),
        ),
        Row(
            "session, all by turns",
            [ours.times_slower(ours.by_turns)],
            "x",
            Bar(most, "as little as plain ones"),
        ),
        Row(f"{PLAIN}, all by turns", [most], "x"),
    ]
    note = "By turns, each finds the processor's caches full of the others. That slows any process, jailed or not."
    return Table(f"How many times slower a cell in one of {_MANY} is than in one alone", rows, notes=[note])


async def _measure_sessions(sandbox: Sandbox, crowd: _Crowd) -> None:
    await anyio.sleep(_REST_SECONDS)  # until nothing is left of those that were closed before
    async with _sessions(sandbox, 1) as (session,):
        crowd.alone += await _in_one(session)
    async with _sessions(sandbox, _MANY) as sessions:
        await _by_turns(
            sessions
        )  # those that were opened first have come to rest meanwhile, and wake up here
        for _ in range(_TURNS):
            crowd.by_turns += await _by_turns(sessions)
        crowd.at_once.append(_MANY * _TURNS / await _all_at_once(sessions))
        await anyio.sleep(_REST_SECONDS)
        crowd.others_idle += await _in_one(sessions[0])


async def _in_one(session: Session) -> list[float]:
    return [await seconds_of_cell(session, _CELL) for _ in range(2 * _MANY)][_MANY:]  # the first warm it up


async def _by_turns(sessions: list[Session]) -> list[float]:
    return [await seconds_of_cell(session, _CELL) for session in sessions]


async def _all_at_once(sessions: list[Session]) -> float:
    async def run_in(session: Session) -> None:
        for _ in range(_TURNS):
            well(await session.run(_CELL))

    began = time.perf_counter()
    async with anyio.create_task_group() as tasks:
        for session in sessions:
            tasks.start_soon(run_in, session)
    return time.perf_counter() - began


def _measure_repls(rounds: int, crowd: _Crowd) -> None:
    with _repls(_MANY) as repls:
        for _ in range(_TURNS * rounds):
            crowd.by_turns += [seconds_of(partial(repl.ask, _CELL)) for repl in repls]
        repls[0].ask(_CELL)
        crowd.alone += [seconds_of(partial(repls[0].ask, _CELL)) for _ in range(_MANY * rounds)]
