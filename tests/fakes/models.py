"""A model that says what a test tells it to, over real HTTP, as Anthropic's API would and as OpenAI's would.

    async with ScriptedModel([Reply("one"), Refusal(429, retry_after_seconds=2), Reply("two")]) as model:
        ...                          # ask at model.url, or model.url + "/v1" with clients of OpenAI's
    assert model.requests[0].prompt == "Hello"

A script is a sequence of turns, of which each request takes the next one, or a function that answers every
request; a turn of a sequence may be such a function as well. Functions get the `Request`, may be asynchronous,
and so may take as long as the test wants. Scripts for roots, for leaves that nobody can guess, for delays and
for answers out of order are made by the functions of `tests.fakes.scripts`, which are names of this module too:

    leaf = Oracle("secret", among=("spam", "ham"))
    root = conversation(Reply(calls=(ToolCall("python", {"code": ...}),)), lambda request: Reply(request.results[-1].text))
    async with ScriptedModel(by_model({"root": root, "leaf": failing_first(Refusal(429), leaf)})) as model:
        ...
    assert answer == str(sum(leaf.says(line) == "spam" for line in lines))
    assert model.most_at_once == 16 and model.asked["the prompt"] == 2

What it can do: `Reply`, `Refusal` (an HTTP error), `Hangup` (the connection ends), `Breakdown` (an error within
a stream), `Silence` (nothing, for ever). What it keeps: `requests` as they came, `asked` (how often each prompt),
`at_once` and `most_at_once`, `carried_bytes` (bodies, both ways), and `left`: requests whose client went away before they were answered. A test waits
with `await model.until(...)`. Connections are kept alive. Nothing here knows who asks: any client of either API can.
"""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Callable, Generator, Iterator, Mapping, Sequence
from contextlib import AsyncExitStack, contextmanager
from itertools import count
from typing import Self

import anyio
import anyio.abc
from anyio.streams.buffered import BufferedByteReceiveStream

from tests.fakes.forms import AnthropicForm, Form, OpenAIForm
from tests.fakes.scripts import (
    Oracle,
    backwards,
    by_model,
    conversation,
    failing_first,
    late,
    turn_of,
)
from tests.fakes.turns import (
    Answer,
    Answerer,
    Breakdown,
    Hangup,
    Refusal,
    Reply,
    Request,
    Script,
    Silence,
    ToolCall,
    ToolResult,
    Turn,
)

__all__ = [
    "Answer",
    "Answerer",
    "Breakdown",
    "Hangup",
    "Oracle",
    "Refusal",
    "Reply",
    "Request",
    "Script",
    "ScriptedModel",
    "Silence",
    "ToolCall",
    "ToolResult",
    "Turn",
    "backwards",
    "by_model",
    "conversation",
    "failing_first",
    "late",
]

_GONE = (anyio.EndOfStream, anyio.IncompleteRead, anyio.BrokenResourceError, anyio.ClosedResourceError)


