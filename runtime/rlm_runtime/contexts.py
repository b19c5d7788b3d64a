"""Contexts: what a run works on, as variables of its room, and what its model is told of them.

A model sees the type, the size and a little of both ends, and never the whole. Every character goes in as it is:
line ends, NUL, lone surrogates. A file is read by the guest itself, so its bytes do not pass through here, unless it
cannot be shown there.
"""

from __future__ import annotations

import json
import keyword
import math
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal, cast

import anyio.to_thread

from rlm_sessions import Session, VariableError

HEAD_CHARACTERS, TAIL_CHARACTERS = 400, 200

_HEAD_BYTES, _TAIL_BYTES = 100, 50
_PIECE_CHARACTERS = 4 * 1024 * 1024  # at most 16 MB of UTF-8
_PIECE_BYTES = 16 * 1024 * 1024
_PIECES = "rlm_pieces"
_TAKEN = frozenset(
    "prompt final llm_query llm_map llm_query_batched rlm_query rlm_map rlm_query_batched call history display".split()
)


@dataclass(frozen=True)
class ContextFile:
    """A file as a context. As text, bytes that are no UTF-8 become lone surrogates."""

    path: Path
    form: Literal["text", "bytes"] = "text"


@dataclass(frozen=True)
class Described:
    """What a model is told of a context. `tokens` is about how many the whole would take."""

    name: str
    type: str
    size: str
    tokens: int
    head: str
    tail: str


def check_names(names: Mapping[str, Any]) -> None:
    """Raise `ValueError` for a name that no variable can have."""
    for name in names:
        if not name.isidentifier() or keyword.iskeyword(name) or name in _TAKEN:
            raise ValueError(f"A context cannot be named {name!r}: take another name, such as 'context'.")


def about_tokens(text: str) -> int:
    """Return about how many tokens a text has: a quarter of its ASCII characters, and one for each other one."""
    if text.isascii():
        return math.ceil(len(text) / 4)
    plain = len(text.encode("ascii", "ignore"))
    return math.ceil(plain / 4) + len(text) - plain


async def describe(name: str, content: Any) -> Described:
    """Return what a model is told of a context."""
    if isinstance(content, (str, bytes)) and len(content) <= _PIECE_CHARACTERS:
        return _describe(name, content)
    return await anyio.to_thread.run_sync(_describe, name, content)


def _describe(name: str, content: Any) -> Described:
    match content:
        case ContextFile():
            return _describe_file(name, content)
        case str():
            size = f"{len(content):,} characters, {content.count(chr(10)) + 1:,} lines"
            return _described(name, "str", size, content, about_tokens(content))
        case bytes():
            ends = [
                _quoted_bytes(each) for each in (content[:_HEAD_BYTES], content[_HEAD_BYTES:][-_TAIL_BYTES:])
            ]
            return Described(name, "bytes", f"{len(content):,} bytes", len(content), *ends)
        case _:
            text = json_of(name, content)
            parts = f"{_length(content):,} items, " if isinstance(content, (list, dict, tuple)) else ""
            size = f"{parts}{len(text):,} characters as JSON"
            return _described(name, type(cast("object", content)).__name__, size, text, about_tokens(text))


def _length(content: Any) -> int:
    return len(content)


def _quoted_bytes(data: bytes) -> str:
    return repr(data)[2:-1]


def _described(name: str, type_: str, size: str, text: str, tokens: int) -> Described:
    if len(text) <= HEAD_CHARACTERS + TAIL_CHARACTERS:
        return Described(name, type_, size, tokens, text, "")
    return Described(name, type_, size, tokens, text[:HEAD_CHARACTERS], text[-TAIL_CHARACTERS:])


def _describe_file(name: str, file: ContextFile) -> Described:
    with file.path.open("rb") as opened:
        size = opened.seek(0, 2)
        opened.seek(0)
        head = opened.read(HEAD_CHARACTERS)
        opened.seek(max(len(head), size - TAIL_CHARACTERS))
        tail = opened.read(TAIL_CHARACTERS)
    text, data = file.form == "text", f"{size:,} bytes"
    kind = "str" if text else "bytes"
    if not text:
        head, tail = head[:_HEAD_BYTES], tail[-_TAIL_BYTES:]
    ends = [each.decode("utf-8", "replace") if text else _quoted_bytes(each) for each in (head, tail)]
    return Described(name, kind, f"{data} as the file {file.path.name}", math.ceil(size / 4), *ends)


def json_of(name: str, content: Any) -> str:
    """Return a context as JSON; raise `TypeError` for what JSON cannot carry."""
    try:
        return json.dumps(content, ensure_ascii=False)
    except (TypeError, ValueError, RecursionError) as problem:
        raise TypeError(
            f"The context {name!r} is neither text, bytes nor JSON ({problem}). Convert it, or give a file."
        ) from None


async def without_file(content: Any) -> Any:
    """Return a context as a value, where the guest cannot read its file by itself."""
    if not isinstance(content, ContextFile):
        return content
    data = await anyio.to_thread.run_sync(content.path.read_bytes)
    return data if content.form == "bytes" else data.decode("utf-8", "surrogateescape")


async def text_of(name: str, content: Any) -> str:
    """Return the whole of a context as text, for a model that reads it directly."""
    content = await without_file(content)
    return content if isinstance(content, str) else json_of(name, content)


async def put(session: Session, name: str, content: Any) -> None:
    """Set a variable of a room to a context."""
    match content:
        case ContextFile():
            try:
                await session.load(name, content.path, form=content.form)
            except VariableError:
                await put(session, name, await without_file(content))
        case str() if len(content) > _PIECE_CHARACTERS:
            await _put_in_pieces(session, name, content, _PIECE_CHARACTERS, f"''.join({_PIECES})")
        case bytes() if len(content) > _PIECE_BYTES:
            await _put_in_pieces(session, name, content, _PIECE_BYTES, f"b''.join({_PIECES})")
        case str() | bytes():
            await session.set(name, content)
        case _:
            await _put_json(session, name, content)


async def _put_json(session: Session, name: str, content: Any) -> None:
    text = await anyio.to_thread.run_sync(json_of, name, content)
    if len(text) <= _PIECE_CHARACTERS:
        await session.set(name, content)
    else:
        whole = f"__import__('json').loads(''.join({_PIECES}))"
        await _put_in_pieces(session, name, text, _PIECE_CHARACTERS, whole)


async def _put_in_pieces(session: Session, name: str, content: str | bytes, size: int, whole: str) -> None:
    await session.set(_PIECES, [])
    for start in range(0, len(content), size):
        await session.set(name, content[start : start + size])
        await _do(session, name, f"{_PIECES}.append({name})")
    await _do(session, name, f"{name} = {whole}; del {_PIECES}")


async def _do(session: Session, name: str, code: str) -> None:
    result = await session.run(code)
    if result.error is not None:
        raise VariableError(name, result.error.name, result.error.message)
