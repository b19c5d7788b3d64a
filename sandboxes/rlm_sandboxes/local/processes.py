"""A worker in the local jail, as the host holds it.

Its zygote says how it ended, and is needed for nothing else: signals go straight to the worker, so it
goes on when its zygote dies.
"""

from __future__ import annotations

import json
import os
import select
import signal
import socket
from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple, TypeVar

import anyio
import anyio.abc
import anyio.lowlevel
import anyio.to_thread

from ..errors import ProcessEnded, StartFailed
from ..sandbox import Isolation, Layer, Usage
from .gates import Gate
from .zygotes import Zygote

T = TypeVar("T")
R = TypeVar("R")

_READ_BYTES = 1 << 16
_REPORT_BYTES = 1 << 16
_START_SECONDS = 30.0
_END_SECONDS = 5.0


class Ends(NamedTuple):
    """Our ends of what a worker was given."""

    channel: socket.socket
    crashes: int
    side: socket.socket
    handle: int  # stands for the worker itself


class LocalProcess:
    """A worker in the local jail; keeps the promise of `Process`."""

    def __init__(
        self, zygote: Zygote, pid: int, ends: Ends, tasks: anyio.abc.TaskGroup, *, family: bool
    ) -> None:
        self.side_channel: socket.socket | None = ends.side
        self.copies = False
        self._zygote = zygote
        self._family = family
        self._pid = pid
        self._channel = ends.channel
        self._crashes = ends.crashes
        self._tasks = tasks
        self._isolation = Isolation((), strong=False)
        self._seen: tuple[int, str] = (0, "")
        self._handle = ends.handle
        self._listener: int | None = None
        self._gate: Gate | None = None
        self._early = b""

    @property
    def isolation(self) -> Isolation:
        return self._isolation

    async def hear_report(self, *, adopted: bool) -> None:
        """Take in what the worker found its layers to be, before anything foreign runs in it."""
        with anyio.move_on_after(_START_SECONDS) as deadline:
            report = json.loads(await self._line())
            self._isolation = describe([Layer(*layer) for layer in report["layers"]])
            self._seen = (report["process"][0], report["process"][1])
            self.copies = report["copies"]
            if self._listener is not None:
                self._gate = Gate(self._listener, self._seen[0])
                self._tasks.start_soon(self._gate.serve)
            if adopted:
                await self._line()
        if deadline.cancelled_caught:
            raise StartFailed(f"The program did not come up within {_START_SECONDS:.0f} seconds.")

    async def _line(self) -> bytes:
        while b"\n" not in self._early:
            if len(self._early) > _REPORT_BYTES:
                raise StartFailed("The program did not come up: what it sent first makes no sense.")
            self._early += await self._receive_with_gate()
        line, _, self._early = self._early.partition(b"\n")
        return line or await self._line()

    async def _receive_with_gate(self) -> bytes:
        """Receive, and take what may come with the first bytes: where the kernel asks about copies."""
        await anyio.wait_readable(self._channel)
        try:
            data, descriptors, _, _ = socket.recv_fds(self._channel, _READ_BYTES, 4, socket.MSG_CMSG_CLOEXEC)
        except OSError:
            data, descriptors = b"", []
        for descriptor in descriptors:
            if self._listener is None:
                self._listener = descriptor
            else:
                os.close(descriptor)
        if not data:
            raise await self._ended()
        return data

    async def send(self, data: bytes) -> None:
        rest = memoryview(data)
        while rest:
            try:
                rest = rest[self._channel.send(rest) :]
            except BlockingIOError:
                await anyio.wait_writable(self._channel)
            except OSError:
                raise await self._ended() from None

    async def receive(self) -> bytes:
        if self._early:
            early, self._early = self._early, b""
            return early
        return await self._receive()

    async def _receive(self) -> bytes:
        while True:
            try:
                data = self._channel.recv(_READ_BYTES)
            except BlockingIOError:
                await anyio.wait_readable(self._channel)
                continue
            except OSError:
                data = b""
            if not data:
                raise await self._ended()
            return data

    async def interrupt(self) -> None:
        await self._signal(signal.SIGINT)

    async def pause(self) -> None:
        await self._signal(signal.SIGSTOP)
        if self._family:
            await anyio.to_thread.run_sync(_signal_descendants, self._seen[0], signal.SIGSTOP)

    async def resume(self) -> None:
        await self._signal(signal.SIGCONT)
        if self._family:
            await anyio.to_thread.run_sync(_signal_descendants, self._seen[0], signal.SIGCONT)

    def let_copy(self) -> None:
        if self._gate is not None:
            self._gate.let_one()

    async def _signal(self, number: int) -> None:
        await anyio.lowlevel.checkpoint()
        try:
            signal.pidfd_send_signal(self._handle, number)
        except OSError:
            pass  # it is over already

    async def usage(self) -> Usage:
        try:
            return await anyio.to_thread.run_sync(measure, *self._seen)
        except (OSError, IndexError, ValueError):
            raise await self._ended() from None

    async def kill(self) -> None:
        await self._signal(signal.SIGKILL)
        with anyio.move_on_after(_END_SECONDS, shield=True):
            await self._wait_ended()

    async def _wait_ended(self) -> int | None:
        """Wait until the worker is gone; return its exit code, if its zygote is there to say it."""
        status = await self._zygote.wait_ended(self._pid)
        while status is None and not is_over(self._handle):  # noqa: ASYNC110 -- two may wait, and one descriptor has one waiter
            await anyio.sleep(0.005)
        return status

    async def close(self) -> None:
        """End the program and give everything back."""
        try:
            await self.kill()
        finally:
            self._zygote.forget(self._pid)
            if self._gate is not None:
                self._gate.close()
            elif self._listener is not None:
                os.close(self._listener)
            os.close(self._handle)
            self._channel.close()
            if self.side_channel is not None:
                self.side_channel.close()
            os.close(self._crashes)

    async def _ended(self) -> ProcessEnded:
        with anyio.move_on_after(_END_SECONDS):
            return ProcessEnded(await self._wait_ended(), self._last_words())
        return ProcessEnded(None, "it closed its connection")

    def _last_words(self) -> str:
        """Return what was written down when the program crashed. It may be anything."""
        try:
            data = os.read(self._crashes, _READ_BYTES)
        except OSError:
            return ""
        return data[-4000:].decode("utf-8", "backslashreplace").strip()


