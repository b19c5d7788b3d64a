"""Asking a model once, and again when it is busy: the one place for admission, tries, back-off and what the log says.

Each try is admitted for itself, and between two tries nothing is held. A model that has too many requests gets
fewer at once for a while, whoever asks it.
"""

from __future__ import annotations

import random
from collections.abc import AsyncGenerator, Awaitable, Callable, Mapping
from contextlib import asynccontextmanager
from contextvars import ContextVar
from dataclasses import dataclass, field, replace
from typing import Any, Protocol, TypeAlias

import anyio

from .budget import Admitted, Pool
from .errors import BudgetExhausted, ModelBusy, ModelError, ModelRefused
from .events import Event, Kind
from .model import Bound, Message, Model, OnText, Reply, Request, ToolUse, Usage

TOO_MANY = (429, 503, 529)

call_at: ContextVar[str] = ContextVar("call_at", default="")
"""The name of the call that is at work."""


class Log(Protocol):
    """Where it is written what happened: the part of a trajectory that is needed here."""

    def call_id(self, parent: str) -> str:
        """Return the name of the next call that `parent` makes."""
        ...

    async def write(
        self, kind: Kind, *, call_id: str, parent_call_id: str, depth: int, **facts: Any
    ) -> Event:
        """Write one event."""
        ...


@dataclass(frozen=True)
class Retries:
    """How often a busy model is asked, and how long to wait before the next try.

    The wait doubles from `first_seconds` to `most_seconds`, less up to half by chance. What a model says
    itself is kept to, unless it is more than `patience_seconds`: then there is no other try.
    """

    tries: int = 6
    first_seconds: float = 0.5
    most_seconds: float = 30.0
    patience_seconds: float = 300.0
    chance: Callable[[], float] = random.random

    def seconds(self, failed: int, problem: ModelBusy) -> float | None:
        """Return how long to wait after so many failures; None when there is to be no other try."""
        if failed >= self.tries:
            return None
        usual = min(self.most_seconds, self.first_seconds * 2.0 ** (failed - 1))
        if (told := problem.retry_after_seconds) is None:
            return usual * (1 - self.chance() / 2)
        if told > self.patience_seconds:
            return None
        return max(0.0, told) + self.first_seconds * self.chance()


USUAL = Retries()


@dataclass(frozen=True)
class Place:
    """Where in the tree a call belongs, and what it is called there."""

    call_id: str
    parent_call_id: str
    depth: int
    name: str = "llm_query"

    @property
    def facts(self) -> dict[str, Any]:
        """What every event of it has."""
        return {"call_id": self.call_id, "parent_call_id": self.parent_call_id, "depth": self.depth}


@dataclass(frozen=True)
class Asked:
    """A reply, and whether it was `shortened`: to a share, if `in_short`, or else because no more was left."""

    reply: Reply
    shortened: bool = False
    in_short: bool = False

    @property
    def is_whole(self) -> bool:
        """Whether it is as long as it was to be. One that a budget cut short would be short for ever."""
        return not (self.shortened and self.reply.finish == "length")


Keep: TypeAlias = Callable[[Asked], Awaitable[None]]


@dataclass(frozen=True)
class _Asking:
    """What is asked, of whom, and who hears of it."""

    model: Model
    request: Request
    pool: Pool
    log: Log
    place: Place
    retries: Retries
    on_text: OnText | None
    keep: Keep | None
    unsure: list[Bound] = field(default_factory=list[Bound])

    def take_unsure(self) -> dict[str, Any]:
        """Return, once, what the last request may have used at most, where nobody said what it did."""
        if not self.unsure:
            return {}
        bound = self.unsure.pop()
        return {"unsure_tokens": bound.tokens, "unsure_cost_usd": bound.cost_usd}


