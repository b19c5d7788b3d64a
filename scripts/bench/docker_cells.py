"""What a cell costs in a container: its round trip, the snapshot after it, and an interrupt."""

from __future__ import annotations

import secrets
import statistics
import time
from collections.abc import AsyncGenerator
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import replace
from functools import partial

import anyio
import anyio.to_thread

from rlm_sandboxes import Sandbox
from rlm_sandboxes.docker import DockerSandbox
from rlm_sandboxes.local import LocalSandbox
from rlm_sessions import Session, open_keepers, open_session
from rlm_sessions.telling import Keep

from .cells import HASTY, past_deadline, past_grace, rested, timed_cells
from .common import LASTING, PLAIN, clocked, in_thread, seconds_of, seconds_of_cell, well
from .containers import CELL, DOCKER_EXEC, DOCKER_RUN, PRINTED, RLMS, RUNTIME, Bench, docker, execute
from .measuring import Bar, Batch, Contender, Row, Table, batches_in_turns, in_turns
from .peers import PlainRepl, plain_repl
from .snapshots import text_of

_OVER_LOCAL = Bar(1e-3, "<= 1 ms")
_SELDOM = 5
_SIZES = {"1 kB": 1_000, "1 MB": 1_000_000, "100 MB": 100_000_000}
_STEP, _CHANGE = "x += 1", "x += 1; text = str(x) + text[len(str(x)):]"
_STEPS = 10
_LOOP = "print('up', flush=True)\nwhile True: pass"
_WITHOUT, _KEPT = "", ", with snapshots"
_OVERDUE = "An endless cell: time past its deadline"
_BATCH = 25


# ---- round trip


async def measure_trips(bench: Bench, rounds: int) -> list[Table]:
    """Measure the shortest of cells, in batches."""
    async with (
        DockerSandbox(bench.image) as sandbox,
        LocalSandbox() as near,
        open_session(sandbox, limits=LASTING) as session,
        open_session(near, limits=LASTING) as local,
    ):
        with plain_repl() as repl, bench.standing() as container, bench.drivers() as drivers:
            for driver in drivers.values():
                await anyio.to_thread.run_sync(partial(driver.ask, "open"))
            slow = {
                f"{DOCKER_EXEC} for each cell": clocked(partial(execute, container, PRINTED)),
                f"{DOCKER_RUN} for each cell": clocked(partial(bench.run, PRINTED)),
                **{
                    name: in_thread(partial(driver.seconds, "cell", code=PRINTED, printed="2"))
                    for name, driver in drivers.items()
                },
            }
            batches: dict[str, Batch] = {
                "local": partial(timed_cells, local, CELL),
                "docker": partial(timed_cells, session, CELL),
                "local, after a rest": partial(rested, local),
                "docker, after a rest": partial(rested, session),
                PLAIN: partial(_batch_of_plain, repl),
                **{name: partial(_single, act) for name, act in slow.items()},
            }
            seldom = dict.fromkeys((*slow, "local, after a rest", "docker, after a rest"), _SELDOM)
            found = await batches_in_turns(batches, rounds=rounds, seldom=seldom)
    rows = [Row(name, values) for name, values in found.items()]
    over = statistics.median(found["docker"]) - statistics.median(found["local"])
    rows.append(Row("docker over local, by their medians", [max(over, 0.0)], bar=_OVER_LOCAL))
    notes = [f"{DOCKER_EXEC}, {DOCKER_RUN} and {RUNTIME} keep no variables; {RLMS} keeps them in a file."]
    return [Table(f"Round trip of {CELL}", rows, "local", notes if drivers else [])]


async def _batch_of_plain(repl: PlainRepl) -> list[float]:
    ask = partial(repl.ask, CELL)
    ask()
    return [seconds_of(ask) for _ in range(_BATCH)]


async def _single(act: Contender) -> list[float]:
    return [await act()]


# ---- snapshots


async def measure_snapshots(bench: Bench, rounds: int) -> list[Table]:
    """Measure cells with a snapshot after each, while a text of some size is held."""
    return [
        table for name, size in _SIZES.items() for table in await _measure_size(bench, rounds, name, size)
    ]


