"""Rooms: a fresh session, with its own process, variables and scratch folder, for each run and each child run."""

from __future__ import annotations

from collections.abc import AsyncGenerator, Sequence
from contextlib import asynccontextmanager
from dataclasses import replace
from pathlib import Path

from rlm_sandboxes import Files, Limits, Sandbox
from rlm_sessions import Answer, Policy, Session, open_session

from .tool_calls import Tool
from .tools import offers

SHOWN_CHARACTERS = 8_000


class Rooms:
    """Where runs work: rooms in one sandbox. A room is gone, with all that is in it, when its context ends.

    `shows_files` says whether single files of this machine can be shown there. A container shows folders only.
    """

    def __init__(
        self,
        sandbox: Sandbox,
        *,
        limits: Limits | None = None,
        policy: Policy = "auto",
        project: Path | None = None,
        shows_files: bool = True,
    ) -> None:
        self.shows_files = shows_files
        self._sandbox = sandbox
        self._limits = limits or Limits()
        self._policy: Policy = policy
        self._project = project

    @asynccontextmanager
    async def room(
        self,
        answer: Answer,
        tools: Sequence[Tool] = (),
        *,
        project: Path | None = None,
        files: Files = "none",
        readable: Sequence[Path] = (),
    ) -> AsyncGenerator[Session]:
        """Open a room whose code asks `answer`. It sees the folder `project` as `files` says, and `readable`."""
        folder = (project or self._project) if files != "none" else None
        readable = readable if self.shows_files else ()
        limits = replace(self._limits, files=files, readable=(*self._limits.readable, *readable))
        async with open_session(
            self._sandbox,
            project=folder,
            limits=limits,
            policy=self._policy,
            answer=answer,
            tools=offers(tools),
            shown_characters=SHOWN_CHARACTERS,
        ) as session:
            yield session