async def ask(
    model: Model,
    request: Request,
    *,
    pool: Pool,
    log: Log,
    place: Place,
    retries: Retries = USUAL,
    on_text: OnText | None = None,
) -> Reply:
    """Return what `model` replies to `request`, and write both into `log`.

    Raise a `ModelError` when it does not answer, a `BudgetExhausted` or `PriceUnknown` when it may not be asked.
    What `on_text` heard of a try that failed comes again with the next one.
    """
    asked = await ask_telling(
        model, request, pool=pool, log=log, place=place, retries=retries, on_text=on_text
    )
    return asked.reply


async def ask_telling(
    model: Model,
    request: Request,
    *,
    pool: Pool,
    log: Log,
    place: Place,
    retries: Retries = USUAL,
    on_text: OnText | None = None,
    keep: Keep | None = None,
    in_short: bool = False,
) -> Asked:
    """Do as `ask`, and tell also whether the reply was shortened.

    `keep` stores the reply before the place of its request is given on: what is answered and not stored is never
    more than may be asked at once. One of many that are asked `in_short` gets a share of what is left of the
    budget, so that they need not wait for each other; if that is too little, it is asked again for all it needs.
    """
    began = anyio.current_time()
    asking = _Asking(model, request, pool, log, place, retries, on_text, keep)
    before = call_at.set(place.call_id)
    try:
        await log.write(
            "call_started",
            **place.facts,
            name=place.name,
            prompt=[said(message) for message in request.messages],
            model=request.model or model.name,
            window_tokens=model.window_tokens(request.model),
        )
        asked = await (_ask_in_short(asking) if in_short else _try(asking))
    except BaseException as problem:
        await ended_badly(log, place, problem, began=began, **asking.take_unsure())
        raise
    finally:
        call_at.reset(before)
    await log.write(
        "call_ended",
        **place.facts,
        **_outcome(asked.reply),
        duration_ms=milliseconds(began),
        answered_by=model.kind,
        cached=False,
    )
    return asked


async def _ask_in_short(asking: _Asking) -> Asked:
    asked = await _try(asking, in_short=True)
    if not asked.in_short or asked.is_whole:
        return asked
    cut: dict[str, Any] = {"note": "cut_short"} | _length(asked.reply)
    try:
        longer = await _try(asking)
    except (BudgetExhausted, ModelError):
        await asking.log.write("note", **asking.place.facts, **cut, **asking.take_unsure())
        return asked
    await asking.log.write("note", **asking.place.facts, **cut)
    usage = _sum(asked.reply.usage, longer.reply.usage)
    return replace(longer, reply=replace(longer.reply, usage=usage))


def _length(reply: Reply) -> dict[str, Any]:
    return {"output_tokens": reply.usage.output_tokens, "characters": len(reply.text)}


def _sum(one: Usage, other: Usage) -> Usage:
    known = one.cost_usd is not None and other.cost_usd is not None
    return Usage(
        one.input_tokens + other.input_tokens,
        one.output_tokens + other.output_tokens,
        (one.cost_usd or 0.0) + (other.cost_usd or 0.0) if known else None,
        one.estimated or other.estimated,
    )


async def _try(asking: _Asking, *, in_short: bool = False) -> Asked:
    failed, before = 0, None
    while True:
        try:
            return await _ask_once(asking, in_short)
        except BudgetExhausted as problem:
            if before is not None:
                problem.say_what_failed_before(before.reason)
            raise problem from before
        except ModelBusy as problem:
            failed, before = failed + 1, problem
            seconds = asking.retries.seconds(failed, problem)
            over = seconds is None or anyio.current_time() + seconds >= asking.pool.deadline
            facts = _failure(problem, failed, None if over else seconds) | asking.take_unsure()
            await asking.log.write("note", **asking.place.facts, **facts)
            if over or seconds is None:
                raise _after(problem, failed) from problem
        await anyio.sleep(seconds)


@asynccontextmanager
async def _admitted(asking: _Asking, in_short: bool) -> AsyncGenerator[Admitted]:
    admitted: Admitted | None = None
    try:
        async with asking.pool.request(asking.model, asking.request, in_short=in_short) as admitted:
            yield admitted
    finally:
        if admitted is not None and admitted.unsure is not None:
            asking.unsure.append(admitted.unsure)


