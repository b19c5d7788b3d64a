"""Changing one member of an object in a JSON text, and leaving every other byte as it is.

A file that belongs to another program holds what that program and its user put there: their
order, their way of writing numbers, their indentation. So nothing is read and written anew here;
a piece of text is put in, replaced or taken out.

Only standard JSON is understood. Comments, trailing commas and names that stand twice are refused,
because what they mean is known to their program only.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any, cast

_DECODER = json.JSONDecoder()
_BLANK = re.compile(r"[ \t\r\n]*")
_STRING = re.compile(r'"(?:[^"\\]|\\.)*"(\s*:)?')
_NAMED = re.compile(r'"\$\{[\w:]+\}"')
_FIRST_INDENTATION = re.compile(r"\{\r?\n([ \t]+)")


class NotEditable(ValueError):
    """The text is not what can be edited here; the message is the end of a sentence that names it."""


@dataclass(frozen=True)
class Member:
    """Where a member of an object stands in the text."""

    name: str
    start: int
    value: int
    end: int


def parse(text: str) -> dict[str, Any]:
    """Return the object that `text` is; an empty one for a blank text. Raise `NotEditable`."""
    if not text.strip():
        return {}
    try:
        value = json.loads(text, object_pairs_hook=_once, parse_constant=_no_constant)
    except json.JSONDecodeError as problem:
        why = f"is not valid JSON at line {problem.lineno}, column {problem.colno} ({problem.msg})"
        hint = "; comments and trailing commas cannot be kept" if _commented(text, problem.pos) else ""
        raise NotEditable(why + hint) from problem
    except RecursionError as problem:
        raise NotEditable("is nested too deep") from problem
    except NotEditable:
        raise
    except ValueError as problem:
        raise NotEditable("holds a number too long to be read") from problem
    if not isinstance(value, dict):
        raise NotEditable("holds no JSON object")
    return object_of(value)


def object_of(value: Any) -> dict[str, Any]:
    """Return a parsed value as the object that it is; an empty one for any other value."""
    return cast("dict[str, Any]", value) if isinstance(value, dict) else {}


def with_member(text: str, path: Sequence[str], value: Any) -> str:
    """Return `text` with the member at `path` put in or replaced. Missing objects on the way are made."""
    parse(text)
    text = text if text.strip() else "{}\n"
    opening = _BLANK.match(text).end()  # type: ignore[union-attr]
    for depth, name in enumerate(path):
        member = next((each for each in members(text, opening) if each.name == name), None)
        if member is None:
            for above in reversed(path[depth + 1 :]):
                value = {above: value}
            return _inserted(text, opening, depth, name, value)
        if depth == len(path) - 1:
            shown = _written(text, value, _indentation_at(text, member.start))
            return text[: member.value] + shown + text[member.end :]
        opening = _object_at(text, member)
    raise ValueError("the path is empty")


def without_member(text: str, path: Sequence[str]) -> str:
    """Return `text` without the member at `path`; as it is if there is none."""
    member, siblings = _find(text, path)
    if member is None:
        return text
    place = siblings.index(member)
    if place + 1 < len(siblings):
        return text[: member.start] + text[siblings[place + 1].start :]
    if place:
        return text[: siblings[place - 1].end] + text[member.end :]
    opening, closing = text.rindex("{", 0, member.start), text.index("}", member.end)
    return text[: opening + 1] + text[closing:]


def span_of(text: str, path: Sequence[str]) -> tuple[int, int]:
    """Return where the member at `path` begins and ends; (0, 0) if there is none."""
    member, _ = _find(text, path)
    return (member.start, member.end) if member else (0, 0)


def masked(text: str, shown: Sequence[tuple[int, int]]) -> str:
    """Return `text` with its string values hidden, for keys may be among them.

    The names of members, values within `shown`, and those that name a variable, "${...}", stay.
    """

    def hidden(match: re.Match[str]) -> str:
        inside = any(start <= match.start() < end for start, end in shown)
        return match[0] if inside or match[1] or _NAMED.fullmatch(match[0]) else '"..."'

    return _STRING.sub(hidden, text)


def members(text: str, opening: int) -> Iterator[Member]:
    """Yield the members of the object that begins at `opening`, in a text that is known to be JSON."""
    position = _after_blank(text, opening + 1)
    while text[position] != "}":
        start = position
        name, position = _DECODER.raw_decode(text, start)
        value = _after_blank(text, _after_blank(text, position) + 1)
        _, end = _DECODER.raw_decode(text, value)
        yield Member(name, start, value, end)
        position = _after_blank(text, end)
        position = _after_blank(text, position + 1) if text[position] == "," else position


# ---- putting in


def _inserted(text: str, opening: int, depth: int, name: str, value: Any) -> str:
    siblings = list(members(text, opening))
    if siblings:
        last = siblings[-1]
        gap = text[_blank_before(text, last.start) : last.start]
        shown = _written(text, value, _indentation_at(text, last.start), one_line="\n" not in gap)
        return f"{text[: last.end]},{gap}{json.dumps(name)}: {shown}{text[last.end :]}"
    newline, outer = _newline(text), _indentation_at(text, opening) if depth else ""
    inner = outer + _unit(text)
    added = f"{newline}{inner}{json.dumps(name)}: {_written(text, value, inner)}{newline}{outer}"
    return text[: opening + 1] + added + text[_after_blank(text, opening + 1) :]


def _blank_before(text: str, position: int) -> int:
    return len(text[:position].rstrip(" \t\r\n"))


def _written(text: str, value: Any, indentation: str, *, one_line: bool = False) -> str:
    if one_line:
        return json.dumps(value, ensure_ascii=False)
    lines = json.dumps(value, ensure_ascii=False, indent=_unit(text)).split("\n")
    return (_newline(text) + indentation).join(lines)


def _indentation_at(text: str, position: int) -> str:
    line = text[text.rfind("\n", 0, position) + 1 : position]
    return line[: len(line) - len(line.lstrip(" \t"))]


def _unit(text: str) -> str:
    match = _FIRST_INDENTATION.search(text)
    return match[1] if match else "  "


def _newline(text: str) -> str:
    return "\r\n" if "\r\n" in text else "\n"


# ---- finding


def _find(text: str, path: Sequence[str]) -> tuple[Member | None, list[Member]]:
    if not parse(text):
        return None, []
    opening = _after_blank(text, 0)
    siblings = list[Member]()
    for depth, name in enumerate(path):
        siblings = list(members(text, opening))
        member = next((each for each in siblings if each.name == name), None)
        if member is None:
            return None, []
        if depth == len(path) - 1:
            return member, siblings
        opening = _object_at(text, member)
    return None, []


def _object_at(text: str, member: Member) -> int:
    if text[member.value] != "{":
        raise NotEditable(f'has something else than an object at "{member.name}"')
    return member.value


def _after_blank(text: str, position: int) -> int:
    match = _BLANK.match(text, position)
    return match.end() if match else position


def _once(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    found = dict(pairs)
    if len(found) < len(pairs):
        names = [name for name, _ in pairs]
        twice = next(name for name in names if names.count(name) > 1)
        raise NotEditable(f'has "{twice}" twice in one object')
    return found


def _no_constant(text: str) -> Any:
    raise NotEditable(f"holds {text}, which is not JSON")


def _commented(text: str, position: int) -> bool:
    rest = text[position:].lstrip()
    return rest.startswith(("//", "/*", "}", "]"))
