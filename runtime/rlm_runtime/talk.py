"""A conversation with a model: as the model has it, which may be notes on a part of it, and all that was said."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

from . import compaction, prompts
from .model import Message, Reply, Request, ToolSpec
from .tools import RUN_PYTHON


class Talk:
    """A conversation. `messages` is what the model has of it, and `whole` is all."""

    def __init__(
        self, native: bool, opening: Message, messages: list[Message], tools: Sequence[ToolSpec]
    ) -> None:
        self.native = native
        self.whole = list(messages)
        self.messages: tuple[Message, ...] = tuple(messages)
        self.compacted = False
        self._opening = opening
        self._tools = tuple(tools)
        self._counted = 0
        self._counted_to = 0

    def request(self, model: str, messages: Sequence[Message] = ()) -> Request:
        return Request(tuple(messages) or self.messages, tools=self._tools, model=model)

    def say(self, message: Message) -> None:
        self.whole.append(message)
        self.messages = (*self.messages, message)

    def hear(self, reply: Reply) -> None:
        """Take note of how long the conversation was, by who knows."""
        if not reply.usage.estimated:
            self._counted, self._counted_to = reply.usage.input_tokens, len(self.messages)

    @property
    def tokens(self) -> int:
        """About how long the conversation is."""
        return self._counted + compaction.size_of(self.messages[self._counted_to :])

    @property
    def can_be_shorter(self) -> bool:
        """Whether anything lies between the task and the last turn."""
        return compaction.last_turn(self.messages) > 2

    def shorten(self, notes: str) -> None:
        if self.can_be_shorter:
            self.messages = compaction.shortened(self.messages, self._opening, notes)
            self._counted = self._counted_to = 0
            self.compacted = True


def in_words(request: Request) -> Request:
    """Return a request without native tools, for a model that has none: their calls and results are said."""
    if not request.tools and not any(message.tool_uses for message in request.messages):
        return request
    messages = tuple(_message_in_words(message) for message in request.messages)
    if messages and messages[0].role == "system":
        messages = (replace(messages[0], content=messages[0].content + prompts.NO_TOOLS), *messages[1:])
    return replace(request, messages=messages, tools=())


def _message_in_words(message: Message) -> Message:
    if message.role == "tool":
        return Message("user", message.content)
    codes = [use.arguments.get("code") for use in message.tool_uses if use.name == RUN_PYTHON]
    blocks = [f"```repl\n{code}\n```" for code in codes]
    return Message(message.role, "\n".join([message.content, *blocks]).strip() or "(nothing)")
