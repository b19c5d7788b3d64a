"""Typed answers: what a model is told about the schema, and what its text is by it.

Schema and text may both come from somebody who wants to do harm, so nothing is fetched, everything has a bound,
and a check that could take long is done in a process of its own, which is ended when it does. JSON may stand in
a fence or in prose, and may have commas too many; what else is wrong with it is for the model to mend. Where
two different values would do, neither is taken.
"""

from __future__ import annotations

import importlib
import itertools
import json
import math
import re
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any, NoReturn, cast

import anyio
import anyio.to_process
import anyio.to_thread

MAX_SCHEMA_CHARACTERS = 256 * 1024
MAX_TEXT_CHARACTERS = 16 * 1024 * 1024
MAX_NESTING = 100
CHECK_SECONDS = 10.0
TOO_SLOW = f"it takes longer than {CHECK_SECONDS:g} seconds to check; the schema must be simpler"

_QUICK_STEPS = 20_000_000  # of characters of schema times characters of value
_LONG_TEXT = 64 * 1024  # above which text is read in a thread
_STARTS, _PROBLEMS, _PROBLEM_CHARACTERS = 50, 5, 300
_REFERENCES = ("$ref", "$dynamicRef", "$recursiveRef")
_SLOW = frozenset(
    {"pattern", "patternProperties", "uniqueItems", "unevaluatedItems", "unevaluatedProperties"}
)
_WEIGHT_CHARACTERS = 20  # what one part of a schema counts, however short it is written
_FENCE = re.compile(r"(`{3,}|~{3,})[^`]*")
_COMMA = re.compile(r",(?=\s*+[}\]])")
# A text that does not end is taken whole, so that this is linear whatever comes.
_COMMA_OR_TEXT = re.compile(r'("(?:[^"\\]|\\.)*+(?:"|\\?\Z))|' + _COMMA.pattern, re.DOTALL)
_START = re.compile(r"[{\[]")
_UNCLEAR = "it has several values that are valid, and it is not clear which is meant"
_MAX_SHAPES = 100
_shapes: dict[str, Shape] = {}


class SchemaRefused(ValueError):
    """A schema cannot be used."""


@dataclass(frozen=True)
class Fit:
    """What a text is by a schema: its `value`, or what is wrong with it."""

    value: Any = None
    problems: tuple[str, ...] = ()


class Shape:
    """A schema that was checked. `shape_of` makes one."""

    def __init__(self, schema: Mapping[str, Any], text: str) -> None:
        self.schema = schema
        self.text = text
        slow = any(not _SLOW.isdisjoint(each) for each in _mappings(schema))
        self._steps = math.inf if slow else max(len(text), _WEIGHT_CHARACTERS * _weight(schema))

    @property
    def instruction(self) -> str:
        """What a model is told, after the prompt, about the form of its answer."""
        return f"\n\nAnswer with JSON only, without any other word, that is valid by this JSON schema:\n{self.text}"

    async def fit(self, text: str) -> Fit:
        """Return the value in `text` that is valid."""
        if len(text) > MAX_TEXT_CHARACTERS:
            return Fit(problems=(f"it has {len(text)} characters, and {MAX_TEXT_CHARACTERS} are read",))
        if len(text) > _LONG_TEXT:
            found = await anyio.to_thread.run_sync(values_in, text)
        else:
            found = values_in(text)
        first: tuple[str, ...] = ()
        for values in found:
            problems = [await self.problems(value, size=len(text)) for value in values]
            good = [value for value, wrong in zip(values, problems, strict=True) if not wrong]
            if good:
                clear = all(_same(value, good[0]) for value in good)
                return Fit(good[0]) if clear else Fit(problems=(_UNCLEAR,))
            first = first or problems[0]
        word = text.strip()
        plain = not any(isinstance(value, (dict, list)) for values in found for value in values)
        if word and plain and not await self.problems(word, size=len(text)):
            return Fit(word)  # no JSON, where a string is asked for
        return Fit(problems=first or ("there is no JSON in it" if word else "it is empty",))

    async def problems(self, value: Any, *, size: int | None = None) -> tuple[str, ...]:
        """Return what is wrong with `value`; nothing when it is valid."""
        if _nesting(value) > MAX_NESTING:
            return (f"it is nested more than {MAX_NESTING} deep",)
        size = len(json.dumps(value, default=str)) if size is None else size
        if size * self._steps <= _QUICK_STEPS:
            return _problems(value, self.schema)
        async with anyio.to_process.current_default_process_limiter():  # whose wait is no part of the time
            with anyio.move_on_after(CHECK_SECONDS):
                place = anyio.CapacityLimiter(1)
                return await anyio.to_process.run_sync(
                    _problems, value, self.schema, cancellable=True, limiter=place
                )
        return (TOO_SLOW,)


