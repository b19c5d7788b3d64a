"""The arguments of a tool, as models write them: JSON as text, and not always right."""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any, NoReturn
from uuid import uuid4

from rlm_runtime.model import ToolUse
from rlm_runtime.models.json_values import is_object, nesting

_MOST_SHOWN = 200
_MOST_NESTING = 100


def tool_use(id: object, name: object, written: object, *, cut_off: bool = False) -> ToolUse:  # noqa: A002 - as in ToolUse
    """Return a call of a tool. What is wrong with its arguments stands in `problem`, in words for the model."""
    if not isinstance(id, str | int) or not isinstance(name, str):  # both come from whoever answers
        raise TypeError("a call of a tool has no name")
    arguments, problem = _read(written)
    if problem and cut_off:
        problem = f"The reply reached max_tokens within the arguments, so they are cut off. {problem}"
    return ToolUse(str(id or "") or f"call_{uuid4().hex[:16]}", name, arguments, problem)


def _read(written: object) -> tuple[Mapping[str, Any], str]:
    if isinstance(written, str):
        try:
            written = (
                json.loads(written, strict=False, parse_constant=_no_constant) if written.strip() else {}
            )
        except (ValueError, RecursionError) as problem:
            return {}, f"The arguments are not valid JSON ({problem}): {_shown(written)}"
    if written is None:
        return {}, ""
    if nesting(written, most=_MOST_NESTING) > _MOST_NESTING:
        return {}, f"The arguments are nested more than {_MOST_NESTING} deep."
    if not is_object(written):
        return {}, f"The arguments should be a JSON object: {_shown(json.dumps(written))}"
    return written, ""


def _no_constant(name: str) -> NoReturn:
    raise ValueError(f"{name} is no JSON")


def _shown(text: object) -> str:
    text = str(text)
    return text if len(text) <= _MOST_SHOWN else f"{text[:_MOST_SHOWN]}..."
