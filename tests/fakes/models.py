"""A model that says what a test tells it to, over real HTTP, as Anthropic's API would and as OpenAI's would.

A script is a sequence of turns, of which each request takes the next one, or a function that answers every
request. Requests are kept as they came. Nothing here knows who asks: any client of either API can, given
`url` as the address, to which clients of OpenAI's want "/v1" added.
"""

from __future__ import annotations

import json
from collections.abc import Awaitable, Callable, Iterator, Mapping, Sequence
from contextlib import AsyncExitStack
from dataclasses import dataclass, field
from inspect import isawaitable
from itertools import count
from typing import Any, Literal, Self, TypeAlias

import anyio
import anyio.abc
from anyio.streams.buffered import BufferedByteReceiveStream

Json: TypeAlias = dict[str, Any]


@dataclass(frozen=True)
class ToolCall:
    """A tool that the model wants to have called."""

    name: str
    arguments: Mapping[str, Any] = field(default_factory=dict[str, Any])


@dataclass(frozen=True)
class Reply:
    """What the model says: text, calls of tools, or both."""

    text: str = ""
    calls: tuple[ToolCall, ...] = ()
    input_tokens: int = 10
    output_tokens: int = 5


@dataclass(frozen=True)
class Refusal:
    """An answer that is an error: 429 when there were too many requests, 529 when the model is overloaded."""

    status: int
    message: str = "The script says no."
    retry_after_seconds: int | None = None


@dataclass(frozen=True)
class Hangup:
    """No answer: the connection ends, after so many events of the stream if one was asked for."""

    after_events: int = 0
    reply: Reply = Reply("This is never said to its end.")


@dataclass(frozen=True)
class ToolResult:
    """What came of a call that the model had asked for."""

    text: str
    images: tuple[str, ...] = ()
    is_error: bool = False


@dataclass(frozen=True)
class Request:
    """What a client asked."""

    api: Literal["anthropic", "openai"]
    headers: Mapping[str, str]
    body: Json

    @property
    def tools(self) -> dict[str, Json]:
        """The tools that the model was offered: their JSON schemas, by name."""
        if self.api == "anthropic":
            return {tool["name"]: tool.get("input_schema", {}) for tool in self.body.get("tools", ())}
        functions = (tool["function"] for tool in self.body.get("tools", ()))
        return {function["name"]: function.get("parameters", {}) for function in functions}

    @property
    def results(self) -> tuple[ToolResult, ...]:
        """What came of all calls so far, the latest one last."""
        if self.api == "anthropic":
            return tuple(
                _result_of(block.get("content", ""), is_error=block.get("is_error", False))
                for message in self.body["messages"]
                for block in _blocks(message["content"])
                if block["type"] == "tool_result"
            )
        return tuple(_result_of(each["content"]) for each in self.body["messages"] if each["role"] == "tool")

    @property
    def text(self) -> str:
        """All that was said in words, of whatever role."""
        said = [message["content"] for message in self.body["messages"]]
        blocks = [
            block for content in (self.body.get("system", ""), *said) for block in _blocks(content or "")
        ]
        return "\n".join(block["text"] for block in blocks if block["type"] == "text" and block["text"])


Turn: TypeAlias = Reply | Refusal | Hangup
Answer: TypeAlias = "Turn | Callable[[Request], Turn | Awaitable[Turn]]"
Script: TypeAlias = "Sequence[Answer] | Callable[[Request], Turn | Awaitable[Turn]]"


