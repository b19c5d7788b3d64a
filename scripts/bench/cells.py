"""What a cell costs: its round trip, code that keeps a core busy, output, and interrupts."""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable
from functools import partial
from typing import NamedTuple

import anyio
import anyio.to_thread

from rlm_sandboxes import Limits, Sandbox
from rlm_sandboxes.local import LocalSandbox
from rlm_sessions import Session, open_session

from . import peers
from .common import JUPYTER, LASTING, PLAIN, clocked, in_thread, seconds_of, seconds_of_cell, well
from .measuring import Bar, Batch, Contender, Row, Table, batches_in_turns, in_turns, mean_ratio
from .programs import PROGRAMS, timed

_BATCH, _KERNEL_BATCH = 25, 5
_REST_SECONDS = 0.7
_AWAIT = "import asyncio\nawait asyncio.sleep(0)"
_PRINTING = "for _ in range(100_000):\n    print('x' * 99)"
_DEADLINE_SECONDS = _GRACE_SECONDS = 0.1
HASTY = Limits(wall_seconds=_DEADLINE_SECONDS, grace_seconds=_GRACE_SECONDS)
_ENDLESS = "while True:\n    pass"
_STUBBORN = (
    "while True:\n    try:\n        while True:\n            pass\n    except BaseException:\n        pass"
)


# ---- round trip


async def measure_round_trip(rounds: int) -> list[Table]:
    """Measure the shortest of cells, in batches."""
    async with LocalSandbox() as sandbox, open_session(sandbox) as session:
        with peers.plain_repl() as repl, peers.kernel() as kernel:
            batches: dict[str, Batch] = {
                "plain Python, in this process": partial(
                    _timed, lambda: eval(compile("1+1", "<cell>", "eval"))
                ),
                PLAIN: partial(_timed, lambda: repl.ask("1+1")),
                "session": partial(timed_cells, session, "1+1"),
                "session, an assignment": partial(timed_cells, session, "x = 1"),
                "session, a print": partial(timed_cells, session, "print('hello')"),
                "session, top-level await": partial(timed_cells, session, _AWAIT),
                "session, after a rest": partial(rested, session),
                JUPYTER: partial(_timed_in_thread, lambda: kernel.ask("1+1")),
            }
            found = await batches_in_turns(
                batches, rounds=rounds, seldom={"session, after a rest": 6, JUPYTER: 6}
            )
    return [Table("Round trip of 1+1", [Row(name, values) for name, values in found.items()], PLAIN)]


async def _timed(act: Callable[[], object]) -> list[float]:
    act()
    return [seconds_of(act) for _ in range(_BATCH)]


async def timed_cells(session: Session, code: str) -> list[float]:
    """Run a batch of cells and return how long each took."""
    well(await session.run(code))  # it also wakes a session that came to rest while others had their turn
    return [await seconds_of_cell(session, code) for _ in range(_BATCH)]


async def rested(session: Session) -> list[float]:
    """Let a session come to rest, and return how long the cell takes that wakes it."""
    await anyio.sleep(_REST_SECONDS)
    return [await seconds_of_cell(session, "1+1")]


async def _timed_in_thread(act: Callable[[], object]) -> list[float]:
    return await anyio.to_thread.run_sync(lambda: [seconds_of(act) for _ in range(_KERNEL_BATCH)])


# ---- code that keeps a core busy


class _Times(NamedTuple):
    """What one run of a program took: by two clocks in the cell, and by one outside."""

    clock: float
    processor: float
    outside: float


async def measure_busy_code(rounds: int) -> list[Table]:
    """Measure a dozen programs under the default policy, by clocks in the cell and outside."""
    found: dict[str, _Times] = {}
    stock: dict[str, float] = {}
    async with LocalSandbox() as sandbox, open_session(sandbox, limits=LASTING) as session:
        with peers.plain_repl() as plain, peers.plain_repl() as restricted:
            for name, source in PROGRAMS.items():
                found[name], plain_seconds = await _race(session, plain, timed(source), rounds)
                seconds = _restricted_seconds(restricted, timed(source))
                if seconds is not None:
                    stock[name] = seconds / plain_seconds
    bar = Bar(1.05, "<= 1.05 x")
    rows = [
        Row(
            "session, by a clock in the cell", [mean_ratio(times.clock for times in found.values())], "x", bar
        ),
        Row(
            "session, in processor time", [mean_ratio(times.processor for times in found.values())], "x", bar
        ),
        Row("session, by a clock outside", [mean_ratio(times.outside for times in found.values())], "x", bar),
        Row("stock RestrictedPython, in processor time", [mean_ratio(stock.values())], "x"),
    ]
    slowest = sorted(found.items(), key=lambda item: -item[1].processor)
    notes = [
        "session, in processor time: " + ", ".join(f"{n} {times.processor:.3f}" for n, times in slowest[:4])
    ]
    notes.append(f"refused by stock RestrictedPython: {', '.join(PROGRAMS.keys() - stock.keys()) or 'none'}")
    return [
        Table("Code that keeps a core busy, to plain Python in a subprocess (mean of 12)", rows, notes=notes)
    ]