class ScriptedModel:
    """A model behind a real socket on loopback, at `url`. It listens while the context is open.

    After the last turn of a sequence every further request is refused as a bad one, which clients do not repeat.
    """

    def __init__(self, script: Script) -> None:
        self.url = ""
        self.requests: list[Request] = []
        self.left: list[Request] = []
        self.asked: Counter[str] = Counter()
        self.connections = 0
        self.carried_bytes = 0
        self.at_once = 0
        self.most_at_once = 0
        self._answers = _endless(script) if callable(script) else iter(script)
        self._streams = set[anyio.abc.SocketStream]()
        self._numbers = count(1)
        self._changed = anyio.Event()
        self._stack = AsyncExitStack()

    async def __aenter__(self) -> Self:
        listener = await anyio.create_tcp_listener(local_host="127.0.0.1", local_port=0, backlog=1024)
        port = listener.extra(anyio.abc.SocketAttribute.local_port)
        self.url = f"http://127.0.0.1:{port}"
        await self._stack.enter_async_context(listener)
        tasks = await self._stack.enter_async_context(anyio.create_task_group())
        self._stack.callback(tasks.cancel_scope.cancel)
        tasks.start_soon(listener.serve, self._serve)
        return self

    async def __aexit__(self, *_: object) -> None:
        await self._stack.aclose()

    async def until(self, true: Callable[[ScriptedModel], bool]) -> None:
        """Wait until something is true of this model: that it was asked, or that a client has gone."""
        while not true(self):
            await self._changed.wait()

    async def hang_up(self) -> None:
        """Close all connections, as a server does with those that are idle for long."""
        for stream in list(self._streams):
            await stream.aclose()

    async def _serve(self, stream: anyio.abc.SocketStream) -> None:
        self.connections += 1
        self._streams.add(stream)
        async with stream:
            try:
                received = BufferedByteReceiveStream(stream)
                while True:
                    await self._exchange(_Connection(stream, received, self._carry))
            except _GONE:
                pass  # the client has gone, and needs no answer
        self._streams.discard(stream)

    async def _exchange(self, connection: _Connection) -> None:
        method, path, headers, body = await connection.read()
        if path.endswith("/count_tokens"):
            await connection.send(200, json.dumps({"input_tokens": len(body) // 4}))
        elif method == "POST" and path.endswith("/messages"):
            await self._take(connection, AnthropicForm(), Request("anthropic", headers, json.loads(body)))
        elif method == "POST" and path.endswith("/chat/completions"):
            await self._take(connection, OpenAIForm(), Request("openai", headers, json.loads(body)))
        else:
            error = {"error": {"type": "not_found_error", "message": path}}
            await connection.send(404, "" if method == "HEAD" else json.dumps(error))

    async def _take(self, connection: _Connection, form: Form, request: Request) -> None:
        with self._counted(request):
            answered = False
            async with anyio.create_task_group() as tasks:
                tasks.start_soon(connection.watch, tasks.cancel_scope)
                answered = await self._answer(connection, form, request)
                tasks.cancel_scope.cancel()
        if not answered:
            self.left.append(request)
            self._change()
            raise anyio.EndOfStream

    def _carry(self, count: int) -> None:
        self.carried_bytes += count

    @contextmanager
    def _counted(self, request: Request) -> Generator[None]:
        self.requests.append(request)
        self.asked[request.prompt] += 1
        self.at_once += 1
        self.most_at_once = max(self.most_at_once, self.at_once)
        self._change()
        try:
            yield
        finally:
            self.at_once -= 1
            self._change()

    def _change(self) -> None:
        self._changed.set()
        self._changed = anyio.Event()

    async def _answer(self, connection: _Connection, form: Form, request: Request) -> bool:
        """Answer, and return whether the connection can be used again; what is cut off ends it."""
        number = next(self._numbers)
        turn = await turn_of(next(self._answers, _NO_FURTHER_TURN), request)
        try:
            match turn:
                case Refusal():
                    await connection.send(
                        turn.status, turn.body or json.dumps(form.error(turn)), _headers(turn)
                    )
                case Reply() if not request.body.get("stream"):
                    await anyio.sleep(turn.delay_seconds)
                    await connection.send(200, json.dumps(form.message(turn, request, number)))
                case Reply():
                    await anyio.sleep(turn.delay_seconds)
                    await connection.send_events(form.events(turn, request, number))
                case Breakdown() if not request.body.get("stream"):
                    error = form.error(Refusal(500, turn.message, code=turn.kind))
                    await connection.send(500, json.dumps(error))
                case _:
                    await self._cut_off(connection, form, request, number, turn)
        except (anyio.BrokenResourceError, anyio.ClosedResourceError):
            return False
        return True

    async def _cut_off(
        self,
        connection: _Connection,
        form: Form,
        request: Request,
        number: int,
        turn: Hangup | Breakdown | Silence,
    ) -> None:
        """Send the beginning of an answer, and then do what the turn says."""
        if request.body.get("stream"):
            events = form.events(turn.reply, request, number)[: turn.after_events]
            broken = [form.error_event(turn.kind, turn.message)] if isinstance(turn, Breakdown) else []
            ends = isinstance(turn, Breakdown) or (isinstance(turn, Hangup) and turn.quiet)
            if events or broken or ends:
                await connection.send_events(events + broken, whole=ends)
        elif turn.after_events:
            whole = json.dumps(form.message(turn.reply, request, number))
            await connection.send(200, whole, part=len(whole) // 2)
        if isinstance(turn, Silence):
            await anyio.sleep_forever()
        if isinstance(turn, Hangup) and not turn.quiet:
            await connection.close()


_NO_FURTHER_TURN = Refusal(400, "The script of this model has no further turn.")


def _endless(answer: Answer) -> Iterator[Answer]:
    while True:
        yield answer


def _headers(refusal: Refusal) -> Mapping[str, str]:
    late = refusal.retry_after_seconds
    return {**refusal.headers, **({} if late is None else {"retry-after": f"{late:g}"})}


class _Connection:
    """One connection, and as much of HTTP as clients of these APIs use."""

    def __init__(
        self,
        stream: anyio.abc.SocketStream,
        received: BufferedByteReceiveStream,
        carry: Callable[[int], None],
    ) -> None:
        self._stream = stream
        self._received = received
        self._carry = carry

    async def read(self) -> tuple[str, str, dict[str, str], bytes]:
        """Return the next request: its method, its path, its head and its body."""
        head = (await self._received.receive_until(b"\r\n\r\n", 64 * 1024)).decode("latin-1")
        line, *fields = head.split("\r\n")
        headers = {name.lower(): value.strip() for name, _, value in (each.partition(":") for each in fields)}
        body = await self._received.receive_exactly(int(headers.get("content-length", "0")))
        self._carry(len(body))
        method, target, _ = line.split(" ")
        return method, target.partition("?")[0], headers, body

    async def watch(self, answering: anyio.CancelScope) -> None:
        """End the answering as soon as the client has gone."""
        try:
            while True:
                self._received.feed_data(await self._stream.receive())
        except (anyio.EndOfStream, anyio.BrokenResourceError):
            answering.cancel()
        except anyio.ClosedResourceError:
            pass  # it was ended here

    async def send(
        self, status: int, body: str, headers: Mapping[str, str] | None = None, *, part: int | None = None
    ) -> None:
        """Send an answer in one piece, or the first `part` bytes of it."""
        data = body.encode()
        self._carry(len(data))
        fields = {"content-type": _kind(body), "content-length": str(len(data)), **(headers or {})}
        await self._stream.send(_head(status, fields) + data[:part])

    async def send_events(self, events: Sequence[str], *, whole: bool = True) -> None:
        """Send a stream of events in chunks, so that a client sees whether it had its end."""
        fields = {"content-type": "text/event-stream", "transfer-encoding": "chunked"}
        await self._stream.send(_head(200, fields))
        for data in (event.encode() for event in events):
            self._carry(len(data))
            await self._stream.send(b"%x\r\n%s\r\n" % (len(data), data))
        if whole:
            await self._stream.send(b"0\r\n\r\n")

    async def close(self) -> None:
        await self._stream.aclose()


def _kind(body: str) -> str:
    return "application/json" if body[:1] in {"{", "[", ""} else "text/html"


def _head(status: int, headers: Mapping[str, str]) -> bytes:
    lines = [f"HTTP/1.1 {status} -", *(f"{name}: {value}" for name, value in headers.items())]
    return "\r\n".join([*lines, "", ""]).encode("latin-1")
