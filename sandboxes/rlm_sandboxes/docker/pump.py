"""The pump: a process that passes on what programs in containers tell of their state, also when the server is gone.

    server -> pump    for each container one byte and three descriptors: the engine's stream of what the
                      program tells, where its state is to go, where the words of a crash are to go

It runs by itself, with nothing but the standard library, and ends when the server and all programs have.
"""

from __future__ import annotations

import signal
import socket
import sys
import threading
from typing import Protocol

END_SECONDS = 25
_READ_BYTES = 1 << 18
_HEADER_BYTES, _LENGTH_AT = 8, 4
_HEAD_BYTES = 4  # of a part; as in inside/channel.py
_WORDS_BYTES, _MOST_PART_BYTES = 4000, 1 << 16


class Stream(Protocol):
    """What is needed of the engine's stream."""

    def recv(self, size: int, /) -> bytes:
        """Return the next bytes, or none at the end."""
        ...

    def close(self) -> None:
        """Give it back."""
        ...


def main(orders_fd: int) -> None:
    """Serve the server at the other end of `orders_fd`."""
    for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
        signal.signal(number, signal.SIG_IGN)  # it ends when all is passed on, and not before
    orders = socket.socket(fileno=orders_fd)
    while True:
        data, descriptors, _, _ = socket.recv_fds(orders, 1, 3, getattr(socket, "MSG_CMSG_CLOEXEC", 0))
        if not data:
            break
        ends = [socket.socket(fileno=descriptor) for descriptor in descriptors]
        for end in ends:
            end.setblocking(True)
        threading.Thread(target=pass_on, args=ends, daemon=True).start()
    signal.alarm(END_SECONDS)
    for thread in threading.enumerate():
        if thread is not threading.current_thread():
            thread.join()


def pass_on(stream: Stream, state: socket.socket, crash: socket.socket) -> None:
    """Pass on what one program tells, until it is over."""
    payload, parts = Payload(), Parts()
    try:
        with state:
            while data := _receive(stream):
                _send(state, parts.feed(payload.feed(data)))
    finally:
        stream.close()
        with crash:
            _send(crash, parts.words)


def _receive(stream: Stream) -> bytes:
    try:
        return stream.recv(_READ_BYTES)
    except OSError:
        return b""


def _send(end: socket.socket, data: bytes) -> None:
    try:
        end.sendall(data)
    except OSError:
        pass  # nobody wants it any more, but the program must not wait for that


class Payload:
    """Takes away the headers of an engine's stream: of eight bytes each, which kind of output it is and how much."""

    def __init__(self) -> None:
        self._header = b""
        self._left = 0

    def feed(self, data: bytes) -> bytes:
        """Return what of `data` is no header."""
        if self._left >= len(data):
            self._left -= len(data)
            return data
        found: list[bytes] = []
        start = 0
        while start < len(data):
            if self._left:
                found.append(data[start : start + self._left])
                start += len(found[-1])
                self._left -= len(found[-1])
                continue
            missing = _HEADER_BYTES - len(self._header)
            self._header += data[start : start + missing]
            start += missing
            if len(self._header) == _HEADER_BYTES:
                self._left = int.from_bytes(self._header[_LENGTH_AT:], "big")
                self._header = b""
        return b"".join(found)


class Parts:
    """Tells the parts of a state from the words of a crash, whose end is in `words`."""

    def __init__(self) -> None:
        self.words: bytes = b""
        self._held: bytes = b""

    def feed(self, data: bytes) -> bytes:
        """Return what of the state has come."""
        data = self._held + data
        found: list[bytes] = []
        start = 0
        while start < len(data):
            if data[start]:
                end = data.find(b"\0", start)
                end = len(data) if end < 0 else end
                self.words = (self.words + data[start:end])[-_WORDS_BYTES:]
            else:
                body = start + _HEAD_BYTES
                end = body + int.from_bytes(data[start + 1 : body], "big")
                if len(data) < body or len(data) < end <= body + _MOST_PART_BYTES:
                    break  # what is longer than any part makes no sense, as its reader will see
                found.append(data[body:end])
            start = end
        self._held = data[start:]
        return b"".join(found)


if __name__ == "__main__":
    main(int(sys.argv[1]))