async def _race(session: Session, plain: peers.PlainRepl, code: str, rounds: int) -> tuple[_Times, float]:
    """Return how many times plain Python's a session's times are, and plain Python's processor time."""
    pairs: list[tuple[_Times, _Times]] = []
    for number in range(rounds + 1):
        if number % 2:
            ours, theirs = await _in_session(session, code), _in_plain(plain, code)
        else:
            theirs, ours = _in_plain(plain, code), await _in_session(session, code)
        pairs.append((ours, theirs))
    counted = pairs[1:]  # the first warms both up
    times = _Times(*(statistics.median(ours[n] / theirs[n] for ours, theirs in counted) for n in range(3)))
    return times, statistics.median(theirs.processor for _, theirs in counted)


async def _in_session(session: Session, code: str) -> _Times:
    began = time.perf_counter()
    result = await session.run(code)
    seconds = time.perf_counter() - began
    clock, processor = map(float, well(result).output.split())
    return _Times(clock, processor, seconds)


def _in_plain(plain: peers.PlainRepl, code: str) -> _Times:
    began = time.perf_counter()
    answer = plain.ask(code)
    seconds = time.perf_counter() - began
    clock, processor = map(float, answer["printed"].split())
    return _Times(clock, processor, seconds)


def _restricted_seconds(repl: peers.PlainRepl, code: str) -> float | None:
    try:
        return statistics.median(
            float(repl.ask(code, restricted=True)["printed"].split()[1]) for _ in range(3)
        )
    except IndexError:
        return None  # it printed nothing, because it was refused or failed


# ---- output and interrupts


async def measure_output(rounds: int) -> list[Table]:
    """Measure a cell that prints 10 MB."""
    async with LocalSandbox() as sandbox, open_session(sandbox, limits=LASTING) as session:
        with peers.plain_repl() as repl:
            found = await in_turns(
                {
                    PLAIN: clocked(lambda: repl.ask(_PRINTING)),
                    "session": partial(seconds_of_cell, session, _PRINTING),
                },
                rounds=rounds,
            )
    return [Table("Printing 10 MB in 100,000 lines", [Row(n, v) for n, v in found.items()], PLAIN)]


async def measure_interrupts(rounds: int) -> list[Table]:
    """Measure how long after its deadline an endless cell is over."""
    async with LocalSandbox() as sandbox, open_session(sandbox, limits=HASTY) as session:
        with peers.plain_repl() as repl:
            contenders: dict[str, Contender] = {
                f"{PLAIN}, SIGINT": _interrupting(repl),
                "session, interrupted": partial(past_deadline, session),
                "session, killed, past the grace time": partial(past_grace, sandbox),
            }
            found = await in_turns(contenders, rounds=rounds)
    rows = [Row(name, values) for name, values in found.items()]
    return [Table("An endless cell: time past its deadline", rows, f"{PLAIN}, SIGINT")]


def _interrupting(repl: peers.PlainRepl) -> Contender:
    def act() -> float:
        repl.tell(_ENDLESS)
        time.sleep(_DEADLINE_SECONDS)
        began = time.perf_counter()
        repl.interrupt()
        assert "KeyboardInterrupt" in repl.hear()["value"]
        return time.perf_counter() - began

    return in_thread(act)


async def past_deadline(session: Session) -> float:
    """Return how long after its deadline an endless cell is over, in a session with the limits `HASTY`."""
    began = time.perf_counter()
    result = await session.run(_ENDLESS)
    assert result.error is not None and result.error.limit == "wall_seconds" and not result.lost
    return time.perf_counter() - began - _DEADLINE_SECONDS


async def past_grace(sandbox: Sandbox) -> float:
    """Return how long after its grace time a cell is over that does not let itself be interrupted."""
    while True:
        async with open_session(sandbox, limits=HASTY) as session:
            began = time.perf_counter()
            result = await session.run(_STUBBORN)
            if result.lost:  # else the interrupt came before the cell had come to where it is stubborn
                return time.perf_counter() - began - _DEADLINE_SECONDS - _GRACE_SECONDS
