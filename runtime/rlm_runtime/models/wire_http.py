"""HTTP to one model server: requests as JSON, answers as JSON or as events. Knows nothing of what they say.

Each call that runs has a connection of its own, and leaves it to a later one: there are as many as there ever
were calls at once. There is no pool above them, which would look at all of them for each request. A request goes
out in one piece. Nothing is tried twice here, and no redirect is followed.

What an answer takes is bounded: its time as a whole, and its bytes, decoded by nobody (we ask for it plain).
"""

from __future__ import annotations

import time
from collections import deque
from collections.abc import AsyncGenerator, Awaitable, Callable, Mapping
from contextlib import aclosing
from typing import TYPE_CHECKING, Self
from urllib.parse import SplitResult, urlsplit, urlunsplit

import anyio
import anyio.to_thread

from rlm_runtime.errors import ModelBusy
from rlm_runtime.models.failures import Server, billed
from rlm_runtime.models.json_values import Json, is_object, is_too_much, parsed
from rlm_runtime.models.sse import Events

if TYPE_CHECKING:
    import httpcore2

    from rlm_runtime.models.connections import Connection, Ways

OnEvent = Callable[[Json | None], Awaitable[bool]]

MOST_BYTES = 64 * 1024 * 1024
_MOST_BYTES_OF_A_FAILURE = 64 * 1024
IDLE_SECONDS = 60.0
_CONNECT_SECONDS = 20.0
_LAST_BYTES_SECONDS = 0.1
_NOT_SENT = frozenset(
    {
        "ConnectError",
        "ConnectTimeout",
        "LocalProtocolError",
        "PoolTimeout",
        "ProxyError",
        "UnsupportedProtocol",
    }
)


