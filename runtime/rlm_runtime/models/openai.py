"""Models behind OpenAI's chat completions, or behind any server that speaks them (`api_base`)."""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any

from rlm_runtime.model import Finish, Message, Request, ToolSpec
from rlm_runtime.models.arguments import tool_use
from rlm_runtime.models.direct import DirectModel, Draft, Gathering, tokens_of
from rlm_runtime.models.json_values import Json, is_list
from rlm_runtime.models.prices import Prices
from rlm_runtime.models.wire_http import parts_of, with_path

API_BASE = "https://api.openai.com/v1"

_MOST_STOPS = 4
_PROVIDERS: Mapping[str, str] = {  # as the list of prices names them
    "api.openai.com": "openai",
    "openrouter.ai": "openrouter",
    "api.deepseek.com": "deepseek",
    "api.groq.com": "groq",
    "api.mistral.ai": "mistral",
    "api.together.xyz": "together_ai",
    "api.x.ai": "xai",
    "api.fireworks.ai": "fireworks_ai",
    "generativelanguage.googleapis.com": "gemini",
}
_FINISHES: Mapping[str, Finish] = {
    "length": "length",
    "content_filter": "refused",
    "tool_calls": "tools",
    "function_call": "tools",
}


class ChatCompletions(DirectModel):
    """A model that is asked in the form of chat completions, whatever carries it there."""

    _limit = "max_tokens"

    def _headers(self, key: str) -> dict[str, str]:
        plain = {"content-type": "application/json", "accept-encoding": "identity", "user-agent": "rlm-mcp"}
        return plain | ({"authorization": f"Bearer {key}"} if key else {})

    def _body(self, request: Request, model: str, max_tokens: int, *, streaming: bool) -> Json:
        body: Json = {
            "model": model,
            "messages": [_message(each) for each in request.messages],
            self._limit: max_tokens,
        }
        if request.temperature is not None:
            body["temperature"] = request.temperature
        if request.stop:
            body["stop"] = list(request.stop[:_MOST_STOPS])
        if request.tools:
            body["tools"] = [_tool(tool) for tool in request.tools]
        if request.schema is not None and request.schema.get("type") == "object":
            body["response_format"] = _response_format(request.schema)
        if streaming:
            body |= {"stream": True, "stream_options": {"include_usage": True}}
        return body

    def _draft(self, whole: Json) -> Draft:
        choice = whole["choices"][0]
        message = choice["message"]
        text, refusal = _text(message.get("content")), message.get("refusal") or ""
        finish: Finish = "refused" if refusal else _FINISHES.get(choice.get("finish_reason") or "", "stop")
        uses = tuple(
            tool_use(
                call.get("id") or "", function["name"], function.get("arguments"), cut_off=finish == "length"
            )
            for call in message.get("tool_calls") or ()
            for function in (call["function"],)
        )
        usage = whole.get("usage")
        return Draft(
            text=text or refusal,
            tool_uses=uses,
            finish="tools" if uses and finish == "stop" else finish,
            model=str(whole.get("model") or ""),
            input_tokens=tokens_of(usage, "prompt_tokens"),
            output_tokens=_output_tokens(usage),
            thought=_thought(message),
        )

    def _gathering(self) -> Gathering:
        return _Gathering()


class OpenAIModel(ChatCompletions):
    """A model that speaks OpenAI's chat completions."""

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
        url = with_path(api_base or API_BASE, "/chat/completions")
        host = parts_of(url).hostname or ""
        self._limit = "max_completion_tokens" if host == "api.openai.com" else "max_tokens"
        super().__init__(
            model,
            url=url,
            provider=_PROVIDERS.get(host, ""),
            api_key=api_key,
            key_setting="OPENAI_API_KEY",
            prices=prices,
            max_tokens=max_tokens,
            timeout_seconds=timeout_seconds,
            native_tools=native_tools,
            windows=windows,
        )


