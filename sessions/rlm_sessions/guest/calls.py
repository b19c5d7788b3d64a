"""Calls: questions that code in a cell asks the host, and their answers.

`call` waits, `call_many` asks everything at once and waits for all, `call_async`
is for `await`. Each works from any thread. What the questions mean is the host's.
"""

from __future__ import annotations

import asyncio
import itertools
import json
import sys
import threading
from collections.abc import Iterable
from concurrent.futures import Future, wait
from typing import Any, Callable

from .failures import CallFailed, failure
from .outlet import Outlet


class Calls:
    """Asks the host, and hands each answer to who waits for it."""

    def __init__(self, outlet: Outlet, hurry: Callable[[], None]) -> None:
        self._outlet = outlet
        self._hurry = hurry
        self._numbers = itertools.count(1)
        self._waiting: dict[int, Future[Any]] = {}
        self._lock = threading.Lock()
        self.cell = 0

    def call(self, name: str, payload: Any = None) -> Any:
        """Ask the host and return its answer; raise `CallFailed` if it has none."""
        future = self._ask(name, payload)
        self._hurry()
        return wait_for(future)

    def call_many(self, calls: Iterable[tuple[str, Any]]) -> list[Any]:
        """Ask everything at once; return the answers in order, `CallFailed` in place of a failed one."""
        futures = [self._ask(name, payload) for name, payload in calls]
        self._hurry()  # not before: who asks and who reads the answers would be in each other's way
        return [_outcome(future) for future in futures]

    async def call_async(self, name: str, payload: Any = None) -> Any:
        """Ask the host without holding up other tasks; for `await`."""
        future = self._ask(name, payload)
        self._hurry()
        return await asyncio.wrap_future(future)

    def _ask(self, name: str, payload: Any) -> Future[Any]:
        return self.ask(name, json.dumps(payload).encode())

    def ask(self, name: str, body: bytes) -> Future[Any]:
        """Ask the host, without seeing to it that the answer is read at once: `hurry` does."""
        future: Future[Any] = Future()
        with self._lock:
            number = next(self._numbers)
            self._waiting[number] = future
        self._outlet.frame("call", body, cell=self.cell, call=number, name=str(name))
        return future

    def hurry(self) -> None:
        """Have the answers to what was asked read at once."""
        self._hurry()

    def answer(self, number: int, problem: str, body: bytes) -> None:
        """Hand over the host's answer; a cell that has ended no longer waits for its own."""
        with self._lock:
            future = self._waiting.pop(number, None)
        if future is None or not future.set_running_or_notify_cancel():
            return
        content = json.loads(body)
        if problem:
            future.set_exception(failure(problem, str(content)))
        else:
            future.set_result(content)

    def forget(self) -> None:
        """Nobody waits any more: the cell is over."""
        with self._lock:
            waiting, self._waiting = self._waiting, {}
        for future in waiting.values():
            future.cancel()


def wait_for(future: Future[Any]) -> Any:
    """Wait for an answer. Windows lets no interrupt through meanwhile, so there it is waited for in pieces."""
    while sys.platform == "win32" and not future.done():
        wait([future], timeout=0.1)
    return future.result()


def _outcome(future: Future[Any]) -> Any:
    try:
        return wait_for(future)
    except CallFailed as problem:
        return problem


__all__ = ["CallFailed", "Calls", "wait_for"]
