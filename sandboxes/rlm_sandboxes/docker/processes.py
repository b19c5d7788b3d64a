"""A program in a container, as the host holds it."""

from __future__ import annotations

import contextlib
import json
import signal
from typing import Any

import anyio
import anyio.lowlevel
import anyio.to_thread

from ..errors import ImageUnusable, ProcessEnded, SandboxError, StartFailed
from ..sandbox import Isolation, Layer, Usage
from .bundle import pack
from .engine import Engine, Fate, Refused
from .near import Near
from .plans import GUARD_TASKS, Plan
from .streams import Attached

_START_SECONDS = 60.0
_END_SECONDS = 5.0
_OOM_SECONDS = 0.2
_REPORT_BYTES = 1 << 16
_SIGNALLED = 128
_SIGNALS = 64
_TOO_OLD = 72  # as in inside/boot.py
NEEDS_PYTHON = (
    "It needs Python 3.9 or newer, as 'python3' in its PATH or as the sandbox's option python names it."
)
_WALLS = frozenset(("mountns", "rootfs", "project", "pidns", "capabilities", "privileges", "rlimits"))
_RUNC = ("runc", "crun", "youki", "io.containerd.runc.v2")


class DockerProcess:
    """A program in a container; keeps the promise of `Process`."""

    side_channel = None
    copies = False

    def __init__(self, engine: Engine, name: str, plan: Plan) -> None:
        self.name = name
        self.plan = plan
        self._engine = engine
        self._stream: Attached | None = None
        self._fate = Fate()
        self._isolation = Isolation((), strong=False)
        self._near: Near | None = None
        self._early = b""
        self._killed = False

    @property
    def isolation(self) -> Isolation:
        return self._isolation

    @property
    def begun(self) -> bool:
        """Whether the program runs, and does not wait any more."""
        return bool(self._isolation.layers)

    async def create(self, config: dict[str, Any]) -> None:
        """Create the container."""
        self._fate = await self._engine.create(self.name, config)

    async def attach(self) -> None:
        """Open the stream to the container, which does not run yet."""
        self._stream = await self._engine.attach(self.name)

    async def close(self) -> None:
        """Remove the container, whatever the program does, and give the stream back."""
        self._killed = True
        try:
            await self._engine.remove(self.name, self._fate)
        finally:
            if self._stream is not None:
                self._stream.close()
            near, self._near = self._near, None
            if near is not None:
                near.close()

    async def load(self) -> None:
        """Bring the program along and have it loaded. After that it can wait."""
        with anyio.move_on_after(_START_SECONDS) as deadline:
            try:
                await self.send(await anyio.to_thread.run_sync(pack, self.plan.program))
                await self._ask(self.plan.load_request())
                self._near = await self._engine.find_near(self.name)
            except ProcessEnded as problem:
                raise self._explain(problem) from problem
        if deadline.cancelled_caught:
            raise StartFailed(f"The program did not come up within {_START_SECONDS:.0f} seconds.")

    async def begin(self, canary: str) -> None:
        """Have the walls tried and the limits kept; the program runs from here on."""
        with anyio.move_on_after(_START_SECONDS) as deadline:
            try:
                report = await self._ask(self.plan.close_request(canary))
            except ProcessEnded as problem:
                raise StartFailed(f"The program did not come up: {problem}") from problem
            self._isolation = self._describe([Layer(*layer) for layer in report["layers"]])
        if deadline.cancelled_caught:
            raise StartFailed(f"The program did not come up within {_START_SECONDS:.0f} seconds.")

    async def _ask(self, request: dict[str, Any]) -> Any:
        await self.send(json.dumps(request).encode() + b"\n")
        while b"\n" not in self._early:
            if len(self._early) > _REPORT_BYTES:
                raise StartFailed("The program did not come up: what it sent first makes no sense.")
            self._early += await self._receive()
        line, _, self._early = self._early.partition(b"\n")
        return json.loads(line)

    def _explain(self, problem: ProcessEnded) -> SandboxError:
        """Return why a program did not come up."""
        image, reason = self.plan.options.image, problem.detail or str(problem)
        last = reason.splitlines()[-1]
        if problem.status == _TOO_OLD:
            return ImageUnusable(image, reason, NEEDS_PYTHON)
        if "ModuleNotFoundError" in last and self.plan.options.preload:
            return ImageUnusable(image, f"a module to load beforehand is not in it: {last}", "Build it in.")
        return StartFailed(f"The program did not come up: {problem}")

    def _describe(self, layers: list[Layer]) -> Isolation:
        facts, options, plan = self._engine.facts, self.plan.options, self.plan
        runtime = options.runtime or facts.default_runtime
        name = "container" if runtime in _RUNC else f"container({runtime})"
        where = f"{options.image} on {facts.address}"
        copied = "; its files are copies, and what changes in them stays there" if plan.copied else ""
        layers = [Layer(name, True, where + copied), *layers]
        if options.cpus and not facts.cpu_limits:
            layers.append(Layer("cpus", False, "the engine does not limit processor time"))
        held = {layer.name for layer in layers if layer.holds}
        network = plan.limits.network or "netns" in held
        calls = runtime not in _RUNC or "seccomp" in held
        return Isolation(tuple(layers), strong=held >= _WALLS and network and calls)

    # ---- bytes

    async def send(self, data: bytes) -> None:
        assert self._stream is not None
        try:
            await self._stream.send(data, over=self._fate.ended.is_set)
        except OSError:
            raise await self._ended() from None

    async def receive(self) -> bytes:
        if self._early:
            early, self._early = self._early, b""
            return early
        return await self._receive()

    async def _receive(self) -> bytes:
        assert self._stream is not None
        data = await self._stream.receive()
        if not data:
            raise await self._ended()
        return data

    # ---- control

    async def interrupt(self) -> None:
        if self._near is not None:
            await anyio.lowlevel.checkpoint()
            self._near.signal_program(signal.SIGINT)
        else:
            await self._engine.signal(self.name, "SIGINT")  # the guard passes it on

    def let_copy(self) -> None:
        """Do nothing: a program in a container tells its state itself."""

    async def pause(self) -> None:
        if self._near is not None and not self.plan.limits.processes:
            await anyio.lowlevel.checkpoint()
            self._near.signal_program(signal.SIGSTOP)
        else:
            await self._engine.pause(self.name)

    async def resume(self) -> None:
        if self._near is not None and not self.plan.limits.processes:
            await anyio.lowlevel.checkpoint()
            self._near.signal_program(signal.SIGCONT)
        else:
            await self._engine.unpause(self.name)

    async def usage(self) -> Usage:
        usage = None
        with contextlib.suppress(Refused, KeyError, OSError, IndexError, ValueError):
            if self._near is not None:
                usage = await anyio.to_thread.run_sync(self._near.usage)
            else:
                usage = _usage_of(await self._engine.stats(self.name))
        if usage is None:
            raise await self._ended()
        return usage

    async def kill(self) -> None:
        with anyio.CancelScope(shield=True):
            if not self._fate.ended.is_set():
                self._killed = True
                if self._near is not None:
                    self._near.signal_guard(signal.SIGKILL)
                else:
                    await self._engine.signal(self.name, "SIGKILL")
            with anyio.move_on_after(_END_SECONDS):
                await self._fate.ended.wait()

    async def _ended(self) -> ProcessEnded:
        fate = self._fate
        with anyio.move_on_after(_END_SECONDS):
            await fate.ended.wait()
            status = _meaning(fate.status)
            return ProcessEnded(status, await self._last_words(status))
        return ProcessEnded(None, "it closed its connection")

    async def _last_words(self, status: int | None) -> str:
        """Return what is known of why it ended. What it wrote down itself may be anything."""
        crashes = self._stream.crashes if self._stream is not None else b""
        words = crashes.decode("utf-8", "backslashreplace").strip()
        if status == -9 and not self._killed:
            if not self._fate.out_of_memory:
                await anyio.sleep(_OOM_SECONDS)  # the engine may say so a moment later
            most = self.plan.limits.memory_bytes
            if self._fate.out_of_memory:
                return f"it needed more than memory_bytes = {most} and the system ended it"
            return f"nobody here did; most likely it needed more than memory_bytes = {most}"
        return words


def _meaning(status: int | None) -> int | None:
    """Return the status as it is told everywhere here: a signal is a number below zero."""
    if status is not None and _SIGNALLED < status <= _SIGNALLED + _SIGNALS:
        return _SIGNALLED - status
    return status


def _usage_of(stats: dict[str, Any]) -> Usage | None:
    """Return what a container uses, without the guard and without what lies in the scratch folder."""
    memory, tasks = stats["memory_stats"], stats["pids_stats"].get("current", 0)
    if not memory.get("usage"):
        return None  # it is over
    parts = memory.get("stats", {})
    own = parts.get("anon", parts.get("total_rss", parts.get("rss", memory["usage"])))
    nanoseconds = stats["cpu_stats"]["cpu_usage"]["total_usage"]
    return Usage(
        cpu_seconds=nanoseconds / 1e9, memory_bytes=int(own), threads=max(1, int(tasks) - GUARD_TASKS)
    )
