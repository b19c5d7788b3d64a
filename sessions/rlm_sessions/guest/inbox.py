"""What comes to the guest: bytes from the host, and what is printed past Python.

POSIX systems can wait for both at once. On Windows a pipe is waited for by
reading it, so there a thread reads each and hands on what it got.
"""

from __future__ import annotations

import _thread
import os
import queue
import select
import sys
from typing import Any, Callable

_READ_BYTES = 1 << 16


class Inbox:
    """Waits for the host and for printed text, where both can be waited for."""

    def __init__(self, channel: Any, printed: int) -> None:
        os.set_blocking(printed, False)
        self._channel = channel
        self._printed = printed
        self._poll = select.poll()
        for fd in (channel.fileno(), printed):
            self._poll.register(fd, select.POLLIN)

    def wait(self, milliseconds: int | None) -> list[bytes | None]:
        """Return what the host sent, b"" if it is gone, and None for something printed, as soon as there is any."""
        ready = self._poll.poll(milliseconds)
        return [None if fd == self._printed else self._channel.receive(_READ_BYTES) for fd, _ in ready]

    def printed(self) -> bytes:
        """Return what was printed and not returned yet; never wait."""
        try:
            return os.read(self._printed, _READ_BYTES)
        except BlockingIOError:
            return b""


class ThreadedInbox:
    """Waits for the host and for printed text, where a pipe must be read to be waited for."""

    def __init__(self, channel: Any, printed: int) -> None:
        self._arrived: queue.SimpleQueue[bytes | None] = queue.SimpleQueue()
        self._printed: queue.SimpleQueue[bytes] = queue.SimpleQueue()
        _thread.start_new_thread(self._read, (lambda: channel.receive(_READ_BYTES), self._arrived.put))
        _thread.start_new_thread(self._read, (lambda: os.read(printed, _READ_BYTES), self._take_printed))

    def _read(self, read: Callable[[], bytes], put: Callable[[bytes], None]) -> None:
        data = b"."
        while data:
            try:
                data = read()
            except OSError:
                data = b""
            put(data)

    def _take_printed(self, data: bytes) -> None:
        self._printed.put(data)
        self._arrived.put(None)

    def wait(self, milliseconds: int | None) -> list[bytes | None]:
        try:
            return [self._arrived.get(timeout=None if milliseconds is None else milliseconds / 1000)]
        except queue.Empty:
            return []

    def printed(self) -> bytes:
        try:
            return self._printed.get_nowait()
        except queue.Empty:
            return b""


def open_inbox(channel: Any, printed: int) -> Any:
    """Return the inbox that this system can have."""
    return ThreadedInbox(channel, printed) if sys.platform == "win32" else Inbox(channel, printed)
