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
_GLANCE_SECONDS = 0.0005  # how long the event loop itself may wait; most writes take a tenth of that


class Scribe:
    """Does what it is given, in order. It ends with the process, or with `close`."""

    def __init__(self) -> None:
        self._work: queue.SimpleQueue[Callable[[], None] | None] = queue.SimpleQueue()
        self._thread: threading.Thread | None = None

    @property
    def behind(self) -> int:
        """About how much there is to do yet."""
        return self._work.qsize()

    def soon(self, write: Callable[[], None]) -> None:
        """Have `write` done, without waiting for it. It must not raise."""
        if self._thread is None:
            self._thread = threading.Thread(target=self._run, name="scribe", daemon=True)
            self._thread.start()
        self._work.put(write)

    async def now(self, write: Callable[[], None]) -> None:
        """Have `write` done, and all that was given before it; raise what it raises."""
        job = _Job(write)
        self.soon(job.run)
        if not job.done.acquire(timeout=_GLANCE_SECONDS):
            await job.wait()
        if job.problem is not None:
            raise job.problem

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


class _Job:
    """Something to be done for which somebody waits."""

    def __init__(self, write: Callable[[], None]) -> None:
        self.done = threading.Lock()
        self.done.acquire()
        self.problem: Exception | None = None
        self._write = write
        self._guard = threading.Lock()
        self._over = False
        self._tell: Callable[[], None] | None = None

    def run(self) -> None:
        """Do it, and tell who waits."""
        try:
            self._write()
        except Exception as problem:
            self.problem = problem
        with self._guard:
            self._over = True
        self.done.release()
        if self._tell is not None:
            self._tell()

    async def wait(self) -> None:
        """Return when it is done."""
        token, done = anyio.lowlevel.current_token(), anyio.Event()

        def tell() -> None:
            try:
                anyio.from_thread.run_sync(done.set, token=token)
            except RuntimeError:
                pass  # nobody is there any more who could wait

        with self._guard:
            if self._over:
                return
            self._tell = tell
        with anyio.CancelScope(shield=True):
            await done.wait()