class _Gathering:
    """The chunks of a completion. Calls of tools come in pieces, several at once."""

    def __init__(self) -> None:
        self._facts: Json = {}
        self._text: list[str] = []
        self._refusal: list[str] = []
        self._thought: list[str] = []
        self._calls: list[_Call] = []
        self._latest: dict[tuple[int | None, str], _Call] = {}
        self._finish = ""

    def add(self, event: Json) -> str:
        self._facts |= {name: event[name] for name in ("model", "usage") if event.get(name)}
        added = ""
        for choice in event.get("choices") or ():
            self._finish = choice.get("finish_reason") or self._finish
            added += self._add_delta(choice.get("delta") or {})
        return added

    def is_whole(self, *, at_end: bool) -> bool:
        return at_end and bool(self._finish)

    def whole(self) -> Json:
        calls: list[Json] = [
            {"id": call.id, "function": {"name": call.name, "arguments": "".join(call.arguments)}}
            for call in self._calls
        ]
        message: Json = {
            "content": "".join(self._text),
            "refusal": "".join(self._refusal),
            "reasoning": "".join(self._thought),
            "tool_calls": calls,
        }
        return self._facts | {"choices": [{"message": message, "finish_reason": self._finish}]}

    def _add_delta(self, delta: Json) -> str:
        text = _text(delta.get("content"))
        self._text.append(text)
        self._refusal.append(delta.get("refusal") or "")
        self._thought.append(_thought(delta))
        for piece in delta.get("tool_calls") or ():
            self._call_of(piece).add(piece)
        return text

    def _call_of(self, piece: Json) -> _Call:
        """Return the call that a piece belongs to: that of its index, unless it brings another id."""
        index, id_ = piece.get("index"), piece.get("id") or ""
        call = self._latest.get((index, id_))
        if call is None:
            call = _Call(id_)
            self._calls.append(call)
            self._latest |= {(at, named): call for at in (None, index) for named in ("", id_)}
        return call


class _Call:
    def __init__(self, id_: str) -> None:
        self.id = id_
        self.name = ""
        self.arguments: list[str] = []

    def add(self, piece: Json) -> None:
        function: Json = piece.get("function") or {}
        self.name = self.name or function.get("name") or ""
        arguments = function.get("arguments") or ""
        self.arguments.append(arguments if isinstance(arguments, str) else json.dumps(arguments))


def _message(message: Message) -> Json:
    if message.role == "tool":
        return {"role": "tool", "tool_call_id": message.tool_use_id, "content": message.content}
    if not message.tool_uses:
        return {"role": message.role, "content": message.content}
    calls = [
        {
            "id": use.id,
            "type": "function",
            "function": {"name": use.name, "arguments": json.dumps(dict(use.arguments), ensure_ascii=False)},
        }
        for use in message.tool_uses
    ]
    return {"role": message.role, "content": message.content or None, "tool_calls": calls}


def _tool(tool: ToolSpec) -> Json:
    function = {"name": tool.name, "description": tool.description, "parameters": dict(tool.parameters)}
    return {"type": "function", "function": function}


def _response_format(schema: Mapping[str, Any]) -> Json:
    form = {"name": "answer", "schema": dict(schema), "strict": _is_strict(schema)}
    return {"type": "json_schema", "json_schema": form}


def _is_strict(schema: object) -> bool:
    """Whether a schema leaves nothing open, which is what strict mode asks of one."""
    if isinstance(schema, list | tuple):
        return all(map(_is_strict, schema))  # pyright: ignore[reportUnknownArgumentType]
    if not isinstance(schema, Mapping):
        return True
    parts: Mapping[str, Any] = schema  # pyright: ignore[reportUnknownVariableType]
    if parts.get("type") == "object":
        wanted, named = set(parts.get("required", ())), set(parts.get("properties", ()))
        if parts.get("additionalProperties") is not False or wanted != named:
            return False
    return all(map(_is_strict, parts.values()))


def _text(content: object) -> str:
    """Return the text of a content, which some servers give in parts."""
    if isinstance(content, str):
        return content
    parts = content if is_list(content) else []
    return "".join(str(part.get("text", "")) for part in parts if part.get("type") == "text")


def _thought(message: Json) -> str:
    """Return what a model says to itself, under the names that servers have for it."""
    return _text(message.get("reasoning_content") or message.get("reasoning"))


def _output_tokens(usage: object) -> int | None:
    """Return the output tokens. Some servers count those of reasoning in the total only."""
    into, out, total = (tokens_of(usage, f"{name}_tokens") for name in ("prompt", "completion", "total"))
    if out is None or into is None or total is None:
        return out
    return max(out, total - into)
