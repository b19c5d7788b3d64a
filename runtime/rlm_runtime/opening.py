"""What the completions of one `RLM` stand on: a model, rooms, a store of answers; opened when first needed.

All completions that are at work in one event loop share it, and it is closed when the last of them is over, or
when the `async with` around them ends. So nothing is left behind, and every `asyncio.run` has its own. One task
of its own holds it, because who opened it may be gone before the others.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, Mapping
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from dataclasses import dataclass, field
from importlib import import_module
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from .models.providers import ADDRESS_OF, KEY_OF, WITHIN_COMMAND, provider_of, seen_by

if TYPE_CHECKING:
    import anyio.abc

    from rlm_sandboxes import Limits, Process, Program, Sandbox

    from .answers import Ladder
    from .cache import AnswerStore
    from .model import Model
    from .models.prices import Prices
    from .rooms import Rooms

_STORE = "answers"


@dataclass(frozen=True)
class Setup:
    """Who answers, and where code runs. `environ` is where keys are looked for that are not given."""

    model: str
    sub_model: str
    backend: Literal["litellm", "openai", "anthropic", "command"]
    api_key: str = field(repr=False)
    api_base: str
    environ: Mapping[str, str] = field(repr=False)
    prices: Mapping[str, tuple[float, float]]
    max_tokens: int
    command: tuple[str, ...]
    log_dir: Path | None
    cache: bool
    environment: Literal["local", "docker"]
    docker_image: str
    docker_cpus: float
    docker_memory_bytes: int
    docker_network_disabled: bool

    @property
    def seen(self) -> dict[str, str]:
        """What a model's process sees of the environment."""
        if self.backend == "command":
            return {**self.environ, WITHIN_COMMAND: "1"}
        models = (self.model, self.sub_model or self.model)
        return seen_by({provider_of(self.backend, name) for name in models}, self.environ)

    @property
    def key(self) -> str:
        """The key for a client of ours; LiteLLM finds its own in what it sees."""
        return self.api_key or self.environ.get(KEY_OF.get(self.backend, ""), "")

    @property
    def secrets(self) -> list[str]:
        """What must stand in no log."""
        from .models.programs import secrets_in

        return [value for value in (self.key, *secrets_in(self.seen)) if value]


@dataclass(frozen=True)
class Means:
    """What a run is given."""

    ladder: Ladder
    rooms: Rooms
    store: AnswerStore | None


@asynccontextmanager
async def open_means(setup: Setup) -> AsyncGenerator[Means]:
    """Open a model. The sandbox is opened with the first room: a task that is simply asked needs none."""
    await asyncio.to_thread(_load, setup.backend)
    import anyio

    from .answers import Ladder
    from .rooms import Rooms

    async with model_of(setup) as model, anyio.create_task_group() as tasks:
        sandbox = _Later(tasks, _sandbox_of(setup))
        try:
            rooms = Rooms(sandbox, limits=_limits_of(setup), shows_files=setup.environment == "local")
            yield Means(Ladder([model]), rooms, _store_of(setup))
        finally:
            sandbox.close()


def _load(backend: str) -> None:
    """Import what is heavy."""
    import_module("rlm_runtime.run")
    import_module(f"rlm_runtime.models.{backend}")


def model_of(setup: Setup) -> AbstractAsyncContextManager[Model]:
    """Return a model, to be opened."""
    given: dict[str, Any] = {"prices": _prices_of(setup), "max_tokens": setup.max_tokens}
    if setup.backend == "command":
        from .models.command import CommandModel

        return CommandModel(setup.command, model=setup.model, environment=setup.seen, **given)
    address = setup.api_base or setup.environ.get(ADDRESS_OF.get(setup.backend, ""), "")
    given |= {"api_key": setup.key} | ({"api_base": address} if address else {})
    if setup.backend == "litellm":
        from .models.litellm import LiteLLMModel

        return LiteLLMModel(setup.model, environment=setup.seen, **given)
    if setup.backend == "anthropic":
        from .models.anthropic import AnthropicModel

        return AnthropicModel(setup.model, **given)
    from .models.openai import OpenAIModel

    return OpenAIModel(setup.model, **given)


