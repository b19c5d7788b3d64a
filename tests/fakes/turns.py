"""What a scripted model is asked, and what it can do about it. Values only."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Literal, TypeAlias

Json: TypeAlias = dict[str, Any]


@dataclass(frozen=True)
class ToolCall:
    """A tool that the model wants to have called. Arguments that are text are sent as they are, right or wrong."""

    name: str
    arguments: Mapping[str, Any] | str = field(default_factory=dict[str, Any])


@dataclass(frozen=True)
class Reply:
    """What the model says: text, calls of tools, or both.

    `finish` is the reason that its API gives, in place of the usual one. `pieces` is in how many events the
    text, and the arguments of each call, come when they are streamed.
    """

    text: str = ""
    calls: tuple[ToolCall, ...] = ()
    input_tokens: int = 10
    output_tokens: int = 5
    finish: str = ""
    refusal: str = ""
    cached_tokens: int = 0
    reports_usage: bool = True
    delay_seconds: float = 0.0
    pieces: int = 2


@dataclass(frozen=True)
class Refusal:
    """An answer that is an error: 429 when there were too many requests, 529 when the model is overloaded.

    `body` is sent in place of what the API would say; it need not be JSON.
    """

    status: int
    message: str = "The script says no."
    retry_after_seconds: float | None = None
    headers: Mapping[str, str] = field(default_factory=dict[str, str])
    code: str = ""
    body: str = ""


@dataclass(frozen=True)
class Hangup:
    """No answer: the connection ends, after so many events of the stream if one was asked for.

    What was to come in one piece ends in its middle if `after_events` is not 0. A `quiet` one ends the stream as
    HTTP ends one, so that only the API's own last event is missing.
    """

    after_events: int = 0
    reply: Reply = Reply("This is never said to its end.")
    quiet: bool = False


@dataclass(frozen=True)
class Breakdown:
    """A stream that ends with an event which is an error. Where none was asked for, the error is the answer."""

    after_events: int = 2
    kind: str = "overloaded_error"
    message: str = "The script breaks down."
    reply: Reply = Reply("This is never said to its end.")


@dataclass(frozen=True)
class Silence:
    """Nothing, after so many events of the stream, until the client goes away."""

    after_events: int = 0
    reply: Reply = Reply("This is never said to its end.")


@dataclass(frozen=True)
class ToolResult:
    """What came of a call that the model had asked for."""

    text: str
    images: tuple[str, ...] = ()
    is_error: bool = False


@dataclass(frozen=True)
class Request:
    """What a client asked."""

    api: Literal["anthropic", "openai"]
    headers: Mapping[str, str]
    body: Json

    @property
    def model(self) -> str:
        """Which model it asked."""
        return str(self.body.get("model", ""))

    @property
    def turn(self) -> int:
        """How often the model has spoken before in this conversation."""
        return sum(message["role"] == "assistant" for message in self.body["messages"])

    @property
    def system(self) -> str:
        """What the model was told about its role."""
        if self.api == "anthropic":
            return _text_of(self.body.get("system"))
        return "\n".join(
            _text_of(each["content"]) for each in self.body["messages"] if each["role"] == "system"
        )

    @property
    def prompt(self) -> str:
        """The last thing that the user said."""
        said = (_text_of(each["content"]) for each in self.body["messages"] if each["role"] == "user")
        return next((text for text in reversed(list(said)) if text), "")

    @property
    def tools(self) -> dict[str, Json]:
        """The tools that the model was offered: their JSON schemas, by name."""
        if self.api == "anthropic":
            return {tool["name"]: tool.get("input_schema", {}) for tool in self.body.get("tools", ())}
        functions = (tool["function"] for tool in self.body.get("tools", ()))
        return {function["name"]: function.get("parameters", {}) for function in functions}

    @property
    def results(self) -> tuple[ToolResult, ...]:
        """What came of all calls so far, the latest one last."""
        if self.api == "anthropic":
            return tuple(
                _result_of(block.get("content", ""), is_error=block.get("is_error", False))
                for message in self.body["messages"]
                for block in _blocks(message["content"])
                if block["type"] == "tool_result"
            )
        return tuple(_result_of(each["content"]) for each in self.body["messages"] if each["role"] == "tool")

    @property
    def text(self) -> str:
        """All that was said in words, of whatever role."""
        said = [_text_of(message["content"]) for message in self.body["messages"]]
        return "\n".join(text for text in (_text_of(self.body.get("system")), *said) if text)


Turn: TypeAlias = Reply | Refusal | Hangup | Breakdown | Silence
Answerer: TypeAlias = Callable[[Request], Turn | Awaitable[Turn]]
Answer: TypeAlias = "Turn | Answerer"
Script: TypeAlias = "Sequence[Answer] | Answerer"


def _blocks(content: str | list[Json] | None) -> list[Json]:
    return [{"type": "text", "text": content}] if isinstance(content, str) else content or []


def _text_of(content: str | list[Json] | None) -> str:
    return "\n".join(block["text"] for block in _blocks(content) if block["type"] == "text" and block["text"])


def _result_of(content: str | list[Json], *, is_error: bool = False) -> ToolResult:
    images = tuple(block["source"]["data"] for block in _blocks(content) if block["type"] == "image")
    return ToolResult(_text_of(content), images, is_error)
