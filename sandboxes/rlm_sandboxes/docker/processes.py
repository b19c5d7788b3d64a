"""A program in a container, as the host holds it."""

from __future__ import annotations

import contextlib
import json
import signal
import socket
from dataclasses import replace
from typing import Any

import anyio
import anyio.abc
import anyio.lowlevel
import anyio.to_thread

from ..errors import EngineUnavailable, ImageUnusable, ProcessEnded, SandboxError, StartFailed
from ..sandbox import Isolation, Layer, Usage
from .bundle import pack
from .engine import Engine, Fate, Refused
from .near import Near
from .plans import GUARD_TASKS, Plan
from .pumps import Pumps
from .streams import Attached

_START_SECONDS = 60.0
_END_SECONDS = 5.0
_UNREAD_SECONDS = 1.0  # for output to be taken of a program that was killed
_OOM_SECONDS = 0.2
_REPORT_BYTES = 1 << 16
_LEAVE = signal.SIGUSR1  # as in inside/gate.py
_SIGNALLED = 128
_SIGNALS = 64
_TOO_OLD = 72  # as in inside/boot.py
NEEDS_PYTHON = (
    "It needs Python 3.9 or newer: 'python3' in its PATH, or what docker_python (the sandbox's python) names."
)
_FOR_ANOTHER = "Fetch or build one for that of the engine, as `docker pull --platform` does."
_WALLS = frozenset(("mountns", "rootfs", "project", "pidns", "capabilities", "privileges", "rlimits"))
_RUNC = ("runc", "crun", "youki", "io.containerd.runc.v2")


