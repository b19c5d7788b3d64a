"""Who answers what code in a cell asks: models, child runs, tools; and `final`.

An `Answerer` belongs to one session of one run; `for_cell` gives what one of its cells asks. Each call is named
and numbered before anything is waited for, so that the same code has the same names and the same numbers when it
runs again. Answers come from the store where it has them, and cost nothing then. Only whole answers are stored.

Whoever asks holds, in this order: its place in its group, the right to ask for this one answer, and the place of
a child at its depth. None of them is held by anything that it waits for, so nobody waits for himself.
"""

from __future__ import annotations

import json
import math
import re
from collections import Counter
from collections.abc import AsyncGenerator, Awaitable, Callable, Mapping, Sequence
from contextlib import asynccontextmanager, nullcontext
from dataclasses import dataclass, field, replace
from functools import partial
from typing import Any, TypeAlias, cast

import anyio
import anyio.to_thread

from rlm_sessions import Answer

from .budget import Pool
from .cache import AnswerStore, Stored, key_of, key_of_facts
from .errors import (
    AnswerInvalid,
    BudgetExhausted,
    ModelRefused,
    ModelUnavailable,
    ToolFailed,
    ToolNotFoundError,
)
from .model import Message, Model, Reply, Request
from .retries import (
    USUAL,
    Asked,
    Keep,
    Log,
    Place,
    Retries,
    ask,
    ask_telling,
    call_at,
    ended_badly,
    milliseconds,
    said,
)
from .schemas import TOO_SLOW, Fit, Shape, correction, shape_of
from .tool_calls import Tool, ToolCaller

__all__ = [
    "Answerer",
    "Child",
    "ChildJob",
    "ChildResult",
    "Ladder",
    "Log",
    "Place",
    "Retries",
    "ask",
]

REPAIRS = 2
MAX_IN_GROUP = 10_000
MAX_TOKENS = 100_000_000

_UNAVAILABLE_SECONDS = 30.0
_REPAIRED_CHARACTERS = 20_000
_REFUSAL_CHARACTERS = 500
_LONG = 100_000
_MODEL = re.compile(r"(?!.*//)[A-Za-z0-9@~][\w.:/@+~*-]{0,199}", re.ASCII)
_THINKS = ("client", "sampling")  # the kinds of models behind which a person may be
_ADVICE = "Configure a model (`rlm init`), name a command that answers, or use a client that answers calls."


class Ladder:
    """Who can be asked: the first of `models` that can.

    One that turned out not to be there is passed by for half a minute.
    """

    def __init__(self, models: Sequence[Model]) -> None:
        self._models = tuple(models)
        self._missing: dict[int, tuple[float, ModelUnavailable]] = {}

    def pick(self, request: Request) -> Model:
        """Return who is to be asked; raise `ModelUnavailable`."""
        now = anyio.current_time()
        for number, model in enumerate(self._models):
            until, _ = self._missing.get(number, (-math.inf, None))
            if until <= now:
                return model
        if self._missing:
            raise next(iter(self._missing.values()))[1]
        raise ModelUnavailable(request.model, "none is configured, and the client does not answer", _ADVICE)

    def missing(self, model: Model, problem: ModelUnavailable) -> None:
        """Take note that a model is not there."""
        number = next(number for number, each in enumerate(self._models) if each is model)
        self._missing[number] = (anyio.current_time() + _UNAVAILABLE_SECONDS, problem)


@dataclass(frozen=True)
class ChildJob:
    """What a child run is to do. Its events belong to `call_id`, and `depth` is its own."""

    prompt: str
    context: Any
    schema: Mapping[str, Any] | None
    model: str
    tools: tuple[Tool, ...]
    depth: int
    call_id: str


@dataclass(frozen=True)
class ChildResult:
    """What a child run answered: `value` by the schema if there is one. A `partial` one is not stored."""

    text: str
    value: Any = None
    partial: bool = False
    finish: str = "answered"


Child: TypeAlias = Callable[[ChildJob], Awaitable[ChildResult]]


