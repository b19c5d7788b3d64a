"""Writes in a thread of its own, one thing after the other, what the event loop must not wait for.

Handing a write of some microseconds to a pool of threads costs many times that, twice for each cell;
this thread is there already, and whoever does not need to know how it went does not wait.
"""

from __future__ import annotations

import logging
import queue
import threading
from collections.abc import Callable

import anyio
import anyio.from_thread
import anyio.lowlevel

_log = logging.getLogger(__name__)


class Scribe:
    """Does what it is given, in order. It ends with the process, or with `close`."""

    def __init__(self) -> None:
        self._work: queue.SimpleQueue[Callable[[], None] | None] = queue.SimpleQueue()
        self._thread: threading.Thread | None = None

    def soon(self, write: Callable[[], None]) -> None:
        """Have `write` done, without waiting for it. It must not raise."""
        if self._thread is None:
            self._thread = threading.Thread(target=self._run, name="scribe", daemon=True)
            self._thread.start()
        self._work.put(write)

    async def now(self, write: Callable[[], None]) -> None:
        """Have `write` done, and all that was given before it; raise what it raises."""
        token, done = anyio.lowlevel.current_token(), anyio.Event()
        problems: list[Exception] = []

        def tell() -> None:
            try:
                write()
            except Exception as problem:
                problems.append(problem)
            try:
                anyio.from_thread.run_sync(done.set, token=token)
            except RuntimeError:
                pass  # nobody is there any more who could wait

        self.soon(tell)
        with anyio.CancelScope(shield=True):
            await done.wait()
        if problems:
            raise problems[0]

    def close(self) -> None:
        """End the thread when it has done everything."""
        if self._thread is not None:
            self._work.put(None)

    def _run(self) -> None:
        while (write := self._work.get()) is not None:
            try:
                write()
            except Exception:
                _log.exception("Something could not be written.")
