"""A sandbox without walls: the program runs in a thread of this process.

It keeps the promise of `Sandbox` towards its callers, and says truthfully that
nothing holds. Code that spins stops only when it lets exceptions through.
"""

from __future__ import annotations

import contextlib
import ctypes
import importlib
import importlib.util
import socket
import sys
import threading
import time
from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import anyio
import anyio.to_thread

from rlm_sandboxes import (
    Isolation,
    Layer,
    Limits,
    Package,
    Process,
    ProcessEnded,
    Program,
    StartFailed,
    Usage,
)


class FakeSandbox:
    """Runs programs in threads."""

    async def __aenter__(self) -> FakeSandbox:
        return self

    async def __aexit__(self, *_: object) -> None:
        return None

    @asynccontextmanager
    async def start(
        self, program: Program, workdir: Path | None, limits: Limits
    ) -> AsyncGenerator[Process, None]:
        process = FakeProcess(program)
        await process.begin()
        try:
            yield process
        finally:
            with anyio.CancelScope(shield=True):
                await process.close()


class _Channel:
    """The program's end: blocking, and at rest while the process is paused."""

    def __init__(self, end: socket.socket, going: threading.Event) -> None:
        self._end = end
        self._going = going

    def fileno(self) -> int:
        return self._end.fileno()

    def receive(self, size: int) -> bytes:
        data = self._end.recv(size)
        self._going.wait()
        return data

    def send(self, data: bytes) -> None:
        self._going.wait()
        self._end.sendall(data)


class FakeProcess:
    """A program at work in a thread."""

    isolation = Isolation((Layer("walls", holds=False, detail="this sandbox is a fake"),), strong=False)
    side_channel = None
    copies = False

    def let_copy(self) -> None:
        """Do nothing: a thread cannot be copied."""

    def __init__(self, program: Program) -> None:
        self._program = program
        self._ours, self._theirs = socket.socketpair()
        self._ours.setblocking(False)
        self._going = threading.Event()
        self._going.set()
        self._status: int | None = None
        self._problem = ""
        self._killed = False
        self._over = threading.Event()
        self._thread = threading.Thread(target=self._run, name="fake program", daemon=True)

    async def begin(self) -> None:
        """Start the thread; raise if the program fails at once."""
        self._thread.start()
        with anyio.move_on_after(0.05):
            await anyio.wait_readable(self._ours)
        if self._problem:
            await self.close()
            raise StartFailed(f"The program did not come up: {self._problem}")

    def _run(self) -> None:
        try:
            self._run_program()
        except BaseException:  # an interrupt from outside, which arrived when all was said
            self._status = self._status or 1
        finally:
            self._over.set()
            self._theirs.close()

    def _run_program(self) -> None:
        self._status = 1
        try:
            module, function = self._program.entry.split(":")
            for package in (*self._program.libraries, self._program.package):
                _load(package)
            getattr(importlib.import_module(module), function)(_Channel(self._theirs, self._going))
            self._status = 0
        except SystemExit as end:
            self._status = end.code if isinstance(end.code, int) else 1
        except Exception as problem:
            self._status, self._problem = 70, f"{type(problem).__name__}: {problem}"
        finally:
            if self._killed:
                self._status = -9

    async def send(self, data: bytes) -> None:
        rest = memoryview(data)
        while rest:
            try:
                rest = rest[self._ours.send(rest) :]
            except BlockingIOError:
                await anyio.wait_writable(self._ours)
            except OSError:
                raise await self._ended() from None

    async def receive(self) -> bytes:
        while True:
            try:
                data = self._ours.recv(65536)
            except BlockingIOError:
                await anyio.wait_readable(self._ours)
                continue
            except OSError:
                data = b""
            if not data:
                raise await self._ended()
            return data

    async def _ended(self) -> ProcessEnded:
        await anyio.to_thread.run_sync(self._over.wait, 5)
        return ProcessEnded(self._status, self._problem)

    async def interrupt(self) -> None:
        self._raise_inside(KeyboardInterrupt)

    def _raise_inside(self, kind: type[BaseException]) -> None:
        if self._over.is_set():
            return  # its number may be another thread's by now
        ident = ctypes.c_ulong(self._thread.ident or 0)
        ctypes.pythonapi.PyThreadState_SetAsyncExc(ident, ctypes.py_object(kind))

    async def pause(self) -> None:
        self._going.clear()

    async def resume(self) -> None:
        self._going.set()

    async def usage(self) -> Usage:
        if self._over.is_set() or self._thread.ident is None:
            raise await self._ended()
        seconds = time.clock_gettime(time.pthread_getcpuclockid(self._thread.ident))
        return Usage(cpu_seconds=seconds, memory_bytes=1, threads=1)

    async def kill(self) -> None:
        self._killed = True
        self._going.set()
        with contextlib.suppress(OSError):
            self._ours.shutdown(socket.SHUT_RDWR)
        if not await anyio.to_thread.run_sync(self._over.wait, 0.2):
            self._raise_inside(SystemExit)
            await anyio.to_thread.run_sync(self._over.wait, 5)

    async def close(self) -> None:
        """End the program and give everything back."""
        await self.kill()
        await anyio.to_thread.run_sync(self._thread.join, 5)
        self._ours.close()
        self._theirs.close()


def _load(package: Package) -> Any:
    if package.name not in sys.modules:
        path = package.folder / "__init__.py"
        spec = importlib.util.spec_from_file_location(
            package.name, path, submodule_search_locations=[str(package.folder)]
        )
        assert spec is not None and spec.loader is not None
        module = sys.modules[package.name] = importlib.util.module_from_spec(spec)
        spec.loader.exec_module(module)
    return sys.modules[package.name]
