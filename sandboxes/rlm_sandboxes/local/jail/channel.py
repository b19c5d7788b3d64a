"""How the program in a worker speaks with the host: bytes, each way, in order.

Two kinds with one shape. `GuardedChannel` goes through descriptors that the
seccomp filter keeps from everything but the calls made here (see `seccomp.py`);
`PlainChannel` is for where there is no such filter.

Beside the channel there is a second way out, `side`, for bytes that somebody else
than the host's event loop may read. `copies` says whether the program may fork a
copy of itself when the host lets it.
"""

from __future__ import annotations

import ctypes
import errno
import os

from . import system

FINISHING = "rlm finishing"
_PR_SET_NAME = 15
_RECEIVE_BYTES = 65536


def ask_for_time() -> None:
    """Say that this process has something to finish, should the host be gone: it then gets some seconds more."""
    name = ctypes.create_string_buffer(FINISHING.encode())
    system.prctl(_PR_SET_NAME, ctypes.addressof(name))


class PlainChannel:
    """A channel over descriptors that any code in the process could use as well."""

    ask_for_time = staticmethod(ask_for_time)

    def __init__(self, reader: int, writer: int, side: int | None = None, *, copies: bool = False) -> None:
        self._reader = reader
        self._writer = writer
        self.side = None if side is None else PlainChannel(side, side)
        self.copies = copies

    def fileno(self) -> int:
        """Return a descriptor that is readable when the host has sent something."""
        return self._reader

    def receive(self, size: int) -> bytes:
        """Return at most `size` bytes as soon as there are any; none at all when the host is gone."""
        try:
            return os.read(self._reader, size)
        except ConnectionResetError:
            return b""  # it went without having read all

    def send(self, data: bytes) -> None:
        """Send all of `data`."""
        view = memoryview(data)
        while view:
            view = view[os.write(self._writer, view) :]


class GuardedChannel:
    """A channel that only who knows the secret can use."""

    ask_for_time = staticmethod(ask_for_time)

    def __init__(self, fd: int, secret: int, side: int | None = None, *, copies: bool = False) -> None:
        self._fd = fd
        self._secret = secret
        self._buffer = ctypes.create_string_buffer(_RECEIVE_BYTES if side is not None else 1)
        self.side = None if side is None else GuardedChannel(side, secret)
        self.copies = copies

    def fileno(self) -> int:
        """Return a descriptor that is readable when the host has sent something."""
        return self._fd

    def receive(self, size: int) -> bytes:
        """Return at most `size` bytes as soon as there are any; none at all when the host is gone."""
        length = ctypes.c_size_t(min(size, _RECEIVE_BYTES))
        nowhere, secret = ctypes.c_void_p(None), ctypes.c_void_p(self._secret)
        while True:
            count = system.libc.recvfrom(self._fd, self._buffer, length, 0, nowhere, secret)
            if count >= 0:
                return ctypes.string_at(self._buffer, count)
            if ctypes.get_errno() == errno.ECONNRESET:
                return b""  # it went without having read all
            _raise_unless_interrupted()

    def send(self, data: bytes) -> None:
        """Send all of `data`."""
        sent, secret, nothing = 0, ctypes.c_void_p(self._secret), ctypes.c_uint(0)
        while sent < len(data):
            rest = data[sent:] if sent else data
            count = system.libc.sendto(self._fd, rest, ctypes.c_size_t(len(rest)), 0, secret, nothing)
            if count >= 0:
                sent += count
            else:
                _raise_unless_interrupted()


def _raise_unless_interrupted() -> None:
    code = ctypes.get_errno()
    if code != errno.EINTR:
        raise OSError(code, os.strerror(code))
