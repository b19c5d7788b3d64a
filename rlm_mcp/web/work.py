"""Which requests are at work, so that a server that is to stop can wait for them, and then end them.

Each answer that was begun is brought to a proper end, so that a client sees a server that stopped and not one
that broke.
"""

from __future__ import annotations

from collections.abc import Generator
from contextlib import contextmanager

import anyio
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from .answers import interrupted, stopping
from .limits import is_standing


class Work:
    """What is being done, and whether anything new may begin."""

    def __init__(self) -> None:
        self.stopping = False
        self._calls = _Count()
        self._requests = _Count()
        self._scopes: set[anyio.CancelScope] = set()
        self._hang_up = anyio.Event()

    @contextmanager
    def call(self) -> Generator[None]:
        """Have the server wait for what is done in this context before it stops."""
        with self._calls.one():
            yield

    @contextmanager
    def request(self) -> Generator[anyio.CancelScope]:
        """Have what is done in this context cancelled when the server stops."""
        with self._requests.one(), anyio.CancelScope() as scope:
            self._scopes.add(scope)
            try:
                yield scope
            finally:
                self._scopes.discard(scope)

    async def until_idle(self) -> None:
        """Wait until no call is at work."""
        await self._calls.none.wait()

    async def until_hung_up(self) -> None:
        """Wait until all that is still being done is to end."""
        await self._hang_up.wait()

    async def end(self, *, within_seconds: float) -> None:
        """End all that is still being done, as if the clients had gone away; cancel what does not notice."""
        self._hang_up.set()
        with anyio.move_on_after(within_seconds):
            await self._requests.none.wait()
        for scope in tuple(self._scopes):
            scope.cancel()


class AtWork:
    """Keeps account of each request while it is served."""

    def __init__(self, app: ASGIApp, work: Work) -> None:
        self.app = app
        self._work = work

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if self._work.stopping:
            await stopping()(scope, receive, send)
            return
        answer = _Answer(send)
        with self._work.request():
            heard = _until_hung_up(receive, self._work)
            if is_standing(scope):
                await self.app(scope, heard, answer.send)
            else:
                with self._work.call():
                    await self.app(scope, heard, answer.send)
        if self._work.stopping:
            await answer.end(scope, receive)


class _Count:
    """How many there are, and an event for when there are none."""

    def __init__(self) -> None:
        self._number = 0
        self.none = anyio.Event()
        self.none.set()

    @contextmanager
    def one(self) -> Generator[None]:
        if not self._number:
            self.none = anyio.Event()
        self._number += 1
        try:
            yield
        finally:
            self._number -= 1
            if not self._number:
                self.none.set()


class _Answer:
    """How far an answer has come."""

    def __init__(self, send: Send) -> None:
        self._send = send
        self._begun = self._ended = False

    async def send(self, message: Message) -> None:
        if message["type"] == "http.response.start":
            self._begun = True
        elif message["type"] == "http.response.body":
            self._ended = not message.get("more_body", False)
        await self._send(message)

    async def end(self, scope: Scope, receive: Receive) -> None:
        if not self._begun:
            await interrupted()(scope, receive, self._send)
        elif not self._ended:
            await self._send({"type": "http.response.body", "body": b"", "more_body": False})


def _until_hung_up(receive: Receive, work: Work) -> Receive:
    """Return what a client sends, until the server is to end: then it has gone away."""

    async def heard() -> Message:
        message: Message = {"type": "http.disconnect"}

        async def hang_up(scope: anyio.CancelScope) -> None:
            await work.until_hung_up()
            scope.cancel()

        async with anyio.create_task_group() as tasks:
            tasks.start_soon(hang_up, tasks.cancel_scope)
            message = await receive()
            tasks.cancel_scope.cancel()
        return message

    return heard
