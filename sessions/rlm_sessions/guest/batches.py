"""Many questions asked together: answers in order, failures in their places, and never too much under way."""

from __future__ import annotations

import threading
from collections.abc import Sequence
from concurrent.futures import Future
from typing import Any, Callable

from .calls import Calls
from .failures import CallFailed

_MOST_CALLS = 1_000  # under way at a time; the host takes more, but others may be asking as well
_MOST_BYTES = 16 * 1024 * 1024
_SHOWN = 60


class Answers(list):  # type: ignore[type-arg]
    """What came of many questions, in their order. A question that failed has its `CallFailed` in its place."""

    @property
    def failed(self) -> list[tuple[int, CallFailed]]:
        """Place and error of each question that failed."""
        return [(place, answer) for place, answer in enumerate(self) if isinstance(answer, CallFailed)]

    @property
    def ok(self) -> list[Any]:
        """The answers without those that failed."""
        return [answer for answer in self if not isinstance(answer, CallFailed)]

    def __repr__(self) -> str:
        count = f"{len(self)} answer{'' if len(self) == 1 else 's'}"
        failed = self.failed
        if failed:
            place, error = failed[0]
            return f"<{count}, {len(failed)} failed; [{place}]: {_short(error)}>"
        return f"<{count}; [0]: {_short(self[0])}>" if self else f"<{count}>"


def _short(value: Any) -> str:
    text = repr(value[: 2 * _SHOWN] if isinstance(value, str) else value)
    return text if len(text) <= _SHOWN else f"{text[:_SHOWN]}..."


class Batch:
    """Asks each of `questions`; `answers` is done when each has its answer or has failed.

    A question is a function that returns what is sent, or raises why it cannot be. It is called when its turn
    comes, in whichever thread sees that there is room.
    """

    def __init__(
        self,
        calls: Calls,
        name: str,
        questions: Sequence[Callable[[], bytes]],
        read: Callable[[Any], Any],
    ) -> None:
        self.answers: Future[Answers] = Future()
        self._calls = calls
        self._name = name
        self._read = read
        self._questions = questions
        self._found: list[Any] = [None] * len(questions)
        self._left = len(questions)
        self._next = 0
        self._under_way = 0
        self._bytes = 0
        self._over = False
        self._lock = threading.Lock()
        self._asking = threading.Lock()

    def begin(self) -> None:
        """Ask as much as may be under way at once."""
        if not self._questions:
            self._finish()
        self._go_on()
        self._calls.hurry()

    def give_up(self) -> None:
        """Ask nothing more: nobody waits."""
        self._over = True

    def _has_room(self) -> bool:
        return (
            not self._over
            and self._next < len(self._questions)
            and self._under_way < _MOST_CALLS
            and (self._bytes < _MOST_BYTES or not self._under_way)
        )

    def _go_on(self) -> None:
        """Ask what there is room for. One thread at a time does; it sees what others have finished meanwhile."""
        while self._has_room() and self._asking.acquire(blocking=False):
            try:
                while self._has_room():
                    self._ask_next()
            finally:
                self._asking.release()

    def _ask_next(self) -> None:
        place, self._next = self._next, self._next + 1
        try:
            body = self._questions[place]()
        except CallFailed as problem:
            self._put(place, problem)
            return
        except Exception as problem:  # it would be lost in the thread that sees it
            self._put(place, CallFailed(type(problem).__name__, str(problem)))
            return
        with self._lock:
            self._under_way += 1
            self._bytes += len(body)
        size = len(body)
        asked = self._calls.ask(self._name, body)
        asked.add_done_callback(lambda answered: self._take(place, size, answered))

    def _take(self, place: int, size: int, answered: Future[Any]) -> None:
        with self._lock:
            self._under_way -= 1
            self._bytes -= size
        if answered.cancelled():
            self._over = True
            self.answers.cancel()
            return
        problem = answered.exception()
        self._put(place, self._read(answered.result()) if problem is None else problem)
        self._go_on()

    def _put(self, place: int, found: CallFailed | Any) -> None:
        self._found[place] = found
        with self._lock:
            self._left -= 1
            is_last = not self._left
        if is_last:
            self._finish()

    def _finish(self) -> None:
        if not self.answers.done():
            self.answers.set_result(Answers(self._found))