class Answerer:
    """Answers the calls of the cells of one session. `depth` is that of its run; what its code asks is one deeper.

    `sub_model` is asked where code names no model.
    """

    def __init__(
        self,
        *,
        ladder: Ladder,
        pool: Pool,
        log: Log,
        store: AnswerStore | None,
        tools: Sequence[Tool] = (),
        child: Child | None = None,
        depth: int,
        parent_call_id: str,
        retries: Retries = USUAL,
        on_final: Callable[[Any], None] | None = None,
        sub_model: str = "",
        repairs: int = REPAIRS,
    ) -> None:
        self._ladder = ladder
        self._pool = pool
        self._log = log
        self._store = store
        self._tools = ToolCaller(tools)
        self._child = child
        self._depth = depth + 1
        self._parent = parent_call_id
        self._retries = retries
        self._on_final = on_final
        self._sub_model = sub_model
        self._repairs = repairs

    def for_cell(self, parent_call_id: str = "") -> Answer:
        """Return what answers the calls of one cell, which are named after `parent_call_id`."""
        cell = _Cell(parent_call_id or self._parent)
        doors = {
            "llm_query": self._llm_query,
            "rlm_query": self._rlm_query,
            "tool": self._tool,
            "final": self._final,
        }

        async def answer(name: str, payload: Any) -> Any:
            if name not in doors:
                raise ValueError(f"There is no call {name!r}. There are: {', '.join(doors)}.")
            if not isinstance(payload, dict):
                raise TypeError(f"The payload of {name} is an object, and this is {type(payload).__name__}.")
            asked = cast("dict[str, Any]", payload)
            self._pool.check_patience()
            try:
                return await doors[name](cell, asked)
            except (BudgetExhausted, ToolNotFoundError, ToolFailed):
                self._pool.note_refusal(sum(map(_size, asked.values())))
                raise

        return answer

    # ---- questions to a model

    async def _llm_query(self, cell: _Cell, payload: dict[str, Any]) -> Mapping[str, Any]:
        place, nth = self._place(cell, "llm_query"), cell.number_of("llm_query", payload)
        question = await _question(payload, self._sub_model)
        request = question.request
        admission = _Admission()
        async with cell.group(question.group):
            while True:
                model = self._ladder.pick(request)
                key = await self._key(
                    partial(key_of, request, request.model or model.name), len(question.prompt)
                )
                content = request.messages[-1].content
                one = _One(place, key, nth, question.fresh, model.name, content, model.kind in _THINKS)
                try:
                    return await self._once(one, partial(self._ask, model, question, place, admission))
                except ModelUnavailable as problem:
                    self._ladder.missing(model, problem)
                    place = self._place(cell, "llm_query")

    async def _ask(
        self, model: Model, question: _Question, place: Place, admission: _Admission, keep: _Keep
    ) -> Stored:
        await self._admit(question.request, place, admission)
        if question.shape is not None:
            return await self._typed(model, question, question.shape, place, keep)

        async def store(asked: Asked) -> None:
            await keep(_as_text(asked))

        return _as_text(await self._ask_model(model, question.request, place, store, question.is_one_of_many))

    async def _admit(self, request: Request, place: Place, admission: _Admission) -> None:
        """Have a call count as one, however many models it has to be passed on to."""
        if admission.given:
            return
        try:
            async with self._pool.call(place.depth):
                admission.given = True
        except BudgetExhausted:
            async with self._logged(place, prompt=[said(each) for each in request.messages]):
                raise

    async def _ask_model(
        self, model: Model, request: Request, place: Place, keep: Keep, is_one_of_many: bool
    ) -> Asked:
        """Return a reply. The words of a refusal are none: they are neither given to code nor kept."""

        async def keep_answer(asked: Asked) -> None:
            if asked.reply.finish != "refused":
                await keep(asked)

        asked = await ask_telling(
            model,
            request,
            pool=self._pool,
            log=self._log,
            place=place,
            retries=self._retries,
            keep=keep_answer,
            in_short=is_one_of_many or self._pool.in_flight > 0,
        )
        if asked.reply.finish == "refused":
            words = asked.reply.text[:_REFUSAL_CHARACTERS]
            raise ModelRefused(asked.reply.model or model.name, f"it declined to answer this prompt: {words}")
        return asked

    async def _typed(
        self, model: Model, question: _Question, shape: Shape, place: Place, keep: _Keep
    ) -> Stored:
        """Return the value of an answer; have the model mend one that is not what its schema asks for."""
        request, mending = question.request, place

        fits = list[Fit]()

        async def store(asked: Asked) -> None:
            fits.append(fit := await shape.fit(asked.reply.text))
            if not fit.problems:
                await keep(_as_value(asked, fit.value))

        for repair in range(self._repairs + 1):
            asked = await self._ask_model(model, request, mending, store, question.is_one_of_many)
            reply = asked.reply
            fit = fits.pop() if fits else await shape.fit(reply.text)
            if not fit.problems:
                return _as_value(asked, fit.value)
            problems = (
                *fit.problems,
                *(["it was cut off at max_tokens"] if reply.finish == "length" else []),
            )
            await self._log.write("note", **place.facts, note="answer_invalid", problems=list(problems))
            if repair == self._repairs or TOO_SLOW in fit.problems:  # which no other answer mends
                raise AnswerInvalid(problems, reply.text)
            request = replace(request, messages=(*request.messages, *_mending(reply, problems)))
            mending = Place(self._log.call_id(place.call_id), place.call_id, place.depth, "repair")
        raise AssertionError("unreachable")

    # ---- child runs

    async def _rlm_query(self, cell: _Cell, payload: dict[str, Any]) -> Mapping[str, Any]:
        place, nth = self._place(cell, "rlm_query"), cell.number_of("rlm_query", payload)
        question = await _question(payload, self._sub_model)
        names = _names(payload.get("tools"))
        job = ChildJob(
            prompt=question.prompt,
            context=payload.get("context"),
            schema=None if question.shape is None else question.shape.schema,
            model=question.request.model,
            tools=self._tools.granted(names),
            depth=place.depth,
            call_id=place.call_id,
        )
        root, thinks = self._answers_now(job.model)
        models = (job.model or root, self._sub_model or root)
        key = await self._key(
            partial(_key_of_child, job, models), math.inf if job.context is not None else len(job.prompt)
        )
        one = _One(place, key, nth, question.fresh, job.model, job.prompt, thinks)
        async with cell.group(question.group):
            return await self._once(one, partial(self._run_child, job, question.shape, place))

    def _answers_now(self, name: str) -> tuple[str, bool]:
        """Return which model would answer now, and whether it takes the time that a person takes."""
        try:
            model = self._ladder.pick(Request((), model=name))
        except ModelUnavailable:
            return "", False
        return model.name, model.kind in _THINKS

    async def _run_child(self, job: ChildJob, shape: Shape | None, place: Place, keep: _Keep) -> Stored:
        if self._child is None:
            raise ModelUnavailable("", "nothing here starts child runs", "Ask by llm_query.")
        async with self._logged(place, prompt=[{"role": "user", "content": job.prompt}]) as ending:
            async with self._pool.call(job.depth, child=True):
                result = await self._child(job)
            problems = () if shape is None else await shape.problems(result.value)
            if problems:
                raise AnswerInvalid(problems, result.text)
            ending |= {"response": result.text, "finish": result.finish}
        answer = {"text": result.text} if shape is None else {"value": result.value}
        stored = Stored(answer, result.text, job.model)
        if not result.partial:
            await keep(stored)
        return stored

    # ---- tools, and the end

    async def _tool(self, cell: _Cell, payload: dict[str, Any]) -> Any:
        name, arguments = _text(payload, "name"), payload.get("arguments", {})
        if not isinstance(arguments, dict):
            raise TypeError(
                f"The arguments of a tool are an object, and these are {type(arguments).__name__}."
            )
        place = self._place(cell, name)
        self._pool.tool_call()
        async with self._logged(place, tool_calls=[{"name": name, "arguments": arguments}]) as ending:
            call_at.set(place.call_id)
            result = await self._tools.call(name, cast("dict[str, Any]", arguments))
            ending |= {"tool_results": [{"name": name, "output": result}]}
        return result

    async def _final(self, cell: _Cell, payload: dict[str, Any]) -> None:
        if self._on_final is not None:
            self._on_final(payload.get("value"))

    # ---- once, and in the log

    def _place(self, cell: _Cell, name: str) -> Place:
        return Place(self._log.call_id(cell.parent), cell.parent, self._depth, name)

    async def _key(self, key: Callable[[], str], characters: float) -> str:
        """Return the name of an answer in the store; that of a long question is found out in a thread."""
        if self._store is None:
            return ""
        return key() if characters < _LONG else await anyio.to_thread.run_sync(key)

    async def _once(self, one: _One, ask_for_it: Callable[[_Keep], Awaitable[Stored]]) -> Mapping[str, Any]:
        """Return the stored answer, or ask for it and store it.

        Who asks for the same at once waits for that, unless a person may be thinking about it: who waits for him
        in another run would not be shown the question.
        """
        if self._store is None:
            return (await ask_for_it(_nowhere)).answer
        async with nullcontext() if one.thinks else self._store.asking(one.key, one.nth):
            stored = None if one.fresh else await self._store.get(one.key, one.nth)
            if stored is not None:
                await self._log_stored(one, stored)
                return stored.answer
            return (await ask_for_it(partial(self._keep, one))).answer

    async def _keep(self, one: _One, stored: Stored) -> None:
        """Store an answer that was paid for, also for a caller that is cancelled."""
        assert self._store is not None
        with anyio.CancelScope(shield=True):
            try:
                await self._store.put(one.key, one.nth, stored)
            except OSError as problem:
                await self._log.write("note", **one.place.facts, note="not_stored", reason=str(problem))

    async def _log_stored(self, one: _One, stored: Stored) -> None:
        prompt = [{"role": "user", "content": one.prompt}]
        async with self._logged(one.place, prompt=prompt, model=stored.model or one.model) as ending:
            ending |= {"response": stored.text, "answered_by": "store", "cached": True, "cost_usd": 0.0}
            ending |= {"key": one.key, "nth": one.nth, "answer": stored.answer}  # for who plays it again

    @asynccontextmanager
    async def _logged(self, place: Place, **facts: Any) -> AsyncGenerator[dict[str, Any]]:
        """Write that a call started and how it ended; the block adds what came of it."""
        began = anyio.current_time()
        ending: dict[str, Any] = {"cached": False}
        try:
            await self._log.write("call_started", **place.facts, name=place.name, **facts)
            yield ending
        except BaseException as problem:
            await ended_badly(self._log, place, problem, began=began)
            raise
        await self._log.write("call_ended", **place.facts, **ending, duration_ms=milliseconds(began))


