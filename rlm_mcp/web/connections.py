"""The connections of clients, none of which may keep the server waiting, or keep others out.

Uvicorn does the talking. What is added: a client that is slow to ask, or that does not read what it asked for, is
cut off; and when all places are taken, the connection that has waited longest without asking anything makes room.
"""

from __future__ import annotations

import asyncio
import socket
import struct
import time
from dataclasses import dataclass

import anyio
from uvicorn.protocols.http.h11_impl import H11Protocol

_FULL = (
    b"HTTP/1.1 503 Service Unavailable\r\nconnection: close\r\nretry-after: 1\r\ncontent-length: 0\r\n"
    b"cache-control: no-store\r\n\r\n"
)
_LOOKS_PER_PATIENCE = 10
_NO_LINGERING = struct.pack(
    "ii", 1, 0
)  # or the system would keep what is unread for the client to come for it


@dataclass(frozen=True)
class Patience:
    """How long the server waits for a client."""

    head_seconds: float = 15.0  # until the head of a request is there
    body_seconds: float = 30.0  # from then on until all of it is
    reader_seconds: float = 60.0  # for any progress in reading an answer


class Connections:
    """All connections that are open."""

    def __init__(self, most: int, patience: Patience) -> None:
        self._most = most
        self._patience = patience
        self._open: dict[Connection, None] = {}  # the oldest first

    def protocol(self) -> type[asyncio.Protocol]:
        """Return the kind of connection that uvicorn is to make."""
        connections = self

        class Counted(Connection):
            all_connections = connections

        return Counted

    def admit(self, connection: Connection) -> bool:
        """Return whether a connection may stay."""
        if len(self._open) >= self._most and not self._make_room():
            return False
        self._open[connection] = None
        return True

    def forget(self, connection: Connection) -> None:
        """Note that a connection is over."""
        self._open.pop(connection, None)

    def abort_all(self) -> None:
        """Cut off whoever is still there."""
        for connection in tuple(self._open):
            connection.cut_off()

    async def watch(self) -> None:
        """Cut off, as long as this runs, who lets the server wait for too long."""
        patience = self._patience
        pause = min(patience.head_seconds, patience.reader_seconds) / _LOOKS_PER_PATIENCE
        while True:
            await anyio.sleep(pause)
            now = time.monotonic()
            for connection in tuple(self._open):
                if connection.too_slow(now, patience):
                    connection.cut_off()

    def _make_room(self) -> bool:
        idle = [each for each in self._open if each.idle_since is not None]
        if not idle:
            return False
        longest = min(idle, key=lambda each: each.idle_since or 0.0)
        self.forget(longest)
        longest.cut_off()
        return True


class Connection(H11Protocol):
    """One connection, which knows for how long it has been waiting for its client."""

    all_connections: Connections
    transport: asyncio.Transport

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        super().connection_made(transport)
        self.idle_since: float | None = time.monotonic()
        self._unread, self._read_at = 0, time.monotonic()
        if not self.all_connections.admit(self):
            transport.write(_FULL)
            transport.close()

    def connection_lost(self, exc: Exception | None) -> None:
        self.all_connections.forget(self)
        super().connection_lost(exc)

    def handle_events(self) -> None:
        super().handle_events()
        if not getattr(self.cycle, "response_complete", True):
            self.idle_since = None

    def on_response_complete(self) -> None:
        self.idle_since = time.monotonic()
        super().on_response_complete()

    def cut_off(self) -> None:
        """End the connection now, with all that is still to be sent on it."""
        plain: socket.socket | None = self.transport.get_extra_info("socket")
        if plain is not None and plain.fileno() >= 0:
            plain.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, _NO_LINGERING)
        self.transport.abort()

    def too_slow(self, now: float, patience: Patience) -> bool:
        """Return whether the client of this connection lets the server wait for too long."""
        unread = self.transport.get_write_buffer_size()
        if unread == 0 or unread < self._unread:
            self._read_at = now
        self._unread = unread
        if now - self._read_at > patience.reader_seconds:
            return True
        return not unread and self.idle_since is not None and now - self.idle_since > patience.head_seconds
