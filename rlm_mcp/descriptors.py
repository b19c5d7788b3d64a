"""The standard streams of this process as a wire for bytes, without threads wherever a descriptor lets us.

After the system said that a descriptor is ready, one read of it does not wait, and neither does one write of
`PIPE_BUF` bytes. So no flag of an open file is changed, which would change it for whoever shares the file with
us. What can give no such word, such as a regular file, is read and written in threads that no exit waits for.
"""

from __future__ import annotations

import asyncio
import concurrent.futures
import os
import select
import socket
import stat
import sys
import threading
from collections import deque
from collections.abc import Callable, Generator
from contextlib import contextmanager, suppress
from typing import Protocol, TypeVar

import anyio

T = TypeVar("T")

_READ_BYTES = 65_536  # what a pipe holds
_HELD_BYTES = 1024 * 1024  # how much is read ahead
_TURN_BYTES = 262_144  # how much is written before others have their turn
_PIPE_BUF = getattr(select, "PIPE_BUF", 512)


@contextmanager
def standard_streams() -> Generator[tuple[int, int]]:
    """Take standard input and output away from everybody else; the pair is where they lead to.

    In the meantime whoever reads standard input finds its end, and what is written to standard output comes
    out on standard error: stray prints and child processes cannot spoil the wire.
    """
    wire = _duplicate(0), _duplicate(1)
    _lead(0, os.open(os.devnull, os.O_RDONLY))
    _lead(1, _duplicate(2, otherwise=os.devnull))
    try:
        yield wire
    finally:
        with suppress(AttributeError, OSError, ValueError):
            sys.stdout.flush()  # what was printed meanwhile is not for the wire now either
        for number, descriptor in enumerate(wire):
            _lead(number, descriptor)


def _duplicate(descriptor: int, *, otherwise: str | None = None) -> int:
    """Return another descriptor for the same file, never one of the three standard ones."""
    try:
        duplicates = [os.dup(descriptor)]
    except OSError:
        if otherwise is None:
            raise
        duplicates = [os.open(otherwise, os.O_RDWR)]
    while duplicates[-1] <= 2:
        duplicates.append(os.dup(duplicates[-1]))
    for unfit in duplicates[:-1]:
        os.close(unfit)
    return duplicates[-1]


def _lead(number: int, descriptor: int) -> None:
    os.dup2(descriptor, number)
    os.close(descriptor)


async def in_thread(function: Callable[[], T]) -> T:
    """Return what `function` returns, from a thread that is left behind if nobody waits for it any more."""
    loop = asyncio.get_running_loop()
    answer = concurrent.futures.Future[T]()
    awaited = asyncio.wrap_future(answer, loop=loop)

    def work() -> None:
        try:
            result = function()
        except OSError as error:
            _settle(answer.set_exception, error)
        else:
            _settle(answer.set_result, result)

    threading.Thread(target=work, daemon=True).start()
    return await awaited


def _settle(how: Callable[[T], None], outcome: T) -> None:
    with suppress(concurrent.futures.InvalidStateError, RuntimeError):
        how(outcome)  # unless whoever asked is gone, or the loop


# ---- reading


class Source(Protocol):
    """What bytes are read from. There is one reader at a time."""

    async def read(self) -> bytes:
        """Return some bytes; none at the end, and after `stop`."""
        ...

    def stop(self) -> None:
        """Let there be no more to read, also for a read at work."""
        ...

    def hung_up(self) -> bool:
        """Tell whether nobody will write any more, though not all that was written is read."""
        ...

    def close(self) -> None: ...


def source(descriptor: int) -> Source:
    """Return what reads `descriptor`, by a duplicate that it owns."""
    descriptor = os.dup(descriptor)
    mode = os.fstat(descriptor).st_mode
    tells = stat.S_ISFIFO(mode) or stat.S_ISSOCK(mode) or (stat.S_ISCHR(mode) and sys.platform == "linux")
    if sys.platform != "win32" and tells:
        try:
            return _ReadySource(descriptor)
        except OSError:
            pass  # a device that is always ready, such as /dev/null
    return _FileSource(descriptor)


