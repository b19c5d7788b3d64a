"""The loop: a model says what to run, it is run, and the model is told what came of it, until there is an answer.

One `Loop` is one run: the root, or a child of it. What they share is the `Tree`. Each has a room of its own, and
nothing of one is ever seen by another. How deep a run is is a number on this side, and code has no say in it.

A run ends with an answer, or without one:

    answered    by `final`, or in words after something was seen (`turns` has the rules)
    direct      the task was small, and the model was simply asked (`direct` has the rule)
    exhausted   a budget ended first. A last question asks for the answer in words, if that can still be paid
    gave_up     the model said nothing, only talked, repeated itself or lost its REPL, each more than it may

Without an answer there is still something: the answer to the last question, or else what the variable `answer`
holds, or else the last words.
"""

from __future__ import annotations

import math
import re
from collections import Counter, deque
from collections.abc import Mapping
from dataclasses import dataclass, replace
from functools import partial
from typing import Any

import anyio

from rlm_sessions import CellResult

from . import compaction, prompts, turns
from .answers import Child, ChildJob, ChildResult, Ladder
from .budget import Pool
from .cache import AnswerStore
from .cells import Cells
from .contexts import about_tokens, describe
from .direct import Direct
from .errors import (
    BudgetExhausted,
    ModelError,
    ModelRefused,
    RunFailed,
    TokenBudgetExhausted,
    ToolNotFoundError,
    TurnBudgetExhausted,
)
from .log import Log
from .model import Message, Reply, Request, ToolUse
from .retries import USUAL, Asked, Retries, error_of
from .rooms import Rooms
from .schemas import correction
from .talk import Talk
from .tools import FINAL_ANSWER, RUN_PYTHON, specs
from .tree import Ending, Finish, Task, Tree, as_text, without_answer
from .wanted import Wanted, wanted

PATIENCE = 3  # how often in a row a model may do what leads nowhere
LONGEST_CIRCLE = 3  # how many steps may lie between two that are the same
MAX_ROOMS = 3
LONG_PROMPT_TOKENS = 4_000

_LONG_PROMPT_SHOWN = 4_000
_LONGEST_PIECE = 200_000
_PARTIAL_CHARACTERS = 2_000
_NUMBER = re.compile(r"<cell \d+>")


class Loop:
    """One run. `last_words` are what its model said last, should it not come to an end."""

    def __init__(self, tree: Tree, task: Task) -> None:
        self._tree = tree
        self._task = task
        self._budget = tree.pool.budget
        self._direct: Direct | None = None
        self._work: _Work | None = None

    @property
    def last_words(self) -> str:
        """What there is of an answer."""
        at_work = self._work or self._direct
        return "" if at_work is None else at_work.last_words

    async def run(self) -> Ending:
        """Do the task and return how that ended. Raise what is no end of a run: a `ModelError`, say."""
        form = await wanted(self._task.schema)
        self._direct = Direct(self._tree, self._task, form)
        try:
            if await self._direct.applies():
                return await self._direct.run()
            self._work = _Work(self._tree, self._task, form)
            return await self._work.run()
        except BudgetExhausted as problem:
            return without_answer("exhausted", problem, self.last_words)


def child_runs(
    *,
    ladder: Ladder,
    rooms: Rooms,
    pool: Pool,
    log: Log,
    store: AnswerStore | None = None,
    retries: Retries = USUAL,
    sub_model: str = "",
) -> Child:
    """Return what starts the child runs of code that is no run itself."""
    return partial(child, Tree(ladder, rooms, pool, log, store, retries, sub_model))


async def child(tree: Tree, job: ChildJob) -> ChildResult:
    """Do a child run. One without a whole answer raises what ended it: code takes no part of one for the whole."""
    task = Task(
        prompt=job.prompt,
        contexts={} if job.context is None else {"context": job.context},
        call_id=job.call_id,
        parent_call_id=job.call_id.rpartition(".")[0],
        depth=job.depth,
        schema=job.schema,
        model=job.model,
        tools=job.tools,
        recursive=True,
    )
    ending = await Loop(tree, task).run()
    if ending.problem is not None:
        if ending.text:
            partial = ending.text[:_PARTIAL_CHARACTERS]
            ending.problem.args = (f"{ending.problem} What there is of an answer: {partial}",)
        raise ending.problem
    return ChildResult(ending.text, ending.value, ending.partial, ending.finish)


