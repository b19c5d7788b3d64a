"""What is opened on the way, when somebody needs it first: places to run in, models, and who has a tenant's sessions.

It ends in the other order than it began: sessions, then who writes them down, then models and the places to run in.
"""

from __future__ import annotations

import logging
import sys
import time
from collections import defaultdict
from collections.abc import Callable
from contextlib import AbstractAsyncContextManager
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, TypeAlias, TypeVar

import anyio
import anyio.abc

from .environments import Docker, Environment
from .models import Choice, open_model
from .tenants import Tenant

if TYPE_CHECKING:
    from rlm_runtime import Model
    from rlm_sandboxes import Limits, Process, Program
    from rlm_sandboxes.docker import DockerSandbox
    from rlm_sandboxes.local import LocalSandbox
    from rlm_sessions import Care, Household, Keepers, Manager, Places

    Sandbox: TypeAlias = LocalSandbox | DockerSandbox

_log = logging.getLogger(__name__)

MOST_TENANTS = 100
_UNUSED_SECONDS = 600.0
_FILES_OF_A_SESSION, _OTHER_FILES = 10, 300  # one that is asleep has half of that
_FEWEST_SESSIONS = 8

T = TypeVar("T")


@dataclass
class _Held:
    """The sessions of a tenant, and what ends them."""

    manager: Manager
    leave: anyio.Event
    used_at: float


@dataclass(frozen=True)
class Terms:
    """How a tenant's sessions are kept."""

    places: Places
    care: Care
    household: Household


class Opened:
    """Everything that is open. It is closed by `close`, within the task group that it was given."""

    def __init__(
        self,
        tasks: anyio.abc.TaskGroup,
        *,
        terms: Callable[[Tenant], Terms],
        hear: Callable[[Environment, str], None],
        brief: bool,
    ) -> None:
        self._tasks = tasks
        self._terms = terms
        self._hear = hear
        self._brief = brief
        self._held: dict[Tenant, _Held] = {}
        self._sandboxes: dict[Environment, Sandbox] = {}
        self._models: dict[Choice, Model] = {}
        self._doors: defaultdict[Environment | Choice, anyio.Lock] = defaultdict(anyio.Lock)
        self._keepers: Keepers | None = None
        self._opening = anyio.Lock()
        self._over = anyio.Event()
        self._ends_of_managers: list[anyio.Event] = []

    def managers(self) -> dict[Tenant, Manager]:
        """Return who has sessions, of those that are open."""
        return {tenant: held.manager for tenant, held in self._held.items()}

    async def manager(self, tenant: Tenant) -> Manager:
        """Return who has the sessions of a tenant."""
        held = self._held.get(tenant)
        if held is None:
            async with self._opening:
                held = self._held.get(tenant) or await self._open(tenant)
        held.used_at = time.monotonic()
        return held.manager

    async def sandbox(self, environment: Environment) -> Sandbox:
        """Return the place to run in. Raise `SandboxUnavailable` if it cannot be opened now."""
        found = self._sandboxes.get(environment)
        if found is not None:
            return found
        async with self._doors[environment]:
            if environment not in self._sandboxes:
                self._sandboxes[environment] = await self._tasks.start(self._hold_sandbox, environment)
            return self._sandboxes[environment]

    async def model(self, choice: Choice) -> Model:
        """Return a model to ask. Raise `ModelUnavailable` if it cannot be had here."""
        found = self._models.get(choice)
        if found is not None:
            return found
        async with self._doors[choice]:
            if choice not in self._models:
                self._models[choice] = await self._tasks.start(self._hold_model, choice)
            return self._models[choice]

    def found(self, environment: Environment) -> Sandbox | None:
        """Return the place to run in, if it is open."""
        return self._sandboxes.get(environment)

    async def make_room(self) -> None:
        """Let go of the sessions that were used longest ago, where there are not files enough for another one."""
        found = [(info, held.manager) for held in self._held.values() for info in held.manager.sessions()]
        found.sort(key=lambda each: each[0].used_at)
        for info, manager in found[: max(0, len(found) + 1 - _most_sessions())]:
            session = manager.found(info.project.key)
            if session is None or session.claimed is None or info.waiting:
                continue
            if await session.sleep():
                await manager.close(info.project)

    def close(self) -> None:
        """Have all of it ended."""
        self._over.set()
        for held in self._held.values():
            held.leave.set()

    # ---- opening

    async def _open(self, tenant: Tenant) -> _Held:
        self._part_with_some()
        if self._keepers is None:
            self._keepers = await self._tasks.start(self._hold_keepers)
        leave = anyio.Event()
        manager: Manager = await self._tasks.start(self._hold_manager, tenant, self._keepers, leave)
        held = self._held[tenant] = _Held(manager, leave, time.monotonic())
        return held

    def _part_with_some(self) -> None:
        """Put the sessions of tenants to sleep that have not been here for long, where there are many."""
        long_ago = time.monotonic() - _UNUSED_SECONDS
        for tenant, held in sorted(self._held.items(), key=lambda item: item[1].used_at):
            if len(self._held) < MOST_TENANTS or held.used_at > long_ago:
                return
            if not any(info.state == "busy" for info in held.manager.sessions()):
                del self._held[tenant]
                held.leave.set()

    # ---- holding

    async def _hold_manager(
        self,
        tenant: Tenant,
        keepers: Keepers,
        leave: anyio.Event,
        *,
        task_status: anyio.abc.TaskStatus[Manager],
    ) -> None:
        from rlm_sessions import open_manager

        terms, ended = self._terms(tenant), anyio.Event()
        self._ends_of_managers.append(ended)
        try:
            async with open_manager(
                _Unsaid(), terms.places, care=terms.care, household=terms.household, keepers=keepers
            ) as manager:
                task_status.started(manager)
                await leave.wait()
        finally:
            ended.set()
            self._ends_of_managers.remove(ended)

    async def _hold_keepers(self, *, task_status: anyio.abc.TaskStatus[Keepers]) -> None:
        from rlm_sessions import open_keepers

        async with open_keepers() as keepers:
            task_status.started(keepers)
            await self._until_no_manager()

    async def _hold_sandbox(
        self, environment: Environment, *, task_status: anyio.abc.TaskStatus[Sandbox]
    ) -> None:
        told = False
        try:
            hear = partial(self._hear, environment)
            async with sandbox_of(environment, hear, brief=self._brief) as sandbox:
                task_status.started(sandbox)
                told = True
                await self._until_no_manager()
        except Exception:
            if not told:
                raise
            _log.exception("The place to run in was lost; the next session opens it anew.")
        finally:
            self._sandboxes.pop(environment, None)

    async def _hold_model(self, choice: Choice, *, task_status: anyio.abc.TaskStatus[Model]) -> None:
        told = False
        try:
            async with open_model(choice) as model:
                task_status.started(model)
                told = True
                await self._until_no_manager()
        except Exception:
            if not told:
                raise
            _log.exception("A model was lost; the next call opens it anew.")
        finally:
            self._models.pop(choice, None)

    async def _until_no_manager(self) -> None:
        try:
            await self._over.wait()
        finally:
            with anyio.CancelScope(shield=True):
                for ended in list(self._ends_of_managers):
                    await ended.wait()


