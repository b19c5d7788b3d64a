"""The gate: the kernel asks here about every copy that a worker would make of itself.

A worker may start no process. But to write down what it holds while it goes on, the program in it
makes a copy of itself, with leave: one at a time, for a bounded time.
"""

from __future__ import annotations

import os
import select
import signal
from pathlib import Path

import anyio
import anyio.to_thread

from .jail import questions

_LEAVE_SECONDS = 0.1  # the program's word that it is about to copy itself may come after the question
_COPY_SECONDS = 120.0


class Gate:
    """Answers what the kernel asks about the worker `pid`. It owns `listener`."""

    def __init__(self, listener: int, pid: int) -> None:
        self._listener = listener
        self._pid = pid
        self._leave = anyio.Event()
        self._scope = anyio.CancelScope()

    def let_one(self) -> None:
        """Let the worker copy itself once."""
        self._leave.set()

    def close(self) -> None:
        """Answer no more: the kernel then refuses by itself."""
        self._scope.cancel()

    async def serve(self) -> None:
        """Answer until closed."""
        try:
            with self._scope:
                async with anyio.create_task_group() as tasks:
                    while not self._is_over():
                        await anyio.wait_readable(self._listener)
                        if await self._answer():
                            tasks.start_soon(self._bound)
        except OSError:
            pass  # the worker is gone
        finally:
            os.close(self._listener)

    def _is_over(self) -> bool:
        """Return whether nobody is left who could ask."""
        poll = select.poll()
        poll.register(self._listener, 0)
        return bool(poll.poll(0))

    async def _answer(self) -> bool:
        """Answer one question; return whether a copy was let through."""
        question = questions.receive(self._listener)
        if question is None:
            return False
        let = question.asking == self._pid and await self._has_leave()
        return questions.answer(self._listener, question, let=let)

    async def _has_leave(self) -> bool:
        if await anyio.to_thread.run_sync(children, self._pid):
            return False
        with anyio.move_on_after(_LEAVE_SECONDS):
            await self._leave.wait()
        let, self._leave = self._leave.is_set(), anyio.Event()
        return let

    async def _bound(self) -> None:
        """End a copy that does not end by itself."""
        await anyio.sleep(_COPY_SECONDS)
        await anyio.to_thread.run_sync(_kill_children, self._pid)


def _kill_children(pid: int) -> None:
    for child in children(pid):
        try:
            handle = os.pidfd_open(child)
        except OSError:
            continue
        try:
            if child in children(pid):  # still; the number might be another's by now
                signal.pidfd_send_signal(handle, signal.SIGKILL)
        finally:
            os.close(handle)


def children(pid: int) -> list[int]:
    """Return the processes that the main thread of `pid` has started."""
    try:
        return [int(word) for word in Path(f"/proc/{pid}/task/{pid}/children").read_text().split()]
    except OSError:
        return []
