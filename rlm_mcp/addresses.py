"""The addresses of resources: what an `rlm://` URI says, and how one is written.

    rlm://sessions/notes/cells?after=7&limit=20   ->   Address(path=("sessions", "notes", "cells"), query={...})

A URI comes from a client and may be anything. What cannot be read exactly is refused, never guessed at.
"""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Collection, Mapping
from dataclasses import dataclass
from urllib.parse import quote, unquote_to_bytes

from mcp.shared.exceptions import MCPError
from mcp_types import INVALID_PARAMS

MOST_CHARACTERS = 2000

_SCHEME = "rlm://"
_PERCENT = re.compile(r"%(?![0-9a-fA-F]{2})")
_NUMBER = re.compile(r"[0-9]{1,15}")


@dataclass(frozen=True)
class Address:
    """What a URI says, decoded. `uri` is as it was given."""

    uri: str
    path: tuple[str, ...]
    query: Mapping[str, str]

    def only(self, allowed: Collection[str]) -> None:
        """Refuse parameters other than these."""
        if unknown := sorted(self.query.keys() - set(allowed)):
            may = f"It may have {', '.join(allowed)}." if allowed else "It takes none."
            raise no_resource(
                self.uri, f"it has a parameter {unknown[0]!r} that this resource does not know. {may}"
            )

    def number(self, name: str, default: int, *, least: int = 0, most: int | None = None) -> int:
        """Return a parameter that is a number. One that is more than `most` counts as that."""
        text = self.query.get(name)
        if text is None:
            return default
        if not _NUMBER.fullmatch(text) or int(text) < least:
            raise no_resource(self.uri, f"its parameter {name!r} must be a whole number of at least {least}")
        return int(text) if most is None else min(int(text), most)


def read(uri: str) -> Address:
    """Return what a URI says. Raise `MCPError` for one that is none of ours."""
    if len(uri) > MOST_CHARACTERS:
        raise no_resource(uri, f"it has {len(uri)} characters, and may have {MOST_CHARACTERS}")
    if not uri.startswith(_SCHEME):
        raise no_resource(uri, f"it does not begin with {_SCHEME}")
    if "#" in uri:
        raise no_resource(uri, 'it holds a "#"; write %23')
    path, asked, query = uri.removeprefix(_SCHEME).partition("?")
    parts = tuple(_decoded(uri, part) for part in path.removesuffix("/").split("/"))
    if not all(parts):
        raise no_resource(uri, "a part of its path is empty")
    return Address(uri, parts, _query(uri, query) if asked else {})


def write(*path: str, **query: str | int) -> str:
    """Return the URI of a resource."""
    asked = "&".join(f"{name}={quote(str(value), safe='')}" for name, value in query.items())
    where = _SCHEME + "/".join(quote(part, safe="", errors="replace") for part in path)
    return f"{where}?{asked}" if asked else where


def no_resource(uri: str, why: str) -> MCPError:
    """Return the error that says that there is no resource at a URI, and why."""
    shown = printable(uri if len(uri) <= 200 else uri[:200] + "...")
    return MCPError(
        INVALID_PARAMS,
        f"There is no resource {shown!r}: {why}. resources/list names what there is.",
        {"uri": printable(uri[:MOST_CHARACTERS])},
    )


def printable(text: str) -> str:
    """Return a text that every client can be sent: what is no character is written as an escape."""
    return text.encode("utf-8", "backslashreplace").decode()


def _query(uri: str, text: str) -> dict[str, str]:
    found: dict[str, str] = {}
    for pair in text.split("&"):
        name, equals, value = pair.partition("=")
        if not equals:
            raise no_resource(uri, "a parameter in it has no value")
        if (name := _decoded(uri, name)) in found:
            raise no_resource(uri, f"it has the parameter {name!r} twice")
        found[name] = _decoded(uri, value)
    return found


def _decoded(uri: str, text: str) -> str:
    if _PERCENT.search(text):
        raise no_resource(uri, 'a "%" in it is followed by no two hexadecimal digits; write %25')
    try:
        decoded = unquote_to_bytes(text).decode()
    except UnicodeError:
        raise no_resource(uri, "it is no UTF-8") from None
    if any(unicodedata.category(character) == "Cc" for character in decoded):
        raise no_resource(uri, "it holds control characters")
    return decoded
