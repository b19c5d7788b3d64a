"""A model behind HTTP, as far as it is the same for every form of API: errors, usage, bounds, prices.

A `Form` says how one API puts it. It does no I/O and keeps nothing, so that a reply which came as events is first
put together to what it would have been as a whole, and then read in one way.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Protocol, Self, TypeVar

import anyio.to_thread

from rlm_runtime.errors import ModelRefused
from rlm_runtime.model import Bound, Finish, Kind, OnText, Reply, Request, ToolUse, Usage
from rlm_runtime.models.bounds import Counted, most_reply_tokens, most_tokens
from rlm_runtime.models.dialects import MOST_LESSONS, Dialect
from rlm_runtime.models.failures import MALFORMED, Secrets, Server, billed
from rlm_runtime.models.json_values import Json, is_object
from rlm_runtime.models.prices import Prices, listed_window
from rlm_runtime.models.windows import window_of
from rlm_runtime.models.wire_http import OnEvent, Wire, parts_of, shown

T = TypeVar("T")

MOST_TOOL_USES = 1000
_MOST_COUNT = 10**15

_NEED_A_KEY = frozenset({"api.openai.com", "api.anthropic.com"})


@dataclass(frozen=True)
class Draft:
    """What a reply says, before its usage is worked out. Tokens of None were not reported; `thought` is not said."""

    text: str
    tool_uses: tuple[ToolUse, ...]
    finish: Finish
    model: str
    input_tokens: int | None
    output_tokens: int | None
    thought: str = ""
    cost_usd: float | None = None


class Transport(Protocol):
    """What carries requests to a server. It is open while its context is."""

    async def __aenter__(self) -> object: ...

    async def __aexit__(self, *problem: object) -> None: ...

    async def post(self, model: str, body: Json, on_event: OnEvent | None = None) -> Json | None:
        """Return the answer; None if `on_event` heard it as events. Raise `ModelError`."""
        ...


class Gathering(Protocol):
    """The events of a reply, while they come."""

    def add(self, event: Json) -> str:
        """Take in one event, and return the text that it adds."""
        ...

    def is_whole(self, *, at_end: bool) -> bool:
        """Return whether nothing more has to come; `at_end`, whether it is enough as it is."""
        ...

    def whole(self) -> Json:
        """Return the reply as it would have come without streaming."""
        ...


class DirectModel(ABC):
    """A model that is asked over HTTP, without anything between. It owns its connections while its context is open."""

    kind: Kind = "api"

    def __init__(
        self,
        model: str,
        *,
        url: str,
        provider: str,
        api_key: str,
        key_setting: str,
        prices: Prices,
        max_tokens: int,
        timeout_seconds: float,
        native_tools: bool,
        windows: Mapping[str, int] | None,
        server: Server | None = None,
        transport: Transport | None = None,
    ) -> None:
        self.name = model
        self.native_tools = native_tools
        self._provider = provider
        self._prices = prices
        self._max_tokens = max_tokens
        self._windows = windows
        self._key = api_key.strip()
        self._needs_key = transport is None and parts_of(url).hostname in _NEED_A_KEY
        self._server = server or Server(shown(url), key_setting, bool(self._key), Secrets(self._key))
        self._wire: Transport = transport or Wire(
            self._server, url, self._headers(self._key), timeout_seconds=timeout_seconds
        )
        self._dialect = Dialect()
        self._counted = Counted()

    async def __aenter__(self) -> Self:
        await anyio.to_thread.run_sync(self._prices.load)
        await self._wire.__aenter__()
        return self

    async def __aexit__(self, *problem: object) -> None:
        await self._wire.__aexit__(*problem)

    def window_tokens(self, model: str = "") -> int | None:
        """How many tokens fit into one request and its reply; None where that is not known."""
        name = model or self.name
        return window_of(name, self._windows) or listed_window(*self._listed_as(name))

    def bound(self, request: Request) -> Bound:
        """Return the most that a request can cost, output included."""
        model = request.model or self.name
        most_in = self._counted.most_tokens(request, model)
        most_out = request.max_tokens or self._max_tokens
        return Bound(most_in, most_out, self._cost(model, most_in, most_out))

    async def complete(self, request: Request, *, on_text: OnText | None = None) -> Reply:
        """Return the reply. `on_text` hears it as it comes. Raise `ModelError`."""
        model = request.model or self.name
        if self._needs_key and not self._key:
            raise self._server.no_key(model)
        if not (self._key.isascii() and self._key.isprintable()):
            raise self._server.refused(
                model,
                f"Its key has characters that no key has. Correct {self._server.key_setting}, or api_key.",
            )
        body = self._body(
            request, model, request.max_tokens or self._max_tokens, streaming=on_text is not None
        )
        draft = await self._ask(model, body, on_text)
        text = before_stop(draft.text, request.stop)
        reply = Reply(text, draft.tool_uses, model=draft.model or model, finish=draft.finish)
        return Reply(text, reply.tool_uses, self._usage(request, model, draft), reply.model, reply.finish)

    async def _ask(self, model: str, body: Json, on_text: OnText | None) -> Draft:
        lessons = 0
        while True:
            spelled = self._dialect.spelled(model, body)
            try:
                return await self._exchange(model, spelled, on_text)
            except ModelRefused as refusal:
                lessons += 1
                if lessons > MOST_LESSONS or not self._dialect.learn(model, spelled, refusal):
                    raise

    async def _exchange(self, model: str, body: Json, on_text: OnText | None) -> Draft:
        if on_text is None:
            return self._read(model, await self._wire.post(model, body) or {})
        gathering, say = self._gathering(), on_text

        async def hear(event: Json | None) -> bool:
            text = "" if event is None else self._formed(model, lambda: gathering.add(event))
            if text:
                await say(text)
            return gathering.is_whole(at_end=event is None)

        answer = await self._wire.post(model, body, hear)
        if answer is None:
            return self._read(model, self._formed(model, gathering.whole))
        draft = self._read(model, answer)  # this server does not stream
        if draft.text:
            await say(draft.text)
        return draft

    def _read(self, model: str, whole: Json) -> Draft:
        failure = self._server.failure_within(model, whole)
        if failure:
            raise failure
        draft = self._formed(model, lambda: self._draft(whole))
        if len(draft.tool_uses) > MOST_TOOL_USES:
            reason = f"Its reply calls {len(draft.tool_uses)} tools, and at most {MOST_TOOL_USES} are taken"
            raise billed(self._server.refused(model, reason))
        return draft

    def _formed(self, model: str, read: Callable[[], T]) -> T:
        """Return what `read` finds in an answer. That it is not there is a failure of the server, and not of ours."""
        try:
            return read()
        except MALFORMED as problem:
            raise self._server.lost(
                model, f"The answer does not have the form of this API ({type(problem).__name__}: {problem})"
            ) from problem

    def _usage(self, request: Request, model: str, draft: Draft) -> Usage:
        """Return what was used. What was not reported is estimated at the most that it can have been."""
        tokens_in, tokens_out = draft.input_tokens, draft.output_tokens
        if tokens_in:
            self._counted.learn(request, model, tokens_in)
        seen = most_reply_tokens(Reply(draft.text + draft.thought, draft.tool_uses))
        reported = bool(tokens_in) and tokens_out is not None and bool(tokens_out or not draft.text)
        tokens_in = tokens_in or most_tokens(request)
        tokens_out = tokens_out or (0 if reported else seen)
        cost = draft.cost_usd
        if cost is None or self._prices.names(*self._listed_as(model)):
            cost = self._cost(model, tokens_in, tokens_out)
        return Usage(tokens_in, tokens_out, cost, estimated=not reported)

    def _cost(self, model: str, input_tokens: int, output_tokens: int) -> float | None:
        price = self._prices.of(*self._listed_as(model))
        return None if price is None else price.of(input_tokens, output_tokens)

    def _listed_as(self, model: str) -> tuple[str, str]:
        """Return the name and the provider that a model has on lists."""
        return model, self._provider

    @abstractmethod
    def _headers(self, key: str) -> dict[str, str]:
        """Return what each request has in its head."""

    @abstractmethod
    def _body(self, request: Request, model: str, max_tokens: int, *, streaming: bool) -> Json:
        """Return a request as this API wants it."""

    @abstractmethod
    def _draft(self, whole: Json) -> Draft:
        """Return what a reply of this API says. It may raise anything that a wrong form leads to."""

    @abstractmethod
    def _gathering(self) -> Gathering:
        """Return what puts the events of a reply together."""


def tokens_of(usage: object, *names: str) -> int | None:
    """Return the sum of counts that a usage names; None if it names none of them."""
    if not is_object(usage):
        return None
    found = [usage[name] for name in names if _is_count(usage.get(name))]
    return max(0, int(sum(found))) if found else None


def _is_count(value: object) -> bool:
    """Whether a value can be counted with: it is a number, and not one that nobody can have meant."""
    return isinstance(value, int | float) and -_MOST_COUNT <= value <= _MOST_COUNT


def before_stop(text: str, stops: tuple[str, ...]) -> str:
    """Return a text up to where it should have stopped, for servers that do not stop there."""
    return min((text.split(stop, 1)[0] for stop in stops if stop), key=len, default=text)
