"""A project's session, opened by the command itself because no server has it."""

from __future__ import annotations

import argparse
from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from .output import FAILED, CommandFailed
from .parsing import flags_of

if TYPE_CHECKING:
    from rlm_sessions import Project, ProjectSession

    from ..app import App
    from ..sources import Loaded, Sources


class Taken(CommandFailed):
    """Another process has the project open, and has no door."""

    def __init__(self, project: Project, pid: int | None) -> None:
        who = f"Process {pid}" if pid is not None else "Another process"
        super().__init__(
            f"{who} has the project {project.name!r} open, and cannot be asked to let others in.",
            hint="Wait until it is done, or end it. If it is another `rlm-mcp exec`, Ctrl-C there interrupts its code.",
            code="in_use",
            exit_code=FAILED,
        )


@dataclass(frozen=True)
class Ground:
    """What commands about sessions stand on: the settings, and where everything is kept."""

    sources: Sources
    loaded: Loaded
    root: Path

    @classmethod
    def of(cls, args: argparse.Namespace) -> Ground:
        """Return it as flags, environment and files say. Raise `SettingsError`."""
        from ..app import root_of
        from ..sources import Sources
        from ..tenants import OWNER

        flags = flags_of(args)
        sources = Sources.of_process(flags)
        loaded = sources.load(None)
        return cls(sources, loaded, root_of(loaded.settings, OWNER))


@asynccontextmanager
async def session_here(ground: Ground, project: Project) -> AsyncGenerator[tuple[App, ProjectSession]]:
    """Open a session; at the end its state is kept. Raise `Taken` if another process has the project."""
    from ..app import open_app
    from ..tenants import OWNER

    async with open_app(ground.sources, base=ground.loaded, brief=True) as app:
        session = await app.session(OWNER, project)
        if session.project.key != project.key:
            await _drop(app, ground, project, session)
            raise Taken(project, None)
        yield app, session


async def _drop(app: App, ground: Ground, project: Project, copy: ProjectSession) -> None:
    """Remove a copy that was made because another process has the project; nobody used it."""
    import anyio.to_thread

    from rlm_sessions import Places

    from ..tenants import OWNER

    manager = await app.manager(OWNER)
    await manager.close(project)
    await anyio.to_thread.run_sync(Places(ground.root).purge, copy.project.key)
