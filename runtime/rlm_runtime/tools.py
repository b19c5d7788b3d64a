"""Tools of a run: what its model may call natively, and its code as functions."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from .model import ToolSpec

if TYPE_CHECKING:
    from rlm_sessions import ToolOffer

    from .tool_calls import Tool as AnyTool

RUN_PYTHON = "run_python"
FINAL_ANSWER = "final_answer"


@dataclass(frozen=True)
class Tool:
    """Something that a host does for a run. `parameters` is a JSON schema of an object; `handler` may be async.

    Child runs get it too, unless `grant` is false.
    """

    name: str
    description: str
    parameters: Mapping[str, Any]
    handler: Callable[..., Any]
    grant: bool = True


def offers(tools: Iterable[AnyTool]) -> tuple[ToolOffer, ...]:
    """Return tools as code in cells finds them; raise `ValueError` for a name that cannot be a function."""
    from rlm_sessions import ToolOffer

    return tuple(ToolOffer(tool.name, tool.description, tool.parameters) for tool in tools)


def specs(tools: Iterable[AnyTool], schema: Mapping[str, Any] | None) -> tuple[ToolSpec, ...]:
    """Return all that a model with native tools is told of: the REPL, the tools, and the end."""
    own = tuple(ToolSpec(tool.name, tool.description, _object(tool.parameters)) for tool in tools)
    if clash := {RUN_PYTHON, FINAL_ANSWER} & {tool.name for tool in own}:
        raise ValueError(f"A tool cannot be named {sorted(clash)[0]!r}: the runtime has one by that name.")
    return (_run_python(), *own, _final_answer(schema))


def _object(parameters: Mapping[str, Any]) -> Mapping[str, Any]:
    return parameters or {"type": "object", "properties": {}}


def _run_python() -> ToolSpec:
    code = {"type": "string", "description": "Python code. Variables stay for the next call."}
    return ToolSpec(
        RUN_PYTHON,
        "Run code in the REPL and see what it prints.",
        {"type": "object", "properties": {"code": code}, "required": ["code"]},
    )


def _final_answer(schema: Mapping[str, Any] | None) -> ToolSpec:
    return ToolSpec(
        FINAL_ANSWER,
        "End the task with an answer in your own words, after you saw the outputs it rests on. "
        "For long values use final(value) in code.",
        {"type": "object", "properties": {"answer": _form(schema)}, "required": ["answer"]},
    )


def _form(schema: Mapping[str, Any] | None) -> Mapping[str, Any]:
    """Return the form of an answer. A schema that refers to its own parts cannot stand within another one."""
    if schema is None:
        return {"type": "string"}
    return {} if "$ref" in json.dumps(schema) else dict(schema)
