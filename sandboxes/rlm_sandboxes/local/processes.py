"""A worker in the local jail, as the host holds it."""

from __future__ import annotations

import json
import os
import signal
import socket
from collections.abc import Callable
from pathlib import Path
from typing import TypeVar

import anyio
import anyio.to_thread

from ..errors import ProcessEnded, StartFailed
from ..sandbox import Isolation, Layer, Usage
from .zygotes import Zygote

T = TypeVar("T")
R = TypeVar("R")

_READ_BYTES = 1 << 16
_REPORT_BYTES = 1 << 16
_START_SECONDS = 30.0
_END_SECONDS = 5.0


class LocalProcess:
    """A worker in the local jail; keeps the promise of `Process`."""

    def __init__(
        self, zygote: Zygote, pid: int, channel: socket.socket, crashes: int, *, family: bool
    ) -> None:
        self._zygote = zygote
        self._family = family
        self._pid = pid
        self._channel = channel
        self._crashes = crashes
        self._isolation = Isolation((), strong=False)
        self._seen: tuple[int, str] = (0, "")
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
            if adopted:
                await self._line()
        if deadline.cancelled_caught:
            raise StartFailed(f"The program did not come up within {_START_SECONDS:.0f} seconds.")

    async def _line(self) -> bytes:
        while b"\n" not in self._early:
            if len(self._early) > _REPORT_BYTES:
                raise StartFailed("The program did not come up: what it sent first makes no sense.")
            self._early += await self._receive()
        line, _, self._early = self._early.partition(b"\n")
        return line

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

    async def _signal(self, number: int) -> None:
        await self._zygote.signal(self._pid, number)

    async def usage(self) -> Usage:
        try:
            return await anyio.to_thread.run_sync(measure, *self._seen)
        except (OSError, IndexError, ValueError):
            raise await self._ended() from None

    async def kill(self) -> None:
        await self._zygote.signal(self._pid, signal.SIGKILL)
        with anyio.move_on_after(_END_SECONDS, shield=True):
            await self._zygote.wait_ended(self._pid)

    async def close(self) -> None:
        """End the program and give everything back."""
        try:
            await self.kill()
        finally:
            self._zygote.forget(self._pid)
            self._channel.close()
            os.close(self._crashes)

    async def _ended(self) -> ProcessEnded:
        with anyio.move_on_after(_END_SECONDS):
            return ProcessEnded(await self._zygote.wait_ended(self._pid), self._last_words())
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
    try:
        return list(Path(f"/proc/{pid}/task").iterdir())
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
