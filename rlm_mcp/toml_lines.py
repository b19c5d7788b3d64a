"""On which line each key of a TOML document stands, which the standard library's parser does not tell.

A lenient scanner and no second parser: it takes every valid document apart as TOML says, and stops where it
meets what cannot be TOML. It does not recurse and takes a time in proportion to the text. What is nested so
deeply that a parser would need more than that is refused here, before a parser sees it.
"""

from __future__ import annotations

import re
import tomllib
from bisect import bisect_left
from collections.abc import Mapping
from typing import TypeAlias

Place: TypeAlias = tuple[str | int, ...]
"""Keys from the top down, with the position in the list where there is a list on the way."""

MAX_DEPTH = 32

_BLANK = re.compile(r"(?:[ \t\r\n]++|#[^\n]*+)*+")
_SPACE = re.compile(r"[ \t]*+")
_DOT = re.compile(r"[ \t]*+\.[ \t]*+")
_KEY = re.compile(r"""[A-Za-z0-9_-]++|"(?:[^"\\\n]|\\.)*+"|'[^'\n]*+'""")
_SCALAR = re.compile(
    r'''"""(?:[^"\\]++|\\.|"{1,2}(?!"))*+"{3,5}'''
    r"""|'''(?:[^']++|'{1,2}(?!'))*+'{3,5}"""
    r"""|"(?:[^"\\\n]|\\.)*+"|'[^'\n]*+'|[^,\]}#\n"']++""",
    re.DOTALL,
)


class TooDeep(ValueError):
    """Something is nested more deeply than `MAX_DEPTH`."""

    def __init__(self, line: int) -> None:
        self.line = line
        super().__init__(f"more than {MAX_DEPTH} levels are nested here")


def lines_of(text: str) -> Mapping[Place, int]:
    """Return the line, counted from 1, on which each key and table of `text` is first written. Raise `TooDeep`."""
    scanner = _Scanner(text)
    try:
        scanner.document()
    except _NotToml:
        pass
    return scanner.lines


class _NotToml(Exception):
    """What stands here cannot be TOML."""


class _Scanner:
    def __init__(self, text: str) -> None:
        self.lines: dict[Place, int] = {}
        self._text = text
        self._at = 0
        self._ends = [match.start() for match in re.finditer("\n", text)]
        self._lists: dict[Place, int] = {}

    def document(self) -> None:
        table: Place = ()
        while self._peek(_BLANK):
            if self._take("[["):
                table = self._next_in_list(self._key())
                self._expect("]]")
            elif self._take("["):
                table = self._note((), self._key())
                self._expect("]")
            else:
                place = self._assigned(table)
                self._value(place)

    def _value(self, place: Place) -> None:
        """Go past the value of what is at `place`, noting the keys within."""
        within: list[tuple[str, Place, int]] = []
        while True:
            char = self._peek(_BLANK if within else _SPACE)
            if char in ("[", "{"):
                self._at += 1
                within.append((char, self._deep(place), 0))
            else:
                self._match(_SCALAR)
            inner = self._following(within)
            if inner is None:
                return
            place = inner

    def _following(self, within: list[tuple[str, Place, int]]) -> Place | None:
        """Return what has the next value inside of the brackets that are open; None when all are closed."""
        while within:
            kind, place, count = within[-1]
            char = self._peek(_BLANK)
            if char == ("]" if kind == "[" else "}"):
                self._at += 1
                within.pop()
            elif char == ",":
                self._at += 1
            elif kind == "[":
                within[-1] = (kind, place, count + 1)
                return (*place, count)
            else:
                return self._assigned(place)
        return None

    def _assigned(self, table: Place) -> Place:
        place = self._note(table, self._key())
        self._expect("=")
        return place

    def _key(self) -> list[tuple[str, int]]:
        """Take a key with its dots; return its parts and where each stands."""
        self._peek(_SPACE)
        parts: list[tuple[str, int]] = []
        while True:
            start = self._at
            parts.append((_decoded(self._match(_KEY)), start))
            dot = _DOT.match(self._text, self._at)
            if dot is None:
                return parts
            self._at = dot.end()

    def _note(self, place: Place, parts: list[tuple[str, int]]) -> Place:
        for part, start in parts:
            place = self._deep((*place, part))
            self.lines.setdefault(place, self._line(start))
            if place in self._lists:
                place = (*place, self._lists[place])
        return place

    def _next_in_list(self, parts: list[tuple[str, int]]) -> Place:
        place = self._deep((*self._note((), parts[:-1]), parts[-1][0]))
        self.lines.setdefault(place, self._line(parts[-1][1]))
        self._lists[place] = self._lists.get(place, -1) + 1
        return (*place, self._lists[place])

    def _deep(self, place: Place) -> Place:
        if len(place) > MAX_DEPTH:
            raise TooDeep(self._line(self._at))
        return place

    def _line(self, at: int) -> int:
        return bisect_left(self._ends, at) + 1

    def _peek(self, skipped: re.Pattern[str]) -> str:
        """Go past what does not count; return the next character, or nothing at the end."""
        match = skipped.match(self._text, self._at)
        self._at = match.end() if match else self._at
        return self._text[self._at : self._at + 1]

    def _take(self, expected: str) -> bool:
        found = self._text.startswith(expected, self._at)
        self._at += len(expected) if found else 0
        return found

    def _expect(self, expected: str) -> None:
        self._peek(_SPACE)
        if not self._take(expected):
            raise _NotToml

    def _match(self, pattern: re.Pattern[str]) -> str:
        match = pattern.match(self._text, self._at)
        if match is None:
            raise _NotToml
        self._at = match.end()
        return match[0]


def _decoded(part: str) -> str:
    if part[0] not in "\"'":
        return part
    if "\\" not in part:
        return part[1:-1]
    try:
        return next(iter(tomllib.loads(f"{part} = 0")))
    except ValueError:
        raise _NotToml from None
