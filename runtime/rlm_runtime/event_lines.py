"""The lines of a trajectory: how an event is written so that nothing is written twice, and how it is read again.

    {"ref": n, "characters": k}                 a text of more than 200 characters: that of the line n of this file
    {"ref": "sha256:...", "characters": k}      the same, of a text that is a context: that of a blob
    {"same_as": n, "messages": k}               first in a prompt: the first k messages of the prompt of event n
    {"escaped": {...}}                          an object of somebody else's that looks like one of these

This module does no I/O. A `LineWriter` belongs to one trajectory and must be given its events in order.
"""

from __future__ import annotations

import json
import math
from collections import OrderedDict
from collections.abc import Callable, Mapping, Sequence
from datetime import UTC, datetime
from hashlib import sha256
from typing import Any, cast

from .blobs import PREFIX, REPLACED, bytes_of, ref_of
from .events import INLINE_CHARACTERS, SCHEMA, Event, Kind

BASE = ("schema", "trajectory_id", "n", "time", "kind", "call_id", "parent_call_id", "depth")
LEAST_SECRET = 8  # what is shorter stands in many texts that are no secret
TITLE_CHARACTERS = 100

_PROMPTS = 10_000
_REF, _SAME, _ESCAPED = {"ref", "characters"}, {"same_as", "messages"}, {"escaped"}
_LEFT_OUT: dict[str, Any] = {"tool_calls": [], "cached": False, "reason": "", "value": None}
_DIGITS = 16
_TOO_DEEP = "(nested too deeply to be written)"


def worth_hiding(secrets: Sequence[str]) -> tuple[str, ...]:
    """Return those of `secrets` that are long enough to be told from other words, the longest first."""
    return tuple(sorted({each for each in secrets if len(each) >= LEAST_SECRET}, key=len, reverse=True))


def plain(value: Any, secrets: Sequence[str] = ()) -> Any:
    """Return a value as JSON has it, without the secrets. What JSON does not know becomes its text."""
    if isinstance(value, str):
        return _without(value, secrets)
    if isinstance(value, float):
        return value if math.isfinite(value) else str(value)
    if value is None or isinstance(value, int):
        return value
    if isinstance(value, Mapping):
        items = cast("Mapping[object, object]", value).items()
        return {_without(str(key), secrets): plain(each, secrets) for key, each in items}
    if isinstance(value, (list, tuple)):
        return [plain(each, secrets) for each in cast("Sequence[object]", value)]
    return _without(str(value), secrets)


def _without(text: str, secrets: Sequence[str]) -> str:
    for secret in secrets:
        if secret in text:
            text = text.replace(secret, REPLACED)
    return text


# ---- writing


class LineWriter:
    """Turns events into lines."""

    def __init__(self, trajectory_id: str, secrets: Sequence[str] = ()) -> None:
        self._id = trajectory_id
        self._secrets = worth_hiding(secrets)
        self._n = 0
        self._known: dict[str, int | str] = {}
        self._prompts: OrderedDict[bytes, int] = OrderedDict()

    def know(self, ref: str) -> None:
        """Take note of a text that need not be written, because a blob holds it."""
        self._known.setdefault(ref, ref)

    def lines(self, kind: Kind, base: Mapping[str, Any], facts: Mapping[str, Any]) -> tuple[Event, bytes]:
        """Return an event with its whole texts, and the lines that say it."""
        facts = {name: self._plain(value) for name, value in facts.items()}
        if kind == "run_started" and isinstance(facts.get("prompt"), str):
            facts["title"] = " ".join(facts["prompt"][: TITLE_CHARACTERS * 2].split())[:TITLE_CHARACTERS]
        texts: dict[int, str] = {}
        first = kind == "run_started"  # so that a list of runs need not read past a long prompt
        n = self._next() if first else 0
        stored = {name: self._stored(value, texts) for name, value in facts.items()}
        n = n or self._next()
        event = self._event(kind, base, n)
        if isinstance(stored.get("prompt"), list):
            stored["prompt"] = self._after_what_was_said(stored["prompt"], n)
        told = {name: value for name, value in stored.items() if not _says_nothing(name, value)}
        said = [_text_line(number, text) for number, text in texts.items()]
        return event | facts, b"".join(
            [*([] if first else said), _line(event | told), *(said if first else [])]
        )

    def _plain(self, value: Any) -> Any:
        try:
            return plain(value, self._secrets)
        except RecursionError:
            return _TOO_DEEP

    def _next(self) -> int:
        self._n += 1
        return self._n

    def _event(self, kind: Kind, base: Mapping[str, Any], n: int) -> Event:
        return {
            "schema": SCHEMA,
            "trajectory_id": self._id,
            "n": n,
            "time": now(),
            "kind": kind,
            **base,
        }

    def _stored(self, value: Any, texts: dict[int, str]) -> Any:
        """Return a value with names in place of long texts; those not known yet are added to `texts`."""
        if isinstance(value, str):
            return value if len(value) <= INLINE_CHARACTERS else self._ref(value, texts)
        if isinstance(value, list):
            return [self._stored(each, texts) for each in cast("list[object]", value)]
        if isinstance(value, dict):
            items = cast("dict[str, Any]", value)
            stored = {key: self._stored(each, texts) for key, each in items.items()}
            return {"escaped": stored} if items.keys() in (_REF, _SAME, _ESCAPED) else stored
        return value

    def _ref(self, text: str, texts: dict[int, str]) -> dict[str, Any]:
        digest = ref_of(bytes_of(text))
        if digest not in self._known:
            self._known[digest] = n = self._next()
            texts[n] = text
        return {"ref": self._known[digest], "characters": len(text)}

    def _after_what_was_said(self, messages: list[Any], n: int) -> list[Any]:
        """Return a conversation without what it has in common with an earlier one, which is named."""
        digest, ends = sha256(), list[bytes]()
        for message in messages:
            digest.update(json.dumps(message, sort_keys=True).encode() + b"\n")
            ends.append(digest.copy().digest())
        for count in range(len(messages), 0, -1):
            earlier = self._prompts.get(ends[count - 1])
            if earlier is not None:
                messages = [{"same_as": earlier, "messages": count}, *messages[count:]]
                break
        if ends:
            self._prompts[ends[-1]] = n
            if len(self._prompts) > _PROMPTS:
                self._prompts.popitem(last=False)
        return messages