class DockerProcess:
    """A program in a container; keeps the promise of `Process`."""

    def __init__(
        self, engine: Engine, name: str, plan: Plan, pumps: Pumps, tasks: anyio.abc.TaskGroup
    ) -> None:
        self.side_channel: socket.socket | None = None
        self.copies = False
        self.name = name
        self.plan = plan
        self.left_out: list[str] = []
        self._engine = engine
        self._pumps = pumps
        self._tasks = tasks
        self._crash: socket.socket | None = None
        self._crashes: bytes | None = None
        self._reading = anyio.Lock()
        self._stream: Attached | None = None
        self._fate = Fate()
        self._isolation = Isolation((), strong=False)
        self._near: Near | None = None
        self._early = b""
        self._killed = False
        self._refused = 0  # how often there was no more memory to be had, when it was last told

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
        """Open the streams to the container, which does not run yet."""
        self._stream = await self._engine.attach(self.name)
        aside = await self._engine.attach_aside(self.name)
        self.side_channel, self._crash = await self._pumps.take(aside)

    async def close(self) -> None:
        """Remove the container, whatever the program does, and give the stream back."""
        self._killed = True
        if self._stream is not None:
            self._stream.hang_up()
        try:
            await self._engine.remove(self.name, self._fate)
        finally:
            for end in (self._stream, self.side_channel, self._crash):
                if end is not None:
                    end.close()
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
            self.copies = bool(report["copies"])
        if deadline.cancelled_caught:
            raise StartFailed(f"The program did not come up within {_START_SECONDS:.0f} seconds.")

    async def _ask(self, request: dict[str, Any]) -> Any:
        await self.send(json.dumps(request).encode() + b"\n")
        while b"\n" not in self._early:
            if len(self._early) > _REPORT_BYTES:
                raise StartFailed("The program did not come up: what it sent first makes no sense.")
            self._early += await self._receive()
        line, _, self._early = self._early.partition(b"\n")
        try:
            return json.loads(line)
        except ValueError as problem:
            words = f"what it sent first makes no sense, {line[:200]!r}"
            raise StartFailed(f"The program did not come up: {words}.") from problem

    def _explain(self, problem: ProcessEnded) -> SandboxError:
        """Return why a program did not come up."""
        image, reason = self.plan.options.image, problem.detail or str(problem)
        last = reason.splitlines()[-1]
        if "exec format error" in last:
            return ImageUnusable(image, "it is made for another kind of processor", _FOR_ANOTHER)
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
        if self.left_out:
            copied += f"; left out: {', '.join(dict.fromkeys(self.left_out))}"
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
        await self._signal(signal.SIGINT, by_guard=signal.SIGINT)

    def let_copy(self) -> None:
        if self._near is not None:
            self._near.signal_guard(_LEAVE)
        else:
            self._tasks.start_soon(self._signal_by_engine, _LEAVE.name)

    async def pause(self) -> None:
        if self._has_family:
            await self._engine.pause(self.name)
        else:
            await self._signal(signal.SIGSTOP, by_guard=signal.SIGTSTP)

    async def resume(self) -> None:
        if self._has_family:
            await self._engine.unpause(self.name)
        else:
            await self._signal(signal.SIGCONT, by_guard=signal.SIGCONT)

    @property
    def _has_family(self) -> bool:
        """Whether there may be processes that the program has started."""
        return self.plan.limits.processes > 0

    async def _signal(self, number: signal.Signals, *, by_guard: signal.Signals) -> None:
        """Signal the program. Where it is out of our reach, the guard does that at the sign `by_guard`."""
        if self._near is not None:
            await anyio.lowlevel.checkpoint()
            self._near.signal_program(number)
        else:
            await self._engine.signal(self.name, by_guard.name)

    async def _signal_by_engine(self, name: str) -> None:
        with contextlib.suppress(SandboxError):
            await self._engine.signal(self.name, name)

    async def usage(self) -> Usage:
        usage = None
        with contextlib.suppress(Refused, KeyError, OSError, IndexError, ValueError):
            if self._near is not None:
                usage = await anyio.to_thread.run_sync(self._near.usage)
            else:
                usage = _usage_of(await self._engine.stats(self.name))
        if usage is None:
            raise await self._ended()
        return self._with_what_was_refused(usage)

    def _with_what_was_refused(self, usage: Usage) -> Usage:
        """Count as used what the kernel ended a process for since the last look; the rest may be within the limit."""
        refused, self._refused = self._refused, self._fate.times_out_of_memory
        if refused == self._refused:
            return usage
        return replace(usage, memory_bytes=max(usage.memory_bytes, self.plan.memory_bytes))

    async def kill(self) -> None:
        with anyio.CancelScope(shield=True):
            if self._fate.ended.is_set():
                return
            self._killed = True
            async with anyio.create_task_group() as tasks:
                if self._near is not None:
                    self._near.signal_guard(signal.SIGKILL)
                # With a family the pause is the engine's, which holds up a signal.
                if self._near is None or self._has_family:
                    tasks.start_soon(self._kill_by_engine)
                with anyio.move_on_after(_UNREAD_SECONDS):
                    await self._fate.ended.wait()
                if self._stream is not None and not self._fate.ended.is_set():
                    self._stream.hang_up()
                with anyio.move_on_after(_END_SECONDS):
                    await self._fate.ended.wait()

    async def _kill_by_engine(self) -> None:
        with contextlib.suppress(EngineUnavailable):  # the guard ends the program when we hang up
            await self._engine.signal(self.name, "SIGKILL")

    async def _ended(self) -> ProcessEnded:
        fate = self._fate
        with anyio.move_on_after(_END_SECONDS):
            await fate.ended.wait()
            status = _meaning(fate.status)
            return ProcessEnded(status, await self._last_words(status))
        return ProcessEnded(None, "it closed its connection")

    async def _last_words(self, status: int | None) -> str:
        """Return what is known of why it ended. What it wrote down itself may be anything."""
        async with self._reading:  # who sends and who receives may both hear of the end
            if self._crashes is None:
                self._crashes = await _read_all(self._crash) if self._crash is not None else b""
        words = self._crashes.decode("utf-8", "backslashreplace").strip()
        if status == -9 and not self._killed:
            if not self._fate.times_out_of_memory:
                await anyio.sleep(_OOM_SECONDS)  # the engine may say so a moment later
            most = self.plan.limits.memory_bytes
            if self._fate.times_out_of_memory:
                return f"it needed more than memory_bytes = {most} and the system ended it"
            if self._fate.asked_to_end:
                return "by the engine, as when that stops, or when somebody stops or kills the container"
            return f"nobody here did; most likely it needed more than memory_bytes = {most}"
        return words


async def _read_all(end: socket.socket) -> bytes:
    """Return what there is to read up to the end, which is near."""
    found, last = b"", b"."
    with anyio.move_on_after(_END_SECONDS):
        while last and len(found) < _REPORT_BYTES:
            try:
                last = end.recv(_REPORT_BYTES)
                found += last
            except BlockingIOError:
                await anyio.wait_readable(end)
            except OSError:
                break
    return found


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
