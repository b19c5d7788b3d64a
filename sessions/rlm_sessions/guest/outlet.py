"""The one way out of the guest: frames and printed text, from any thread, in order.

Printed text is gathered for a moment, so that a loop of prints costs little, and
sent as it grows or when the reader thread calls `flush`. A frame is sent whole or
not at all: an interrupt that arrives meanwhile is held back until it is out.
"""

from __future__ import annotations

import io
import threading
import time
from collections import deque
from collections.abc import Iterable
from typing import Any, Callable

from .interrupts import Interrupts
from .wire import Frame, encode

_GATHER_BYTES = 64 * 1024
_GATHER_SECONDS = 0.02


class OutputLimit(BaseException):
    """A cell printed more than it may. Not an `Exception`, so that code which catches those stops too."""


class Outlet:
    """Sends frames, and text that was printed, for the cell that runs."""

    def __init__(self, send: Callable[[bytes], None], token: bytes, interrupts: Interrupts) -> None:
        self._send = send
        self._token = token
        self._interrupts = interrupts
        self._lock = threading.RLock()
        self._gathered: deque[tuple[str, str]] = deque()  # appended to by any thread, without the lock
        self._gathered_size = 0
        self._sent_at = 0.0
        self._cell = 0
        self._left = 0

    def mute(self) -> None:
        """Send nothing any more: this process is a copy, and the way out is the original's."""
        self._lock = threading.RLock()  # another thread may have held it, and is not here
        self._send = lambda data: None

    def begin_cell(self, cell: int, output_bytes: int) -> None:
        """Count what is printed from now on for `cell`."""
        with self._lock:
            self._cell = cell
            self._left = output_bytes

    def frame(self, kind: str, body: bytes = b"", **facts: Any) -> None:
        """Send one frame, after everything printed before it."""
        data = encode(self._token, Frame(kind, facts, body))
        with self._interrupts.held(), self._lock:
            self._flush()
            self._send(data)

    def write(self, stream: str, text: str) -> None:
        """Print `text`; raise `OutputLimit` once the cell has printed all it may.

        A loop of prints spends its time in here. Nothing is lost or torn where threads or an interrupt come
        in between; only the counts may be off by what was printed in that moment.
        """
        size = len(text)
        left = self._left = self._left - size
        if left < 0:
            self._write_last(stream, text, left + size)
            return
        self._gathered.append((stream, text))
        self._gathered_size += size
        if self._gathered_size >= _GATHER_BYTES or (
            text.endswith("\n") and time.monotonic() - self._sent_at > _GATHER_SECONDS
        ):
            self.flush()

    def _write_last(self, stream: str, text: str, room: int) -> None:
        """Print as much of `text` as there is room for, and end the cell."""
        if not text:
            return
        if room > 0:
            self._gathered.append((stream, text[:room]))
        self.flush()
        raise OutputLimit

    def flush(self) -> None:
        """Send what was printed and not sent yet."""
        with self._interrupts.held(), self._lock:
            self._flush()

    def _flush(self) -> None:
        if not self._gathered:
            return
        for stream, text in self._taken():
            for piece in _pieces(text, 1 << 20):
                facts = {"cell": self._cell, "stream": stream}
                body = piece.encode("utf-8", "backslashreplace")
                self._send(encode(self._token, Frame("output", facts, body)))
        self._sent_at = time.monotonic()

    def _taken(self) -> list[tuple[str, str]]:
        """Take what was gathered, what went to the same stream together."""
        self._gathered_size = 0
        taken: list[tuple[str, list[str]]] = []
        while self._gathered:
            stream, text = self._gathered.popleft()
            if not taken or taken[-1][0] != stream:
                taken.append((stream, []))
            taken[-1][1].append(text)
        return [(stream, "".join(texts)) for stream, texts in taken]


def _pieces(text: str, size: int) -> Iterable[str]:
    return (text[start : start + size] for start in range(0, len(text), size))


class Printed(io.TextIOBase):
    """What `sys.stdout` and `sys.stderr` are inside the guest."""

    encoding = "utf-8"
    errors = "backslashreplace"

    def __init__(self, outlet: Outlet, stream: str) -> None:
        self._outlet = outlet
        self._stream = stream
        self.name = f"<std{stream}>"

    @property
    def buffer(self) -> Any:
        """A binary file, for code that writes bytes."""
        return _PrintedBytes(self)

    def writable(self) -> bool:
        return True

    def write(self, text: str) -> int:
        if not isinstance(text, str):  # pyright: ignore[reportUnnecessaryIsInstance] -- a cell passes anything
            raise TypeError(f"write() argument must be str, not {type(text).__name__}")
        self._outlet.write(self._stream, text)
        return len(text)

    def flush(self) -> None:
        self._outlet.flush()

    def close(self) -> None:
        """Do nothing: the next cell prints as well."""


class _PrintedBytes(io.RawIOBase):
    def __init__(self, text: Printed) -> None:
        self._text = text

    def writable(self) -> bool:
        return True

    def write(self, data: Any) -> int:
        content = bytes(data)
        self._text.write(content.decode("utf-8", "backslashreplace"))
        return len(content)


class NoInput(io.TextIOBase):
    """What `sys.stdin` is inside the guest: nobody is there to type."""

    encoding = "utf-8"

    def readable(self) -> bool:
        return True

    def readline(self, size: int = -1) -> str:  # type: ignore[override]
        raise EOFError(_NO_INPUT)

    def read(self, size: int | None = -1) -> str:
        raise EOFError(_NO_INPUT)


_NO_INPUT = (
    "nobody can type an answer here: a cell gets no standard input. "
    "Put the value into a variable, or pass it in the code."
)