def _prices_of(setup: Setup) -> Prices:
    from .models.prices import Price, Prices

    return Prices({name: Price(*pair) for name, pair in setup.prices.items()})


def _store_of(setup: Setup) -> AnswerStore | None:
    from .cache import AnswerStore

    return AnswerStore(setup.log_dir / _STORE) if setup.cache and setup.log_dir is not None else None


def _limits_of(setup: Setup) -> Limits:
    from rlm_sandboxes import Limits

    if setup.environment == "local":
        return Limits()
    return Limits(memory_bytes=setup.docker_memory_bytes, network=not setup.docker_network_disabled)


def _sandbox_of(setup: Setup) -> AbstractAsyncContextManager[Sandbox]:
    if setup.environment == "local":
        from rlm_sandboxes.local import LocalSandbox

        return LocalSandbox()
    from rlm_sandboxes.docker import DockerSandbox

    engine = setup.environ.get("DOCKER_HOST") or None
    return DockerSandbox(setup.docker_image, engine=engine, cpus=setup.docker_cpus, network="bridge")


class _Later:
    """A sandbox that is opened when something is first to run in it, by a task of its own."""

    def __init__(self, tasks: anyio.abc.TaskGroup, opening: AbstractAsyncContextManager[Sandbox]) -> None:
        import anyio

        self._tasks = tasks
        self._opening = opening
        self._door = anyio.Lock()
        self._over = anyio.Event()
        self._sandbox: Sandbox | None = None

    @asynccontextmanager
    async def start(self, program: Program, workdir: Path | None, limits: Limits) -> AsyncGenerator[Process]:
        """Start a program there. Raise `SandboxUnavailable` if it cannot be opened."""
        async with self._door:
            sandbox = self._sandbox = self._sandbox or await self._tasks.start(self._hold)
        async with sandbox.start(program, workdir, limits) as process:
            yield process

    def close(self) -> None:
        """Have it closed."""
        self._over.set()

    async def _hold(self, *, task_status: anyio.abc.TaskStatus[Sandbox]) -> None:
        async with self._opening as sandbox:
            task_status.started(sandbox)
            await self._over.wait()


# ---- sharing


class Shared:
    """Has the means of all completions that are at work, for each event loop its own."""

    def __init__(self, setup: Setup) -> None:
        self._setup = setup
        self._held: dict[asyncio.AbstractEventLoop, _Held] = {}

    async def enter(self) -> Means:
        """Return what is open, or open it. Whoever enters leaves, also when this fails."""
        loop = asyncio.get_running_loop()
        held = self._held.get(loop)
        if held is None:
            held = self._held[loop] = _Held(self._setup)
        held.users += 1
        return await asyncio.shield(held.means)

    async def leave(self) -> None:
        """Close what is open, if nobody else needs it."""
        loop = asyncio.get_running_loop()
        held = self._held[loop]
        held.users -= 1
        if not held.users:
            del self._held[loop]
            await held.close()

    @asynccontextmanager
    async def use(self) -> AsyncGenerator[Means]:
        """Have it for a while."""
        try:
            yield await self.enter()
        finally:
            await self.leave()


class _Held:
    """The means of one event loop, and the task that holds them."""

    def __init__(self, setup: Setup) -> None:
        self.users = 0
        self.means: asyncio.Future[Means] = asyncio.get_running_loop().create_future()
        self._over = asyncio.Event()
        self._task = asyncio.create_task(self._hold(setup))

    async def _hold(self, setup: Setup) -> None:
        try:
            async with open_means(setup) as means:
                self.means.set_result(means)
                await self._over.wait()
        except Exception as problem:
            if self.means.done():
                raise
            self.means.set_exception(problem)
        finally:
            self.means.cancel()

    async def close(self) -> None:
        """Close them, also for a caller that is cancelled. Raise what goes wrong at that."""
        import anyio

        self._over.set()
        with anyio.CancelScope(shield=True):
            await asyncio.wait([self._task])
        if not self.means.cancelled():
            self.means.exception()  # everybody who asked has seen it
        if not self._task.cancelled() and (problem := self._task.exception()) is not None:
            raise problem
