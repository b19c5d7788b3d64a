"""What the measurements share: opening sessions, running cells, and clocks around them."""

from __future__ import annotations

import time
from collections.abc import Callable, Generator
from contextlib import contextmanager
from pathlib import Path
from tempfile import TemporaryDirectory

import anyio.to_thread

from rlm_sandboxes import Limits, Sandbox
from rlm_sessions import CellResult, Session, open_session

from .measuring import Contender

PLAIN, JUPYTER = "plain subprocess", "Jupyter kernel"
LASTING = Limits(wall_seconds=600, cpu_seconds=3600)


async def seconds_to_open(sandbox: Sandbox, *, project: Path | None = None, code: str = "") -> float:
    """Open a session, run `code` in it if there is any, and return how long that took; closing is not counted."""
    began = time.perf_counter()
    async with open_session(sandbox, project=project) as session:
        if code:
            well(await session.run(code))
        return time.perf_counter() - began


async def seconds_of_cell(session: Session, code: str) -> float:
    """Run one cell and return how long that took, as the host sees it."""
    began = time.perf_counter()
    result = await session.run(code)
    seconds = time.perf_counter() - began
    well(result)
    return seconds


def well(result: CellResult) -> CellResult:
    """Return the result of a cell that must not fail."""
    if result.error is not None:
        raise RuntimeError(f"A cell failed: {result.error.message}\n{result.error.traceback}")
    return result


def seconds_of(act: Callable[[], object]) -> float:
    """Do something that blocks, and return how long it took."""
    began = time.perf_counter()
    act()
    return time.perf_counter() - began


def clocked(act: Callable[[], object]) -> Contender:
    """Return a contender that does something here, blocking; nothing else is under way meanwhile."""

    async def contender() -> float:
        return seconds_of(act)

    return contender


def in_thread(act: Callable[[], float]) -> Contender:
    """Return a contender for what cannot live in a thread with an event loop, and has a clock of its own."""

    async def contender() -> float:
        return await anyio.to_thread.run_sync(act)

    return contender


@contextmanager
def project_folder() -> Generator[Path, None, None]:
    """A folder for a project, as open as those that people work in."""
    with TemporaryDirectory(prefix="rlm-bench-") as name:
        folder = Path(name).resolve()
        folder.chmod(0o755)
        yield folder
