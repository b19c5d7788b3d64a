"""A task that is simply asked, without recursion: which one that is, and how.

The rule: no tools, no files, no bytes, about `direct_tokens` at most with all its contexts, and a request for
which the window and the budget have room. `recursive` forces either way. Children always have a room, because
code that wants a plain answer asks by llm_query.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import replace

from . import compaction, prompts
from .answers import REPAIRS
from .contexts import about_tokens, describe, text_of
from .errors import AnswerInvalid
from .model import Message, Reply, Request
from .retries import Asked
from .schemas import correction
from .tree import Ending, Task, Tree, without_answer
from .turns import without_thought
from .wanted import Wanted

LEAST_ANSWER_TOKENS = 256


class Direct:
    """One run without a room."""

    def __init__(self, tree: Tree, task: Task, wanted: Wanted) -> None:
        self._tree = tree
        self._task = task
        self._wanted = wanted
        self.last_words = ""

    async def applies(self) -> bool:
        """Whether the task is to be answered in this way."""
        task = self._task
        if task.recursive is not None:
            return not task.recursive
        if task.tools or task.files != "none":
            return False
        described = [await describe(name, content) for name, content in task.contexts.items()]
        tokens = about_tokens(task.prompt) + sum(each.tokens for each in described)
        if tokens > task.direct_tokens or any(each.type == "bytes" for each in described):
            return False
        if not self._fits(await self._request()):
            return False
        await self._tree.note(task, "direct", tokens=tokens, direct_tokens=task.direct_tokens)
        return True

    def _fits(self, request: Request) -> bool:
        model, pool = self._tree.model(request.model), self._tree.pool
        needed = model.bound(request).input_tokens + LEAST_ANSWER_TOKENS
        left = math.inf if pool.budget.tokens is None else pool.budget.tokens - pool.spent().tokens
        window = model.window_tokens(request.model) or compaction.USUAL_WINDOW
        return needed <= left and compaction.size_of(request.messages) < window / 2

    async def _request(self) -> Request:
        task = self._task
        texts = [(name, await text_of(name, content)) for name, content in task.contexts.items()]
        words = prompts.direct(task.prompt, texts) + self._wanted.instruction
        system = (Message("system", prompts.clean(task.system)),) if task.system else ()
        return Request((*system, Message("user", words)), model=task.model, schema=task.schema)

    async def run(self) -> Ending:
        """Ask, and return the answer."""
        with self._tree.pool.time_limit():
            return await self._answer(await self._request())
        self._tree.pool.check_time()
        raise AssertionError("unreachable")

    async def _answer(self, request: Request) -> Ending:
        reply = self._heard(await self._tree.ask(self._task, request, on_text=self._tree.on_text))
        if self._task.schema is None:
            return self._ending(reply)
        for _ in range(REPAIRS):
            fit = await self._wanted.fit(self.last_words)
            if not fit.problems:
                return Ending("direct", self.last_words, fit.value)
            await self._tree.note(self._task, "answer_invalid", problems=list(fit.problems))
            request = replace(request, messages=(*request.messages, *self._mending(fit.problems)))
            self._heard(await self._tree.ask(self._task, request, "repair"))
        fit = await self._wanted.fit(self.last_words)
        if fit.problems:
            return without_answer("gave_up", AnswerInvalid(fit.problems, self.last_words), self.last_words)
        return Ending("direct", self.last_words, fit.value)

    def _heard(self, asked: Asked) -> Reply:
        """Take note of what was said, and return it if it is whole; else raise a `BudgetExhausted`."""
        self.last_words = without_thought(asked.reply.text)
        return self._tree.whole(asked)

    def _mending(self, problems: Sequence[str]) -> tuple[Message, Message]:
        said = Message("assistant", prompts.clean(self.last_words) or "(nothing)")
        return said, Message("user", correction(problems))

    def _ending(self, reply: Reply) -> Ending:
        failed = {"length": "The answer was cut off at max_tokens.", "refused": "The model refused."}
        if not self.last_words.strip():
            return self._tree.give_up("The model replied with nothing.", self.last_words)
        if reply.finish in failed:
            return self._tree.give_up(failed[reply.finish], self.last_words)
        return Ending("direct", self.last_words, self.last_words)
