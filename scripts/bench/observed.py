"""A sandbox that lets itself be looked at: it keeps its processes, and each of them counts its bytes."""

from __future__ import annotations

import socket
from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager
from pathlib import Path

from rlm_sandboxes import Isolation, Limits, Process, Program, Sandbox, Usage


class ObservedSandbox:
    """What another sandbox does, and the processes that it started."""

    def __init__(self, inner: Sandbox) -> None:
        self._inner = inner
        self.processes: list[ObservedProcess] = []

    @asynccontextmanager
    async def start(
        self, program: Program, workdir: Path | None, limits: Limits
    ) -> AsyncGenerator[Process, None]:
        async with self._inner.start(program, workdir, limits) as process:
            self.processes.append(ObservedProcess(process))
            yield self.processes[-1]


class ObservedProcess:
    """What another process does, and how many bytes went over its wire, both ways."""

    def __init__(self, inner: Process) -> None:
        self._inner = inner
        self.bytes_on_wire = 0

    @property
    def pid(self) -> int:
        """The number of a process of the local sandbox, as this machine sees it."""
        return int(getattr(self._inner, "_seen")[0])  # noqa: B009 - nobody but a benchmark asks for it

    @property
    def container(self) -> str:
        """The name of the container that a process of the docker sandbox is in."""
        return str(getattr(self._inner, "name"))  # noqa: B009

    @property
    def side_channel(self) -> socket.socket | None:
        return self._inner.side_channel

    @property
    def copies(self) -> bool:
        return self._inner.copies

    def let_copy(self) -> None:
        self._inner.let_copy()

    @property
    def isolation(self) -> Isolation:
        return self._inner.isolation

    async def send(self, data: bytes) -> None:
        self.bytes_on_wire += len(data)
        await self._inner.send(data)

    async def receive(self) -> bytes:
        data = await self._inner.receive()
        self.bytes_on_wire += len(data)
        return data

    async def interrupt(self) -> None:
        await self._inner.interrupt()

    async def pause(self) -> None:
        await self._inner.pause()

    async def resume(self) -> None:
        await self._inner.resume()

    async def usage(self) -> Usage:
        return await self._inner.usage()

    async def kill(self) -> None:
        await self._inner.kill()
