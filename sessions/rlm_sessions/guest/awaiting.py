"""Waiting for an answer as the code that asked can: at once, or by `await` where an event loop runs in its thread."""

from __future__ import annotations

import asyncio
from collections.abc import Generator
from concurrent.futures import Future
from typing import Any, Callable

from .calls import wait_for


class Awaited(asyncio.Future):  # type: ignore[type-arg]
    """An answer that is on its way; `await` gives it. It was asked for already, whoever awaits it and when.

    It serves wherever a future does, and with `send`, `throw` and `close` wherever a coroutine does:
    `create_task` takes nothing else. One that nobody awaits says nothing at its end.
    """

    _steps: Generator[Any, None, Any] | None = None

    def _take_over(self, answered: Future[Any]) -> None:
        """Take over what was answered."""
        if self.done():
            return
        if answered.cancelled():
            self.cancel()
            return
        problem = answered.exception()
        if problem is None:
            self.set_result(answered.result())
            return
        self.set_exception(problem)
        self.exception()  # as if somebody had looked: asyncio need not report it

    def send(self, value: Any) -> Any:
        if self._steps is None:
            self._steps = self.__await__()
        return self._steps.send(value)

    def throw(self, *problem: Any) -> Any:
        if self._steps is None:
            self._steps = self.__await__()
        return self._steps.throw(*problem)

    def close(self) -> None:
        """Do nothing: what was asked is asked."""

    def __repr__(self) -> str:
        return f"<an answer that is {'here' if self.done() else 'on its way'}: await it>"


def handed_over(answered: Future[Any], *, unwanted: Callable[[], None] = lambda: None) -> Any:
    """Return what is answered, or an awaitable of it in a thread with a running event loop.

    `unwanted` is called if that is cancelled.
    """
    loop = asyncio._get_running_loop()
    if loop is None:
        return wait_for(answered)
    awaited = _awaitable(answered, loop)
    awaited.add_done_callback(lambda _: unwanted() if awaited.cancelled() else None)
    return awaited


def _awaitable(answered: Future[Any], loop: asyncio.AbstractEventLoop) -> Awaited:
    awaited = Awaited(loop=loop)

    def tell(_: Future[Any]) -> None:
        try:
            loop.call_soon_threadsafe(awaited._take_over, answered)
        except RuntimeError:
            pass  # the loop is closed, and nobody can wait in it any more

    answered.add_done_callback(tell)
    return awaited


def changed(answered: Future[Any], change: Callable[[Any], Any]) -> Future[Any]:
    """Return a future of what `change` makes of an answer."""
    future: Future[Any] = Future()

    def take(_: Future[Any]) -> None:
        if answered.cancelled():
            future.cancel()
        elif answered.exception() is not None:
            future.set_exception(answered.exception())
        else:
            future.set_result(change(answered.result()))

    answered.add_done_callback(take)
    return future
