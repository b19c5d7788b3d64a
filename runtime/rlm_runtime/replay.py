"""A run again, from its log: models, tools and the store answer what they answered then; the code is run anew.

Offline, the transcript must be identical: the same prompts, replies, code, outputs and errors, in the same order
for each run of the tree, up to times, durations, costs, names of calls and addresses of objects. The first
difference is `ReplayDiverged`, and ends the replay at once.

With models that answer (`live`), what is recorded before an event is answered from the log and the rest by them:
so a run is tried another way from there, or goes on after it was cut off. What it spent then counts again.

Code that asks the time, chance or the order of a set may differ from then; see docs/trajectories.md.
"""

from __future__ import annotations

import json
import shutil
import tempfile
from collections import Counter
from collections.abc import AsyncGenerator, Awaitable, Callable, Mapping, Sequence
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass, fields, replace
from functools import partial
from pathlib import Path
from typing import Any

import anyio
import anyio.to_thread

from .answers import Ladder
from .blobs import text_of
from .budget import Budget, Pool, open_pool
from .cache import AnswerStore, Stored
from .contexts import ContextFile
from .errors import ModelUnavailable, ReplayDiverged, RLMError, TrajectoryError
from .event_lines import plain, within
from .events import RUN, Event
from .log import Log
from .model import Bound, Kind, Model, OnText, Reply, Request, Usage
from .models.bounds import Counted
from .recorded import Record, Recorded, key_of_prompt, key_of_tool, record_of, same_addresses
from .retries import USUAL, Retries, call_at, said
from .rooms import Rooms
from .run import Job, Outcome, run
from .talk import in_words
from .tool_calls import Tool as AnyTool
from .tools import Tool
from .trajectory import Trajectory

_HANGING_SECONDS = 10.0
_COMPARED = ("call_started", "call_ended", "cell_started", "cell_ended", "note")
_FACTS = (
    "kind",
    "depth",
    "name",
    "prompt",
    "response",
    "tool_calls",
    "tool_results",
    "code",
    "error",
    "note",
)
_OWN_NOTES = ("no_answer", "direct", "not_stored", "cut_short", "over_bound")
_SHOWN = 200


@dataclass(frozen=True)
class Replayed:
    """What came of a replay. `outcome` is None where the run was cut off then, which was at `stopped_at`."""

    outcome: Outcome | None
    events: Sequence[Event]
    from_log: int
    asked: int
    stopped_at: int | None = None


async def replay(
    trajectory: Trajectory,
    *,
    rooms: Rooms,
    live: Ladder | None = None,
    before: int | None = None,
    log: Log | None = None,
    store: AnswerStore | None = None,
    tools: Sequence[AnyTool] = (),
    project: Path | None = None,
    retries: Retries = USUAL,
    on_event: Callable[[Event], Awaitable[None] | None] | None = None,
    on_text: OnText | None = None,
) -> Replayed:
    """Run a trajectory again. Raise `ReplayDiverged`, or `TrajectoryError` if it cannot be run.

    Offline unless `live` is given, who answers what is not recorded before event `before`; without `before`, also
    what failed or was cut off then. `tools` are those
    that may be called then; their recorded answers come from the log always. The budget is that of then, which
    prompts tell of.
    """
    log = log or Log.nowhere()
    record = await anyio.to_thread.run_sync(partial(record_of, trajectory, before=before))
    strict = live is None or before is not None
    if not strict:
        record.forget_failures()
    watch = _Watch(trajectory, record, log, strict=strict)
    facts = await anyio.to_thread.run_sync(_facts_of_model, trajectory)
    offline = live is None
    answering_tools = _Tools(record, watch, tools, offline=offline)
    async with _job_of(trajectory, answering_tools, project) as given:
        job = replace(given, recursive=_was_recursive(given, record))
        pool = _pool(job.budget) if offline else open_pool(job.budget)
        model = _RecordedModel(record, watch, facts, log, pool, offline=offline)
        ladder = _Answering(model, live)
        answers: Any = _RecordedStore(record) if offline and record.stored else None
        if store is not None and not offline:
            answers = store if strict else _ResumedStore(record, store)
        go = partial(
            run,
            job,
            ladder=ladder,
            rooms=rooms,
            log=log,
            store=answers,
            pool=pool,
            retries=retries,
            on_text=on_text,
        )
        outcome = await _watched(go, watch, log, on_event)
    if offline and watch.stopped_at is None:
        watch.compare_all()
    return Replayed(
        outcome, watch.live, model.answered, model.asked_live + ladder.asked_live, watch.stopped_at
    )


