"""Tells clients now and then that a cell is at work, with the last line that it printed.

One task does it for all calls, while there are any: most are over before there is anything to tell, and
should not pay for it.
"""

from __future__ import annotations

from collections.abc import Callable, Generator
from contextlib import contextmanager
from typing import Protocol

import anyio
import anyio.abc

FIRST_SECONDS, EVERY_SECONDS = 0.5, 1.0
MOST_CHARACTERS = 200
_LOOK_SECONDS, _IDLE_LOOKS = 0.25, 20
_TAIL_CHARACTERS = 1000


class Listener(Protocol):
    """Who hears how a call goes on."""

    async def progress(self, done: float, message: str) -> None:
        """Hear it. It must not be called again before it has returned."""
        ...


class Teller:
    """What there is to tell of one call."""

    def __init__(self, listener: Listener, otherwise: Callable[[float], str]) -> None:
        self.began = anyio.current_time()
        self.over = False
        self._listener = listener
        self._otherwise = otherwise
        self._tail = ""
        self._due = self.began + FIRST_SECONDS
        self._telling = False

    async def hear(self, stream: str, text: str) -> None:
        """Take in what the cell printed."""
        self._tail = (self._tail + text[-_TAIL_CHARACTERS:])[-_TAIL_CHARACTERS:]

    def is_due(self, now: float) -> bool:
        """Return whether it is time to tell again, and nobody is still being told."""
        return now >= self._due and not self._telling and not self.over

    async def tell(self) -> None:
        """Tell it."""
        self._telling, self._due = True, anyio.current_time() + EVERY_SECONDS
        try:
            seconds = anyio.current_time() - self.began
            await self._listener.progress(round(seconds, 1), self._message(seconds)[:MOST_CHARACTERS])
        finally:
            self._telling = False

    def _message(self, seconds: float) -> str:
        lines = [line for line in self._tail.splitlines() if line.strip()]
        return lines[-1].strip() if lines else self._otherwise(seconds)


class Progress:
    """The calls at work of which somebody may want to hear."""

    def __init__(self, tasks: anyio.abc.TaskGroup) -> None:
        self._tasks = tasks
        self._tellers: set[Teller] = set()
        self._at_work = False
        self._scope = anyio.CancelScope()

    @contextmanager
    def of_call(self, listener: Listener, otherwise: Callable[[float], str]) -> Generator[Teller]:
        """Tell `listener` how a call goes on, during a block; `otherwise` is said where nothing was printed."""
        teller = Teller(listener, otherwise)
        self._tellers.add(teller)
        if not self._at_work:
            self._at_work = True
            self._tasks.start_soon(self._look_after)
        try:
            yield teller
        finally:
            teller.over = True
            self._tellers.discard(teller)

    def close(self) -> None:
        """End the task."""
        self._scope.cancel()

    async def _look_after(self) -> None:
        try:
            with self._scope:
                await self._look_while_needed()
        finally:
            self._at_work, self._scope = False, anyio.CancelScope()

    async def _look_while_needed(self) -> None:
        idle = 0
        while idle < _IDLE_LOOKS:  # ending and starting it again with each call costs more than a look
            await anyio.sleep(_LOOK_SECONDS)
            idle = 0 if self._tellers else idle + 1
            for teller in [each for each in self._tellers if each.is_due(anyio.current_time())]:
                self._tasks.start_soon(self._tell, teller)

    async def _tell(self, teller: Teller) -> None:
        with anyio.move_on_after(EVERY_SECONDS * 10):
            try:
                await teller.tell()
            except Exception:  # noqa: BLE001 -- a client that is gone is heard of elsewhere
                teller.over = True
