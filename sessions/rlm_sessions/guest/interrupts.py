"""Interrupts of the running cell: they reach the code in it, and never our own code at a bad moment."""

from __future__ import annotations

import signal
import threading
from collections.abc import Generator
from contextlib import contextmanager
from typing import Any


class Interrupts:
    """Turns SIGINT into `KeyboardInterrupt` in the main thread, while a cell runs and not otherwise.

    Within `held()` an interrupt waits for the end of the block.
    """

    def __init__(self) -> None:
        self._main = threading.main_thread().ident
        self._open = False
        self._held = 0
        self._pending = False

    def install(self) -> None:
        """Take SIGINT over. Cells may do so too; those that do are killed when they do not stop."""
        signal.signal(signal.SIGINT, self._arrive)

    def _arrive(self, *_: Any) -> None:
        if not self._open:
            return
        if self._held:
            self._pending = True
        else:
            raise KeyboardInterrupt

    @contextmanager
    def let_in(self) -> Generator[None, None, None]:
        """Let interrupts reach what runs in this block."""
        self._pending = False
        self._open = True
        try:
            yield
        finally:
            self._open = False

    def held(self) -> _Held:
        """Hold interrupts back for the length of a block."""
        return _Held(self)

    def hold(self) -> bool:
        if threading.get_ident() != self._main:
            return False
        self._held += 1
        return True

    def release(self) -> None:
        self._held -= 1
        if self._pending and not self._held and self._open:
            self._pending = False
            raise KeyboardInterrupt


class _Held:
    """The block of `Interrupts.held`; a class, because a generator would cost several times as much."""

    __slots__ = ("_counted", "_interrupts")

    def __init__(self, interrupts: Interrupts) -> None:
        self._interrupts = interrupts

    def __enter__(self) -> None:
        self._counted = self._interrupts.hold()

    def __exit__(self, *_: object) -> None:
        if self._counted:
            self._interrupts.release()
