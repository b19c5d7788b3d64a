"""The most tokens that a request can have, from its text alone.

A vocabulary of byte pairs starts from the 256 bytes and only ever merges: each token stands for at least one
byte of UTF-8, so a text has at most as many tokens as bytes. Vocabularies of characters fall back to bytes
for what they do not know, and keep to the same bound. Some normalise (NFKC) first, which can make a text
longer: the longer of both counts. To normalise a text can take time that grows with the square of its length, so a
long one is bounded by its characters. What a server wraps around messages and tools is added generously.

Real texts have about four bytes a token. What a server once counted is therefore remembered: a conversation
that goes on costs at most what its beginning was counted at, and the bytes of what is new.
"""

from __future__ import annotations

import json
import sys
import unicodedata
from collections import Counter, OrderedDict
from collections.abc import Iterator, Mapping
from functools import cache, lru_cache

from rlm_runtime.model import Message, Reply, Request, ToolSpec

_AROUND_A_REQUEST = 200  # templates of some open models begin with a system prompt of their own
_AROUND_A_MESSAGE = 16
_AROUND_TOOLS = 600  # what Anthropic documents as the longest hidden prompt for tools is 530
_AROUND_A_TOOL = 32
_LONG = 2000  # characters
_BY_A_MARK = 4  # bytes that a mark can add to the character before it
_FEW = 20


def most_tokens(request: Request) -> int:
    """Return a number of input tokens that no vocabulary exceeds for this request."""
    return _frame_tokens(request) + sum(_message_tokens(message) for message in request.messages)


def most_reply_tokens(reply: Reply) -> int:
    """Return a number of output tokens that no vocabulary exceeds for what can be seen of a reply."""
    said = Message("assistant", reply.text, reply.tool_uses)
    return _message_tokens(said)


class Counted:
    """How many tokens a server counted for conversations, so that their next turns are bounded more closely."""

    def __init__(self, *, most: int = 256) -> None:
        self._most = most
        self._tokens: OrderedDict[int, int] = OrderedDict()

    def most_tokens(self, request: Request, model: str) -> int:
        """Return a number of input tokens that this request cannot exceed."""
        beginnings = [self._tokens.get(key) for key in _beginnings(request, model)]
        for length in range(len(beginnings), 0, -1):
            known = beginnings[length - 1]
            if known is not None:
                return known + sum(_message_tokens(message) for message in request.messages[length:])
        return most_tokens(request)

    def learn(self, request: Request, model: str, input_tokens: int) -> None:
        """Remember what a server counted for a request."""
        for key in list(_beginnings(request, model))[-1:]:
            self._tokens[key] = input_tokens
            self._tokens.move_to_end(key)
        while len(self._tokens) > self._most:
            self._tokens.popitem(last=False)


def _beginnings(request: Request, model: str) -> Iterator[int]:
    """Return a key for each beginning of a conversation: of its first message, of its first two, ..."""
    schema = None if request.schema is None else _json(request.schema)
    key = hash((model, schema, *(_json(_shown(tool)) for tool in request.tools)))
    for message in request.messages:
        uses = tuple((use.id, use.name, _json(use.arguments)) for use in message.tool_uses)
        key = hash((key, message.role, message.content, message.tool_use_id, message.is_error, uses))
        yield key


def _frame_tokens(request: Request) -> int:
    schema = 0 if request.schema is None else _tokens(_json(request.schema))
    tools = sum(_AROUND_A_TOOL + _tokens(_json(_shown(tool))) for tool in request.tools)
    return _AROUND_A_REQUEST + schema + tools + (_AROUND_TOOLS if tools else 0)


def _message_tokens(message: Message) -> int:
    uses = sum(
        _AROUND_A_TOOL + _tokens(use.id) + _tokens(use.name) + _tokens(_json(use.arguments))
        for use in message.tool_uses
    )
    return _AROUND_A_MESSAGE + _tokens(message.content) + _tokens(message.tool_use_id) + uses


def _tokens(text: str) -> int:
    if text.isascii():
        return len(text)
    if len(text) > _LONG:
        return _tokens_of_long(text)
    plain = len(text.encode("utf-8", "replace"))
    if unicodedata.is_normalized("NFKC", text):
        return plain
    return max(plain, len(unicodedata.normalize("NFKC", text).encode("utf-8", "replace")))


@lru_cache(maxsize=8)  # the same text is bounded several times in a row
def _tokens_of_long(text: str) -> int:
    growth = _growth()
    there = growth.keys() & set(text)
    times = Counter(text) if len(there) > _FEW else {each: text.count(each) for each in there}
    return len(text.encode("utf-8", "replace")) + sum(growth[each] * times[each] for each in there)


@cache
def _growth() -> Mapping[str, int]:
    """Return by how many bytes characters can get longer when they are normalised: those that can."""
    all_of_them = map(chr, range(128, sys.maxunicode + 1))
    changing = (
        each for each in all_of_them if unicodedata.decomposition(each) or unicodedata.combining(each)
    )
    found = {each: _grows(each) for each in changing}
    return {each: by for each, by in found.items() if by > 0}


def _grows(character: str) -> int:
    mark = _BY_A_MARK if unicodedata.combining(character) else 0
    return len(unicodedata.normalize("NFKC", character).encode()) - len(character.encode()) + mark


def _shown(tool: ToolSpec) -> dict[str, object]:
    return {"name": tool.name, "description": tool.description, "parameters": tool.parameters}


def _json(value: object) -> str:
    """Return JSON as the widest of the templates shows it: indented."""
    return json.dumps(value, ensure_ascii=False, indent=4, default=dict)
