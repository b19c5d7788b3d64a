"""Snapshots after each cell: what they add to it, how long until they are whole, and how long waking takes."""

from __future__ import annotations

import statistics
import time
from collections.abc import AsyncGenerator, Awaitable, Callable
from contextlib import AsyncExitStack, asynccontextmanager
from functools import partial
from pathlib import Path

import anyio
import anyio.to_thread

from rlm_sandboxes import Sandbox
from rlm_sandboxes.local import LocalSandbox
from rlm_sessions import Care, CellResult, Manager, Places, Session, identify, open_manager, open_session
from rlm_sessions.keeping.keepers import open_keepers
from rlm_sessions.places import folder_bytes
from rlm_sessions.telling import Keep

from . import peers
from .common import LASTING, clocked, well
from .measuring import Bar, Row, Table, batches_in_turns, in_turns

Run = Callable[[str], Awaitable[CellResult]]

WITHOUT = "no snapshots"
KEPT = "snapshots"
PROJECT = "session of a project: snapshots and journal"
DURABLE = "the same, durable"
BARE = "python -I -S -c pass"
SIZES = {"1 kB": 1_000, "1 MB": 1_000_000, "100 MB": 100_000_000}
ARRAY = "import numpy; array = numpy.ones(12_500_000)"  # 100 MB
_CELL = "x += 1"
_BATCH = 20
_FORK = {"1 kB": Bar(0.4e-3, "<= 0.4 ms"), "1 MB": Bar(0.4e-3, "<= 0.4 ms"), "100 MB": Bar(3e-3, "<= 3 ms")}
_ROOMY = 1_000_000_000


@asynccontextmanager
async def contenders(sandbox: Sandbox, folder: Path, begin: str) -> AsyncGenerator[dict[str, Run]]:
    """One session of each kind, in which the cell `begin` has run."""
    async with AsyncExitStack() as stack:
        keepers = await stack.enter_async_context(open_keepers())
        (folder / "state").mkdir(parents=True)
        keep = Keep(keepers, folder / "state")
        without = await stack.enter_async_context(open_session(sandbox, limits=LASTING))
        kept = await stack.enter_async_context(open_session(sandbox, limits=LASTING, keep=keep))
        found: dict[str, Run] = {WITHOUT: without.run, KEPT: kept.run}
        for name, durable in ((PROJECT, False), (DURABLE, True)):
            manager = await stack.enter_async_context(managed(sandbox, folder / name[:5], durable=durable))
            found[name] = (await manager.session(identify(named="bench"))).run
        for run in found.values():
            well(await run(f"x = 0\n{begin}"))
        yield found


@asynccontextmanager
async def managed(sandbox: Sandbox, folder: Path, *, durable: bool = False) -> AsyncGenerator[Manager]:
    """The sessions of projects, kept in `folder`."""
    care = Care(limits=LASTING, durable=durable)
    async with open_manager(sandbox, Places(folder), care=care) as manager:
        yield manager


async def seconds_of(run: Run, code: str) -> float:
    """Run one cell and return how long its answer took."""
    began = time.perf_counter()
    result = await run(code)
    seconds = time.perf_counter() - began
    well(result)
    return seconds


def text_of(size: int) -> str:
    """Return a cell that makes a text of so many bytes."""
    return f"text = '0123456789abcdef' * {size // 16}"


# ---- what it adds to a cell


async def measure_cells(folder: Path, rounds: int) -> list[Table]:
    """Measure a small cell, one right after the other, while a text of some size is held."""
    return [await _measure_cells(folder, rounds, name, size) for name, size in SIZES.items()]


async def _measure_cells(folder: Path, rounds: int, name: str, size: int) -> Table:
    async def batch(run: Run) -> list[float]:
        return [await seconds_of(run, _CELL) for _ in range(_BATCH)]

    async with LocalSandbox() as sandbox, contenders(sandbox, folder / f"cells{size}", text_of(size)) as runs:
        for run in runs.values():
            await batch(run)
        batches = {which: partial(batch, run) for which, run in runs.items()}
        found = await batches_in_turns(batches, rounds=rounds, seldom={})
    added = statistics.median(found[KEPT]) - statistics.median(found[WITHOUT])
    rows = [Row(which, values) for which, values in found.items()]
    rows.append(Row("added by snapshots", [max(added, 0.0)], "s", _FORK[name]))
    note = "From one answer to the next, with no pause: what a cell waits for the snapshot before it is part of that."
    return Table(f"A cell `{_CELL}` while a text of {name} is held", rows, WITHOUT, [note])


