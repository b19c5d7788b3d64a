"""How a program in a container speaks with the host: bytes over two pipes, each way in order."""

from __future__ import annotations

import os

_RECEIVE_BYTES = 65536


class PipeChannel:
    """A channel over descriptors that any code in the process could use as well."""

    def __init__(self, reader: int, writer: int) -> None:
        self._reader = reader
        self._writer = writer

    def fileno(self) -> int:
        """Return a descriptor that is readable when the host has sent something."""
        return self._reader

    def receive(self, size: int) -> bytes:
        """Return at most `size` bytes as soon as there are any; none at all when the host is gone."""
        return os.read(self._reader, min(size, _RECEIVE_BYTES))

    def send(self, data: bytes) -> None:
        """Send all of `data`."""
        view = memoryview(data)
        while view:
            view = view[os.write(self._writer, view) :]

    def ask_for_time(self) -> None:
        """Do nothing: with the host, nobody is left to whom something could be told."""
