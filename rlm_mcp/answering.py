"""Who answers the calls of a cell: the ladder of models, the budget, the store of answers, and the log of it all.

Nothing of it is made before the first call comes: most cells ask nothing, and should not pay for it.
"""

from __future__ import annotations

import gc
import json
from collections import Counter
from collections.abc import AsyncGenerator, Mapping, Sequence
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any, cast

import anyio
import anyio.to_thread

from .models import budget_of, choices_of, secrets_of
from .trajectory_places import bound_of, folder_for
from .waiting import same_before

if TYPE_CHECKING:
    from rlm_runtime import AnswerStore, KeptBound, Ladder, Log, Model
    from rlm_sessions import Answer, CellResult, Project

    from .app import App
    from .sources import Loaded
    from .tenants import Tenant

_STORE = "answers"


@dataclass(frozen=True)
class Help:
    """Who can answer besides what is configured: a client that samples, and one that answers by itself."""

    sampling: Model | None = None
    desk: Model | None = None
    notes: list[str] = field(default_factory=list[str])  # why somebody was passed by


@dataclass
class Means:
    """What a run is given to ask with."""

    ladder: Ladder
    store: AnswerStore
    folder: Path
    secrets: Sequence[str]
    model: str
    client_only: bool
    bound: KeptBound


async def means_of(app: App, tenant: Tenant, project: Project, loaded: Loaded, help_: Help) -> Means:
    """Return who answers in a project, first the first. Raise `ModelUnavailable` if nobody does."""
    await load_runtime()
    from rlm_runtime import Ladder, ModelUnavailable

    class Telling(Ladder):
        def missing(self, model: Model, problem: ModelUnavailable) -> None:
            super().missing(model, problem)
            if str(problem) not in help_.notes:
                help_.notes.append(str(problem))

    rlm, settings = loaded.settings.rlm, loaded.settings
    choices = choices_of(rlm, app.settings.rlm, app.environment)
    models, problem = list[Any](), None
    for choice in choices:
        try:
            models.append(await app.model(choice))
        except ModelUnavailable as unavailable:
            problem = unavailable
            help_.notes.append(str(unavailable))
    others = [each for each in (help_.sampling, help_.desk) if each is not None]
    if not models and not others and problem is not None:
        raise problem
    place = app.place(tenant, project)
    return Means(
        Telling([*models, *others]),
        app.answers_in(place / _STORE),
        folder_for(settings, tenant, place),
        secrets_of(choices),
        rlm.model or (models[0].name if models else others[0].name if others else ""),
        client_only=not models and help_.sampling is None,
        bound=bound_of(settings),
    )


async def load_runtime() -> None:
    """Import the runtime, which others need not wait for."""
    import rlm_runtime

    if "run_job" not in vars(rlm_runtime):
        await anyio.to_thread.run_sync(getattr, rlm_runtime, "run_job")
        gc.freeze()  # what was imported stays, and is not looked through in the middle of a batch


