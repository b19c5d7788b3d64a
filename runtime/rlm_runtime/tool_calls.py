"""One call of a tool: is there one of that name, are its arguments right, and what does its handler say.

What reaches a log or a cell of a handler that failed is the kind and the words of its error, with what looks like
a key or a password left out; nothing of the code around it.
"""

from __future__ import annotations

import functools
import json
import math
import re
from collections.abc import Awaitable, Callable, Iterable, Mapping
from dataclasses import fields, is_dataclass
from inspect import isawaitable, iscoroutinefunction
from typing import Any, Protocol, cast

import anyio
import anyio.to_thread

from .errors import BudgetExhausted, RLMError, ToolFailed, ToolNotFoundError
from .schemas import SchemaRefused, shape_of

MAX_RESULT_CHARACTERS = 16 * 1024 * 1024
THREADS = 32  # for handlers that block; those of the server itself are for the server

_REASON_CHARACTERS = 2000
_SECRET = re.compile(
    r"(?i)((?:api[_-]?key|access[_-]?key|token|secret|passw(?:or)?d|authorization|credential)s?"
    r"['\"]?\s*[=:]\s*(?:bearer\s+|basic\s+)?['\"]?|\bbearer\s+|://[^/\s:@]*:)[^\s'\"&,;@)]+"
)
_KEY = re.compile(r"\b(?:sk|pk|rk|ghp|gho|xox[a-z]|AKIA|AIza|snp|rlm)[-_]?[A-Za-z0-9_-]{16,}")


class Tool(Protocol):
    """What must be known of a tool to call it. `parameters` is a JSON schema of an object."""

    @property
    def name(self) -> str: ...
    @property
    def description(self) -> str: ...
    @property
    def parameters(self) -> Mapping[str, Any]: ...
    @property
    def handler(self) -> Callable[..., Any]: ...
    @property
    def grant(self) -> bool: ...


class ToolCaller:
    """Calls tools by their names."""

    def __init__(self, tools: Iterable[Tool]) -> None:
        self._tools = {tool.name: tool for tool in tools}
        self._threads = anyio.CapacityLimiter(THREADS)

    def granted(self, names: Iterable[str] | None) -> tuple[Tool, ...]:
        """Return the tools that a child gets: all that may be granted, or those named."""
        known = {name: tool for name, tool in self._tools.items() if tool.grant}
        chosen = list(known if names is None else names)
        for name in chosen:
            if name not in known:
                raise ToolNotFoundError(name, sorted(known))
        return tuple(known[name] for name in chosen)

    async def call(self, name: str, arguments: Mapping[str, Any]) -> Any:
        """Return what the tool says. Raise `ToolNotFoundError` or `ToolFailed`."""
        tool = self._tools.get(name)
        if tool is None:
            raise ToolNotFoundError(name, sorted(self._tools))
        await _check(tool, arguments)
        try:
            result = await self._handle(tool.handler, arguments)
        except BudgetExhausted as problem:  # one that the tool keeps for itself
            raise ToolFailed(name, type(problem).__name__, str(problem)) from problem
        except RLMError:
            raise
        except (Exception, SystemExit) as problem:
            raise ToolFailed(name, type(problem).__name__, without_secrets(str(problem))) from problem
        return await _plain(name, result)

    async def _handle(self, handler: Callable[..., Any], arguments: Mapping[str, Any]) -> Any:
        if iscoroutinefunction(handler) or iscoroutinefunction(getattr(handler, "__call__", None)):  # noqa: B004
            return await cast("Callable[..., Awaitable[Any]]", handler)(**arguments)
        result = await anyio.to_thread.run_sync(
            functools.partial(handler, **arguments), abandon_on_cancel=True, limiter=self._threads
        )
        return await result if isawaitable(result) else result


async def _check(tool: Tool, arguments: Mapping[str, Any]) -> None:
    try:
        shape = await shape_of(tool.parameters or {"type": "object"})
    except SchemaRefused as problem:
        raise ToolFailed(tool.name, "SchemaRefused", str(problem)) from None
    problems = await shape.problems(dict(arguments))
    if problems:
        raise ToolFailed(tool.name, "ArgumentsInvalid", "; ".join(problems))


async def _plain(name: str, result: Any) -> Any:
    """Return `result` as JSON has it; what JSON does not know becomes a dictionary of its fields, or its text."""
    if isinstance(result, float) and not math.isfinite(result):
        return str(result)
    if result is None or isinstance(result, (bool, int, float)):
        return result
    size = len(result) if isinstance(result, str) else 0
    if not isinstance(result, str):
        try:
            text = await anyio.to_thread.run_sync(
                functools.partial(json.dumps, result, default=_fields_or_text)
            )
        except (TypeError, ValueError, RecursionError) as problem:
            raise ToolFailed(name, "ResultInvalid", f"its result is no JSON: {problem}") from None
        size, result = len(text), json.loads(text, parse_constant=lambda name: str(float(name)))
    if size > MAX_RESULT_CHARACTERS:
        reason = f"its result has {size} characters, and {MAX_RESULT_CHARACTERS} are passed on"
        raise ToolFailed(name, "ResultTooLarge", reason)
    return result


def _fields_or_text(value: Any) -> Any:
    if is_dataclass(value) and not isinstance(value, type):
        return {field.name: getattr(value, field.name) for field in fields(value)}
    dump = (
        None if isinstance(value, type) else getattr(value, "model_dump", None)
    )  # as pydantic's models have it
    return dump(mode="json") if callable(dump) else str(value)


def without_secrets(text: str) -> str:
    """Return `text` without what looks like a key or a password, and not longer than can be read."""
    return _KEY.sub("***", _SECRET.sub(r"\1***", text[:_REASON_CHARACTERS]))