class _ReadySource:
    """Reads as soon as there is something, up to a bound ahead of whoever asks."""

    def __init__(self, descriptor: int) -> None:
        self._descriptor = descriptor
        self._loop = asyncio.get_running_loop()
        self._chunks: deque[bytes] = deque()
        self._held_bytes = 0
        self._over = False
        self._news = asyncio.Event()
        self._loop.add_reader(descriptor, self._take)
        self._listens = True

    def _take(self) -> None:
        try:
            chunk = os.read(self._descriptor, _READ_BYTES)
        except (BlockingIOError, InterruptedError):
            return
        except OSError:
            chunk = b""  # a terminal that is gone, a connection that was reset
        self._chunks.append(chunk)
        self._held_bytes += len(chunk)
        self._over = not chunk
        if self._over or self._held_bytes >= _HELD_BYTES:
            self._listen(False)
        self._news.set()

    def _listen(self, wanted: bool) -> None:
        if wanted and not self._listens:
            self._loop.add_reader(self._descriptor, self._take)
        elif self._listens and not wanted:
            self._loop.remove_reader(self._descriptor)
        self._listens = wanted

    async def read(self) -> bytes:
        while not self._chunks:
            if self._over:
                return b""
            self._news.clear()
            await self._news.wait()
        chunk = self._chunks.popleft()
        self._held_bytes -= len(chunk)
        if not self._over and self._held_bytes < _HELD_BYTES:
            self._listen(True)
        return chunk

    def stop(self) -> None:
        self._listen(False)
        self._over = True
        self._chunks.clear()
        self._news.set()

    def hung_up(self) -> bool:
        poll = select.poll()
        poll.register(self._descriptor, getattr(select, "POLLRDHUP", 0))
        return self._over or bool(poll.poll(0))

    def close(self) -> None:
        self.stop()
        os.close(self._descriptor)


class _FileSource:
    def __init__(self, descriptor: int) -> None:
        self._descriptor = descriptor
        self._reading = anyio.CancelScope()
        self._over = False

    async def read(self) -> bytes:
        with anyio.CancelScope() as self._reading, suppress(OSError):
            if not self._over:
                return await in_thread(lambda: os.read(self._descriptor, _READ_BYTES))
        return b""

    def stop(self) -> None:
        self._over = True
        self._reading.cancel()

    def hung_up(self) -> bool:
        return False

    def close(self) -> None:
        """Leave it open: a thread may still wait for it, and would read from another file of that number."""


# ---- writing


class Sink(Protocol):
    """What bytes are written to. Raises `OSError` when nobody reads any more."""

    def write_now(self, data: memoryview) -> int:
        """Write what can be written without waiting, and return how much that was."""
        ...

    async def write(self, data: memoryview) -> int:
        """Write some of it, and return how much."""
        ...

    def close(self) -> None: ...


def sink(descriptor: int) -> Sink:
    """Return what writes to `descriptor`, by a duplicate that it owns."""
    descriptor = os.dup(descriptor)
    if sys.platform != "win32":
        mode = os.fstat(descriptor).st_mode
        if stat.S_ISSOCK(mode):
            return _SocketSink(descriptor)
        if stat.S_ISFIFO(mode):
            return _PipeSink(descriptor)
    return _FileSink(descriptor)


class _PipeSink:
    def __init__(self, descriptor: int) -> None:
        self._descriptor = descriptor
        self._poll = select.poll()
        self._poll.register(descriptor, select.POLLOUT)

    def write_now(self, data: memoryview) -> int:
        written = 0
        try:
            while written < len(data) and written < _TURN_BYTES and self._poll.poll(0):
                written += os.write(self._descriptor, data[written : written + _PIPE_BUF])
        except BlockingIOError:
            pass  # somebody who shares the file with us has made it one that never waits
        return written

    async def write(self, data: memoryview) -> int:
        await anyio.wait_writable(self._descriptor)
        return self.write_now(data)

    def close(self) -> None:
        os.close(self._descriptor)


class _SocketSink:
    def __init__(self, descriptor: int) -> None:
        self._socket = socket.socket(fileno=descriptor)

    def write_now(self, data: memoryview) -> int:
        try:
            return self._socket.send(data[:_TURN_BYTES], socket.MSG_DONTWAIT)
        except (BlockingIOError, InterruptedError):
            return 0

    async def write(self, data: memoryview) -> int:
        await anyio.wait_writable(self._socket)
        return self.write_now(data)

    def close(self) -> None:
        self._socket.close()


class _FileSink:
    def __init__(self, descriptor: int) -> None:
        self._descriptor = descriptor

    def write_now(self, data: memoryview) -> int:
        return 0

    async def write(self, data: memoryview) -> int:
        return await in_thread(lambda: os.write(self._descriptor, data[:_TURN_BYTES]))

    def close(self) -> None:
        """Leave it open: a thread may still wait for it, and would write to another file of that number."""