async def _ask_once(asking: _Asking, in_short: bool) -> Asked:
    model = asking.model
    async with _admitted(asking, in_short) as admitted:
        try:
            reply = await model.complete(admitted.request, on_text=asking.on_text)
        except ModelBusy as problem:
            if problem.status in TOO_MANY:
                admitted.slow_down()
            raise
        admitted.settle(reply.usage)
        if reply.finish == "refused" and not reply.text:
            raise ModelRefused(reply.model or model.name, "it declined to answer this prompt")
        asked = Asked(reply, admitted.shortened, admitted.in_short)
        if asking.keep is not None and asked.is_whole:
            await asking.keep(asked)
    over = reply.usage.tokens - admitted.bound.tokens
    if over > 0:
        told: dict[str, Any] = {"most_tokens": admitted.bound.tokens, "tokens": reply.usage.tokens}
        await asking.log.write("note", **asking.place.facts, note="over_bound", **told)
    return asked


def _after(problem: ModelBusy, tries: int) -> ModelBusy:
    return ModelBusy(
        problem.model,
        problem.reason,
        status=problem.status,
        retry_after_seconds=problem.retry_after_seconds,
        tries=tries,
    )


# ---- what the log says


async def ended_badly(log: Log, place: Place, problem: BaseException, *, began: float, **facts: Any) -> None:
    """Write that a call ended in `problem`, also for a caller that is cancelled."""
    error = error_of(problem)
    if error["kind"] == "CancelledError":
        error = {"kind": "Cancelled", "message": "Nobody waits for the answer any more."}
    with anyio.CancelScope(shield=True):
        await log.write(
            "call_ended", **place.facts, error=error, duration_ms=milliseconds(began), cached=False, **facts
        )


def error_of(problem: BaseException) -> dict[str, str]:
    """Return an error as the log has it: its kind and its words, nothing of the code around it."""
    return {"kind": type(problem).__name__, "message": str(problem)}


def milliseconds(began: float) -> float:
    """Return how long ago `began` was."""
    return round((anyio.current_time() - began) * 1000, 3)


def said(message: Message) -> dict[str, Any]:
    """Return a message as the log has it."""
    facts: dict[str, Any] = {"role": message.role, "content": message.content}
    if message.tool_uses:
        facts["tool_calls"] = [used(use) for use in message.tool_uses]
    if message.tool_use_id:
        facts["tool_use_id"] = message.tool_use_id
    return facts | ({"is_error": True} if message.is_error else {})


def used(use: ToolUse) -> dict[str, Any]:
    """Return a call of a tool as the log has it."""
    facts: dict[str, Any] = {"id": use.id, "name": use.name, "arguments": dict(use.arguments)}
    return facts | ({"problem": use.problem} if use.problem else {})


def tokens_of(usage: Usage) -> dict[str, Any]:
    """Return what was used as the log has it."""
    facts = {"input_tokens": usage.input_tokens, "output_tokens": usage.output_tokens}
    return facts | ({"estimated": True} if usage.estimated else {})


def _outcome(reply: Reply) -> Mapping[str, Any]:
    return {
        "response": reply.text,
        "tool_calls": [used(use) for use in reply.tool_uses],
        "token_usage": tokens_of(reply.usage),
        "cost_usd": reply.usage.cost_usd,
        "finish": reply.finish,
        "model": reply.model,
    }


def _failure(problem: ModelBusy, failed: int, seconds: float | None) -> dict[str, Any]:
    facts: dict[str, Any] = {"note": "no_answer", "tries": failed, "error": error_of(problem)}
    if problem.usage is not None:
        facts |= {"token_usage": tokens_of(problem.usage), "cost_usd": problem.usage.cost_usd}
    return facts | ({} if seconds is None else {"next_try_seconds": round(seconds, 3)})