def now() -> str:
    """Return the time, in UTC, to the millisecond."""
    return datetime.now(UTC).isoformat(timespec="milliseconds").removesuffix("+00:00") + "Z"


def _says_nothing(name: str, value: Any) -> bool:
    return name in _LEFT_OUT and value == _LEFT_OUT[name] and type(value) is type(_LEFT_OUT[name])


def _text_line(n: int, text: str) -> bytes:
    return _line({"schema": SCHEMA, "n": n, "kind": "text", "sha256": digest_of(text), "text": text})


def digest_of(text: str) -> str:
    """Return what tells a text from one that was damaged."""
    return ref_of(bytes_of(text)).removeprefix(PREFIX)[:_DIGITS]


def _line(event: Event) -> bytes:
    try:
        return json.dumps(event, ensure_ascii=False, separators=(",", ":")).encode() + b"\n"
    except UnicodeEncodeError:  # characters that are none
        return json.dumps(event, separators=(",", ":")).encode() + b"\n"


# ---- reading


def event_of(line: bytes) -> Event | None:
    """Return the event in a line; None if it is damaged."""
    try:
        event: Any = json.loads(line)
    except (ValueError, RecursionError):
        return None
    return cast("Event", event) if _is_event(event) else None


def _is_event(event: Any) -> bool:
    if not isinstance(event, dict):
        return False
    facts = cast("dict[str, Any]", event)
    is_text = facts.get("kind") == "text"
    numbers = ("schema", "n") if is_text else ("schema", "n", "depth")
    names = ("text",) if is_text else ("trajectory_id", "kind", "call_id", "parent_call_id", "time")
    return all(type(facts.get(name)) is int for name in numbers) and all(
        isinstance(facts.get(name), str) for name in names
    )


def whole(value: Any, text: Callable[[int | str], str]) -> Any:
    """Return a value as it was before it was written; `text` says what a name stands for."""
    if isinstance(value, list):
        return [whole(each, text) for each in cast("list[object]", value)]
    if not isinstance(value, dict):
        return value
    items = cast("dict[str, Any]", value)
    if items.keys() == _REF and isinstance(items["ref"], (int, str)):
        return text(items["ref"])
    if items.keys() == _ESCAPED and isinstance(items["escaped"], dict):
        items = cast("dict[str, Any]", items["escaped"])
    return {key: whole(each, text) for key, each in items.items()}


def shared(messages: Any) -> tuple[int, int] | None:
    """Return of which event a prompt repeats how many messages; None if it repeats none."""
    if not isinstance(messages, list) or not messages:
        return None
    first: Any = cast("list[object]", messages)[0]
    if not isinstance(first, dict) or cast("dict[str, Any]", first).keys() != _SAME:
        return None
    at: Any = first  # pyright: ignore[reportUnknownVariableType]
    return (at["same_as"], at["messages"]) if type(at["same_as"]) is type(at["messages"]) is int else None


def within(value: Any, *steps: str | int) -> Any:
    """Return what is in a value behind those keys and places; None if there is no such thing."""
    for step in steps:
        try:
            value = value[step]
        except (LookupError, TypeError):
            return None
    return value
