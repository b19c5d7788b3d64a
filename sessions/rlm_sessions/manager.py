"""The sessions of all projects: found by project, as many awake as the machine should bear.

A caller asks a *host* for the session of a project and does not know where it runs. `Manager` is the
host in this process; another kind of host can put sessions on other machines.
"""

from __future__ import annotations

import logging
import time
from collections import defaultdict
from collections.abc import AsyncGenerator, Sequence
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass
from typing import Protocol

import anyio
import anyio.abc
import anyio.to_thread

from rlm_sandboxes import Sandbox

from .asking import Answer
from .claims import Claim, claim
from .errors import AllBusy
from .keeping.keepers import Keepers, open_keepers
from .lasting import Care, ProjectSession, SessionInfo
from .locks import LockUnusable
from .places import Kept, PlaceError, Places
from .projects import Project
from .scribe import Scribe

_log = logging.getLogger(__name__)
_LONGEST_LOOK_SECONDS, _LOOK_SECONDS = 5.0, 0.02
_PATIENCE_SECONDS = 1.0
_FIRST_MOMENTS_SECONDS, _LONG_SECONDS = 20.0, 3600.0
_MIB = 1024 * 1024


@dataclass(frozen=True)
class Household:
    """How many sessions may be awake, for how long, and how much may be kept of all of them."""

    awake: int = 64
    memory_bytes: int = 8 * 1024 * _MIB
    idle_seconds: float = 1800.0
    kept_bytes: int = 20 * 1024 * _MIB


class SessionHost(Protocol):
    """Who has sessions. Nothing of its callers depends on a session being in their process."""

    async def session(self, project: Project, *, care: Care | None = None) -> ProjectSession:
        """Return the session of a project, which is made if there is none, to be run and kept as `care` says."""
        ...

    def sessions(self) -> list[SessionInfo]:
        """Return what is going on in the sessions that are open."""
        ...

    async def close(self, project: Project) -> bool:
        """Put a session to sleep and let go of its project; return False if it was not open."""
        ...


