"""A home for sessions that last, as the tests of them share it: a folder in which all is kept, and who opens it."""

from __future__ import annotations

import json
from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import anyio

from rlm_sandboxes import Limits, Sandbox
from rlm_sessions import (
    Answer,
    Care,
    CellResult,
    Household,
    Manager,
    Places,
    Project,
    ProjectSession,
    identify,
    open_manager,
)

NOTES = identify(named="notes")
OTHER = identify(named="other")
LIMITS = Limits(wall_seconds=20, grace_seconds=0.3)
OPEN = Care(limits=LIMITS, policy="off")  # cells may end their own guest
KILLED = "import os; os._exit(1)"


@dataclass
class Home:
    """What is kept in `folder`, and who opens it. Every manager is a fresh one, as after a restart."""

    sandbox: Sandbox
    folder: Path

    @asynccontextmanager
    async def managed(
        self, *, care: Care = OPEN, household: Household | None = None, answer: Answer | None = None
    ) -> AsyncGenerator[Manager, None]:
        """Open the sessions that are kept here."""
        places = Places(self.folder)
        async with open_manager(
            self.sandbox, places, care=care, household=household, answer=answer
        ) as manager:
            yield manager

    @asynccontextmanager
    async def session(
        self, project: Project = NOTES, *, care: Care = OPEN, answer: Answer | None = None
    ) -> AsyncGenerator[ProjectSession, None]:
        """Open one of the sessions that are kept here."""
        async with self.managed(care=care, answer=answer) as manager:
            yield await manager.session(project)

    def place(self, project: Project = NOTES) -> Path:
        """Return where the things of a project lie."""
        return self.folder / "projects" / project.key

    def states(self, project: Project = NOTES) -> list[Path]:
        """Return the snapshots of a project, the oldest first."""
        return sorted((self.place(project) / "state").glob("*.state"))

    def steps_kept(self, project: Project = NOTES) -> list[int]:
        """Return the steps of which there is a snapshot."""
        return [int(path.stem) for path in self.states(project)]

    def blobs(self, project: Project = NOTES) -> list[Path]:
        """Return the files of large values."""
        return sorted((self.place(project) / "state" / "blobs").glob("*/*"))

    def journal(self, project: Project = NOTES) -> list[dict[str, Any]]:
        """Return the journal of a project, read as any program would."""
        found: list[dict[str, Any]] = []
        for path in sorted((self.place(project) / "journal").glob("*.jsonl")):
            found += [json.loads(line) for line in path.read_text().splitlines()]
        return found

    def told(self, kind: str, project: Project = NOTES) -> list[dict[str, Any]]:
        """Return the entries of one kind."""
        return [entry for entry in self.journal(project) if entry["kind"] == kind]


async def value(session: ProjectSession, code: str) -> str | None:
    """Run a cell that must not fail, and return the value it shows."""
    return well(await session.run(code)).value


def well(result: CellResult) -> CellResult:
    """Return the result of a cell that must not fail."""
    assert result.error is None, result.error
    return result


def notes_of(result: CellResult) -> str:
    """Return all that was said beside the answer."""
    return "\n".join(result.notes)


async def settled(session: ProjectSession) -> None:
    """Wait until the state after the last step is on disk."""
    while session.info().kept_step < session.info().step:
        await anyio.sleep(0.005)


async def busy(session: ProjectSession) -> None:
    """Wait until a cell is at work."""
    while session.info().state != "busy":
        await anyio.sleep(0.005)


@asynccontextmanager
async def at_work(
    session: ProjectSession, code: str = "while True: pass"
) -> AsyncGenerator[list[CellResult], None]:
    """Have a cell at work for the length of a block, which must bring it to its end; its result is in the list then."""
    begun, results = anyio.Event(), list[CellResult]()

    async def heard(stream: str, text: str) -> None:
        begun.set()

    async def run() -> None:
        results.append(await session.run(f"print('begun')\n{code}", on_output=heard))

    async with anyio.create_task_group() as tasks:
        tasks.start_soon(run)
        await begun.wait()
        yield results
