"""The one way out of the guest: frames and printed text, from any thread, in order.

Printed text is gathered for a moment, so that a loop of prints costs little, and
sent as it grows or when the reader thread calls `flush`. A frame is sent whole or
not at all: an interrupt that arrives meanwhile is held back until it is out.
"""

from __future__ import annotations

import io
import threading
import time
from collections.abc import Iterable
from typing import Any, Callable

from .interrupts import Interrupts
from .wire import Frame, encode

_GATHER_BYTES = 8192
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
        self._gathered: list[str] = []
        self._gathered_size = 0
        self._gathered_stream = "out"
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
        """Print `text`; raise `OutputLimit` once the cell has printed all it may."""
        held = self._interrupts.hold()  # no `with`: this is what a loop of prints spends its time in
        try:
            with self._lock:
                room = self._left
                self._left -= len(text)
                if room <= 0 < len(text):
                    raise OutputLimit
                self._gather(stream, text[:room] if len(text) > room else text)
                if self._left < 0:
                    self._flush()
                    raise OutputLimit
        finally:
            if held:
                self._interrupts.release()

    def _gather(self, stream: str, text: str) -> None:
        if stream != self._gathered_stream:
            self._flush()
            self._gathered_stream = stream
        self._gathered.append(text)
        self._gathered_size += len(text)
        is_line = text.endswith("\n") and time.monotonic() - self._sent_at > _GATHER_SECONDS
        if is_line or self._gathered_size >= _GATHER_BYTES:
            self._flush()

    def flush(self) -> None:
        """Send what was printed and not sent yet."""
        with self._interrupts.held(), self._lock:
            self._flush()

    def _flush(self) -> None:
        if not self._gathered:
            return
        text, stream = "".join(self._gathered), self._gathered_stream
        self._gathered.clear()
        self._gathered_size = 0
        for piece in _pieces(text, 1 << 20):
            facts = {"cell": self._cell, "stream": stream}
            self._send(encode(self._token, Frame("output", facts, piece.encode("utf-8", "backslashreplace"))))
        self._sent_at = time.monotonic()


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