async def _watched(
    go: Callable[[], Awaitable[Outcome]],
    watch: _Watch,
    log: Log,
    on_event: Callable[[Event], Awaitable[None] | None] | None,
) -> Outcome | None:
    """Run it under the eyes of `watch`, which may end it."""
    log.listeners += [watch.hear, *([on_event] if on_event else [])]
    outcome: Outcome | None = None
    try:
        with watch.scope:
            outcome = await go()
    except RLMError as problem:  # as it ended then, or not: the comparison says which
        watch.problem = problem
    finally:
        for listener in (watch.hear, on_event):
            with suppress(ValueError):
                log.listeners.remove(listener)  # type: ignore[arg-type]
    if watch.diverged is not None:
        raise watch.diverged
    if watch.problem is not None and not watch.offline_end():
        raise watch.problem
    return outcome


def _pool(budget: Budget) -> Pool:
    """Return a pool that counts as then and refuses no request: what was refused then is in the log."""
    pool = open_pool(replace(budget, tokens=None, cost_usd=None, wall_seconds=None))
    pool.budget = budget
    return pool


# ---- the job


@asynccontextmanager
async def _job_of(trajectory: Trajectory, tools: _Tools, project: Path | None) -> AsyncGenerator[Job]:
    """Return the job of a trajectory. Contexts that were files are files again, for as long as it lasts."""
    started = trajectory.started
    if started is None:
        raise TrajectoryError(f"The trajectory {trajectory.id} does not say what the run was to do.")
    if "job" not in started:
        raise TrajectoryError(
            f"The trajectory {trajectory.id} is that of a cell in a session. It can be read and not played: "
            "the variables of the session were there before."
        )
    started = await anyio.to_thread.run_sync(trajectory.whole, started)
    folder = Path(await anyio.to_thread.run_sync(tempfile.mkdtemp))
    try:
        contexts = await anyio.to_thread.run_sync(_contexts, trajectory, started, folder)
        facts: Any = started.get("job", {})
        yield Job(
            prompt=str(started.get("prompt", "")),
            contexts=contexts,
            system=str(facts.get("system", "")),
            schema=facts.get("schema"),
            model=str(started.get("model", "")),
            sub_model=str(facts.get("sub_model", "")),
            budget=_budget(started),
            tools=tuple(tools.of(*each) for each in facts.get("tools", ())),
            on_exhausted=facts.get("on_exhausted", "partial"),
            direct_tokens=int(facts.get("direct_tokens", 8000)),
            recursive=facts.get("recursive"),
            files=facts.get("files", "none"),
            project=project,
        )
    finally:
        with anyio.CancelScope(shield=True):
            await anyio.to_thread.run_sync(partial(shutil.rmtree, folder, ignore_errors=True))


def _budget(started: Event) -> Budget:
    told: Any = started.get("budget", {})
    known = {each.name for each in fields(Budget)}
    return Budget(**{name: value for name, value in told.items() if name in known})


def _contexts(trajectory: Trajectory, started: Event, folder: Path) -> dict[str, Any]:
    told: Mapping[str, Any] = started.get("contexts", {})
    return {
        name: _context(trajectory, each, folder / str(number))
        for number, (name, each) in enumerate(told.items())
    }


def _context(trajectory: Trajectory, told: Mapping[str, Any], folder: Path) -> Any:
    ref = str(told.get("ref"))
    if told.get("type") == "file":
        folder.mkdir()
        path = folder / Path(str(told.get("name", "file"))).name
        if not trajectory.blobs.path(ref).exists():
            raise TrajectoryError(f"The context {told.get('name')!r} is not there any more.")
        shutil.copyfile(trajectory.blobs.path(ref), path)
        return ContextFile(path, told.get("form", "text"))
    data = trajectory.blobs.read(ref)
    if told.get("type") == "bytes":
        return data
    return text_of(data) if told.get("type") == "text" else json.loads(data)


