"""The docker sandbox: one container for each program.

The container is created, attached to and started; the program is brought along over the stream, so any
image with Python will do. What is asked of the engine is in `plans.py`.
"""

from __future__ import annotations

import contextlib
import os
import secrets
import tempfile
from collections import OrderedDict
from collections.abc import AsyncGenerator, Mapping
from contextlib import AsyncExitStack, asynccontextmanager
from functools import partial
from pathlib import Path
from typing import Literal, TypeAlias

import anyio
import anyio.abc
import anyio.to_thread

from ..errors import (
    EngineUnavailable,
    ImageUnavailable,
    ImageUnusable,
    SandboxError,
    SandboxUnavailable,
    StartFailed,
)
from ..limits import Limits
from ..sandbox import Process, Program
from .copies import pack_folder
from .engine import OnProgress, Refused, find_engine
from .plans import Kind, Options, Plan, container_config, make_plan, replace_user
from .processes import NEEDS_PYTHON, DockerProcess

Pull: TypeAlias = Literal["missing", "never"]

DEFAULT_IMAGE = "python:3.12-slim"
MOST_WARM = 4

_END_SECONDS = 20.0
_FETCH = "Fetch it with `docker pull`, or name another one."


class DockerSandbox:
    """The docker sandbox. It owns its containers and removes them when left.

    `image` is any image with Python 3.9 or newer, which `python` names; `preload` names modules of it to
    have ready. `engine` is an address, as DOCKER_HOST takes it; without it, the engine is found as Docker's
    own command finds it. `warm` containers are kept ready for the kind of program that was started last.
    `mounts` are folders to show read-only to every program. With `copy_files`, which an engine on another
    machine implies, no folder is shared, and the program gets copies.
    """

    def __init__(
        self,
        image: str = DEFAULT_IMAGE,
        *,
        python: str = "python3",
        preload: tuple[str, ...] = (),
        engine: str | None = None,
        runtime: str | None = None,
        cpus: float | None = None,
        network: str = "host",
        mounts: tuple[Path, ...] = (),
        environment: Mapping[str, str] | None = None,
        state: str = "",
        warm: int = 0,
        copy_files: bool = False,
        pull: Pull = "missing",
        on_progress: OnProgress | None = None,
    ) -> None:
        self._options = Options(
            image, python, preload, runtime, cpus, network, tuple((environment or {}).items()), state
        )
        self._address = engine
        self._mounts = mounts
        self._warm = warm
        self._copies = copy_files
        self._pull: Pull = pull
        self._on_progress = on_progress
        self._server = secrets.token_hex(8)
        self._stack = AsyncExitStack()
        self._waiting: OrderedDict[Kind, list[DockerProcess]] = OrderedDict()
        self._tasks: anyio.abc.TaskGroup | None = None
        self._pulling, self._warming = anyio.Lock(), anyio.Lock()

    async def __aenter__(self) -> DockerSandbox:
        self._engine = await find_engine(self._address, self._server)
        try:
            if self._options.runtime and self._options.runtime not in self._engine.facts.runtimes:
                known = ", ".join(self._engine.facts.runtimes)
                raise SandboxUnavailable(
                    f"The container engine at {self._engine.facts.address} has no runtime "
                    f"{self._options.runtime!r}; it has {known}. Install and register it there, or choose one of these."
                )
            self._canary = await anyio.to_thread.run_sync(_make_canary)
            remove = partial(self._canary.unlink, missing_ok=True)
            self._stack.push_async_callback(anyio.to_thread.run_sync, remove)
            stack = self._stack
            listening = await stack.enter_async_context(anyio.create_task_group())
            stack.callback(listening.cancel_scope.cancel)
            await listening.start(self._engine.follow)
            stack.push_async_callback(self._empty)
            self._tasks = tasks = await stack.enter_async_context(anyio.create_task_group())
            stack.callback(tasks.cancel_scope.cancel)
            await self.reap()
        except BaseException:
            await self._close()
            raise
        return self

    async def __aexit__(self, *_: object) -> None:
        await self._close()

    async def _close(self) -> None:
        try:
            await self._stack.aclose()
        finally:
            await self._engine.close()

    async def _empty(self) -> None:
        for waiting in self._waiting.values():
            for process in waiting:
                await self._give_back(process)
        self._waiting.clear()

    async def reap(self) -> list[str]:
        """Remove the containers of servers that are gone; return their names."""
        return await self._engine.reap()

    @asynccontextmanager
    async def start(
        self, program: Program, workdir: Path | None, limits: Limits
    ) -> AsyncGenerator[Process, None]:
        plan = await self._plan(program, workdir, limits)
        process = await self._begin_waiting(plan) or await self._prepare(plan)
        try:
            if not process.begun:
                await process.begin(str(self._canary))
            if self._warm and not plan.gets_old and self._tasks is not None:
                self._tasks.start_soon(self._refill, plan)
            yield process
        finally:
            await self._give_back(process)

    async def warm_up(
        self, program: Program, workdir: Path | None = None, limits: Limits | None = None
    ) -> None:
        """Do ahead what the first start of a program would wait for."""
        plan = await self._plan(program, workdir, limits or Limits())
        if self._warm and not plan.gets_old:
            await self._keep_warm(plan)
        else:
            await self._give_back(await self._prepare(plan))

    async def _plan(self, program: Program, workdir: Path | None, limits: Limits) -> Plan:
        facts, copied = self._engine.facts, self._copies or self._engine.facts.remote
        return await anyio.to_thread.run_sync(
            lambda: make_plan(program, workdir, limits, self._mounts, self._options, facts, copied=copied)
        )

    # ---- containers

    async def _prepare(self, plan: Plan) -> DockerProcess:
        """Return a program that is loaded, in a container of its own, and waits."""
        name = f"rlm-{secrets.token_hex(8)}"
        process = DockerProcess(self._engine, name, plan)
        try:
            await self._create(process)
            if plan.copied:
                await self._copy_folders(process)
            await process.attach()
            try:
                await self._engine.start(name)
            except Refused as problem:
                raise _explain(plan, problem) from problem
            await process.load()
        except BaseException:
            await self._give_back(process)
            raise
        return process

    async def _create(self, process: DockerProcess) -> None:
        """Create the container; fetch its image if it is not there."""
        plan = process.plan
        config = await anyio.to_thread.run_sync(container_config, plan, self._server, self._engine.facts)
        try:
            await process.create(config)
        except Refused as problem:
            if not _lacks_image(problem):
                raise _explain(plan, problem) from problem
            if self._pull == "never":
                raise ImageUnavailable(
                    plan.options.image, "it is not there, and pull is 'never'", _FETCH
                ) from problem
            async with self._pulling:
                await self._engine.pull(plan.options.image, self._on_progress)
            await process.create(config)

    async def _copy_folders(self, process: DockerProcess) -> None:
        for folder in process.plan.folders:
            archive = await anyio.to_thread.run_sync(pack_folder, folder, process.plan.user)
            await self._engine.put(process.name, str(folder.path), archive)

    async def _give_back(self, process: DockerProcess) -> None:
        """Remove a container. Where no engine answers any more, it ends by its guard or went with the engine."""
        with anyio.move_on_after(_END_SECONDS, shield=True), contextlib.suppress(EngineUnavailable):
            await process.close()

    # ---- what waits

    async def _begin_waiting(self, plan: Plan) -> DockerProcess | None:
        """Return a program that waited and has begun, if there is one that still can."""
        waiting = self._waiting.get(plan.kind, [])
        while waiting:
            process = waiting.pop(0)
            try:
                await process.begin(str(self._canary))
            except StartFailed:
                await self._give_back(process)  # it ended while it waited
            except BaseException:
                await self._give_back(process)
                raise
            else:
                return process
        return None

    async def _refill(self, plan: Plan) -> None:
        with contextlib.suppress(
            SandboxError, OSError
        ):  # whoever starts the next one is told why it cannot be
            await self._keep_warm(plan)

    async def _keep_warm(self, plan: Plan) -> None:
        """Have as many containers wait for the next program of this kind as are wanted."""
        waiting = self._waiting.setdefault(plan.kind, [])
        self._waiting.move_to_end(plan.kind)
        while len(self._waiting) > MOST_WARM:
            _, old = self._waiting.popitem(last=False)
            for process in old:
                await self._give_back(process)
        async with self._warming:
            while len(waiting) < self._warm and self._waiting.get(plan.kind) is waiting:
                waiting.append(await self._prepare(replace_user(plan)))


def _explain(plan: Plan, problem: Refused) -> SandboxError:
    """Return what it means that the engine refused to create or start a container."""
    reason, image = problem.reason, plan.options.image
    if "executable file not found" in reason or ("no such file" in reason and plan.options.python in reason):
        return ImageUnusable(image, f"it has no {plan.options.python!r}", NEEDS_PYTHON)
    if "bind source path does not exist" in reason or "invalid mount" in reason:
        where = "The engine runs where this folder is not; copy_files=True gives programs copies of it."
        return SandboxUnavailable(f"The container engine cannot show a folder: {reason}. {where}")
    return SandboxUnavailable(f"The container engine cannot run such a container: {reason}.")


def _lacks_image(problem: Refused) -> bool:
    return problem.status == 404 and "image" in problem.reason.lower()


def _make_canary() -> Path:
    """Make a file of this machine that no container may see."""
    descriptor, name = tempfile.mkstemp(prefix="rlm-canary-")
    os.close(descriptor)
    return Path(name)