class CellCalls:
    """Answers the calls of one cell. What they cost and were answered is a trajectory of its own."""

    def __init__(self, app: App, tenant: Tenant, project: Project, code: str, help_: Help) -> None:
        self.notes = help_.notes
        self.result: CellResult | None = None
        self._app = app
        self._tenant = tenant
        self._project = project
        self._code = code
        self._help = help_
        self._opening = anyio.Lock(fast_acquire=True)
        self._answer: Answer | None = None
        self._same: Counter[int] = Counter()
        self._stack = AsyncExitStack()
        self._log: Log | None = None
        self._pool: Any = None

    async def answer(self, name: str, payload: Any) -> Any:
        """Answer one call."""
        content = hash(_content(name, payload))
        same_before.set(self._same[content])
        self._same[content] += 1
        if name == "final" and self._answer is None:
            return None  # a cell that has asked nothing has no trajectory
        return await (self._answer or await self._opened())(name, payload)

    async def _opened(self) -> Answer:
        async with self._opening:
            answer = self._answer
            if answer is None:
                answer = self._answer = await self._open()
        return answer

    @property
    def trajectory_id(self) -> str:
        """The trajectory of this cell; nothing if it asked nothing."""
        return "" if self._log is None else self._log.trajectory_id

    async def _open(self) -> Answer:
        await load_runtime()
        from rlm_runtime import RUN, Answerer, Pool, child_runs, open_log

        from . import stories

        loaded = await self._app.loaded(self._project)
        rlm = loaded.settings.rlm
        means = await means_of(self._app, self._tenant, self._project, loaded, self._help)
        self._pool = Pool(budget_of(rlm, client_only=means.client_only, of_cell=True))
        self._log = log = await self._stack.enter_async_context(
            open_log(means.folder, secrets=means.secrets, bound=means.bound)
        )
        stories.join(self._app, self._tenant, loaded.settings, log)
        at: dict[str, Any] = {"call_id": RUN, "parent_call_id": "", "depth": 0}
        await log.write("run_started", **at, name="cell", prompt=self._code, model=means.model)
        await log.write("cell_started", **at, code=self._code)
        rooms = await self._app.rooms(self._tenant, self._project)
        shared: dict[str, Any] = {
            "ladder": means.ladder,
            "pool": self._pool,
            "log": log,
            "store": means.store,
            "sub_model": rlm.sub_model,
        }
        child = child_runs(rooms=rooms, **shared)
        return Answerer(child=child, depth=0, parent_call_id=RUN, **shared).for_cell()

    async def end(self, result: CellResult | None) -> None:
        """Close the log; `result` is what came of the cell, or nothing if nobody will know."""
        if self._log is None:
            return
        with anyio.CancelScope(shield=True):
            try:
                await self._write_end(self._log, result)
            finally:
                await self._stack.aclose()

    async def _write_end(self, log: Log, result: CellResult | None) -> None:
        from rlm_runtime import RUN

        at: dict[str, Any] = {"call_id": RUN, "parent_call_id": "", "depth": 0}
        spent, facts = self._pool.spent(), dict[str, Any]()
        if result is not None:
            output = {"output": result.output, "value": result.value, "changed": list(result.changed)}
            facts["tool_results"] = [output]
        error: dict[str, Any] = {}
        if result is not None and result.error is not None:
            error = {"error": {"kind": result.error.name, "message": result.error.message}}
        facts |= error
        await log.write("cell_ended", **at, **facts, duration_ms=round(spent.seconds * 1000, 3))
        await log.write(
            "run_ended",
            **at,
            finish="cancelled" if result is None else "gave_up" if error else "answered",
            response=(result.value or "") if result is not None else "",
            **error,
            token_usage={"total_tokens": spent.tokens, "unsure_tokens": spent.unsure_tokens},
            unsure_cost_usd=spent.unsure_cost_usd,
            cost_usd=spent.cost_usd,
            calls=spent.calls,
            depth_reached=spent.depth_reached,
            duration_ms=round(spent.seconds * 1000, 3),
        )


@asynccontextmanager
async def cell_calls(app: App, tenant: Tenant, project: Project, code: str) -> AsyncGenerator[CellCalls]:
    """Yield what answers the calls of a cell for which no client is there: the configured model, or a command."""
    calls = CellCalls(app, tenant, project, code, Help())
    try:
        yield calls
    finally:
        await calls.end(calls.result)


def _content(name: str, payload: Any) -> tuple[str, ...]:
    if not isinstance(payload, Mapping):
        return (name,)
    facts = cast("Mapping[str, Any]", payload)
    kept = sorted(facts.keys() - {"fresh", "group"})
    return (name, *(f"{key}={_text(facts[key])}" for key in kept))


def _text(value: Any) -> str:
    return value if isinstance(value, str) else json.dumps(value, sort_keys=True)