@dataclass(frozen=True)
class _One:
    """One answer that is wanted: the `nth` of this key."""

    place: Place
    key: str
    nth: int
    fresh: bool
    model: str
    prompt: str
    thinks: bool


@dataclass
class _Admission:
    """Whether a call was admitted to the budget."""

    given: bool = False


_Keep: TypeAlias = Callable[[Stored], Awaitable[None]]


async def _nowhere(stored: Stored) -> None:
    """Keep an answer where there is no store."""


def _as_text(asked: Asked) -> Stored:
    return Stored({"text": asked.reply.text}, asked.reply.text, asked.reply.model)


def _as_value(asked: Asked, value: Any) -> Stored:
    return Stored({"value": value}, asked.reply.text, asked.reply.model)


def _key_of_child(job: ChildJob, models: tuple[str, str]) -> str:
    tools = sorted(tool.name for tool in job.tools)
    return key_of_facts({"child": [job.prompt, job.context, job.schema, models, job.depth, tools]})


def _mending(reply: Reply, problems: Sequence[str]) -> tuple[Message, Message]:
    said = reply.text[:_REPAIRED_CHARACTERS] or "(nothing)"
    return Message("assistant", said), Message("user", correction(problems))


# ---- what a cell asks


@dataclass
class _Group:
    """Calls of which only so many go on at once."""

    places: anyio.Semaphore
    wanted: int = 0


