"""A model in memory, and a log in memory, for tests of what stands around a model.

The model answers by a function of the request, after it was let. It uses so many tokens for each word, never more
than its bound unless a test has it lie, and remembers what it was asked and how many at once.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field
from inspect import isawaitable
from typing import Any, TypeAlias

import anyio

from rlm_runtime.errors import ModelError
from rlm_runtime.events import Event
from rlm_runtime.events import Kind as EventKind
from rlm_runtime.model import Bound, Kind, OnText, Reply, Request, Usage

Said: TypeAlias = "str | Reply | ModelError"
Script: TypeAlias = "Callable[[Request], Said | Awaitable[Said]]"


def prompt_of(request: Request) -> str:
    """Return what was said last."""
    return request.messages[-1].content


@dataclass
class MemoryModel:
    """Keeps the promise `Model`. A price is for one token, whichever way it goes."""

    script: Script = prompt_of
    name: str = "memory"
    kind: Kind = "api"
    native_tools: bool = True
    price_usd: float | None = 0.000001
    usual_output_tokens: int = 100
    seconds: float = 0.0
    usage: Callable[[Request, str], Usage] | None = None
    requests: list[Request] = field(default_factory=list[Request])
    at_once: int = 0
    most_at_once: int = 0

    def window_tokens(self, model: str = "") -> int | None:
        return 100_000

    def bound(self, request: Request) -> Bound:
        given = sum(len(message.content) for message in request.messages)
        output = request.max_tokens or self.usual_output_tokens
        cost = None if self.price_usd is None else (given + output) * self.price_usd
        return Bound(given, output, cost)

    async def complete(self, request: Request, *, on_text: OnText | None = None) -> Reply:
        self.requests.append(request)
        self.at_once += 1
        self.most_at_once = max(self.most_at_once, self.at_once)
        try:
            await anyio.sleep(self.seconds)
            said = self.script(request)
            said = await said if isawaitable(said) else said
        finally:
            self.at_once -= 1
        if isinstance(said, ModelError):
            raise said
        if on_text is not None:
            await on_text(said if isinstance(said, str) else said.text)
        return said if isinstance(said, Reply) else self._reply(request, said)

    def _reply(self, request: Request, text: str) -> Reply:
        bound = self.bound(request)
        if self.usage is not None:
            return Reply(text, usage=self.usage(request, text), model=self.name)
        short = len(text) <= bound.output_tokens
        output = min(len(text), bound.output_tokens)
        cost = None if self.price_usd is None else (bound.input_tokens + output) * self.price_usd
        usage = Usage(bound.input_tokens, output, cost)
        return Reply(text[:output], usage=usage, model=self.name, finish="stop" if short else "length")


class MemoryLog:
    """Keeps what is needed of a trajectory, in a list."""

    def __init__(self) -> None:
        self.events: list[Event] = []
        self._calls: dict[str, int] = {}

    def call_id(self, parent: str) -> str:
        self._calls[parent] = self._calls.get(parent, 0) + 1
        return f"{parent}.{self._calls[parent]}"

    async def write(
        self, kind: EventKind, *, call_id: str, parent_call_id: str, depth: int, **facts: Any
    ) -> Event:
        event = {"kind": kind, "call_id": call_id, "parent_call_id": parent_call_id, "depth": depth, **facts}
        self.events.append(event)
        return event

    def of(self, kind: str) -> list[Event]:
        """Return the events of a kind."""
        return [event for event in self.events if event["kind"] == kind]