@asynccontextmanager
async def _kept_and_not(bench: Bench, name: str) -> AsyncGenerator[dict[str, Session]]:
    """Sessions with and without snapshots, in both sandboxes."""
    async with (
        DockerSandbox(bench.image) as sandbox,
        LocalSandbox() as local,
        open_keepers() as keepers,
        AsyncExitStack() as stack,
    ):
        found: dict[str, Session] = {}
        places: dict[str, Sandbox] = {"local": local, "docker": sandbox}
        for where, place in places.items():
            folder = bench.folder / f"{where} {name} {secrets.token_hex(4)}"
            await anyio.Path(folder).mkdir()
            for what, keep in {_WITHOUT: None, _KEPT: Keep(keepers, folder)}.items():
                opened = open_session(place, limits=LASTING, keep=keep)
                found[where + what] = await stack.enter_async_context(opened)
        yield found


async def _measure_size(bench: Bench, rounds: int, name: str, size: int) -> list[Table]:
    one_by_one: dict[str, list[float]] = {}
    following: dict[str, list[float]] = {}
    whole: dict[str, list[float]] = {}
    async with _kept_and_not(bench, name) as sessions:
        for session in sessions.values():
            well(await session.run(f"x = 0\n{text_of(size)}"))
        for number in range(rounds + 1):
            for which, session in sessions.items():
                steps = [await seconds_of_cell(session, _STEP) for _ in range(_STEPS)]
                await session.kept()
                well(await session.run(_CHANGE))
                after = await seconds_of_cell(session, _STEP)
                await session.kept()
                well(await session.run(_CHANGE))
                until = await _seconds_until_kept(session)
                if number:  # the first round warms up
                    one_by_one.setdefault(which, []).extend(steps)
                    following.setdefault(which, []).append(after)
                    if which.endswith(_KEPT):
                        whole.setdefault(which, []).append(until)
    title = f"while a text of {name} is held"
    return [
        _table(f"A cell `{_STEP}` {title}, one right after the other", one_by_one, f"local{_KEPT}"),
        _table(f"The same, right after a cell that changes the text of {name}", following, f"local{_KEPT}"),
        _table(
            f"From the answer of a cell that changes the text of {name} until its snapshot is whole",
            whole,
            f"local{_KEPT}",
        ),
    ]


async def _seconds_until_kept(session: Session) -> float:
    began = time.perf_counter()
    await session.kept()
    return time.perf_counter() - began


def _table(title: str, found: dict[str, list[float]], reference: str) -> Table:
    return Table(title, [Row(name, values) for name, values in found.items()], reference)


# ---- interrupts


async def measure_interrupts(bench: Bench, rounds: int) -> list[Table]:
    """Measure how long after its deadline an endless cell is over."""
    async with (
        DockerSandbox(bench.image) as sandbox,
        LocalSandbox() as near,
        open_session(sandbox, limits=HASTY) as session,
        open_session(near, limits=HASTY) as local,
    ):
        contenders: dict[str, Contender] = {
            "local, interrupted": partial(past_deadline, local),
            "docker, interrupted": partial(past_deadline, session),
            "local, killed, past the grace time": partial(past_grace, near),
            "docker, killed, past the grace time": partial(past_grace, sandbox),
            "docker kill --signal INT": in_thread(partial(_seconds_to_end, bench)),
        }
        found = await in_turns(contenders, rounds=rounds, seldom={"docker kill --signal INT": _SELDOM})
    note = f"{RLMS} and {RUNTIME} interrupt nothing; after its time-out the latter only stops to wait."
    return [replace(_table(_OVERDUE, found, "local, interrupted"), notes=[note])]


def _seconds_to_end(bench: Bench) -> float:
    """Return how long Docker's own command takes to interrupt a loop."""
    with bench.standing(code=_LOOP) as container:
        began = time.perf_counter()
        docker("kill", "--signal", "INT", container)
        docker("wait", container)
        return time.perf_counter() - began
