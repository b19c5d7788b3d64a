"""The bytes to and from a container: one attached stream, in which the engine mixes two kinds of output.

Each piece of output has a header of eight bytes: which stream it is of, and how long it is.
"""

from __future__ import annotations

import contextlib
import socket
import ssl
import threading
from collections.abc import Callable
from typing import Any

import anyio

_READ_BYTES = 1 << 16
_SEND_BYTES = 1 << 20
_LOOK_SECONDS = 0.2
_HEADER_BYTES = 8
_CRASHES = 2
_CRASH_BYTES = 4000
_NOT_NOW = (ssl.SSLWantReadError, ssl.SSLWantWriteError, BlockingIOError)


class Attached:
    """An attached stream. `crashes` is the end of what the program wrote to standard error."""

    def __init__(self, raw: Any) -> None:
        self.crashes = b""
        self._raw = raw  # which closes the connection when it is collected
        self._socket = _as_socket(raw)
        self._socket.setblocking(False)
        self._header = b""
        self._kind = 0
        self._left = 0
        self._closed = False

    async def send(self, data: bytes, *, over: Callable[[], bool]) -> None:
        """Send all of `data`. Raise OSError if nobody is there to take it.

        An engine goes on to hold the connection of a container that is over, so that has to be asked for.
        """
        rest = memoryview(data)
        while rest:
            if over():
                raise BrokenPipeError
            try:
                rest = rest[self._socket.send(rest[:_SEND_BYTES]) :]
            except _NOT_NOW as wanted:
                with anyio.move_on_after(_LOOK_SECONDS):
                    await self._wait(wanted, writing=True)

    async def receive(self) -> bytes:
        """Return the next bytes that the program sent, or b"" when there will be no more."""
        while True:
            try:
                data = self._socket.recv(_READ_BYTES)
            except _NOT_NOW as wanted:
                await self._wait(wanted, writing=False)
                continue
            except OSError:
                return b""
            if not data:
                return b""
            found = self._sort(data)
            if found:
                return found

    async def _wait(self, wanted: OSError, *, writing: bool) -> None:
        if isinstance(wanted, ssl.SSLError):
            writing = isinstance(wanted, ssl.SSLWantWriteError)
        try:
            await (anyio.wait_writable if writing else anyio.wait_readable)(self._socket)
        except anyio.ClosedResourceError:
            raise OSError("the connection is closed") from None

    def _sort(self, data: bytes) -> bytes:
        """Return what of `data` the program sent to us, without headers."""
        if self._left >= len(data) and self._kind != _CRASHES:
            self._left -= len(data)
            return data
        found: list[bytes] = []
        start = 0
        while start < len(data):
            if not self._left:
                missing = _HEADER_BYTES - len(self._header)
                self._header += data[start : start + missing]
                start += missing
                if len(self._header) < _HEADER_BYTES:
                    break
                self._kind, self._left = self._header[0], int.from_bytes(self._header[4:], "big")
                self._header = b""
                continue
            piece = data[start : start + self._left]
            start += len(piece)
            self._left -= len(piece)
            if self._kind == _CRASHES:
                self.crashes = (self.crashes + piece)[-_CRASH_BYTES:]
            else:
                found.append(piece)
        return b"".join(found)

    def close(self) -> None:
        """Give the connection back. Who waits for it is woken."""
        if self._closed:
            return
        self._closed = True
        if hasattr(anyio, "notify_closing"):
            anyio.notify_closing(self._socket)
        with contextlib.suppress(OSError):
            self._socket.shutdown(socket.SHUT_RDWR)
        self._socket.close()
        with contextlib.suppress(OSError, AttributeError, ValueError):
            self._raw.close()


def _as_socket(raw: Any) -> socket.socket:
    """Return the socket below what the SDK gives; where that is none, one that threads pass everything on to."""
    below = getattr(raw, "_sock", raw)
    return below if type(below) in (socket.socket, ssl.SSLSocket) else _bridge(below)


def _bridge(channel: Any) -> socket.socket:
    ours, theirs = socket.socketpair()
    process = getattr(channel, "proc", None)  # an ssh that the SDK has started
    receive = channel.recv if process is None else process.stdout.read1

    def inwards() -> None:
        with contextlib.suppress(OSError, EOFError):
            while data := receive(_READ_BYTES):
                theirs.sendall(data)
        with contextlib.suppress(OSError):
            theirs.shutdown(socket.SHUT_RDWR)

    def outwards() -> None:
        with contextlib.suppress(OSError, EOFError):
            while data := theirs.recv(_READ_BYTES):
                channel.sendall(data)
        with contextlib.suppress(OSError, EOFError):
            channel.close()
        theirs.close()

    for work in (inwards, outwards):
        threading.Thread(target=work, name="rlm-docker-stream", daemon=True).start()
    return ours
