"""A program that answers calls, kept running between them: JSON, a line each way, many calls at once.

It is started when it is first needed, ended when nobody has needed it for a while, and started anew when it has
ended by itself. What it says on its errors is kept for the day on which it does.
"""

from __future__ import annotations

import json
import math
import time
from collections.abc import AsyncGenerator, Generator, Mapping, Sequence
from contextlib import aclosing, asynccontextmanager, contextmanager
from itertools import count
from typing import Self

import anyio
import anyio.abc
from anyio.streams.memory import MemoryObjectReceiveStream, MemoryObjectSendStream

from rlm_runtime.models.json_values import Json, is_object, parsed
from rlm_runtime.models.programs import LastWords, kill, read, start

_GONE = (anyio.BrokenResourceError, anyio.ClosedResourceError)
_GRACE_SECONDS = 2.0
_TELL_SECONDS = 10.0


class WorkerEnded(Exception):
    """A worker ended before it had answered. `last_words` is what it said."""

    def __init__(self, last_words: str) -> None:
        self.last_words = last_words
        super().__init__(last_words or "It ended without a word")


class WorkerUnavailable(Exception):
    """A worker cannot be started. `is_missing` says that what it runs is not installed."""

    def __init__(self, reason: str, *, is_missing: bool = False) -> None:
        self.is_missing = is_missing
        super().__init__(reason)


class Worker:
    """A program that answers calls. It runs at most while the context is open."""

    def __init__(
        self, command: Sequence[str], environment: Mapping[str, str], *, idle_seconds: float
    ) -> None:
        self._command = command
        self._environment = environment
        self._idle_seconds = idle_seconds
        self._starting = anyio.Lock()
        self._numbers = count(1)
        self._running: _Running | None = None

    async def __aenter__(self) -> Self:
        self._tasks = anyio.create_task_group()
        await self._tasks.__aenter__()
        return self

    async def __aexit__(self, *problem: object) -> None:
        self._tasks.cancel_scope.cancel()
        await self._tasks.__aexit__(None, None, None)

    @property
    def pid(self) -> int | None:
        """The number of its process, while one runs."""
        return self._running.process.pid if self._running and not self._running.is_over else None

    async def ready(self) -> _Running:
        """Start it unless it runs, and return when it can answer. Raise `WorkerUnavailable`."""
        async with self._starting:
            running = self._running
            if running is None or running.is_over:
                running = self._running = await self._start()
            running.use()
            await running.told.wait()
        if running.unavailable:
            raise running.unavailable
        return running

    @asynccontextmanager
    async def asked(self, call: Json) -> AsyncGenerator[AsyncGenerator[Json]]:
        """Ask, and yield what is answered, as it comes. Who leaves before the end takes the call back.

        Raise `WorkerUnavailable` or `WorkerEnded`.
        """
        running = await self.ready()
        number = next(self._numbers)
        with running.waiting(number) as answers:
            try:
                await running.tell({"id": number, "call": call})
                async with aclosing(_all(running, answers)) as all_of_them:
                    yield all_of_them
            finally:
                if running.is_waiting(number):
                    await running.tell({"id": number, "cancel": True})

    async def _start(self) -> _Running:
        try:
            process = await start(self._command, environment=self._environment)
        except OSError as problem:
            raise WorkerUnavailable(f"{self._command[0]}: {problem.strerror or problem}") from problem
        running = _Running(process, self._idle_seconds)
        self._tasks.start_soon(running.serve)
        return running


class _Running:
    """One process of a worker, from its start to its end."""

    def __init__(self, process: anyio.abc.Process, idle_seconds: float) -> None:
        self.process = process
        self.told = anyio.Event()  # whether it can answer
        self.unavailable: WorkerUnavailable | None = None
        self.is_over = False
        self.words = LastWords()
        self._idle_seconds = idle_seconds
        self._used = time.monotonic()
        self._waiting: dict[int, MemoryObjectSendStream[Json]] = {}

    async def serve(self) -> None:
        """Hand out what it says, until it ends; then nothing of it is left."""
        try:
            async with anyio.create_task_group() as tasks:
                tasks.start_soon(read, self.process.stderr, self.words)
                tasks.start_soon(self._end_when_idle)
                await self._listen()
                with anyio.move_on_after(_GRACE_SECONDS):
                    await self.process.wait()
                tasks.cancel_scope.cancel()
        finally:
            self._end()
            with anyio.CancelScope(shield=True):
                await self.process.aclose()

    def use(self) -> None:
        """Let it not be idle for a while."""
        self._used = time.monotonic()

    @contextmanager
    def waiting(self, number: int) -> Generator[MemoryObjectReceiveStream[Json]]:
        """Yield where the answers to a call come."""
        send, receive = anyio.create_memory_object_stream[Json](math.inf)
        self._waiting[number] = send
        with send, receive:
            if self.is_over:
                send.close()
            try:
                yield receive
            finally:
                self._waiting.pop(number, None)
                self.use()

    def is_waiting(self, number: int) -> bool:
        """Whether the last answer to a call is still to come."""
        return number in self._waiting

    async def tell(self, asked: Json) -> None:
        """Send a line, whole, also for a caller that is cancelled. One that reads no lines is ended."""
        line = json.dumps(asked).encode("ascii") + b"\n"
        assert self.process.stdin is not None
        with anyio.move_on_after(_TELL_SECONDS, shield=True) as telling:
            try:
                await self.process.stdin.send(line)
            except _GONE:
                pass  # that it has ended is seen in what does not come back
        if telling.cancelled_caught:
            kill(self.process)

    async def _listen(self) -> None:
        async for line in _lines(self.process.stdout):
            said = parsed(line)
            if not is_object(said):
                continue
            if "id" in said:
                self._hand_out(said)
            else:
                if "unavailable" in said:
                    self.unavailable = WorkerUnavailable(said["unavailable"], is_missing=said["missing"])
                self.told.set()

    def _hand_out(self, said: Json) -> None:
        number = said["id"]
        waiting = self._waiting.get(number)
        if waiting is None:
            return  # it was taken back
        waiting.send_nowait(said)
        if "event" not in said:
            del self._waiting[number]
            waiting.close()

    async def _end_when_idle(self) -> None:
        await self.told.wait()
        while (left := self._idle_left()) > 0:  # noqa: ASYNC110 - there is no event for what does not happen
            await anyio.sleep(left)
        self.is_over = True
        assert self.process.stdin is not None
        await self.process.stdin.aclose()
        await anyio.sleep(_GRACE_SECONDS)
        kill(self.process)

    def _idle_left(self) -> float:
        return self._idle_seconds if self._waiting else self._used + self._idle_seconds - time.monotonic()

    def _end(self) -> None:
        self.is_over = True
        kill(self.process)
        if not self.told.is_set():
            self.unavailable = WorkerUnavailable(str(self.words) or "it ended without a word")
            self.told.set()
        while self._waiting:
            self._waiting.popitem()[1].close()


async def _all(running: _Running, answers: MemoryObjectReceiveStream[Json]) -> AsyncGenerator[Json]:
    async for answer in answers:
        yield answer
        if "event" not in answer:
            return
    raise WorkerEnded(str(running.words))


async def _lines(stream: anyio.abc.ByteReceiveStream | None) -> AsyncGenerator[bytes]:
    assert stream is not None
    begun: list[bytes] = []
    async for chunk in stream:
        *lines, rest = chunk.split(b"\n")
        for line in lines:
            yield b"".join([*begun, line])
            begun.clear()
        begun.append(rest)