def sandbox_of(
    environment: Environment, hear: Callable[[str], None] | None = None, *, brief: bool = False
) -> AbstractAsyncContextManager[Sandbox]:
    """Return a place to run in, to be opened. `hear` is told how an image is fetched."""
    if isinstance(environment, Docker):
        return _containers(environment, hear, brief=brief)
    from rlm_sandboxes.local import LocalSandbox

    return LocalSandbox(python=environment.python)


def _containers(docker: Docker, hear: Callable[[str], None] | None, *, brief: bool) -> DockerSandbox:
    from rlm_sandboxes.docker import DockerSandbox

    return DockerSandbox(
        docker.image,
        python=docker.python,
        engine=docker.host or None,
        runtime=docker.runtime or None,
        cpus=docker.cpus,
        network=docker.network,
        mounts=docker.mounts,
        copy_files=docker.copy_files,
        pull=docker.pull,
        warm=0 if brief else docker.warm,
        on_progress=hear,
    )


class _Unsaid:
    """Stands where a manager has a sandbox for sessions that are opened without one: none is."""

    def start(
        self, program: Program, workdir: Path | None, limits: Limits
    ) -> AbstractAsyncContextManager[Process]:
        raise AssertionError("each session is opened with a place of its own to run in")


def _most_sessions() -> int:
    """Return for how many sessions this process may have files open, whoever has them."""
    if sys.platform == "win32":
        return 1000
    import resource

    files, _ = resource.getrlimit(resource.RLIMIT_NOFILE)
    return max(_FEWEST_SESSIONS, (files - _OTHER_FILES) // _FILES_OF_A_SESSION)
