"""JSON as it comes from others: of any shape."""

from __future__ import annotations

import json
from collections.abc import Iterable
from typing import Any, TypeAlias, TypeGuard

Json: TypeAlias = dict[str, Any]

MOST_CHARACTERS, MOST_PARTS = 32 * 1024 * 1024, 500_000


def is_object(value: object) -> TypeGuard[Json]:
    """Whether a value that was parsed is an object."""
    return isinstance(value, dict)


def is_list(value: object) -> TypeGuard[list[Any]]:
    """Whether a value that was parsed is a list."""
    return isinstance(value, list)


def nesting(value: object, *, most: int) -> int:
    """Return how deep a value is nested, without nesting as deep: at most one more than `most`."""
    depth, level = 0, [value]
    while level and depth <= most:
        depth += 1
        level = [inner for each in level for inner in _parts(each) if is_object(inner) or is_list(inner)]
    return depth


def _parts(value: object) -> Iterable[object]:
    return value.values() if is_object(value) else value if is_list(value) else ()


def is_too_much(text: bytes | str) -> bool:
    """Whether to read a text as JSON would take seconds, and many times its size of memory."""
    if len(text) > MOST_CHARACTERS:
        return True
    if isinstance(text, str):
        return text.count("[") + text.count("{") > MOST_PARTS
    return text.count(b"[") + text.count(b"{") > MOST_PARTS


def parsed(text: bytes | str) -> Any:
    """Return the value that a text is in JSON; None if it is none."""
    try:
        return json.loads(text)
    except (ValueError, RecursionError):
        return None
