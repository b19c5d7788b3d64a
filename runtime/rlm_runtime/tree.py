"""The tree of a run: what the root and all its children share, what each is to do, and how it may end."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal, TypeAlias

from rlm_sandboxes import Files

from .answers import Ladder
from .budget import Pool
from .cache import AnswerStore
from .errors import CostBudgetExhausted, ModelUnavailable, RunFailed, TokenBudgetExhausted
from .log import Log
from .model import Model, OnText, Reply, Request
from .retries import Asked, Place, Retries, ask_telling
from .rooms import Rooms
from .talk import in_words
from .tool_calls import Tool

Finish: TypeAlias = Literal["answered", "direct", "exhausted", "gave_up", "cancelled"]


@dataclass(frozen=True)
class Task:
    """What one run is to do. Its events belong to `call_id`."""

    prompt: str
    contexts: Mapping[str, Any]
    call_id: str
    parent_call_id: str = ""
    depth: int = 0
    system: str = ""
    schema: Mapping[str, Any] | None = None
    model: str = ""
    tools: tuple[Tool, ...] = ()
    recursive: bool | None = None
    direct_tokens: int = 0
    files: Files = "none"
    project: Path | None = None

    @property
    def facts(self) -> dict[str, Any]:
        """What every event of it has."""
        return {"call_id": self.call_id, "parent_call_id": self.parent_call_id, "depth": self.depth}


@dataclass(frozen=True)
class Ending:
    """How a run ended. `problem` is what ended it, where it was not an answer."""

    finish: Finish
    text: str = ""
    value: Any = None
    reason: str = ""
    problem: Exception | None = None

    @property
    def partial(self) -> bool:
        """Whether there is no whole answer."""
        return bool(self.reason)


@dataclass
class Tree:
    """What a run shares with all its children."""

    ladder: Ladder
    rooms: Rooms
    pool: Pool
    log: Log
    store: AnswerStore | None
    retries: Retries
    sub_model: str = ""
    on_text: OnText | None = None
    tool_calls: list[dict[str, Any]] = field(default_factory=list[dict[str, Any]])

    async def ask(
        self, task: Task, request: Request, name: str = "root", *, on_text: OnText | None = None
    ) -> Asked:
        """Ask the first model that is there, for the run of `task`."""
        while True:
            model = self.ladder.pick(request)
            place = Place(self.log.call_id(task.call_id), task.call_id, task.depth, name)
            try:
                return await ask_telling(
                    model,
                    request if model.native_tools else in_words(request),
                    pool=self.pool,
                    log=self.log,
                    place=place,
                    retries=self.retries,
                    on_text=on_text,
                )
            except ModelUnavailable as problem:
                self.ladder.missing(model, problem)

    def whole(self, asked: Asked) -> Reply:
        """Return a reply, unless a budget made it too short to be one: then raise a `BudgetExhausted`."""
        if asked.is_whole:
            return asked.reply
        budget, spent = self.pool.budget, self.pool.spent()
        advice = "What was left of it was too little for a whole reply."
        if budget.tokens is not None:
            raise TokenBudgetExhausted(spent.tokens, budget.tokens, advice)
        raise CostBudgetExhausted(spent.cost_usd or 0.0, budget.cost_usd or 0.0, advice)

    def model(self, name: str) -> Model:
        """Return who would be asked now."""
        return self.ladder.pick(Request((), model=name))

    def give_up(self, reason: str, last_words: str) -> Ending:
        """Return the ending of a run whose model came to nothing."""
        return without_answer("gave_up", self.failed(reason, last_words), last_words)

    def failed(self, reason: str, last_words: str) -> RunFailed:
        """Return the error of a run whose model came to nothing."""
        return RunFailed(reason, last_words, self.log.trajectory_id)

    async def note(self, task: Task, note: str, **facts: Any) -> None:
        """Write down what the runtime does by itself."""
        await self.log.write("note", **task.facts, note=note, **facts)


def without_answer(finish: Finish, problem: Exception, last_words: str) -> Ending:
    """Return the ending of a run that `problem` ended."""
    reason = problem.reason if isinstance(problem, RunFailed) else str(problem)
    return Ending(finish, last_words, None, reason, problem)


def as_text(value: Any) -> str:
    """Return an answer as text: a text as it is, all else as JSON."""
    return value if isinstance(value, str) else json.dumps(value, ensure_ascii=False)