def _was_recursive(job: Job, record: Record) -> bool | None:
    """Return whether the run had a REPL then: the rule that says so asks its model. None if it did not come to that."""
    if job.recursive is not None or not any(event["kind"] == "call_started" for event in record.events):
        return job.recursive
    return not any(event["kind"] == "note" and event.get("note") == "direct" for event in record.events)


# ---- who answers


@dataclass(frozen=True)
class _ModelFacts:
    name: str
    native_tools: bool
    windows: Mapping[str, int | None]


def _facts_of_model(trajectory: Trajectory) -> _ModelFacts:
    """Return what the model of a run was, where the log says so, and otherwise by what was said."""
    started: Any = trajectory.started or {}
    told: Any = started.get("answerer") or {}
    roots = [event for event in trajectory.events if event["kind"] == "call_started" and event["depth"] == 0]
    ends = [event for event in trajectory.events if event["kind"] == "call_ended" and event["depth"] == 0]
    name = told.get("name") or (roots[0].get("model") if roots else "") or "replay"
    native = told.get("native_tools")
    if native is None:
        native = any(event.get("tool_calls") for event in ends) or (
            bool(roots) and "tool run_python" in json.dumps(trajectory.whole(roots[0]).get("prompt"))
        )
    calls = (event for event in trajectory.events if "window_tokens" in event)
    windows = {str(event.get("model", "")): event["window_tokens"] for event in calls}
    return _ModelFacts(str(name), bool(native), windows | told.get("windows", {}))


class _RecordedModel:
    """Keeps the promise `Model`: it answers as models answered then."""

    kind: Kind = "replay"

    def __init__(
        self, record: Record, watch: _Watch, facts: _ModelFacts, log: Log, pool: Pool, *, offline: bool
    ) -> None:
        self.name = facts.name
        self.native_tools = facts.native_tools
        self.answered = self.asked_live = 0
        self._windows = facts.windows
        self._record = record
        self._watch = watch
        self._log = log
        self._pool = pool
        self._offline = offline
        self._counted = Counted()

    def window_tokens(self, model: str = "") -> int | None:
        return self._windows.get(model, self._windows.get(""))

    def bound(self, request: Request) -> Bound:
        return Bound(self._counted.most_tokens(request, request.model), request.max_tokens or 0, 0.0)

    def has(self, request: Request) -> bool:
        """Whether the log has an answer left."""
        return self._record.has(self._key(request)) or self._record.has(self._key(in_words(request)))

    def _key(self, request: Request) -> str:
        messages = [said(message) for message in request.messages]
        return key_of_prompt(self._log.hide(messages), request.model or self.name)

    async def complete(self, request: Request, *, on_text: OnText | None = None) -> Reply:
        recorded = self._record.next_of(self._key(request), call_at.get())
        if recorded is None:
            if self._offline:
                await self._watch.left_its_path()
            raise ModelUnavailable(self.name, "the log has no answer left to this", "Ask a live model.")
        tried = Usage(cost_usd=0.0) if recorded.reply is None else recorded.usage
        self._pool.take_over(tried, recorded.unsure_tokens)
        if recorded.was_cut:
            await self._watch.was_cut(recorded.n)
        self.answered += 1
        if recorded.reply is None:
            raise recorded.problem
        self._counted.learn(request, request.model, recorded.reply.usage.input_tokens)
        if on_text is not None:
            await on_text(recorded.reply.text)
        return recorded.reply


class _Answering(Ladder):
    """Who is asked: the log as long as it has an answer, and then those who are there."""

    def __init__(self, recorded: _RecordedModel, live: Ladder | None) -> None:
        super().__init__([recorded])
        self._recorded = recorded
        self._live = live
        self.asked_live = 0

    def pick(self, request: Request) -> Model:
        if self._live is None or not request.messages or self._recorded.has(request):
            return self._recorded
        self.asked_live += 1
        return self._live.pick(request)

    def missing(self, model: Model, problem: ModelUnavailable) -> None:
        if self._live is not None and model is not self._recorded:
            self._live.missing(model, problem)