class _Work:
    """A run in rooms."""

    def __init__(self, tree: Tree, task: Task, wanted: Wanted) -> None:
        self._tree = tree
        self._task = task
        self._wanted = wanted
        self._budget = tree.pool.budget
        self._cells = Cells(tree, task, wanted, partial(child, tree))
        self._talk: Talk | None = None
        self._last_steps = deque[tuple[str, str]](maxlen=LONGEST_CIRCLE)
        self._turn = 0
        self._strikes = Counter[str]()
        self.last_words = ""

    # ---- in a room

    async def run(self) -> Ending:
        """Work in a room, and in another one when that is lost."""
        opening = await self._opening()
        for _ in range(MAX_ROOMS):
            async with self._cells.room(self._variables()):
                ending = await self._until_deadline(opening)
            if ending is not None:
                return ending
        return self._give_up(f"The REPL was lost {MAX_ROOMS} times.")

    def _variables(self) -> Mapping[str, Any]:
        task, talk = self._task, self._talk
        found = {**task.contexts, **({"prompt": task.prompt} if self._is_long else {})}
        if talk is not None and talk.compacted:
            found["history"] = compaction.as_history(talk.whole)
        return found

    @property
    def _is_long(self) -> bool:
        """Whether the prompt is more than a model should read of it."""
        prompt, most = self._task.prompt, LONG_PROMPT_TOKENS
        return len(prompt) > 4 * most or (len(prompt) > most and about_tokens(prompt) > most)

    async def _opening(self) -> Message:
        """Return the first message: the task, and what is there."""
        prompt = self._task.prompt
        words = prompts.long_task(prompt, keep=_LONG_PROMPT_SHOWN) if self._is_long else prompt
        described = [await describe(name, content) for name, content in self._task.contexts.items()]
        if self._task.depth and described:
            contexts = {each.name: {"type": each.type, "size": each.size} for each in described}
            await self._note("child", contexts=contexts)
        return Message("user", prompts.task(words, described))

    async def _until_deadline(self, opening: Message) -> Ending | None:
        is_root = self._task.depth == 0  # whose time ends all below
        with self._tree.pool.time_limit() if is_root else anyio.CancelScope() as time:
            try:
                return await self._turns(opening)
            except BudgetExhausted as problem:
                return await self._ask_at_last("exhausted", problem)
        if time.cancelled_caught:
            try:
                self._tree.pool.check_time()
            except BudgetExhausted as problem:
                return await self._with_best(without_answer("exhausted", problem, self.last_words))
        return None

    async def _turns(self, opening: Message) -> Ending | None:
        """Take turns until the run ends; return None when the room is lost."""
        talk = self._talk = self._talk or self._new_talk(opening)
        while self._turn < self._budget.max_turns:
            self._turn += 1
            reply = self._tree.whole(await self._ask(talk))
            talk.hear(reply)
            ending = await self._take(talk, reply)
            if ending is not None or self._cells.lost:
                return ending
        return await self._ask_at_last("exhausted", TurnBudgetExhausted(self._turn, self._budget.max_turns))

    async def _ask(self, talk: Talk) -> Asked:
        """Ask what to do next, in a conversation that fits into the window, as far as its size is known."""
        if compaction.is_due(talk.tokens, self._window):
            await self._compact(talk)
        try:
            return await self._tree.ask(self._task, self._request(talk))
        except ModelRefused as problem:
            if not compaction.is_too_long(problem) or not await self._compact(talk):
                raise
        return await self._tree.ask(self._task, self._request(talk))

    @property
    def _window(self) -> int | None:
        return self._tree.model(self._task.model).window_tokens(self._task.model)

    def _request(self, talk: Talk) -> Request:
        """Return the next request, whose reply may be as long as there is room for."""
        request = talk.request(self._task.model)
        usual = self._tree.model(request.model).bound(request).output_tokens
        most = compaction.fitting(talk.tokens, self._window, usual)
        return request if most is None else replace(request, max_tokens=most)

    def _new_talk(self, opening: Message) -> Talk:
        task, native = self._task, self._tree.model(self._task.model).native_tools
        setting = prompts.Setting(
            native=native,
            depth=task.depth,
            budget=self._budget,
            tools=task.tools,
            schema=task.schema,
            system=task.system,
            piece_characters=self._piece_characters(),
        )
        system = Message("system", prompts.instructions(setting))
        return Talk(native, opening, [system, opening], specs(task.tools, task.schema) if native else ())

    def _piece_characters(self) -> int:
        """Return how much code can ask a model about at once: half of what the window and the budget hold.

        A token has about four bytes, and at least one.
        """
        name = self._tree.sub_model
        window = self._tree.model(name).window_tokens(name) or compaction.USUAL_WINDOW
        held = min(4 * window, self._budget.tokens or math.inf) / 2
        return int(min(held, _LONGEST_PIECE) // 1000 * 1000) or 1000

    # ---- one turn

    async def _take(self, talk: Talk, reply: Reply) -> Ending | None:
        """Do what a reply says."""
        if reply.tool_uses:
            return await self._take_uses(talk, reply)
        said = self._read(talk, reply)
        talk.say(Message("assistant", prompts.clean(said.kept) or "(nothing)"))
        if said.code:
            told = await self._run(said.code, left_out=said.left_out)
            self._tell(talk, told)
            return await self._after_cell()
        return await self._take_words(talk, reply, said)

    def _read(self, talk: Talk, reply: Reply) -> turns.Said:
        names = turns.NATIVE if talk.native else turns.FENCED
        cut_off = reply.finish in ("length", "refused")
        return turns.read(turns.without_thought(reply.text), names, cut_off=cut_off)

    async def _take_words(self, talk: Talk, reply: Reply, said: turns.Said) -> Ending | None:
        words = said.kept
        if not words.strip():
            return await self._nudge(talk, "nothing", prompts.NOTHING, "The model replied with nothing")
        self.last_words = words
        if reply.finish == "refused":
            return self._give_up("The model refused.")
        if said.cut_off:
            return await self._nudge(
                talk, "cut_off", prompts.CUT_OFF, "Its replies were cut off at max_tokens"
            )
        if not self._cells.seen:
            return await self._nudge(talk, "talk", prompts.NOT_SEEN, "The model only talked, and ran nothing")
        return await self._take_answer(talk, words)

    async def _take_answer(self, talk: Talk, text: str) -> Ending | None:
        fit = await self._wanted.fit(text)
        if not fit.problems:
            return Ending("answered", as_text(fit.value), fit.value)
        await self._note("answer_invalid", problems=list(fit.problems))
        return await self._nudge(talk, "invalid", correction(fit.problems), "The answers were not valid")

    async def _nudge(self, talk: Talk, strike: str, words: str, reason: str) -> Ending | None:
        """Tell the model what to do in place of what it did; or give up, if that was said often enough."""
        if self._is_over(strike):
            return self._give_up(f"{reason}, {PATIENCE} times in a row.")
        await self._note("nudge", why=strike)
        self._tell(talk, words)
        return None

    def _is_over(self, strike: str) -> bool:
        self._strikes[strike] += 1
        return self._strikes[strike] >= PATIENCE

    def _tell(self, talk: Talk, words: str) -> None:
        talk.say(Message("user", f"{words}\n\n{self._status()}"))

    def _status(self) -> str:
        spent = self._tree.pool.spent()
        return prompts.status(self._turn + 1, self._budget, spent, depth=self._task.depth)

    # ---- native calls

    async def _take_uses(self, talk: Talk, reply: Reply) -> Ending | None:
        """Do all that a reply calls, in order. Each call gets a result, whatever becomes of it."""
        talk.say(Message("assistant", prompts.clean(reply.text), reply.tool_uses))
        alone = len(reply.tool_uses) == 1
        ending: Ending | None = None
        astray = list[bool]()
        for number, use in enumerate(reply.tool_uses):
            if use.name == FINAL_ANSWER and not use.problem:
                told, ending = await self._take_final_answer(use, alone=alone)
            else:
                told = await self._take_use(use)
            astray.append(told.astray)
            last = number == len(reply.tool_uses) - 1
            content = f"{told.text}\n\n{self._status()}" if last else told.text
            talk.say(Message("tool", content, tool_use_id=use.id, is_error=told.is_error))
        self._strikes["problem"] += all(astray)
        return ending or await self._after_cell()

    async def _take_use(self, use: ToolUse) -> _Told:
        if self._cells.final is not None or self._cells.lost:
            return _Told(prompts.NOT_RUN, is_error=True)
        if not use.problem and use.name != RUN_PYTHON:
            return await self._take_tool(use)
        code = use.arguments.get("code")
        if not use.problem and isinstance(code, str):
            return _Told(await self._run(code))
        return _Told(use.problem or "run_python takes {'code': '...'}, a text.", is_error=True, astray=True)

    async def _take_tool(self, use: ToolUse) -> _Told:
        """Call a tool of the caller."""
        try:
            result = await self._cells.call_tool(use.name, use.arguments)
            self._strikes.clear()
        except BudgetExhausted:
            raise
        except Exception as problem:  # noqa: BLE001 -- whatever went wrong, the model is told, as code would be
            told = prompts.marked("error", prompts.clean(str(problem)))
            if isinstance(problem, ToolNotFoundError):
                return _Told(told, is_error=True, astray=True)
            again = self._is_the_same(f"{use.name} {dict(use.arguments)}", told)
            return _Told(f"{told}\n{prompts.SAME_AGAIN}" if again else told, is_error=True)
        return _Told(prompts.of_tool(as_text(result)))

    async def _take_final_answer(self, use: ToolUse, *, alone: bool) -> tuple[_Told, Ending | None]:
        value = use.arguments.get("answer")
        if self._cells.final is not None or self._cells.lost:
            return _Told(prompts.NOT_RUN, is_error=True), None
        if not alone or not self._cells.seen:
            over = not self._cells.seen and self._is_over("talk")
            ending = self._give_up("The model only talked, and ran nothing.") if over else None
            return _Told(prompts.NOT_SEEN if alone else prompts.TOO_EARLY, is_error=True), ending
        problems = await self._wanted.problems(value) if value is not None else ("there is no answer in it",)
        if problems:
            await self._note("answer_invalid", problems=list(problems))
            over = self._is_over("invalid")
            self.last_words = as_text(value)
            ending = self._give_up(f"The answers were not valid, {PATIENCE} times.") if over else None
            return _Told(correction(problems), is_error=True), ending
        return _Told("Taken."), Ending("answered", as_text(value), value)

    # ---- cells

    async def _run(self, code: str, *, left_out: bool = False) -> str:
        """Run code and return what the model is told of it."""
        cells = self._cells
        result = await cells.run(code)
        if cells.final is not None and (result.error is not None or result.lost):
            cells.final = None
            told = f"{prompts.of_cell(result, accepted=False)}\n{prompts.ERROR_AFTER_FINAL}"
        else:
            told = prompts.of_cell(result, accepted=cells.final is not None, left_out=left_out)
        again = f"\n{prompts.SAME_AGAIN}" if self._is_the_same(code, _came_of(result)) else ""
        return f"{told}\n{prompts.LOST}" if result.lost else told + again

    def _is_the_same(self, code: str, came: str) -> bool:
        """Whether a step is what one of the last was. If it is not, it leads somewhere, and patience begins anew."""
        repeated = self._strikes["same"] + 1 if (code, came) in self._last_steps else 0
        self._strikes.clear()
        self._strikes["same"] = repeated
        self._last_steps.append((code, came))
        return bool(repeated)

    async def _after_cell(self) -> Ending | None:
        """Return how the run ended with a cell, if it did."""
        if self._cells.final is not None:
            value = self._cells.final.value
            return Ending("answered", as_text(value), value)
        if self._strikes["same"] >= PATIENCE:
            reason = f"The model ran the same code with the same output again, {PATIENCE} times in a row."
            return await self._ask_at_last("gave_up", self._tree.failed(reason, self.last_words))
        if self._strikes["problem"] >= PATIENCE:
            reason = "The calls of the model could not be read, or were of tools that are not there"
            return self._give_up(f"{reason}, {PATIENCE} times in a row.")
        return None

    # ---- ends without an answer

    def _give_up(self, reason: str) -> Ending:
        return self._tree.give_up(reason, self.last_words)

    async def _ask_at_last(self, finish: Finish, problem: BudgetExhausted | RunFailed) -> Ending:
        """Ask once more for what is known, if the budget allows that."""
        ending = await self._with_best(without_answer(finish, problem, self.last_words))
        talk = self._talk
        if talk is None or not self._cells.seen:
            return ending
        talk.shorten(compaction.cut(talk.messages))
        talk.say(Message("user", prompts.LAST.format(reason=ending.reason)))
        try:
            reply = (await self._tree.ask(self._task, self._request(talk), "last")).reply
        except (BudgetExhausted, ModelError):
            return ending
        return await self._with_value(ending, self._answer_in(talk, reply))

    def _answer_in(self, talk: Talk, reply: Reply) -> Any:
        """Return the answer in the last reply, where code is no answer."""
        given = [use.arguments.get("answer") for use in reply.tool_uses if use.name == FINAL_ANSWER]
        said = self._read(talk, reply)
        return given[0] if given else said.kept.strip() if not said.code else ""

    async def _with_best(self, ending: Ending) -> Ending:
        """Return an ending with what the variable `answer` holds, if there is one."""
        return await self._with_value(ending, await self._cells.best())

    async def _with_value(self, ending: Ending, value: Any) -> Ending:
        if value in (None, ""):
            return ending
        return replace(ending, text=as_text(value), value=await self._wanted.valid(value))

    # ---- long conversations

    async def _compact(self, talk: Talk) -> bool:
        """Make the conversation shorter; return whether that could be done."""
        if not talk.can_be_shorter:
            return False
        notes, by = await self._notes(talk)
        window = self._window or compaction.USUAL_WINDOW
        await self._note("compaction", by=by, tokens=talk.tokens, window=window)
        talk.shorten(notes)
        await self._cells.keep("history", compaction.as_history(talk.whole))
        return True

    async def _notes(self, talk: Talk) -> tuple[str, str]:
        request = replace(
            talk.request(self._task.model, compaction.question(talk.messages)),
            max_tokens=compaction.NOTES_TOKENS,
        )
        try:
            reply = (await self._tree.ask(self._task, request, "compaction")).reply
            if reply.text.strip():
                return prompts.clean(reply.text), "model"
        except TokenBudgetExhausted:
            pass
        except (BudgetExhausted, ModelError) as problem:
            await self._note("no_notes", error=error_of(problem))
        return compaction.cut(talk.messages), "cutting"

    async def _note(self, note: str, **facts: Any) -> None:
        await self._tree.note(self._task, note, **facts)


def _came_of(result: CellResult) -> str:
    """Return what came of a cell, but for its number, which stands in tracebacks."""
    error = "" if result.error is None else result.error.traceback or str(result.error)
    facts = (result.output, result.value, _NUMBER.sub("<cell>", error), result.changed, len(result.displays))
    return repr(facts)


@dataclass(frozen=True)
class _Told:
    """What a model is told of a call; an `astray` one could not be made at all."""

    text: str
    is_error: bool = False
    astray: bool = False