class Wire:
    """The connections to one server. They are opened as they are needed, and closed when the context ends."""

    def __init__(
        self, server: Server, url: str, headers: Mapping[str, str], *, timeout_seconds: float
    ) -> None:
        self._server = server
        self._url = url
        self._headers = headers
        self._timeout_seconds = timeout_seconds
        self._opening = anyio.Lock()
        self._ways: Ways | None = None
        self._closed = False
        self._idle = deque[tuple[float, "Connection"]]()

    async def __aenter__(self) -> Self:
        self._closed = False
        return self

    async def __aexit__(self, *_: object) -> None:
        self._closed = True
        with anyio.CancelScope(shield=True):
            while self._idle:
                await _close(self._idle.pop()[1])

    async def post(self, model: str, body: Json, on_event: OnEvent | None = None) -> Json | None:
        """Return the JSON of the answer; None if it came as events. Raise `ModelError`.

        `on_event` hears each event, and None at the end of the stream; it says whether the reply is whole. That
        a stream ends before that is an error.
        """
        with anyio.move_on_after(self._timeout_seconds):
            return await self._exchange(model, body, on_event)
        raise self._server.lost(model, f"There was no answer in {self._timeout_seconds:g} seconds")

    async def _exchange(self, model: str, body: Json, on_event: OnEvent | None) -> Json | None:
        ways = self._ways or await self._open(model)
        connection = await self._take(ways)
        try:
            response = await self._send(model, connection, ways, body)
            try:
                return await self._receive(model, response, on_event)
            finally:
                with anyio.CancelScope(shield=True):
                    await response.aclose()
        finally:
            await self._put_back(connection)

    async def _take(self, ways: Ways) -> Connection:
        """Return the connection that was used last, if the server has not closed it, or else a new one."""
        from rlm_runtime.models.connections import is_still_there

        while self._idle:
            connection = self._idle.pop()[1]
            if is_still_there(connection):
                return connection
            await _close(connection)
        return ways.new()

    async def _put_back(self, connection: Connection) -> None:
        """Keep a connection for the next one, if it can be used again; close those that nobody used for long."""
        from rlm_runtime.models.connections import is_at_rest

        now = time.monotonic()
        if is_at_rest(connection):
            self._idle.append((now, connection))
        else:
            await _close(connection)
        while self._idle and (self._closed or self._idle[0][0] < now - IDLE_SECONDS):
            await _close(self._idle.popleft()[1])

    async def _send(self, model: str, connection: Connection, ways: Ways, body: Json) -> httpcore2.Response:
        from rlm_runtime.models.connections import FAILURES

        request = ways.request(body, connect_seconds=min(_CONNECT_SECONDS, self._timeout_seconds))
        try:
            return await connection.handle_async_request(request)
        except FAILURES as problem:
            if "CERTIFICATE_VERIFY_FAILED" in str(problem):
                raise self._server.refused(
                    model, f"{self._server.address} is not trusted ({problem})"
                ) from None
            raise self._failed(model, problem) from None

    async def _receive(
        self, model: str, response: httpcore2.Response, on_event: OnEvent | None
    ) -> Json | None:
        headers = {
            name.decode("latin-1").lower(): value.decode("latin-1") for name, value in response.headers
        }
        async with aclosing(self._chunks(model, response)) as chunks:
            if not 200 <= response.status < 300:
                text = await _all(chunks, most_bytes=_MOST_BYTES_OF_A_FAILURE)
                said = parsed(text) or text.decode("utf-8", "replace")
                raise self._server.failure(model, response.status, headers, said)
            if on_event and "text/event-stream" in headers.get("content-type", ""):
                await self._hear(model, chunks, on_event)
                return None
            return self._whole(model, await _all(chunks))

    async def _hear(self, model: str, chunks: AsyncGenerator[bytes], on_event: OnEvent) -> None:
        events, heard = Events(), False
        async for chunk in chunks:
            for data in events.feed(chunk):
                if await self._is_last(model, data, on_event, is_first=not heard):
                    with anyio.move_on_after(
                        _LAST_BYTES_SECONDS
                    ):  # read to its end, a connection can be used again
                        await _all(chunks)
                    return
                heard = True
        for data in events.end():
            if await self._is_last(model, data, on_event, is_first=not heard):
                return
        if await on_event(None):
            return
        raise self._server.lost(model, "The stream ended before the reply did")

    async def _is_last(self, model: str, data: str, on_event: OnEvent, *, is_first: bool) -> bool:
        if data == "[DONE]":
            return await on_event(None)
        event = self._whole(model, data)
        failure = self._server.failure_within(model, event)
        if failure:
            raise failure if is_first else billed(failure)
        return await on_event(event)

    def _whole(self, model: str, text: bytes | str) -> Json:
        if is_too_much(text):
            raise billed(self._server.refused(model, "An answer of so many parts is not read"))
        value = parsed(text)
        if is_object(value):
            return value
        if text[:1] in {"<", b"<"}:
            raise self._server.refused(
                model, f"{self._server.address} answers with a page, not with JSON. Is api_base right?"
            )
        raise self._server.lost(model, "The answer is no JSON object; it may have been cut off")

    async def _chunks(self, model: str, response: httpcore2.Response) -> AsyncGenerator[bytes]:
        from rlm_runtime.models.connections import FAILURES

        size = 0
        try:
            async for chunk in response.aiter_stream():
                size += len(chunk)
                if size > MOST_BYTES:
                    reason = f"The answer is larger than {MOST_BYTES >> 20} MiB"
                    raise billed(self._server.refused(model, reason))
                yield chunk
        except FAILURES as problem:
            raise self._failed(model, problem) from None

    async def _open(self, model: str) -> Ways:
        async with self._opening:
            if self._ways is None:
                try:
                    self._ways = await anyio.to_thread.run_sync(_ways_to, self._url, self._headers)
                except ValueError as problem:
                    raise self._server.refused(model, f"api_base is no address: {problem}") from None
            return self._ways

    def _failed(self, model: str, problem: Exception) -> ModelBusy:
        """Return the error for a connection that failed, before the request was sent or after."""
        was_sent = type(problem).__name__ not in _NOT_SENT
        return (self._server.lost if was_sent else self._server.busy)(model, self._lost(problem))

    def _lost(self, problem: Exception) -> str:
        """Say what happened to a connection. A header that cannot be sent is not named: it may be the key."""
        name = type(problem).__name__
        why = str(problem).rstrip(".") or name
        if name == "LocalProtocolError":
            return "The request could not be sent"
        if name.startswith("Connect"):
            return f"{self._server.address} cannot be reached ({why}). Is it running, and is api_base right?"
        return f"The connection to {self._server.address} was lost ({why})"


def with_path(base: str, path: str, *, without: str = "") -> str:
    """Return the address of `path` under `base`, which may end in a slash, in `without`, or in `path` itself."""
    parts = parts_of(base.strip())
    under = parts.path.rstrip("/").removesuffix(path).removesuffix(without).rstrip("/")
    return urlunsplit((parts.scheme, parts.netloc, under + path, parts.query, ""))


def shown(url: str) -> str:
    """Return an address as it may be shown: without a name, a password or a query, which can hold keys."""
    parts = parts_of(url)
    return urlunsplit((parts.scheme, parts.netloc.rpartition("@")[2], parts.path, "", ""))


def parts_of(url: str) -> SplitResult:
    """Return the parts of an address; those of an empty one where it is none."""
    try:
        parts = urlsplit(url)
        return parts if parts.hostname else urlsplit("")
    except ValueError:
        return urlsplit("")


def _ways_to(url: str, headers: Mapping[str, str]) -> Ways:
    from rlm_runtime.models.connections import ways_to

    return ways_to(url, headers)


async def _close(connection: Connection) -> None:
    with anyio.CancelScope(shield=True):
        await connection.aclose()


async def _all(chunks: AsyncGenerator[bytes], *, most_bytes: int = MOST_BYTES) -> bytes:
    read = bytearray()
    async for chunk in chunks:
        read += chunk
        if len(read) >= most_bytes:
            break
    return bytes(read[:most_bytes])
