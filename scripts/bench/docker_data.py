"""A context of 100 MB: how long until a session has it, and how long a cell takes that looks at it."""

from __future__ import annotations

import time
from collections.abc import Callable, Generator, Mapping
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from typing import NamedTuple

import anyio
import anyio.to_thread

from rlm_sandboxes.docker import DockerSandbox
from rlm_sandboxes.local import LocalSandbox
from rlm_sessions import Session, open_session

from .common import LASTING, clocked, project_folder, seconds_of_cell
from .containers import DOCKER_EXEC, RLMS, RUNTIME, Bench, execute
from .drivers import Driver, PeerFailed
from .measuring import Contender, Row, Table, in_turns

_SIZE = 100_000_000
_TEXT = "0123456789abcdef" * (_SIZE // 16)
_FILE = "context.txt"
_LOOK, _PRINT, _PRINT_TEXT = "len(context)", "print(len(context))", "print(len(context['text']))"
_TURNS_OF_PEERS = 2


class _Found(NamedTuple):
    given: dict[str, list[float]]
    looked: dict[str, list[float]]
    failed: list[str]


async def measure(bench: Bench, rounds: int) -> list[Table]:
    """Measure a context by file in the project, by value over the stream, and the next cell that looks at it."""
    with _folder_with_text(bench) as project:
        found = await _measure_sessions(bench, project, rounds)
        with bench.drivers() as drivers:
            await _measure_peers(drivers, found)
    return [
        Table(
            f"A context of 100 MB: until `{_LOOK}` of it is answered",
            [Row(name, values) for name, values in found.given.items()],
            "local, by file",
            found.failed,
        ),
        Table(
            f"The next cell `{_LOOK}`", [Row(name, values) for name, values in found.looked.items()], "local"
        ),
    ]


@contextmanager
def _folder_with_text(bench: Bench) -> Generator[Path, None, None]:
    with project_folder() as project:
        for folder in (project, bench.folder):  # the latter is the one that peers show
            (folder / _FILE).write_text(_TEXT)
        yield project


# ---- ours, and Docker's own command


async def _measure_sessions(bench: Bench, project: Path, rounds: int) -> _Found:
    async with (
        DockerSandbox(bench.image) as sandbox,
        LocalSandbox() as near,
        open_session(sandbox, project=project, limits=LASTING) as session,
        open_session(near, project=project, limits=LASTING) as local,
    ):
        sessions = {"local": local, "docker": session}
        giving: dict[str, Contender] = {}
        for name, one in sessions.items():
            giving[f"{name}, by file"] = partial(_load, one, project / _FILE)
            giving[f"{name}, by value"] = partial(_set, one)
        with bench.standing(project=project) as container:
            read = partial(execute, container, _reading(project / _FILE))
            giving[f"{DOCKER_EXEC}, by file"] = clocked(read)
            given = await in_turns(giving, rounds=rounds)
        looking = {name: partial(seconds_of_cell, one, _LOOK) for name, one in sessions.items()}
        looked = await in_turns(looking, rounds=3 * rounds)
    return _Found(given, looked, [])


async def _load(session: Session, path: Path) -> float:
    began = time.perf_counter()
    await session.load("context", path)
    await seconds_of_cell(session, _LOOK)
    return time.perf_counter() - began


async def _set(session: Session) -> float:
    """Set the text in two pieces, because it is more than one frame can carry."""
    began = time.perf_counter()
    for name, piece in zip(("first", "second"), (_TEXT[: _SIZE // 2], _TEXT[_SIZE // 2 :]), strict=True):
        await session.set(name, piece)
    await seconds_of_cell(session, f"context = first + second; del first, second; {_LOOK}")
    return time.perf_counter() - began


def _reading(path: Path) -> str:
    return f"print(len(open({str(path)!r}).read()))"


# ---- peers


async def _measure_peers(drivers: Mapping[str, Driver], found: _Found) -> None:
    """Measure peers one after the other. What one of them cannot do is noted, and the others go on."""
    if RLMS in drivers:
        hold, look = _held_and_looked(drivers[RLMS], _PRINT)
        await _note(found, found.given, f"{RLMS}, by a file of its own", hold)
        await _note(found, found.looked, RLMS, look)
    if RUNTIME in drivers:
        driver, shown = drivers[RUNTIME], _reading(Path("/workspace") / _FILE)
        by_file = partial(driver.seconds, "open", code=shown, printed=str(_SIZE))
        await _note(found, found.given, f"{RUNTIME}, by file", by_file)
        await _note(found, found.looked, f"{RUNTIME}, by file, read anew", by_file)
        hold, look = _held_and_looked(driver, _PRINT_TEXT)
        await _note(found, found.given, f"{RUNTIME}, by value", hold)
        await _note(found, found.looked, f"{RUNTIME}, by value, sent anew", look)


def _held_and_looked(driver: Driver, code: str) -> tuple[Callable[[], float], Callable[[], float]]:
    def hold() -> float:
        driver.ask("close")
        driver.ask("open")
        return driver.seconds("hold", size=_SIZE, code=code, printed=str(_SIZE))

    return hold, partial(driver.seconds, "cell", code=code, printed=str(_SIZE))


async def _note(found: _Found, rows: dict[str, list[float]], name: str, act: Callable[[], float]) -> None:
    try:
        rows[name] = [await anyio.to_thread.run_sync(act) for _ in range(_TURNS_OF_PEERS)]
    except PeerFailed as problem:
        found.failed.append(f"{name}: failed: {str(problem).splitlines()[-1][:200]}")