def describe(layers: list[Layer]) -> Isolation:
    """Return what the layers amount to together."""
    held = {layer.name for layer in layers if layer.holds}
    files = bool(held & {"mountns", "landlock"})
    others = bool(held & {"pidns", "seccomp"})
    network = bool(held & {"netns", "seccomp"})
    strong = files and others and network and held >= {"capabilities", "rlimits"}
    return Isolation(tuple(layers), strong=strong)


def is_over(handle: int) -> bool:
    """Return whether the process that `handle` stands for has ended."""
    poll = select.poll()
    poll.register(handle, select.POLLIN)
    return bool(poll.poll(0))


def measure(pid: int, started: str) -> Usage:
    """Return what the process `pid` that began at `started`, and everything below it, has used."""
    own = _fields(pid)
    if own[19] != started:
        raise ProcessLookupError(pid)
    family = [own, *_each(_descendants(pid), _fields)]
    ticks = sum(int(fields[n]) for fields in family for n in (11, 12, 13, 14))
    pages = sum(int(fields[21]) for fields in family)
    return Usage(
        cpu_seconds=ticks / os.sysconf("SC_CLK_TCK"),
        memory_bytes=pages * os.sysconf("SC_PAGE_SIZE"),
        threads=sum(int(fields[17]) for fields in family),
    )


def _fields(pid: int) -> list[str]:
    """Return the fields of /proc/PID/stat from the third on."""
    return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()


def _descendants(pid: int) -> list[int]:
    children = [int(word) for words in _each(_threads(pid), _children) for word in words]
    return [*children, *(below for child in children for below in _descendants(child))]


def _threads(pid: int) -> list[Path]:
    folder = Path(f"/proc/{pid}/task")
    try:
        return [folder / name for name in os.listdir(folder)]  # noqa: PTH208 -- iterdir may stay open
    except OSError:
        return []


def _children(thread: Path) -> list[str]:
    return (thread / "children").read_text().split()


def _each(things: list[T], look: Callable[[T], R]) -> list[R]:
    """Return what `look` says of each, leaving out those that are gone by now."""
    found: list[R] = []
    for thing in things:
        try:
            found.append(look(thing))
        except OSError:
            continue
    return found


def _signal_descendants(pid: int, number: int) -> None:
    """Send a signal to everything that a process started, newcomers included."""
    seen: set[int] = set()
    while new := set(_descendants(pid)) - seen:
        _each(list(new), lambda child: _signal_child(pid, child, number))
        seen |= new


def _signal_child(pid: int, child: int, number: int) -> None:
    handle = os.pidfd_open(child)
    try:
        if child in _descendants(pid):  # still; the number might be another's by now
            signal.pidfd_send_signal(handle, number)
    finally:
        os.close(handle)