class Manager:
    """The sessions of this process. `open_manager` makes one."""

    def __init__(
        self,
        sandbox: Sandbox,
        places: Places,
        keepers: Keepers,
        tasks: anyio.abc.TaskGroup,
        *,
        care: Care,
        household: Household,
        answer: Answer | None,
    ) -> None:
        self.places = places
        self.care = care
        self._sandbox = sandbox
        self._keepers = keepers
        self._tasks = tasks
        self._household = household
        self._answer = answer
        self._sessions: dict[str, ProjectSession] = {}
        self._doors: defaultdict[str, anyio.Lock] = defaultdict(anyio.Lock)
        self._placing = anyio.Lock()
        self._scribe = Scribe()

    # ---- finding

    async def session(
        self, project: Project, *, care: Care | None = None, sandbox: Sandbox | None = None
    ) -> ProjectSession:
        """Return the session of a project. It is asleep until its first step.

        One that is opened now runs in `sandbox` and is kept as `care` says, or else like all others. If
        another server has the project, it is a copy under a name of its own, which its first answer tells.
        Where nothing can be kept it is in memory only, and says so.
        """
        door = self._doors[project.key]
        found = self._sessions.get(project.key)
        if found is not None and not door.locked():
            return found
        async with door:  # whoever closes it is waited for
            found = self._sessions.get(project.key)
            if found is None:
                found = self._sessions[project.key] = await self._open(
                    project, care or self.care, sandbox or self._sandbox
                )
        return found

    async def _open(self, project: Project, care: Care, sandbox: Sandbox) -> ProjectSession:
        claimed: Claim | None = None
        try:
            claimed = await anyio.to_thread.run_sync(claim, self.places, project)
            project, note = claimed.project, claimed.note
        except (PlaceError, LockUnusable, OSError) as problem:
            note = f"Nothing of this session is kept: {problem}"
        return ProjectSession(
            project,
            claimed,
            sandbox=sandbox,
            keepers=self._keepers,
            care=care,
            answer=self._answer,
            tasks=self._tasks,
            places=self,
            scribe=self._scribe,
            note=note,
        )

    def found(self, key: str) -> ProjectSession | None:
        """Return the session that is open here under a key of its own; None if there is none."""
        return next((each for each in self._sessions.values() if each.project.key == key), None)

    def sessions(self) -> list[SessionInfo]:
        """Return what is going on in the sessions that are open, the last used first."""
        found = [session.info() for session in self._sessions.values()]
        return sorted(found, key=lambda info: -info.used_at)

    async def kept(self) -> list[Kept]:
        """Return all projects of which something is kept on disk, open or not."""
        return await anyio.to_thread.run_sync(self.places.kept)

    async def close(self, project: Project) -> bool:
        """Put the session of a project to sleep and let go of it; return False if it was not open."""
        asked_for = self._key_by_which_it_was_opened(project)
        async with self._doors[asked_for]:
            session = self._sessions.get(asked_for)
            if session is None:
                return False
            await session.close()
            del self._sessions[asked_for]
        return True

    def _key_by_which_it_was_opened(self, project: Project) -> str:
        """Return the key under which a session was asked for, which for a copy is that of the original."""
        keys = (key for key, each in self._sessions.items() if each.project.key == project.key)
        return next(keys, project.key)

    async def purge(self, project: Project) -> int:
        """Remove everything that is kept of a project; return how many bytes that freed.

        Raise `ProjectInUse` if another server has it open.
        """
        await self.close(project)
        return await anyio.to_thread.run_sync(self.places.purge, project.key)

    # ---- the household

    async def make_place(self, session: ProjectSession) -> None:
        """Put the least recently used session to sleep if too many are awake. Raise `AllBusy` if none can be."""
        async with self._placing:
            deadline = time.monotonic() + _PATIENCE_SECONDS
            while len(awake := self._awake_but(session)) >= self._household.awake:
                if not await self._put_one_to_sleep(awake):
                    if time.monotonic() > deadline:
                        raise AllBusy(self._household.awake, [str(other.info()) for other in awake])
                    await anyio.sleep(_LOOK_SECONDS)
            session.waking = True

    def _awake_but(self, session: ProjectSession) -> list[ProjectSession]:
        others = [other for other in self._sessions.values() if other is not session]
        return [other for other in others if other.awake or other.waking]

    async def _put_one_to_sleep(self, awake: Sequence[ProjectSession]) -> bool:
        for session in sorted(awake, key=lambda session: session.used_at):
            if not session.busy and await session.sleep():
                return True
        return False

    async def tend(self) -> None:
        """Put sessions to sleep that were idle for long, or while all together take too much memory."""
        every = min(_LONGEST_LOOK_SECONDS, max(0.05, self._household.idle_seconds / 4))
        while True:
            await anyio.sleep(every)
            try:
                await self._tend_once()
            except Exception:
                _log.exception("The sessions could not be looked after.")

    async def _tend_once(self) -> None:
        idle_since = time.monotonic() - self._household.idle_seconds
        for session in list(self._sessions.values()):
            if session.awake and not session.busy and session.used_at < idle_since:
                await session.sleep()
        awake = [session for session in self._sessions.values() if session.awake]
        used = 0
        for session in awake:
            usage = await session.usage()
            used += usage.memory_bytes if usage is not None else 0
        if used > self._household.memory_bytes:
            await self._put_one_to_sleep(awake)

    async def make_room(self) -> None:
        """Remove now and then what is kept of projects that nobody used for long, or beyond the quota."""
        await anyio.sleep(_FIRST_MOMENTS_SECONDS)  # when many are opened, and being made
        while True:
            for key in [key for key, door in self._doors.items() if not door.locked()]:
                if key not in self._sessions:
                    del self._doors[key]
            keep = {*self._sessions, *self._doors}
            try:
                await anyio.to_thread.run_sync(self.places.make_room, self._household.kept_bytes, keep)
            except Exception:
                _log.exception("What is kept of projects could not be looked through.")
            await anyio.sleep(_LONG_SECONDS)

    async def close_all(self) -> None:
        """Put everything to sleep and let go of it."""
        sessions, self._sessions = list(self._sessions.values()), {}
        async with anyio.create_task_group() as tasks:
            for session in sessions:
                tasks.start_soon(session.close)
        self._scribe.close()


@asynccontextmanager
async def open_manager(
    sandbox: Sandbox,
    places: Places,
    *,
    care: Care | None = None,
    household: Household | None = None,
    answer: Answer | None = None,
    keepers: Keepers | None = None,
) -> AsyncGenerator[Manager, None]:
    """Open the sessions that are kept in `places`; at the end they are put to sleep.

    Several managers can have them written down by the same `keepers`, a process less for each.
    """
    stack = AsyncExitStack()
    if keepers is None:
        keepers = await stack.enter_async_context(open_keepers())
    tasks = await stack.enter_async_context(anyio.create_task_group())
    manager = Manager(
        sandbox,
        places,
        keepers,
        tasks,
        care=care or Care(),
        household=household or Household(),
        answer=answer,
    )
    tasks.start_soon(manager.tend)
    tasks.start_soon(manager.make_room)
    try:
        yield manager
    finally:
        with anyio.CancelScope(shield=True):
            await manager.close_all()
        tasks.cancel_scope.cancel()
        await stack.aclose()  # and not around the caller's block, whose errors are its own
