"""What a host offers to the code in a session beside its variables, and what is known of a call that it makes."""

from __future__ import annotations

import builtins
import keyword
from collections.abc import Awaitable, Callable, Mapping
from contextvars import ContextVar
from dataclasses import dataclass, field
from typing import Any, TypeAlias

Answer: TypeAlias = Callable[[str, Any], Awaitable[Any]]

_TAKEN = frozenset(
    "call call_many call_async display llm_query llm_map llm_query_batched rlm_query rlm_map rlm_query_batched "
    "final help exit quit Answers".split()
)


@dataclass(frozen=True)
class ToolOffer:
    """A tool that code in cells calls by its name, as a function. `parameters` is a JSON schema of an object.

    What code calls is asked as the call "tool", with the name and the arguments.
    """

    name: str
    description: str = ""
    parameters: Mapping[str, Any] = field(default_factory=dict[str, Any])

    def __post_init__(self) -> None:
        if not self.name.isidentifier() or keyword.iskeyword(self.name):
            raise ValueError(
                f"A tool cannot be a function named {self.name!r}: take letters, digits and underscores."
            )
        if self.name in _TAKEN or hasattr(builtins, self.name):
            raise ValueError(
                f"A tool cannot be a function named {self.name!r}: code has another by that name."
            )
        properties, required = self.parameters.get("properties", {}), self.parameters.get("required", [])
        if not isinstance(properties, Mapping) or not isinstance(required, list | tuple):
            raise ValueError(f"The parameters of the tool {self.name!r} are no JSON schema of an object.")

    def told(self) -> dict[str, Any]:
        """Return what a guest is told of it."""
        return {
            "name": self.name,
            "description": self.description,
            "parameters": dict(self.parameters),
        }


@dataclass(frozen=True)
class Asking:
    """A call that is being answered: the cell whose code asks, and the number of the call in its session."""

    cell: int
    call: int


_asking: ContextVar[Asking | None] = ContextVar("asking", default=None)


def asking() -> Asking | None:
    """Return which call is being answered, for who answers it; None anywhere else."""
    return _asking.get()


def begin_asking(cell: int, call: int) -> None:
    """Say in this task which call is being answered."""
    _asking.set(Asking(cell, call))
