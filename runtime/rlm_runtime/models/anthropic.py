"""Models behind Anthropic's messages, or behind any server that speaks them (`api_base`).

That API has no native answers by a schema which every model takes, so a schema is left to the instructions.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from itertools import groupby
from typing import Any

from rlm_runtime.model import Finish, Message, Request
from rlm_runtime.models.arguments import tool_use
from rlm_runtime.models.direct import DirectModel, Draft, Gathering, tokens_of
from rlm_runtime.models.json_values import Json
from rlm_runtime.models.prices import Prices
from rlm_runtime.models.wire_http import with_path

API_BASE = "https://api.anthropic.com"

_NOTHING = "(nothing)"  # a message without text is refused
_FINISHES: Mapping[str, Finish] = {
    "max_tokens": "length",
    "model_context_window_exceeded": "length",
    "tool_use": "tools",
    "refusal": "refused",
}


class AnthropicModel(DirectModel):
    """A model that speaks Anthropic's messages."""

    def __init__(
        self,
        model: str,
        *,
        prices: Prices,
        api_key: str = "",
        api_base: str = API_BASE,
        max_tokens: int = 4096,
        timeout_seconds: float = 600,
        native_tools: bool = True,
        windows: Mapping[str, int] | None = None,
    ) -> None:
        super().__init__(
            model,
            url=with_path(api_base or API_BASE, "/v1/messages", without="/v1"),
            provider="anthropic",
            api_key=api_key,
            key_setting="ANTHROPIC_API_KEY",
            prices=prices,
            max_tokens=max_tokens,
            timeout_seconds=timeout_seconds,
            native_tools=native_tools,
            windows=windows,
        )

    def _headers(self, key: str) -> dict[str, str]:
        plain = {"content-type": "application/json", "accept-encoding": "identity", "user-agent": "rlm-mcp"}
        return plain | {"anthropic-version": "2023-06-01"} | ({"x-api-key": key} if key else {})

    def _body(self, request: Request, model: str, max_tokens: int, *, streaming: bool) -> Json:
        body: Json = {"model": model, "max_tokens": max_tokens, "messages": _messages(request.messages)}
        system = "\n\n".join(
            each.content for each in request.messages if each.role == "system" and each.content
        )
        stops = [stop for stop in request.stop if stop.strip()]
        if system.strip():
            body["system"] = system
        if request.temperature is not None:
            body["temperature"] = min(request.temperature, 1.0)
        if stops:
            body["stop_sequences"] = stops
        if streaming:
            body["stream"] = True
        return body | _tools(request)

    def _draft(self, whole: Json) -> Draft:
        return draft_of(whole)

    def _gathering(self) -> Gathering:
        return gathering()


def gathering() -> Gathering:
    """Return what puts the events of a message together."""
    return _Gathering()


def draft_of(whole: Json) -> Draft:
    """Return what a message says. It may raise anything that a wrong form leads to."""
    blocks: list[Json] = whole["content"]
    reason = whole.get("stop_reason") or ""
    usage = whole.get("usage")
    return Draft(
        text="".join(block["text"] for block in blocks if block["type"] == "text"),
        tool_uses=tuple(
            tool_use(block["id"], block["name"], block["input"], cut_off=reason == "max_tokens")
            for block in blocks
            if block["type"] == "tool_use"
        ),
        finish=_FINISHES.get(reason, "stop"),
        model=str(whole.get("model") or ""),
        input_tokens=tokens_of(
            usage, "input_tokens", "cache_creation_input_tokens", "cache_read_input_tokens"
        ),
        output_tokens=tokens_of(usage, "output_tokens"),
        thought="".join(block.get("thinking", "") for block in blocks if block["type"] == "thinking"),
    )


