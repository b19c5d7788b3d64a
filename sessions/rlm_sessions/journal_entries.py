"""What an entry of the journal says, as a line of JSON, and read back from one that may be anything.

An entry is never longer than it may be, and always JSON, whatever the facts are: long texts are
cut, and what JSON has not becomes text.
"""

from __future__ import annotations

import hashlib
import json
import math
from typing import Any, TypeAlias, cast

from .output import shorten

Entry: TypeAlias = dict[str, Any]

OWN_NAMES = frozenset({"n", "time", "kind", "cut"})

_FEWEST_KEPT = 64  # characters of a text that is cut
_DEEPEST, _LONGEST_INTEGER_BITS = 60, 8192

_encode = json.JSONEncoder(ensure_ascii=False, allow_nan=False, separators=(",", ":")).encode
_encode_plain = json.JSONEncoder(ensure_ascii=True, allow_nan=False, separators=(",", ":")).encode


def is_kind(kind: str) -> bool:
    """Return whether `kind` can be the kind of an entry: a short plain word."""
    return kind.isascii() and kind.isidentifier() and len(kind) <= 40


def parse(line: bytes) -> Entry | None:
    """Return the entry in a line, or None for a line that is none."""
    try:
        entry: Entry = json.loads(line.decode())
    except (ValueError, RecursionError):
        return None
    return entry if type(entry) is dict and _well_formed(entry) else None


def _well_formed(entry: Entry) -> bool:
    n, time, kind, cell = entry.get("n"), entry.get("time"), entry.get("kind"), entry.get("cell")
    return (
        type(n) is int
        and 0 < n < 2**62
        and type(time) is str
        and time.isascii()
        and type(kind) is str
        and is_kind(kind)
        and (cell is None or (type(cell) is int and -(2**62) < cell < 2**62))
    )


# ---- finding text


def needles(text: str) -> set[bytes]:
    """Return what `text` may look like in a line; a line that has none of these does not hold it."""
    found = {_encode_plain(text)[1:-1].encode()}
    if not _has_surrogates(text):
        found.add(_encode(text)[1:-1].encode())
    return found


def holds(value: Any, text: str, *, deep: int = 0) -> bool:
    """Return whether `text` occurs in a text among the facts of an entry."""
    if isinstance(value, str):
        return text in value
    if isinstance(value, dict):
        facts = cast("dict[str, Any]", value)
        return any(holds(facts[name], text, deep=deep + 1) for name in facts if deep or name not in OWN_NAMES)
    return isinstance(value, list) and any(holds(item, text, deep=deep + 1) for item in _list(value))


def _list(value: Any) -> list[Any]:
    items: list[Any] = value
    return items


def _has_surrogates(text: str) -> bool:
    try:
        text.encode()
    except UnicodeEncodeError:
        return True
    return False


# ---- writing facts


def members(facts: dict[str, Any], most: int) -> bytes:
    """Return facts as JSON that follows on what an entry begins with."""
    return b"," + _body(facts, most)[1:-1] if facts else b""


def _body(facts: dict[str, Any], most: int) -> bytes:
    """Return facts as one JSON object of at most `most` bytes, with texts cut as far as that takes."""
    body = _json(facts)
    if len(body) <= most:
        return body
    plain: dict[str, Any] = _plain(facts)
    keep = most // 4
    while keep >= _FEWEST_KEPT:
        cuts: dict[str, Any] = {}
        body = _json(
            {**{name: _cut(item, keep, f"/{name}", cuts) for name, item in plain.items()}, "cut": cuts}
        )
        if len(body) <= most:
            return body
        keep //= 4
    return _cut_whole(_json(plain).decode(), most)


def _cut(value: Any, keep: int, path: str, cuts: dict[str, Any]) -> Any:
    if isinstance(value, str) and len(value) > 2 * keep:
        cuts[path] = _note(value, keep)
        return shorten(value, keep=keep)
    if isinstance(value, dict):
        facts = cast("dict[str, Any]", value)
        return {name: _cut(item, keep, f"{path}/{name}", cuts) for name, item in facts.items()}
    if isinstance(value, list):
        return [_cut(item, keep, f"{path}/{place}", cuts) for place, item in enumerate(_list(value))]
    return value


def _cut_whole(text: str, most: int) -> bytes:
    """Return facts that are too much although no text in them is long, as one text that is cut."""
    keep = most // 16
    body = {"facts": shorten(text, keep=keep), "cut": {"": _note(text, keep)}}
    return _json(body)


def _note(text: str, keep: int) -> dict[str, Any]:
    return {
        "cut": len(text) - keep,
        "sha256": hashlib.sha256(text.encode("utf-8", "surrogatepass")).hexdigest(),
    }


def _json(value: Any) -> bytes:
    try:
        return _encode(value).encode()
    except UnicodeEncodeError:  # a lone surrogate has no UTF-8, and does have an escape
        return _encode_plain(value).encode()
    except (TypeError, ValueError, RecursionError):
        return _encode_plain(_plain(value)).encode()


def _plain(value: Any, above: tuple[int, ...] = ()) -> Any:
    """Return a value that JSON has for certain; where that takes another one, its text."""
    if value is None or isinstance(value, bool | str):
        return value
    if isinstance(value, int) and value.bit_length() < _LONGEST_INTEGER_BITS:
        return value
    if isinstance(value, int):
        return hex(value)
    if isinstance(value, float):
        return value if math.isfinite(value) else str(value)
    if id(cast("object", value)) in above or len(above) >= _DEEPEST:
        return f"<{type(cast('object', value)).__name__}>"
    within = (*above, id(cast("object", value)))
    if isinstance(value, dict):
        facts = cast("dict[str, Any]", value)
        return {str(name): _plain(item, within) for name, item in facts.items()}
    if isinstance(value, list | tuple):
        return [_plain(item, within) for item in cast("list[Any]", value)]
    return str(value)
