"""The docker sandbox: one container for each program.

The container is created, attached to and started; the program is brought along over the stream, so any
image with Python will do. What is asked of the engine is in `plans.py`.
"""

from __future__ import annotations

import contextlib
import secrets
from collections import OrderedDict
from collections.abc import AsyncGenerator, Mapping, Set
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
from .canaries import make_canary
from .copies import Copy, pack_folder
from .engine import OnProgress, Refused, find_engine
from .facts import Facts
from .plans import Kind, Options, Plan, container_config, make_plan, replace_user
from .processes import NEEDS_PYTHON, DockerProcess
from .pumps import open_pumps

Pull: TypeAlias = Literal["missing", "never"]

DEFAULT_IMAGE = "python:3.13-slim"
MOST_WARM = 4

_END_SECONDS = 20.0
_FINISH_SECONDS = 30.0  # longer than a guard waits
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
        self._tasks: anyio.abc.TaskGroup
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
            self._canary = await anyio.to_thread.run_sync(make_canary)
            remove = partial(self._canary.unlink, missing_ok=True)
            self._stack.push_async_callback(anyio.to_thread.run_sync, remove)
            stack = self._stack
            listening = await stack.enter_async_context(anyio.create_task_group())
            stack.callback(listening.cancel_scope.cancel)
            await listening.start(self._engine.follow)
            self._pumps = await stack.enter_async_context(open_pumps())
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

    @property
    def facts(self) -> Facts:
        """What there is to know of the engine."""
        return self._engine.facts

    @property
    def copies_files(self) -> bool:
        """Whether programs get copies of folders."""
        return self._copies or self._engine.facts.remote

    async def reap(self) -> list[str]:
        """Remove the containers of servers that are gone; return their names.

        Those that run may have something to finish. They end by themselves, and what does not, in a while, is ended.
        """
        dead = await self._engine.find_dead()
        over = [name for name, runs in dead.items() if not runs]
        for name in over:
            await self._engine.remove(name)
        if len(over) < len(dead):
            self._tasks.start_soon(self._reap_later, dead.keys() - over)
        return over

    async def _reap_later(self, names: Set[str]) -> None:
        await anyio.sleep(_FINISH_SECONDS)
        with contextlib.suppress(SandboxError):
            for name in names:
                await self._engine.remove(name)

    @asynccontextmanager
    async def start(
        self, program: Program, workdir: Path | None, limits: Limits
    ) -> AsyncGenerator[Process, None]:
        plan = await self._plan(program, workdir, limits)
        process = await self._begin_waiting(plan) or await self._prepare(plan)
        try:
            if not process.begun:
                await process.begin(str(self._canary))
            if self._warm and not plan.gets_old:
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
        facts, copied = self.facts, self.copies_files
        return await anyio.to_thread.run_sync(
            lambda: make_plan(program, workdir, limits, self._mounts, self._options, facts, copied=copied)
        )

    # ---- containers

    async def _prepare(self, plan: Plan) -> DockerProcess:
        """Return a program that is loaded, in a container of its own, and waits."""
        with contextlib.ExitStack() as stack:
            copies: list[Copy] = []
            for folder in plan.folders if plan.copied else ():
                copies.append(await anyio.to_thread.run_sync(pack_folder, folder, plan.user))
                stack.enter_context(copies[-1].archive)
            return await self._prepare_with(plan, copies)

    async def _prepare_with(self, plan: Plan, copies: list[Copy]) -> DockerProcess:
        name = f"rlm-{secrets.token_hex(8)}"
        process = DockerProcess(self._engine, name, plan, self._pumps, self._tasks)
        try:
            await self._create(process)
            try:
                # Here Podman prepares the container, and gives its folders to its user.
                await process.attach()
                for copy in copies:
                    await self._engine.put(name, str(copy.path), copy.archive)
                    process.left_out += copy.left_out
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
                    plan.options.image, "it is not there, and docker_pull (pull) is 'never'", _FETCH
                ) from problem
            async with self._pulling:
                await self._engine.pull(plan.options.image, self._on_progress)
            await process.create(config)

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
        # Whoever starts the next one is told why it cannot be.
        with contextlib.suppress(SandboxError, OSError):
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
    missing = ("executable file not found", "no such file or directory", "permission denied")
    if "exec: " in reason and any(words in reason for words in missing):
        return ImageUnusable(image, f"it has no {plan.options.python!r} that can be run", NEEDS_PYTHON)
    if "permission denied" in reason and "bind" in reason:
        who = "Let the user who runs the engine enter it, or have docker_copy_files (copy_files) give copies."
        return SandboxUnavailable(
            f"The container engine may not enter a folder that is to be shown: {reason}. {who}"
        )
    if "bind source path does not exist" in reason or "statfs" in reason:
        where = "The engine runs where this folder is not; docker_copy_files (copy_files) gives copies of it."
        return SandboxUnavailable(f"The container engine cannot show a folder: {reason}. {where}")
    return SandboxUnavailable(f"The container engine cannot run such a container: {reason}.")


def _lacks_image(problem: Refused) -> bool:
    return problem.status == 404 and "image" in problem.reason.lower()