async def shape_of(schema: object) -> Shape:
    """Return the shape that `schema` describes; raise `SchemaRefused`."""
    if not isinstance(schema, Mapping):
        raise SchemaRefused(f"A JSON schema is an object, and this is {type(schema).__name__}.")
    found = cast("Mapping[str, Any]", schema)
    text = _text_of(found)
    if (known := _shapes.get(text)) is not None:
        return known
    _check_references(found)
    if problem := await anyio.to_thread.run_sync(_problem_of_schema, found):
        raise SchemaRefused(f"This is no JSON schema: {problem}")
    if len(_shapes) >= _MAX_SHAPES:
        _shapes.clear()
    return _shapes.setdefault(text, Shape(found, text))


def correction(problems: Iterable[str]) -> str:
    """Return what a model is told about an answer that is not what was asked for."""
    listed = "\n".join(f"- {problem}" for problem in problems)
    return f"That is not valid by the schema:\n{listed}\nAnswer again, with the whole JSON only."


def values_in(text: str) -> list[list[Any]]:
    """Return the JSON values that `text` may mean: as a whole, in fences, in prose. The likelier ones come first."""
    whole = list(_read([text.strip()]))
    if whole:
        return [whole]
    fenced = list(_read(_in_fences(text)))
    return [values for values in (fenced, list(_in_prose(text))) if values]


def _in_fences(text: str) -> list[str]:
    """Return what stands in fences; the last one may have no end."""
    blocks: list[list[str]] = []
    fence = ""
    for line in text.splitlines(keepends=True):
        mark = line.strip()
        if not fence and (opened := _FENCE.fullmatch(mark)):
            if len(blocks) == _STARTS:
                break
            fence = opened[1]
            blocks.append([])
        elif fence and mark == fence:
            fence = ""
        elif fence:
            blocks[-1].append(line)
    return ["".join(block).strip() for block in blocks]


def _read(texts: Iterable[str]) -> Iterator[Any]:
    for text in texts:
        try:
            yield json.loads(text, parse_constant=_no_constant)
        except (ValueError, RecursionError):
            try:
                yield json.loads(_without_commas(text), parse_constant=_no_constant)
            except (ValueError, RecursionError):
                pass


def _without_commas(text: str) -> str:
    """Return `text` without the commas that stand before the end of an object or a list."""
    return _COMMA_OR_TEXT.sub(r"\1", text) if _COMMA.search(text) else text


def _in_prose(text: str) -> Iterator[Any]:
    """Return the objects and lists in prose. One that stands in another belongs to that."""
    text = _without_commas(text)
    decoder, at = json.JSONDecoder(parse_constant=_no_constant), 0
    for _ in range(_STARTS):
        start = _START.search(text, at)
        if start is None:
            return
        try:
            value, at = decoder.raw_decode(text, start.start())
            yield value
        except (ValueError, RecursionError):
            at = start.end()


def _no_constant(name: str) -> NoReturn:
    raise ValueError(f"{name} is no JSON")


def _same(one: Any, other: Any) -> bool:
    return json.dumps(one, sort_keys=True) == json.dumps(other, sort_keys=True)


# ---- bounds


def _text_of(schema: Mapping[str, Any]) -> str:
    if _nesting(schema) > MAX_NESTING:
        raise SchemaRefused(f"A schema may be nested {MAX_NESTING} deep, and this one is deeper.")
    try:
        text = json.dumps(schema, allow_nan=False)
    except (TypeError, ValueError) as problem:
        raise SchemaRefused(f"A schema is JSON, and this one is not: {problem}.") from None
    if len(text) > MAX_SCHEMA_CHARACTERS:
        raise SchemaRefused(
            f"A schema may have {MAX_SCHEMA_CHARACTERS} characters, and this one has {len(text)}."
        )
    return text