async def measure_array(folder: Path, rounds: int) -> list[Table]:
    """Measure a cell that changes a large array, and the cell that comes right after it."""
    changing: dict[str, list[float]] = {}
    following: dict[str, list[float]] = {}
    async with LocalSandbox() as sandbox, contenders(sandbox, folder / "array", ARRAY) as runs:
        for number in range(rounds + 1):
            for which, run in runs.items():
                first = await seconds_of(run, "array[0] += 1")
                second = await seconds_of(run, _CELL)
                if number:  # the first round warms up
                    changing.setdefault(which, []).append(first)
                    following.setdefault(which, []).append(second)
                await anyio.sleep(0.7)  # until all is written, and nobody else is slowed by that
    added = statistics.median(following[KEPT]) - statistics.median(following[WITHOUT])
    after = [Row(which, values) for which, values in following.items()]
    after.append(Row("added by snapshots", [max(added, 0.0)], "s", _FORK["100 MB"]))
    return [
        Table(
            "A cell that changes a numpy array of 100 MB",
            [Row(which, values) for which, values in changing.items()],
            WITHOUT,
        ),
        Table(f"The cell `{_CELL}` right after that", after, WITHOUT),
    ]


# ---- until it is whole


async def measure_until_whole(folder: Path, rounds: int) -> list[Table]:
    """Measure how long after the answer the snapshot is whole, beside writing as much to a file."""
    rows: list[Row] = []
    for name, size in SIZES.items():
        cells = {
            f"{name} held, x changed": _CELL,
            f"{name} changed": "x += 1; text = str(x) + text[len(str(x)):]",
        }
        async with _kept_session(folder / f"whole{size}") as session:
            well(await session.run(f"x = 0\n{text_of(size)}"))
            await session.kept()
            for what, cell in cells.items():
                rows.append(Row(what, [await _seconds_until_kept(session, cell) for _ in range(rounds)]))
        rows.append(
            Row(f"{name} written to a file", [_seconds_to_write(folder, size) for _ in range(rounds)])
        )
    async with _kept_session(folder / "wholearray") as session:
        well(await session.run(f"x = 0\n{ARRAY}"))
        await session.kept()
        values = [await _seconds_until_kept(session, "array[0] += 1") for _ in range(rounds)]
        rows.append(Row("100 MB of numpy changed", values))
    title = "From the answer of a cell until its snapshot is whole (in the system's cache)"
    return [Table(title, rows, "100 MB written to a file")]


@asynccontextmanager
async def _kept_session(folder: Path) -> AsyncGenerator[Session]:
    await anyio.Path(folder).mkdir(parents=True)
    async with (
        LocalSandbox() as sandbox,
        open_keepers() as keepers,
        open_session(sandbox, limits=LASTING, keep=Keep(keepers, folder)) as session,
    ):
        yield session


async def _seconds_until_kept(session: Session, code: str) -> float:
    well(await session.run(code))
    began = time.perf_counter()
    if not await session.kept():
        raise RuntimeError(f"It is not kept: {session.keeping and session.keeping.problem}")
    return time.perf_counter() - began


def _seconds_to_write(folder: Path, size: int) -> float:
    data = b"x" * size
    began = time.perf_counter()
    (folder / "written").write_bytes(data)
    return time.perf_counter() - began


# ---- waking


async def measure_waking(folder: Path, rounds: int) -> list[Table]:
    """Measure the first cell of a session that is asleep, beside the start of a bare Python."""
    disk: list[Row] = []
    async with LocalSandbox() as sandbox, managed(sandbox, folder / "waking") as manager:
        sessions = {f"a text of {name}": text_of(size) for name, size in SIZES.items()}
        sessions["a numpy array of 100 MB"] = ARRAY
        acts: dict[str, Callable[[], Awaitable[float]]] = {}
        for what, begin in sessions.items():
            project = identify(named=what)
            session = await manager.session(project)
            well(await session.run(f"x = 0\n{begin}"))

            async def wake(
                session_run: Run = session.run, sleep: Callable[[], Awaitable[bool]] = session.sleep
            ) -> float:
                if not await sleep():
                    raise RuntimeError("It does not sleep.")
                return await seconds_of(session_run, _CELL)

            acts[f"session with {what}"] = wake
        found = await in_turns({BARE: clocked(peers.bare_python), **acts}, rounds=rounds)
        for what in sessions:
            state = manager.places.root / "projects" / identify(named=what).key / "state"
            disk.append(Row(what, [float(await anyio.to_thread.run_sync(folder_bytes, state))], "bytes"))
    return [
        Table(f"From asleep to the answer of `{_CELL}`", [Row(n, v) for n, v in found.items()], BARE),
        Table("Disk that the state of an idle session takes", disk, "a text of 100 MB"),
    ]