@dataclass
class _Cell:
    """The calls of one cell: how many there were of each, and how many of each group go on."""

    parent: str
    _counts: Counter[int] = field(default_factory=Counter[int])
    _groups: dict[str, _Group] = field(default_factory=dict[str, "_Group"])

    def number_of(self, name: str, payload: Mapping[str, Any]) -> int:
        """Return how many calls of the same content this cell made before this one."""
        content = hash(
            (name, *(_content(payload[key]) for key in sorted(payload.keys() - {"fresh", "group"})))
        )
        self._counts[content] += 1
        return self._counts[content] - 1

    @asynccontextmanager
    async def group(self, named: tuple[str, int] | None) -> AsyncGenerator[None]:
        """Hold a place in the group that a call belongs to, if it does."""
        if named is None:
            yield
            return
        group = self._groups.setdefault(named[0], _Group(anyio.Semaphore(named[1], fast_acquire=True)))
        group.wanted += 1
        try:
            async with group.places:
                yield
        finally:
            group.wanted -= 1
            if not group.wanted:
                del self._groups[named[0]]


def _size(value: Any) -> int:
    return len(value) if isinstance(value, str) else len(json.dumps(value, default=str))


def _content(value: Any) -> str:
    return value if isinstance(value, str) else json.dumps(value, sort_keys=True)