def _check_references(schema: Mapping[str, Any]) -> None:
    told = [reference for each in _mappings(schema) for reference in _references(each)]
    for reference in told:
        if not reference.startswith("#"):
            raise SchemaRefused(
                f"A schema may refer to its own parts only, and this one to {reference!r:.200}."
            )


def _nesting(value: Any) -> int:
    """Return how deep a value is nested, without nesting as deep."""
    depth, level = 0, [value]
    while level and depth <= MAX_NESTING:
        depth += 1
        level = [inner for each in level for inner in _inner(each)]
    return depth


def _inner(value: Any) -> Iterable[Any]:
    if isinstance(value, Mapping):
        return [each for each in value.values() if isinstance(each, (Mapping, list, tuple))]  # pyright: ignore[reportUnknownVariableType]
    if isinstance(value, (list, tuple)):
        return [each for each in value if isinstance(each, (Mapping, list, tuple))]  # pyright: ignore[reportUnknownVariableType]
    return ()


def _mappings(value: Any) -> Iterator[Mapping[str, Any]]:
    level = [value]
    while level:
        yield from (each for each in level if isinstance(each, Mapping))
        level = [inner for each in level for inner in _inner(each)]


def _weight(schema: Mapping[str, Any]) -> float:
    """Return how many parts a schema has with all its references followed; endless if they go in a circle."""
    weights: dict[int, float] = {}

    def weigh(part: Any) -> float:
        if id(part) not in weights:
            weights[id(part)] = math.inf
            inner = [*_inner(part), *(_target(schema, reference) for reference in _references(part))]
            weights[id(part)] = 1 + sum(weigh(each) for each in inner)
        return weights[id(part)]

    try:
        return weigh(schema)
    except (LookupError, ValueError, TypeError, RecursionError):
        return math.inf


def _references(part: Any) -> list[str]:
    if not isinstance(part, Mapping):
        return []
    told = [cast("Mapping[str, Any]", part).get(name) for name in _REFERENCES]
    return [reference for reference in told if isinstance(reference, str)]


def _target(schema: Any, reference: str) -> Any:
    """Return the part that a reference like "#/$defs/name" means; raise `LookupError` for others."""
    if not reference.startswith("#/"):
        raise LookupError(reference)
    part = schema
    for name in reference[2:].split("/"):
        part = part[int(name) if isinstance(part, list) else name.replace("~1", "/").replace("~0", "~")]
    return part


# ---- the checks themselves, here or in a process of their own


def _validator(schema: Mapping[str, Any]) -> Any:
    """Return what checks by a schema. Left to itself it would fetch what the schema calls itself, by any protocol."""
    validators: Any = importlib.import_module("jsonschema.validators")
    known: Any = importlib.import_module("jsonschema_specifications").REGISTRY
    return validators.validator_for(schema, default=validators.Draft202012Validator)(schema, registry=known)


def _problem_of_schema(schema: Mapping[str, Any]) -> str:
    try:
        validator = _validator(schema)
        wrong = next(type(validator)(validator.META_SCHEMA).iter_errors(schema), None)
    except Exception as problem:  # noqa: BLE001 -- what is no schema at all breaks the library in many ways
        return f"{problem!s:.{_PROBLEM_CHARACTERS}}"
    return "" if wrong is None else _words(wrong.json_path, wrong.message)


def _problems(value: Any, schema: Mapping[str, Any]) -> tuple[str, ...]:
    try:
        errors = itertools.islice(_validator(schema).iter_errors(value), _PROBLEMS)
        return tuple(_words(error.json_path, error.message) for error in errors)
    except RecursionError:
        return ("the schema refers to itself without end",)
    except Exception as problem:  # noqa: BLE001 -- the library has several errors for a reference to nothing
        return (f"the schema cannot be used: {type(problem).__name__}: {problem!s:.200}",)


def _words(path: str, message: str) -> str:
    shortened = message if len(message) <= _PROBLEM_CHARACTERS else f"{message[:150]} ... {message[-150:]}"
    return shortened if path == "$" else f"at {path}: {shortened}"