class _Gathering:
    """The events of a message. The input of a tool comes as pieces of JSON."""

    def __init__(self) -> None:
        self._message: Json = {}
        self._usage: Json = {}
        self._blocks: dict[int, Json] = {}
        self._pieces: dict[int, list[str]] = {}
        self._ended = False

    def add(self, event: Json) -> str:
        match event.get("type"):
            case "message_start":
                self._message |= event["message"]
                self._use(event["message"].get("usage"))
            case "content_block_start":
                self._blocks[event["index"]] = event["content_block"]
                return self._piece(event["index"], event["content_block"].get("text") or "", said=True)
            case "content_block_delta":
                return self._add_delta(event["index"], event["delta"])
            case "message_delta":
                self._message |= event["delta"]
                self._use(event.get("usage"))
            case "message_stop":
                self._ended = True
            case _:
                pass
        return ""

    def is_whole(self, *, at_end: bool) -> bool:
        return self._ended or (at_end and bool(self._message.get("stop_reason")))

    def whole(self) -> Json:
        return self._message | {"content": list(map(self._block, sorted(self._blocks))), "usage": self._usage}

    def _add_delta(self, index: int, delta: Json) -> str:
        if delta.get("type") == "text_delta":
            return self._piece(index, delta["text"], said=True)
        if delta.get("type") == "input_json_delta":
            return self._piece(index, delta["partial_json"], said=False)
        if delta.get("type") == "thinking_delta":
            return self._piece(index, delta["thinking"], said=False)
        return ""

    def _piece(self, index: int, piece: str, *, said: bool) -> str:
        self._pieces.setdefault(index, []).append(piece)
        return piece if said else ""

    def _block(self, index: int) -> Json:
        block, pieces = self._blocks[index], "".join(self._pieces.get(index, ()))
        if block["type"] == "tool_use":
            return block | {"input": pieces or block.get("input")}
        return block | {block["type"]: pieces} if block["type"] in {"text", "thinking"} else block

    def _use(self, usage: Json | None) -> None:
        self._usage |= {name: count for name, count in (usage or {}).items() if count is not None}


def _messages(messages: tuple[Message, ...]) -> list[Json]:
    """Return the messages in turns of the user and of the assistant, as this API wants them."""
    spoken = [message for message in messages if message.role != "system"]
    turns: list[Json] = []
    for is_ours, group in groupby(spoken, key=lambda message: message.role == "assistant"):
        blocks = [block for message in group for block in _blocks(message)]
        if not is_ours:
            blocks.sort(
                key=lambda block: block["type"] != "tool_result"
            )  # what came of tools has to be first
        if blocks or not is_ours:
            turns.append(_turn("assistant" if is_ours else "user", blocks))
    if not turns or turns[0]["role"] != "user":
        turns.insert(0, _turn("user", []))
    return _merged(turns)


def _turn(role: str, blocks: list[Json]) -> Json:
    return {"role": role, "content": blocks or [{"type": "text", "text": _NOTHING}]}


def _merged(turns: list[Json]) -> list[Json]:
    """Return turns that alternate: one of the assistant that said nothing has left two of the user."""
    merged: list[Json] = []
    for turn in turns:
        if merged and merged[-1]["role"] == turn["role"]:
            merged[-1]["content"] += turn["content"]
        else:
            merged.append(turn)
    return merged


def _blocks(message: Message) -> Iterator[Json]:
    if message.role == "tool":
        result: Json = {"type": "tool_result", "tool_use_id": message.tool_use_id, "content": message.content}
        yield result | ({"is_error": True} if message.is_error else {})
        return
    if message.content.strip():
        yield {"type": "text", "text": message.content}
    for use in message.tool_uses:
        yield {"type": "tool_use", "id": use.id, "name": use.name, "input": dict(use.arguments)}


def _tools(request: Request) -> Json:
    """Return the tools. A conversation in which some were used has to name them, also where none may be now."""
    if request.tools:
        return {
            "tools": [
                {"name": tool.name, "description": tool.description, "input_schema": dict(tool.parameters)}
                for tool in request.tools
            ]
        }
    used = dict.fromkeys(use.name for message in request.messages for use in message.tool_uses)
    if not used:
        return {}
    named: list[dict[str, Any]] = [{"name": name, "input_schema": {"type": "object"}} for name in used]
    return {"tools": named, "tool_choice": {"type": "none"}}