@dataclass(frozen=True)
class _Question:
    prompt: str
    request: Request
    shape: Shape | None
    fresh: bool
    group: tuple[str, int] | None

    @property
    def is_one_of_many(self) -> bool:
        """Whether others are asked beside it."""
        return self.group is not None and self.group[1] > 1


async def _question(payload: Mapping[str, Any], usual_model: str) -> _Question:
    """Return what a payload asks; raise `TypeError` or `ValueError` if that cannot be read."""
    prompt, system = _text(payload, "prompt"), _text(payload, "system", "")
    schema = payload.get("schema")
    shape = None if schema is None else await shape_of(schema)
    told = prompt if shape is None else prompt + shape.instruction
    messages = (*([Message("system", system)] if system else []), Message("user", told))
    request = Request(
        messages,
        model=_model(payload) or usual_model,
        max_tokens=_max_tokens(payload.get("max_tokens")),
        temperature=_temperature(payload.get("temperature")),
        schema=None if shape is None else shape.schema,
    )
    return _Question(prompt, request, shape, payload.get("fresh") is True, _group(payload.get("group")))


def _text(payload: Mapping[str, Any], name: str, otherwise: str | None = None) -> str:
    value = payload.get(name)
    if value is None and otherwise is not None:
        return otherwise
    if not isinstance(value, str):
        raise TypeError(f"{name} is a text, and this is {type(value).__name__}.")
    return value


def _model(payload: Mapping[str, Any]) -> str:
    """Return the name of a model, in which no address stands that would be asked, and no option of a command."""
    name = _text(payload, "model", "")
    if name and not _MODEL.fullmatch(name):
        raise ValueError(
            f"model is the name of a model, of letters, digits and ._:/@+- (at most 200), and this is {name!r:.100}."
        )
    return name


def _max_tokens(value: Any) -> int | None:
    if value is None or (isinstance(value, int) and value is not True and 0 < value <= MAX_TOKENS):
        return value
    raise ValueError(f"max_tokens is a number from 1 to {MAX_TOKENS}, and this is {_shown(value)}.")


def _shown(value: object) -> str:
    try:
        return f"{value!r:.100}"
    except ValueError:  # a number of too many digits
        return "one of very many digits"


def _temperature(value: Any) -> float | None:
    if value is None:
        return None
    if (
        isinstance(value, (int, float))
        and not isinstance(value, bool)
        and math.isfinite(value)
        and value >= 0
    ):
        return float(value)
    raise ValueError(f"temperature is a number of 0 or more, and this is {value!r:.100}.")


def _names(value: Any) -> list[str] | None:
    match value:
        case None:
            return None
        case [*names] if all(isinstance(name, str) for name in names):
            return names
        case _:
            raise TypeError("tools is a list of the names of tools, or None for all.")


def _group(value: Any) -> tuple[str, int] | None:
    match value:
        case None:
            return None
        case [str() | int() as name, int() as at_once] if 1 <= at_once <= MAX_IN_GROUP:
            return str(name), at_once
        case _:
            raise ValueError(
                f"group is a name and a number from 1 to {MAX_IN_GROUP}, and this is {value!r:.100}."
            )