class ScriptedModel:
    """A model behind a real socket on loopback, at `url`. It listens while the context is open.

    A turn that is a function may be an asynchronous one, and so take as long as the test wants. After the
    last turn of a sequence every further request is refused as a bad one, which clients do not repeat.
    """

    def __init__(self, script: Script) -> None:
        self.requests: list[Request] = []
        self.url = ""
        self._answers = _endless(script) if callable(script) else iter(script)
        self._numbers = count(1)
        self._stack = AsyncExitStack()

    async def __aenter__(self) -> Self:
        listener = await anyio.create_tcp_listener(local_host="127.0.0.1", local_port=0)
        port = listener.extra(anyio.abc.SocketAttribute.local_port)
        self.url = f"http://127.0.0.1:{port}"
        await self._stack.enter_async_context(listener)
        tasks = await self._stack.enter_async_context(anyio.create_task_group())
        self._stack.callback(tasks.cancel_scope.cancel)
        tasks.start_soon(listener.serve, self._serve)
        return self

    async def __aexit__(self, *_: object) -> None:
        await self._stack.aclose()

    async def _serve(self, stream: anyio.abc.SocketStream) -> None:
        async with stream:
            try:
                await self._exchange(stream)
            except (anyio.EndOfStream, anyio.IncompleteRead, anyio.BrokenResourceError):
                pass  # the client has gone, and needs no answer

    async def _exchange(self, stream: anyio.abc.SocketStream) -> None:
        method, path, headers, body = await _read(stream)
        if path.endswith("/count_tokens"):
            await _send_json(stream, 200, {"input_tokens": len(body) // 4})
        elif method == "POST" and path.endswith("/messages"):
            await self._answer(stream, _Anthropic(), Request("anthropic", headers, json.loads(body)))
        elif method == "POST" and path.endswith("/chat/completions"):
            await self._answer(stream, _OpenAI(), Request("openai", headers, json.loads(body)))
        else:
            await _send_json(stream, 404, {"error": {"type": "not_found_error", "message": path}})

    async def _answer(
        self, stream: anyio.abc.SocketStream, api: _Anthropic | _OpenAI, request: Request
    ) -> None:
        self.requests.append(request)
        number = next(self._numbers)
        turn = await self._next_turn(request)
        if isinstance(turn, Refusal):
            late = {} if turn.retry_after_seconds is None else {"retry-after": str(turn.retry_after_seconds)}
            await _send_json(stream, turn.status, api.error(turn), late)
            return
        reply = turn.reply if isinstance(turn, Hangup) else turn
        if request.body.get("stream"):
            events = api.events(reply, request, number)
            cut = turn.after_events if isinstance(turn, Hangup) else len(events)
            if cut:
                await _send_events(stream, events[:cut], whole=isinstance(turn, Reply))
        elif isinstance(turn, Reply):
            await _send_json(stream, 200, api.message(reply, request, number))

    async def _next_turn(self, request: Request) -> Turn:
        answer = next(self._answers, Refusal(400, "The script of this model has no further turn."))
        if not callable(answer):
            return answer
        turn = answer(request)
        return await turn if isawaitable(turn) else turn


def _endless(answer: Answer) -> Iterator[Answer]:
    while True:
        yield answer


# ---- what was asked


def _blocks(content: str | list[Json]) -> list[Json]:
    return [{"type": "text", "text": content}] if isinstance(content, str) else content


def _result_of(content: str | list[Json], *, is_error: bool = False) -> ToolResult:
    blocks = _blocks(content)
    text = "\n".join(block["text"] for block in blocks if block["type"] == "text")
    images = tuple(block["source"]["data"] for block in blocks if block["type"] == "image")
    return ToolResult(text, images, is_error)


# ---- how each API says it


class _Anthropic:
    """The forms of /v1/messages."""

    _ERRORS: Mapping[int, str] = {
        400: "invalid_request_error",
        429: "rate_limit_error",
        529: "overloaded_error",
    }

    def error(self, refusal: Refusal) -> Json:
        kind = self._ERRORS.get(refusal.status, "api_error")
        return {"type": "error", "error": {"type": kind, "message": refusal.message}}

    def message(self, reply: Reply, request: Request, number: int) -> Json:
        content: list[Json] = [{"type": "text", "text": reply.text}] if reply.text else []
        for each, call in enumerate(reply.calls):
            name = f"toolu_{number}_{each}"
            content.append({"type": "tool_use", "id": name, "name": call.name, "input": dict(call.arguments)})
        return {
            "id": f"msg_{number}",
            "type": "message",
            "role": "assistant",
            "model": request.body["model"],
            "content": content,
            "stop_reason": "tool_use" if reply.calls else "end_turn",
            "stop_sequence": None,
            "usage": {"input_tokens": reply.input_tokens, "output_tokens": reply.output_tokens},
        }

    def events(self, reply: Reply, request: Request, number: int) -> list[str]:
        whole = self.message(reply, request, number)
        start: Json = whole | {
            "content": [],
            "stop_reason": None,
            "usage": whole["usage"] | {"output_tokens": 0},
        }
        events: list[Json] = [{"type": "message_start", "message": start}]
        for index, block in enumerate(whole["content"]):
            events += self._block_events(index, block)
        stop = {"stop_reason": whole["stop_reason"], "stop_sequence": None}
        events.append({"type": "message_delta", "delta": stop, "usage": whole["usage"]})
        events.append({"type": "message_stop"})
        return [f"event: {event['type']}\ndata: {json.dumps(event)}\n\n" for event in events]

    def _block_events(self, index: int, block: Json) -> Iterator[Json]:
        if block["type"] == "text":
            empty: Json = {"type": "text", "text": ""}
            deltas = [{"type": "text_delta", "text": part} for part in _halves(block["text"])]
        else:
            empty = block | {"input": {}}
            parts = _halves(json.dumps(block["input"]))
            deltas = [{"type": "input_json_delta", "partial_json": part} for part in parts]
        yield {"type": "content_block_start", "index": index, "content_block": empty}
        for delta in deltas:
            yield {"type": "content_block_delta", "index": index, "delta": delta}
        yield {"type": "content_block_stop", "index": index}


class _OpenAI:
    """The forms of /v1/chat/completions."""

    _ERRORS: Mapping[int, str] = {400: "invalid_request_error", 429: "rate_limit_exceeded"}

    def error(self, refusal: Refusal) -> Json:
        kind = self._ERRORS.get(refusal.status, "server_error")
        return {"error": {"type": kind, "code": kind, "message": refusal.message, "param": None}}

    def message(self, reply: Reply, request: Request, number: int) -> Json:
        message: Json = {"role": "assistant", "content": reply.text or None}
        if reply.calls:
            message["tool_calls"] = self._calls(reply, number)
        choice = {"index": 0, "message": message, "finish_reason": self._reason(reply), "logprobs": None}
        return self._frame("chat.completion", request, number, [choice]) | {"usage": self._usage(reply)}

    def events(self, reply: Reply, request: Request, number: int) -> list[str]:
        deltas: list[Json] = [{"role": "assistant", "content": "" if reply.text else None}]
        deltas += [{"content": part} for part in _halves(reply.text) if part]
        for index, call in enumerate(self._calls(reply, number)):
            first, second = _halves(call["function"]["arguments"])
            begun = call | {"index": index, "function": call["function"] | {"arguments": first}}
            deltas.append({"tool_calls": [begun]})
            deltas.append({"tool_calls": [{"index": index, "function": {"arguments": second}}]})
        choices: list[list[Json]] = [
            [{"index": 0, "delta": delta, "finish_reason": None}] for delta in deltas
        ]
        choices.append([{"index": 0, "delta": {}, "finish_reason": self._reason(reply)}])
        frames = [self._frame("chat.completion.chunk", request, number, each) for each in choices]
        options: Json = request.body.get("stream_options") or {}
        if options.get("include_usage"):
            last = self._frame("chat.completion.chunk", request, number, [])
            frames.append(last | {"usage": self._usage(reply)})
        return [f"data: {json.dumps(frame)}\n\n" for frame in frames] + ["data: [DONE]\n\n"]

    def _calls(self, reply: Reply, number: int) -> list[Json]:
        return [
            {
                "id": f"call_{number}_{each}",
                "type": "function",
                "function": {"name": call.name, "arguments": json.dumps(dict(call.arguments))},
            }
            for each, call in enumerate(reply.calls)
        ]

    def _reason(self, reply: Reply) -> str:
        return "tool_calls" if reply.calls else "stop"

    def _usage(self, reply: Reply) -> Json:
        total = reply.input_tokens + reply.output_tokens
        return {
            "prompt_tokens": reply.input_tokens,
            "completion_tokens": reply.output_tokens,
            "total_tokens": total,
        }

    def _frame(self, kind: str, request: Request, number: int, choices: list[Json]) -> Json:
        model = request.body["model"]
        return {
            "id": f"chatcmpl-{number}",
            "object": kind,
            "created": 0,
            "model": model,
            "choices": choices,
        }


def _halves(text: str) -> tuple[str, str]:
    return text[: len(text) // 2], text[len(text) // 2 :]


# ---- HTTP, as much of it as clients of these APIs use; each connection serves one request


async def _read(stream: anyio.abc.ByteReceiveStream) -> tuple[str, str, dict[str, str], bytes]:
    buffered = BufferedByteReceiveStream(stream)
    head = (await buffered.receive_until(b"\r\n\r\n", 64 * 1024)).decode("latin-1")
    line, *fields = head.split("\r\n")
    headers = {name.lower(): value.strip() for name, _, value in (each.partition(":") for each in fields)}
    body = await buffered.receive_exactly(int(headers.get("content-length", "0")))
    method, target, _ = line.split(" ")
    return method, target.partition("?")[0], headers, body


async def _send_json(
    stream: anyio.abc.ByteSendStream, status: int, body: Json, headers: Mapping[str, str] | None = None
) -> None:
    data = json.dumps(body).encode()
    fields = {"content-type": "application/json", "content-length": str(len(data)), **(headers or {})}
    await stream.send(_head(status, fields) + data)


async def _send_events(stream: anyio.abc.ByteSendStream, events: Sequence[str], *, whole: bool) -> None:
    """Send a stream of events in chunks, so that a client sees whether it had its end."""
    await stream.send(_head(200, {"content-type": "text/event-stream", "transfer-encoding": "chunked"}))
    for data in (event.encode() for event in events):
        await stream.send(b"%x\r\n%s\r\n" % (len(data), data))
    if whole:
        await stream.send(b"0\r\n\r\n")


def _head(status: int, headers: Mapping[str, str]) -> bytes:
    lines = [f"HTTP/1.1 {status} -", *(f"{name}: {value}" for name, value in headers.items())]
    return "\r\n".join([*lines, "connection: close", "", ""]).encode("latin-1")
