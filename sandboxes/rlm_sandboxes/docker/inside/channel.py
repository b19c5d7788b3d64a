"""How a program in a container speaks with the host: bytes over pipes, each way in order.

The second way out shares its pipe with the words of a crash, which are plain text. What goes there is therefore
cut into parts with a head that no text has.
"""

from __future__ import annotations

import ctypes
import os

FINISHING = "rlm finishing"
_PR_SET_NAME = 15
_RECEIVE_BYTES = 65536
_PART_BYTES = 65536 - 4  # with a head as in pump.py
_FIRST_TO_GO = b"1000"


class SideChannel:
    """A way out, by which a program and a copy of it tell what they hold."""

    def __init__(self, writer: int) -> None:
        self._writer = writer

    def send(self, data: bytes) -> None:
        """Send all of `data`."""
        for start in range(0, len(data), _PART_BYTES):
            part = data[start : start + _PART_BYTES]
            _write(self._writer, b"\0" + len(part).to_bytes(3, "big") + part)


class PipeChannel:
    """A channel over descriptors that any code in the process could use as well."""

    def __init__(self, reader: int, writer: int, side: int | None = None, *, copies: bool = False) -> None:
        self._reader = reader
        self._writer = writer
        self.side = None if side is None else SideChannel(side)
        self.copies = copies

    def fileno(self) -> int:
        """Return a descriptor that is readable when the host has sent something."""
        return self._reader

    def receive(self, size: int) -> bytes:
        """Return at most `size` bytes as soon as there are any; none at all when the host is gone."""
        return os.read(self._reader, min(size, _RECEIVE_BYTES))

    def send(self, data: bytes) -> None:
        """Send all of `data`."""
        _write(self._writer, data)

    def ask_for_time(self) -> None:
        """Say that this process has something to finish, should the host be gone: it then gets some seconds more."""
        name = ctypes.create_string_buffer(FINISHING.encode())
        ctypes.CDLL(None).prctl(_PR_SET_NAME, name, None, None, None)
        if os.getppid() != 1:
            _be_first_to_go()


def _write(writer: int, data: bytes) -> None:
    view = memoryview(data)
    while view:
        view = view[os.write(writer, view) :]


def _be_first_to_go() -> None:
    """Have the kernel end this copy, and not the program, where there is not enough memory for both."""
    try:
        with open("/proc/self/oom_score_adj", "wb") as file:
            file.write(_FIRST_TO_GO)
    except OSError:
        pass
