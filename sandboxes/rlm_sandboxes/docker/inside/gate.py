"""The gate: the kernel asks here about every copy that the program would make of itself.

The program may start no process. But to tell what it holds while it goes on, it makes a copy of itself, with
leave: one at a time, for a bounded time. The host gives leave by a signal, which is believed only where the
kernel says that nobody in the container sent it.
"""

from __future__ import annotations

import os
import signal
import time
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from ...local.jail import questions
else:
    from rlm_jail import questions

LEAVE = signal.SIGUSR1  # as in processes.py
_LEAVE_SECONDS = 0.2  # the program asks again, should the host's word take longer
_COPY_SECONDS = 120.0
_SENT_BY_KILL, _SENT_FROM_OUTSIDE = 0, 0


class Gate:
    """Answers what the kernel asks about the process `program`, at the descriptor `listener`."""

    def __init__(self, program: int, listener: int) -> None:
        self.listener = listener
        self._program = program
        self._tried = False
        self._over_at: float | None = None

    def answer(self) -> None:
        """Answer one question."""
        question = questions.receive(self.listener)
        if question is None:
            return
        let = question.asking == self._program and not self._is_first() and self._has_leave()
        if questions.answer(self.listener, question, let=let):
            self._over_at = time.monotonic() + _COPY_SECONDS

    def _is_first(self) -> bool:
        """Whether this is the question by which the program tries that copies are refused."""
        tried, self._tried = self._tried, True
        return not tried

    def _has_leave(self) -> bool:
        return not others(self._program) and _host_gives_leave()

    def bound(self) -> float | None:
        """End a copy that does not end by itself; return in how many milliseconds to look again."""
        if self._over_at is None:
            return None
        left = self._over_at - time.monotonic()
        if left > 0:
            return left * 1000
        self._over_at = None
        for pid in others(self._program):
            try:
                os.kill(pid, signal.SIGKILL)
            except ProcessLookupError:
                continue
        return None


def others(program: int) -> list[int]:
    """Return the processes of the container that are neither the program nor the guard."""
    return [int(name) for name in os.listdir("/proc") if name.isdigit() and int(name) not in (1, program)]


def _host_gives_leave() -> bool:
    deadline = time.monotonic() + _LEAVE_SECONDS
    while (left := deadline - time.monotonic()) > 0:
        told = signal.sigtimedwait({LEAVE}, left)
        if told is not None and (told.si_code, told.si_pid) == (_SENT_BY_KILL, _SENT_FROM_OUTSIDE):
            return True
    return False
