"""Many sessions of many projects: whether a cell is slower in one of them, and what they all take."""

from __future__ import annotations

import os
import statistics
from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager
from pathlib import Path

import anyio
import anyio.to_thread

from rlm_sandboxes import Sandbox
from rlm_sandboxes.local import LocalSandbox
from rlm_sessions import Care, Household, Places, ProjectSession, identify, open_manager
from rlm_sessions.places import folder_bytes

from . import memory
from .common import LASTING, well
from .measuring import Bar, Row, Table
from .observed import ObservedSandbox
from .snapshots import seconds_of

_MANY = 200
_CELL = "x += 1"
_ALONE = "the only session"
_REST_SECONDS = 1.0  # after a while without a cell, a session comes to rest


@asynccontextmanager
async def _sessions(sandbox: Sandbox, folder: Path, count: int) -> AsyncGenerator[list[ProjectSession]]:
    """Sessions of projects, each awake, with a variable."""
    household = Household(awake=count, memory_bytes=2**40)
    async with open_manager(
        sandbox, Places(folder), care=Care(limits=LASTING), household=household
    ) as manager:
        opened = [await manager.session(identify(named=f"project {number}")) for number in range(count)]
        for session in opened:
            well(await session.run("x = 0"))
        yield opened


# ---- speed


async def measure_speed(folder: Path, rounds: int) -> list[Table]:
    """Measure a cell in the only session, in one of many, and in all of many by turns."""
    found: dict[str, list[float]] = {
        _ALONE: [],
        f"one of {_MANY}, the others idle": [],
        f"all {_MANY} by turns": [],
    }
    alone, one, turns = found.values()
    async with LocalSandbox() as sandbox:
        for number in range(rounds):
            async with _sessions(sandbox, folder / f"one{number}", 1) as (session,):
                alone += await _in_one(session)
            async with _sessions(sandbox, folder / f"many{number}", _MANY) as sessions:
                await _by_turns(sessions)  # those that were opened first have come to rest meanwhile
                for _ in range(3):
                    turns += await _by_turns(sessions)
                await anyio.sleep(_REST_SECONDS)
                one += await _in_one(sessions[0])
    slower = statistics.median(one) / statistics.median(alone)
    times = [
        Row("one, the others idle", [slower], "x", Bar(1.1, "not slower (<= 1.1 x)")),
        Row("all by turns", [statistics.median(turns) / statistics.median(alone)], "x"),
    ]
    note = "By turns, each finds the processor's caches full of the others: see `scripts/bench/sandbox --only crowd`."
    return [
        Table(f"A cell `{_CELL}` in a session of a project", [Row(n, v) for n, v in found.items()], _ALONE),
        Table(f"How many times slower (p50) a cell in one of {_MANY} sessions is", times, notes=[note]),
    ]


async def _in_one(session: ProjectSession) -> list[float]:
    return [await seconds_of(session.run, _CELL) for _ in range(2 * _MANY)][_MANY:]  # the first warm it up


async def _by_turns(sessions: list[ProjectSession]) -> list[float]:
    return [await seconds_of(session.run, _CELL) for session in sessions]


# ---- memory


async def measure_memory(folder: Path, rounds: int) -> list[Table]:
    """Look at the memory of many idle sessions, of all that serves them, and at their disk."""
    async with LocalSandbox() as sandbox:
        observed = ObservedSandbox(sandbox)
        before, ours_before = memory.available(), memory.memory_of(os.getpid())
        async with _sessions(observed, folder / "memory", _MANY) as sessions:
            await anyio.sleep(_REST_SECONDS)
            taken = (before - memory.available()) / _MANY
            guests, keeping, serving = map(_seen, _family([process.pid for process in observed.processes]))
            ours = memory.memory_of(os.getpid())
            places = [session.claimed.places.folder for session in sessions if session.claimed]
            disk = [float(await anyio.to_thread.run_sync(folder_bytes, place)) for place in places]
    bar = Bar(6_000_000, "<= 6 MB")
    rows = [
        Row(f"session, one of {_MANY}: its own", [float(one.own) for one in guests], "bytes", bar),
        Row("session: its part of all", [float(one.part) for one in guests], "bytes"),
        Row("session, by what the machine has left", [taken], "bytes", bar),
        Row("keeper of all sessions: its own", [float(sum(one.own for one in keeping))], "bytes"),
        Row(
            "zygote and all between us and the sessions: their own",
            [float(sum(one.own for one in serving))],
            "bytes",
        ),
    ]
    if ours is not None and ours_before is not None:
        rows.append(Row("this process, for each session", [(ours.own - ours_before.own) / _MANY], "bytes"))
    return [
        Table(f"Memory of {_MANY} idle sessions of projects", [row for row in rows if row.values]),
        Table("Disk that an idle session takes", [Row("a session with one number", disk, "bytes")]),
    ]


def _seen(pids: list[int]) -> list[memory.Memory]:
    return [one for pid in pids if (one := memory.memory_of(pid))]


def _family(guests: list[int]) -> tuple[list[int], list[int], list[int]]:
    """Return the guests, the keeper, and all other processes below us."""
    below = _below(os.getpid())
    keepers = [pid for pid in below if "rlm_sessions.keeping" in _command(pid)]
    return guests, keepers, [pid for pid in below if pid not in guests and pid not in keepers]


def _below(pid: int) -> list[int]:
    children = _children(pid)
    return [*children, *(one for child in children for one in _below(child))]


def _children(pid: int) -> list[int]:
    found: list[int] = []
    for task in Path(f"/proc/{pid}/task").iterdir():
        found += [int(child) for child in (task / "children").read_text().split()]
    return found


def _command(pid: int) -> str:
    return Path(f"/proc/{pid}/cmdline").read_bytes().replace(b"\0", b" ").decode(errors="replace")
