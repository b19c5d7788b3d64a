"""A model: what it is asked, what it replies, and what asking it may cost.

Everything that answers a prompt is a `Model`: an API, a program, a client of ours that samples, a client
that answers by itself. None of them retries, keeps a budget or writes a log; that is done once, around all.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass, field
from typing import Any, Literal, Protocol, TypeAlias

Role: TypeAlias = Literal["system", "user", "assistant", "tool"]
Finish: TypeAlias = Literal["stop", "length", "tools", "refused"]
OnText: TypeAlias = Callable[[str], Awaitable[None]]
Kind: TypeAlias = Literal["api", "command", "sampling", "client", "replay"]


@dataclass(frozen=True)
class ToolUse:
    """A call of a tool that a model asks for. `problem` says why its arguments could not be read."""

    id: str
    name: str
    arguments: Mapping[str, Any] = field(default_factory=dict[str, Any])
    problem: str = ""


@dataclass(frozen=True)
class Message:
    """One message of a conversation. Those of the role "tool" answer the `ToolUse` with `tool_use_id`."""

    role: Role
    content: str
    tool_uses: tuple[ToolUse, ...] = ()
    tool_use_id: str = ""
    is_error: bool = False


@dataclass(frozen=True)
class ToolSpec:
    """A tool as a model is told of it. `parameters` is a JSON schema of an object."""

    name: str
    description: str
    parameters: Mapping[str, Any]


@dataclass(frozen=True)
class Request:
    """What a model is asked. `model` is in place of its usual one; `schema` is the JSON schema of the answer."""

    messages: tuple[Message, ...]
    tools: tuple[ToolSpec, ...] = ()
    model: str = ""
    max_tokens: int | None = None
    temperature: float | None = None
    schema: Mapping[str, Any] | None = None
    stop: tuple[str, ...] = ()


@dataclass(frozen=True)
class Usage:
    """What was used. A cost of None is unknown, which is not nothing; `estimated` tokens were not reported."""

    input_tokens: int = 0
    output_tokens: int = 0
    cost_usd: float | None = None
    estimated: bool = False

    @property
    def tokens(self) -> int:
        """All tokens."""
        return self.input_tokens + self.output_tokens


@dataclass(frozen=True)
class Reply:
    """What a model replied."""

    text: str
    tool_uses: tuple[ToolUse, ...] = ()
    usage: Usage = Usage()
    model: str = ""
    finish: Finish = "stop"


@dataclass(frozen=True)
class Bound:
    """The most that a request can cost. A cost of None is unknown."""

    input_tokens: int
    output_tokens: int
    cost_usd: float | None

    @property
    def tokens(self) -> int:
        """All tokens."""
        return self.input_tokens + self.output_tokens


class Model(Protocol):
    """Who answers prompts."""

    @property
    def name(self) -> str:
        """The model that is asked unless a request names another one."""
        ...

    @property
    def kind(self) -> Kind:
        """What kind of answerer it is."""
        ...

    @property
    def native_tools(self) -> bool:
        """Whether it can be given tools; otherwise code comes in fences."""
        ...

    def window_tokens(self, model: str = "") -> int | None:
        """How many tokens fit into one request and its reply; None where that is not known."""
        ...

    def bound(self, request: Request) -> Bound:
        """Return the most that a request can cost, output included. It is quick and does not ask anybody."""
        ...

    async def complete(self, request: Request, *, on_text: OnText | None = None) -> Reply:
        """Return the reply. `on_text` hears it as it comes, where that can be. Raise `ModelError`.

        A caller that is cancelled ends the request at once.
        """
        ...
