"""The bytes to and from a container: one attached stream, in whose output the engine puts headers."""

from __future__ import annotations

import contextlib
import socket
import ssl
import threading
from collections.abc import Callable
from typing import Any

import anyio

from .pump import Payload

_READ_BYTES = 1 << 16
_SEND_BYTES = 1 << 20
_LOOK_SECONDS = 0.2
_NOT_NOW = (ssl.SSLWantReadError, ssl.SSLWantWriteError, BlockingIOError)


class Attached:
    """An attached stream."""

    def __init__(self, raw: Any) -> None:
        self._raw = raw  # which closes the connection when it is collected
        self._socket = as_socket(raw)
        self._socket.setblocking(False)
        self._payload = Payload()
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
            found = self._payload.feed(data)
            if found:
                return found

    async def _wait(self, wanted: OSError, *, writing: bool) -> None:
        if isinstance(wanted, ssl.SSLError):
            writing = isinstance(wanted, ssl.SSLWantWriteError)
        try:
            await (anyio.wait_writable if writing else anyio.wait_readable)(self._socket)
        except anyio.ClosedResourceError:
            raise OSError("the connection is closed") from None

    def hang_up(self) -> None:
        """Take and send no more. An engine with output that nobody takes would not even see that a container ends."""
        with contextlib.suppress(OSError):
            self._socket.shutdown(socket.SHUT_RDWR)

    def close(self) -> None:
        """Give the connection back. Who waits for it is woken."""
        if self._closed:
            return
        self._closed = True
        if hasattr(anyio, "notify_closing"):
            anyio.notify_closing(self._socket)
        with contextlib.suppress(OSError):
            self._socket.shutdown(socket.SHUT_RDWR)
        give_back(self._raw, self._socket)


def give_back(raw: Any, stream: socket.socket) -> None:
    """Close our end of what the SDK gave. Who else holds the connection goes on."""
    stream.close()
    with contextlib.suppress(OSError, AttributeError, ValueError):
        raw.close()
    with contextlib.suppress(OSError, AttributeError, ValueError):
        raw._response.close()  # which holds on to the socket of TLS


def as_socket(raw: Any) -> socket.socket:
    """Return the socket below what the SDK gives; where that is none, one that threads pass everything on to."""
    below = getattr(raw, "_sock", raw)
    return below if type(below) in (socket.socket, ssl.SSLSocket) else _bridge(below)


def _bridge(channel: Any) -> socket.socket:
    ours, theirs = socket.socketpair()

    def inwards() -> None:
        with contextlib.suppress(OSError, EOFError):
            while data := channel.recv(_READ_BYTES):
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
