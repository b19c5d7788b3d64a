"""The cells of one run: its room, what code in it asks, and what came of it.

Code is answered here: by models, children and tools through an `Answerer`, and `final` by what is wanted. A value
that is not is refused within the cell, so that the code can mend it. When a room is lost, the next one has again
what the run was given.
"""

from __future__ import annotations

import json
from collections.abc import AsyncGenerator, Mapping
from contextlib import AsyncExitStack, asynccontextmanager, suppress
from dataclasses import dataclass, field
from typing import Any, cast

import anyio

from rlm_sessions import Answer, CellError, CellResult, Session, SessionEnded, SessionError

from .answers import Answerer, Child
from .contexts import ContextFile, put
from .errors import AnswerInvalid
from .retries import error_of, milliseconds
from .tools import RUN_PYTHON
from .tree import Task, Tree, as_text
from .wanted import Wanted

_LAST_LOOK_SECONDS = 2.0
_REFUSED_CHARACTERS = 1_000


@dataclass(frozen=True)
class Final:
    """What `final` was given."""

    value: Any


@dataclass
class _Opening:
    """A room that is being opened, until it is, and until it is to be left. `problem` is why there is none."""

    done: anyio.Event = field(default_factory=anyio.Event)
    leave: anyio.Event = field(default_factory=anyio.Event)
    problem: Exception | None = None


class Cells:
    """The cells of one run. `final` is the answer that code gave, `seen` whether there was any real output."""

    def __init__(self, tree: Tree, task: Task, wanted: Wanted, child: Child) -> None:
        self._tree = tree
        self._task = task
        self._wanted = wanted
        self._answerer = Answerer(
            ladder=tree.ladder,
            pool=tree.pool,
            log=tree.log,
            store=tree.store,
            tools=task.tools,
            child=child,
            depth=task.depth,
            parent_call_id=task.call_id,
            retries=tree.retries,
            sub_model=tree.sub_model,
        )
        self._asked: Answer = self._answerer.for_cell()
        self._session: Session | None = None
        self._opening = _Opening()
        self.final: Final | None = None
        self.seen = self.lost = False

    @asynccontextmanager
    async def room(self, contexts: Mapping[str, Any]) -> AsyncGenerator[None]:
        """Have a room with these variables for as long as the context is open.

        It is opened while the model is asked what to do in it; the first cell waits for it.
        """
        opening = self._opening = _Opening()
        self.lost = False
        tending = AsyncExitStack()
        tasks = await tending.enter_async_context(anyio.create_task_group())
        tasks.start_soon(self._hold_room, contexts, opening)
        try:
            yield
        finally:
            self._session = None
            opening.leave.set()
            if not opening.done.is_set():
                tasks.cancel_scope.cancel()
            await tending.aclose()  # and not the group around the caller's block, whose errors are its own

    async def _hold_room(self, contexts: Mapping[str, Any], opening: _Opening) -> None:
        task = self._task
        files = [each.path for each in contexts.values() if isinstance(each, ContextFile)]
        try:
            async with self._tree.rooms.room(
                self._answer, task.tools, project=task.project, files=task.files, readable=files
            ) as session:
                for name, content in contexts.items():
                    await put(session, name, content)
                self._session = session
                opening.done.set()
                await opening.leave.wait()
        except Exception as problem:  # noqa: BLE001 -- it is raised where the room is needed
            opening.problem = problem
            opening.done.set()

    async def _opened(self) -> Session:
        await self._opening.done.wait()
        if self._opening.problem is not None:
            raise self._opening.problem
        assert self._session is not None
        return self._session

    async def run(self, code: str) -> CellResult:
        """Run a cell. An answer of a cell that failed after all does not count."""
        session = await self._opened()
        log, facts, began = self._tree.log, self._task.facts, anyio.current_time()
        self._asked = self._answerer.for_cell(self._task.call_id)
        try:
            await log.write("cell_started", **facts, code=code)
            result = await session.run(code)
        except SessionEnded as problem:
            result = CellResult(0, error=CellError("SessionLost", str(problem)), lost=True)
        except BaseException as problem:
            ended: dict[str, Any] = {"error": _error_of(problem), "duration_ms": milliseconds(began)}
            with anyio.CancelScope(shield=True):
                await log.write("cell_ended", **facts, **ended)
            raise
        await log.write("cell_ended", **facts, **_facts_of(result), duration_ms=milliseconds(began))
        self.seen = self.seen or bool(result.output.strip() or result.value or result.displays)
        self.lost = result.lost
        return result

    async def call_tool(self, name: str, arguments: Mapping[str, Any]) -> Any:
        """Call a tool for the model itself. Raise whatever goes wrong."""
        self._asked = self._answerer.for_cell(self._task.call_id)
        result = await self._answer("tool", {"name": name, "arguments": dict(arguments)})
        self.seen = True
        return result

    async def _answer(self, name: str, payload: Any) -> Any:
        """Answer what code in a cell asks."""
        told = cast("dict[str, Any]", payload) if isinstance(payload, dict) else {}
        if name == "final":
            return await self._take_final(told)
        if name == "tool" and len(self._tree.tool_calls) < self._tree.pool.budget.max_tool_calls:
            self._tree.tool_calls.append({"name": told.get("name"), "arguments": told.get("arguments")})
        return await self._asked(name, payload)

    async def _take_final(self, told: Mapping[str, Any]) -> None:
        """Take an answer from code, or tell the code what is wrong with it. The first one counts."""
        value = told.get("value")
        problems = await self._wanted.problems(value, not_json=str(told.get("repr") or ""))
        if problems:
            await self._tree.note(self._task, "answer_invalid", problems=list(problems))
            raise AnswerInvalid(problems, as_text(value)[:_REFUSED_CHARACTERS])
        self.final = self.final or Final(value)

    async def best(self) -> Any:
        """Return what the variable `answer` holds; None if there is nothing that can be had."""
        if self._session is None:
            return None
        with anyio.move_on_after(_LAST_LOOK_SECONDS), suppress(SessionError):
            held = await self._session.get("answer")
            if held.form in ("text", "json"):
                return held.text() if held.form == "text" else json.loads(held.body)
        return None

    async def keep(self, name: str, value: Any) -> None:
        """Set a variable, if there is a room with space for it, as soon as it is open."""
        await self._opening.done.wait()
        if self._session is not None:
            with suppress(SessionError):
                await put(self._session, name, value)


def _error_of(problem: BaseException) -> dict[str, str]:
    error = error_of(problem)
    return {"kind": "Cancelled", "message": ""} if error["kind"] == "CancelledError" else error


def _facts_of(result: CellResult) -> dict[str, Any]:
    """Return what came of a cell, as the log has it."""
    came: dict[str, Any] = {"name": RUN_PYTHON, "output": result.output, "changed": list(result.changed)}
    came |= {} if result.value is None else {"value": result.value}
    came |= {"output_characters": result.output_characters} if result.left_out else {}
    if result.error is None:
        return {"tool_results": [came]}
    error = {"kind": result.error.name, "message": result.error.message, "traceback": result.error.traceback}
    return {"tool_results": [came], "error": error}
