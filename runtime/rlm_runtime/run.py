"""A run: one recursive job, from its first event to its last, whatever happens between.

`run` owns the tree of calls. When it returns or raises, every child, call and process of it is gone, and its log
says how it ended. On exhaustion it returns what there is, or raises the typed error, as `on_exhausted` says; so it
does for a model that came to nothing, whose error is `RunFailed`. A model that cannot be asked, and a cost cap
that cannot be kept, are errors always. Errors of a run say `trajectory_id` and `partial`.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Mapping
from contextlib import suppress
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any, Literal

import anyio

from rlm_sandboxes import Files

from .answers import Ladder
from .budget import Budget, Pool, open_pool
from .cache import AnswerStore
from .contexts import ContextFile, check_names
from .errors import ModelUnavailable, RLMError
from .events import RUN, Event
from .log import Log
from .loop import Loop
from .model import OnText, Request
from .retries import USUAL, Retries, error_of, milliseconds
from .rooms import Rooms
from .tool_calls import Tool
from .tools import offers, specs
from .tree import Ending, Finish, Task, Tree

__all__ = ["Budget", "ContextFile", "Job", "Outcome", "Rooms", "run"]

_LAST_WORD_SECONDS = 5.0


@dataclass(frozen=True)
class Job:
    """What is to be done.

    `contexts` are texts, bytes, JSON values or `ContextFile`s, by the names of their variables. `model` steers,
    `sub_model` answers what code asks; empty is the usual one. `recursive` forces a REPL, or forbids one; when it
    is None, a task that has no tools and no files, and is with its contexts not longer than `direct_tokens`, is
    answered directly. `files` is what the REPL sees of the folder `project`.
    """

    prompt: str
    contexts: Mapping[str, Any] = field(default_factory=dict[str, Any])
    system: str = ""
    schema: Mapping[str, Any] | None = None
    model: str = ""
    sub_model: str = ""
    budget: Budget = field(default_factory=Budget)
    tools: tuple[Tool, ...] = ()
    on_exhausted: Literal["error", "partial"] = "partial"
    direct_tokens: int = 8000
    recursive: bool | None = None
    files: Files = "none"
    project: Path | None = None


@dataclass(frozen=True)
class Outcome:
    """What came of a run. `reason` says why it is `partial`. `total_calls` are all requests to models.

    What is over the budget, a model took against what it was told; nothing was asked after that. The unsure part
    is what requests that brought no answer may have used at most: it is no part of the totals.
    """

    response: str
    value: Any
    trajectory_id: str
    total_calls: int
    total_tokens: int
    depth_reached: int
    tool_calls: tuple[Mapping[str, Any], ...]
    duration_ms: float
    cost_usd: float | None
    finish: Finish
    reason: str = ""
    partial: bool = False
    over_tokens: int = 0
    over_cost_usd: float = 0.0
    unsure_tokens: int = 0
    unsure_cost_usd: float | None = 0.0


async def run(
    job: Job,
    *,
    ladder: Ladder,
    rooms: Rooms,
    log: Log,
    store: AnswerStore | None = None,
    pool: Pool | None = None,
    retries: Retries = USUAL,
    on_event: Callable[[Event], Awaitable[None] | None] | None = None,
    on_text: OnText | None = None,
) -> Outcome:
    """Do a job and return what came of it. `on_text` hears an answer that is given directly, as it comes."""
    _check(job)
    tree = Tree(ladder, rooms, pool or open_pool(job.budget), log, store, retries, job.sub_model, on_text)
    if on_event is not None:
        log.listeners.append(on_event)
    try:
        return await _run(job, tree)
    finally:
        if on_event is not None:
            with suppress(ValueError):  # it failed, and hears nothing any more
                log.listeners.remove(on_event)


def _check(job: Job) -> None:
    """Raise `ValueError` for names that contexts or tools cannot have."""
    check_names(job.contexts)
    offers(job.tools)
    specs(job.tools, job.schema)


async def _run(job: Job, tree: Tree) -> Outcome:
    began = anyio.current_time()
    loop = Loop(tree, _task(job))
    try:
        contexts = {name: await _kept(tree.log, content) for name, content in job.contexts.items()}
        await _begin(job, tree, contexts)
        ending = await loop.run()
    except BaseException as problem:
        with anyio.move_on_after(_LAST_WORD_SECONDS, shield=True):
            await _end(tree, began, _broken_off(problem, loop.last_words))
        _complete(problem, tree, loop.last_words)
        raise
    outcome = await _end(tree, began, ending)
    if ending.problem is not None and job.on_exhausted == "error":
        _complete(ending.problem, tree, ending.text)
        raise ending.problem
    return outcome


def _task(job: Job) -> Task:
    return Task(
        prompt=job.prompt,
        contexts=job.contexts,
        call_id=RUN,
        system=job.system,
        schema=job.schema,
        model=job.model,
        tools=job.tools,
        recursive=job.recursive,
        direct_tokens=job.direct_tokens,
        files=job.files,
        project=job.project,
    )


async def _begin(job: Job, tree: Tree, contexts: Mapping[str, Any]) -> None:
    await tree.log.write(
        "run_started",
        call_id=RUN,
        parent_call_id="",
        depth=0,
        prompt=job.prompt,
        model=job.model,
        budget=asdict(tree.pool.budget),
        contexts=contexts,
        answerer=_answerer(job, tree.ladder),
        job={
            "system": job.system,
            "schema": job.schema,
            "sub_model": job.sub_model,
            "tools": [[tool.name, tool.description, tool.parameters, tool.grant] for tool in job.tools],
            "direct_tokens": job.direct_tokens,
            "recursive": job.recursive,
            "on_exhausted": job.on_exhausted,
            "files": job.files,
        },
    )


def _answerer(job: Job, ladder: Ladder) -> dict[str, Any]:
    """Return what the run goes by of its model, for who plays it again."""
    try:
        model = ladder.pick(Request((), model=job.model))
    except ModelUnavailable:
        return {}
    windows = {name: model.window_tokens(name) for name in ("", job.model, job.sub_model)}
    return {"name": model.name, "native_tools": model.native_tools, "windows": windows}


async def _kept(log: Log, content: Any) -> dict[str, Any]:
    if isinstance(content, ContextFile):
        return await log.keep(content.path) | {"form": content.form}
    return await log.keep(content)


async def _end(tree: Tree, began: float, ending: Ending) -> Outcome:
    spent, log = tree.pool.spent(), tree.log
    facts: dict[str, Any] = {} if ending.problem is None else {"error": error_of(ending.problem)}
    over = {"over_tokens": spent.over_tokens} if spent.over_tokens else {}
    outcome = Outcome(
        response=ending.text,
        value=ending.value,
        trajectory_id=log.trajectory_id,
        total_calls=spent.requests,
        total_tokens=spent.tokens,
        depth_reached=spent.depth_reached,
        tool_calls=tuple(tree.tool_calls),
        duration_ms=milliseconds(began),
        cost_usd=spent.cost_usd,
        finish=ending.finish,
        reason=ending.reason,
        partial=ending.partial,
        over_tokens=spent.over_tokens,
        over_cost_usd=spent.over_cost_usd,
        unsure_tokens=spent.unsure_tokens,
        unsure_cost_usd=spent.unsure_cost_usd,
    )
    await log.write(
        "run_ended",
        call_id=RUN,
        parent_call_id="",
        depth=0,
        response=outcome.response,
        value=None if isinstance(outcome.value, str) else outcome.value,
        finish=outcome.finish,
        reason=outcome.reason,
        token_usage={"total_tokens": spent.tokens, "unsure_tokens": spent.unsure_tokens} | over,
        cost_usd=spent.cost_usd,
        unsure_cost_usd=spent.unsure_cost_usd,
        duration_ms=outcome.duration_ms,
        calls=spent.calls,
        requests=spent.requests,
        depth_reached=spent.depth_reached,
        **facts,
    )
    return outcome


def _broken_off(problem: BaseException, last_words: str) -> Ending:
    if isinstance(problem, Exception):
        return Ending("gave_up", last_words, None, str(problem) or type(problem).__name__, problem)
    return Ending("cancelled", last_words, None, "The run was cancelled.")


def _complete(problem: BaseException, tree: Tree, partial: str) -> None:
    """Have an error say which run it ended, and what there is of an answer."""
    if isinstance(problem, RLMError):
        problem.trajectory_id, problem.partial = tree.log.trajectory_id, problem.partial or partial