class _RecordedStore:
    """What the store answered then. Stands in for an `AnswerStore` whose answers are those of the log."""

    def __init__(self, record: Record) -> None:
        self._record = record
        self._put: set[tuple[str, int]] = set()

    async def get(self, key: str, nth: int) -> Stored | None:
        known = self._record.stored.get((key, nth))
        if known is None or ((key, nth) in self._record.first_asked and (key, nth) not in self._put):
            return None
        text = str(known.get("response", ""))
        return Stored(known.get("answer", {"text": text}), text, str(known.get("model", "")))

    async def put(self, key: str, nth: int, stored: Stored) -> None:
        self._put.add((key, nth))

    @asynccontextmanager
    async def asking(self, key: str, nth: int) -> AsyncGenerator[None]:
        yield


class _ResumedStore(_RecordedStore):
    """The store of a run that is gone on with. What was paid for then comes from the log, and so counts again.

    As long as the log has answers left, the store gives what it gave then and what it got since.
    """

    def __init__(self, record: Record, store: AnswerStore) -> None:
        super().__init__(record)
        self._store = store

    async def get(self, key: str, nth: int) -> Stored | None:
        if (key, nth) in self._put or not any(self._record.models.values()):
            return await self._store.get(key, nth)
        return await super().get(key, nth)

    async def put(self, key: str, nth: int, stored: Stored) -> None:
        await super().put(key, nth, stored)
        await self._store.put(key, nth, stored)

    @asynccontextmanager
    async def asking(self, key: str, nth: int) -> AsyncGenerator[None]:
        async with self._store.asking(key, nth):
            yield


class _Tools:
    """Tools that answer as they answered then; where the log says nothing, those that are there now."""

    def __init__(self, record: Record, watch: _Watch, now: Sequence[AnyTool], *, offline: bool) -> None:
        self._record = record
        self._watch = watch
        self._now = {tool.name: tool for tool in now}
        self._offline = offline

    def of(self, name: str, description: str, parameters: Mapping[str, Any], grant: bool) -> Tool:
        """Return a tool as it was described then."""
        return Tool(name, description, parameters, partial(self._call, name), grant)

    async def _call(self, name: str, /, **arguments: Any) -> Any:
        recorded = self._record.next_of_tool(key_of_tool(name, arguments), call_at.get())
        if recorded is None:
            return await self._call_now(name, arguments)
        if recorded.was_cut:
            await self._watch.was_cut(recorded.n)
        if recorded.error is not None:
            raise recorded.problem
        return recorded.output

    async def _call_now(self, name: str, arguments: Mapping[str, Any]) -> Any:
        if self._offline:
            await self._watch.left_its_path()
        if name not in self._now:
            raise TrajectoryError(f"The log has no answer of the tool {name!r}, and the tool is not here.")
        from .tool_calls import ToolCaller

        return await ToolCaller([self._now[name]]).call(name, arguments)


# ---- is it the same


