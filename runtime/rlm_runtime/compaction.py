"""Compaction: a long conversation made short before the window of its model is full.

What is old is put into notes, by the model itself, or where that cannot be by cutting each turn to its ends. The
notes stand with the task; the last turn stays as it is. What was said in full is kept for code, in `history`.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from typing import Any

from rlm_sessions import shorten

from .contexts import about_tokens
from .errors import ModelRefused
from .model import Message
from .prompts import marked
from .retries import said

USUAL_WINDOW = 32_000
NOTES_TOKENS = 1_500

_REPLY_SHARE = 4  # a reply may need this part of a window, whatever its model may say at most
_MARGIN_TOKENS, _MARGIN_SHARE = 256, 20  # how far a size may be off, at least, and as a part of a window
_TOO_LONG = re.compile(
    r"context[ _](length|window|size|limit)|(prompt|input|request|messages?)( is| are|) too (long|large)"
    r"|too many (input )?tokens|(exceed|longer than|greater than)[^.]{0,60}\btokens?\b",
    re.IGNORECASE,
)
_TURN_CHARACTERS = 300
_CUT_CHARACTERS = 6_000
_ASK = (
    "The conversation gets too long and is replaced by notes. Write them now, in text and without code: what is "
    "known with exact values, which variables hold what, what was tried, and what is to be done next."
)


def is_due(tokens: int, window: int | None) -> bool:
    """Whether a conversation of so many tokens should be made shorter, because a reply would not fit in as well."""
    size = window or USUAL_WINDOW
    return tokens + size // _REPLY_SHARE + _margin(size) >= size


def fitting(tokens: int, window: int | None, reply_tokens: int) -> int | None:
    """Return how long a reply may be that has to be shorter than usual to fit into a window; None if it need not."""
    if window is None or tokens + reply_tokens + _margin(window) <= window:
        return None
    return max(1, window - tokens - _margin(window))


def _margin(window: int) -> int:
    return min(window // _REPLY_SHARE, max(_MARGIN_TOKENS, window // _MARGIN_SHARE))


def is_too_long(problem: ModelRefused) -> bool:
    """Whether a model refused a conversation because it does not fit into its window."""
    return _TOO_LONG.search(str(problem)) is not None


def size_of(messages: Sequence[Message]) -> int:
    """Return about how many tokens a conversation has."""
    return sum(8 + about_tokens(each.content) + about_tokens(_calls(each)) for each in messages)


def _calls(message: Message) -> str:
    return "".join(f"{use.name} {dict(use.arguments)}" for use in message.tool_uses)


def last_turn(messages: Sequence[Message]) -> int:
    """Return where the last turn of the model begins, which is not to be put into notes."""
    return max((n for n, each in enumerate(messages) if each.role == "assistant"), default=len(messages))


def question(messages: Sequence[Message]) -> tuple[Message, ...]:
    """Return the conversation with the question for notes. It ends before the last turn."""
    before = messages[: last_turn(messages)]
    if before and before[-1].role == "user":
        last = before[-1]
        return (*before[:-1], Message("user", f"{last.content}\n\n{_ASK}"))
    return (*before, Message("user", _ASK))


def cut(messages: Sequence[Message]) -> str:
    """Return notes that no model wrote: the ends of all that was said after the task."""
    begin = 1 + next((n for n, each in enumerate(messages) if each.role == "user"), -1)
    turns = [_line(each) for each in messages[begin : last_turn(messages)]]
    return shorten("\n".join(turns), keep=_CUT_CHARACTERS)


def _line(message: Message) -> str:
    words = " ".join([message.content, _calls(message)]).strip()
    return f"{message.role}: {shorten(words, keep=_TURN_CHARACTERS)}"


def shortened(messages: Sequence[Message], task: Message, notes: str) -> tuple[Message, ...]:
    """Return the conversation with notes in place of all between the task and the last turn."""
    words = (
        "What was done before is left out here; the variable `history` has it in full. Notes on it:\n"
        + marked("notes", notes)
    )
    begin = tuple(each for each in messages[:1] if each.role == "system")
    return (*begin, Message("user", f"{task.content}\n\n{words}"), *messages[last_turn(messages) :])


def as_history(messages: Sequence[Message]) -> list[dict[str, Any]]:
    """Return all that was said, as code finds it."""
    return [said(each) for each in messages if each.role != "system"]