class _Watch:
    """Compares what happens with what happened, and ends the run when that is not the same."""

    def __init__(self, trajectory: Trajectory, record: Record, log: Log, *, strict: bool) -> None:
        self.scope = anyio.CancelScope()
        self.live: list[Event] = []
        self.diverged: ReplayDiverged | None = None
        self.problem: RLMError | None = None
        self.stopped_at: int | None = None
        self._log = log
        self._strict = strict
        self._whole = trajectory.ended is not None
        self._recorded = _comparable(record.events)
        self._steps = [event for event in self._recorded if event["depth"] == 0]
        self._at = 0
        self._last = trajectory.events[-1]["n"] if trajectory.events else 0
        self._ended = trajectory.ended or {}

    def hear(self, event: Event) -> None:
        """Take note of an event, and compare it if it is one of the root, whose events have an order."""
        self.live.append(event)
        if not self._strict or self.scope.cancel_called or event["depth"] or not _comparable([event]):
            return
        if self._at < len(self._steps):
            then = self._steps[self._at]
            self._at += 1
            if _print(then) != _print(self._hidden(event)):
                self._leave(then["n"], _words(then, event), _words(event, then))

    def _hidden(self, event: Event) -> Event:
        hidden: Event = self._log.hide(event)
        return hidden

    def _leave(self, n: int, expected: str, found: str) -> None:
        self.diverged = self.diverged or ReplayDiverged(n, expected, found)
        self.scope.cancel()

    async def left_its_path(self) -> None:
        """End the run, because something was asked that was not asked then."""
        if not self.scope.cancel_called and not self._whole:
            self.stopped_at = self._last  # what was asked next, nobody wrote down
            self.scope.cancel()
        elif not self.scope.cancel_called:
            try:
                self.compare_all(cut=True)
            except ReplayDiverged as problem:
                self.diverged = problem
            self.diverged = self.diverged or ReplayDiverged(self._last, "over", "another question")
            self.scope.cancel()
        await anyio.sleep_forever()

    async def was_cut(self, n: int) -> None:
        """Wait as nobody waited for the answer then. If nobody ends that, the run was cut off there."""
        cut = self._ended.get("finish") == "cancelled" or not self._whole
        await anyio.sleep(0 if cut else _HANGING_SECONDS)
        self.stopped_at = n
        self.scope.cancel()
        await anyio.sleep_forever()

    def offline_end(self) -> bool:
        """Whether the run ended in that error then as well."""
        problem = self.problem
        then: Any = self._ended.get("error") or {}
        return self._strict and problem is not None and then.get("kind") == type(problem).__name__

    def compare_all(self, *, cut: bool = False) -> None:
        """Raise `ReplayDiverged` at the first difference, in children too, whose order among themselves is free."""
        live = _comparable(self.live)
        left = Counter(_print(event) for event in self._recorded)
        extras = [event for event in live if not _take(left, _print(self._hidden(event)))]
        extra = next((event for event in extras if not _is_cancelled(event)), None)
        missing = [event for event in self._recorded if _take(left, _print(event))]
        if extra is not None:
            like = [event for event in missing if _kind(event) == _kind(extra)] or missing
            then: Event = like[0] if like else {"n": self._last, "kind": "over"}
            raise ReplayDiverged(then["n"], _words(then, extra), _words(extra, then))
        if missing and self._whole and not cut:
            raise ReplayDiverged(missing[0]["n"], _words(missing[0], {}), "nothing more")


def _comparable(events: Sequence[Event]) -> list[Event]:
    """Return the events that must be the same, without calls that another rung of a ladder answered."""
    passed_on = {
        event["call_id"]
        for event in events
        if event["kind"] == "call_ended" and within(event, "error", "kind") == "ModelUnavailable"
    }
    return [
        event
        for event in events
        if (event["kind"] in _COMPARED or (event["kind"] == "run_ended" and event["call_id"] == RUN))
        and event["call_id"] not in passed_on
        and event.get("note") not in _OWN_NOTES
    ]


def _kind(event: Event) -> tuple[Any, ...]:
    return event["kind"], event.get("name"), event.get("depth")


def _print(event: Event) -> str:
    """Return all of an event that must be the same, as a text."""
    facts = {name: event[name] for name in _FACTS if event.get(name)}
    if event["kind"] == "cell_ended" and "error" in facts:
        facts["error"] = {name: facts["error"].get(name) for name in ("kind", "message")}
    if event["kind"] == "run_ended":
        facts.pop("error", None)
        facts["finish"] = event.get("finish")
    return same_addresses(json.dumps(plain(facts), sort_keys=True))


def _take(left: Counter[str], print_: str) -> bool:
    left[print_] -= 1
    return left[print_] >= 0


def _is_cancelled(event: Event) -> bool:
    return within(event, "error", "kind") == "Cancelled" or event.get("finish") == "cancelled"


def _words(event: Event, other: Event) -> str:
    """Return in what an event differs from another."""
    if event["kind"] == "over":
        return "over"
    for name in ("prompt", "code", "response", "tool_calls", "tool_results", "error", "finish", "name"):
        own, others = event.get(name), other.get(name)
        if own and (not other or own != others):
            return f"{event['kind']} with the {name} {_shown(own, others)}"
    return str(event["kind"])


def _shown(value: Any, other: Any) -> str:
    """Return a value from where it differs from another on."""
    text, others = (each if isinstance(each, str) else json.dumps(each) for each in (value, other))
    at = next(
        (n for n, (a, b) in enumerate(zip(text, others, strict=False)) if a != b), min(len(text), len(others))
    )
    start = max(0, at - 40) if isinstance(other, type(value)) else 0
    shown = text[start : start + _SHOWN]
    return repr(("..." if start else "") + shown + ("..." if start + _SHOWN < len(text) else ""))


__all__ = ["Recorded", "Replayed", "replay"]
