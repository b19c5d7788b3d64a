"""How each API says what a scripted model says: Anthropic's messages and OpenAI's chat completions. No I/O."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping, Sequence
from typing import Protocol

from tests.fakes.turns import Json, Refusal, Reply, Request, ToolCall


class Form(Protocol):
    """The forms of one API."""

    def error(self, refusal: Refusal) -> Json:
        """Return the body of an answer that is an error."""
        ...

    def message(self, reply: Reply, request: Request, number: int) -> Json:
        """Return the body of a reply in one piece."""
        ...

    def events(self, reply: Reply, request: Request, number: int) -> list[str]:
        """Return the events of a reply that is streamed."""
        ...

    def error_event(self, kind: str, message: str) -> str:
        """Return the event of a stream that breaks down."""
        ...


class AnthropicForm:
    """The forms of /v1/messages."""

    _ERRORS: Mapping[int, str] = {
        400: "invalid_request_error",
        401: "authentication_error",
        403: "permission_error",
        404: "not_found_error",
        429: "rate_limit_error",
        529: "overloaded_error",
    }

    def error(self, refusal: Refusal) -> Json:
        kind = refusal.code or self._ERRORS.get(refusal.status, "api_error")
        return {"type": "error", "error": {"type": kind, "message": refusal.message}}

    def error_event(self, kind: str, message: str) -> str:
        return _event({"type": "error", "error": {"type": kind, "message": message}})

    def message(self, reply: Reply, request: Request, number: int) -> Json:
        content: list[Json] = [{"type": "text", "text": reply.text}] if reply.text else []
        for each, call in enumerate(reply.calls):
            given = dict(call.arguments) if isinstance(call.arguments, Mapping) else call.arguments
            name = f"toolu_{number}_{each}"
            content.append({"type": "tool_use", "id": name, "name": call.name, "input": given})
        usual = "refusal" if reply.refusal else "tool_use" if reply.calls else "end_turn"
        return {
            "id": f"msg_{number}",
            "type": "message",
            "role": "assistant",
            "model": request.body["model"],
            "content": content,
            "stop_reason": reply.finish or usual,
            "stop_sequence": None,
            "usage": self._usage(reply),
        }

    def events(self, reply: Reply, request: Request, number: int) -> list[str]:
        whole = self.message(reply, request, number)
        begun: Json = {"output_tokens": 0} if reply.reports_usage else {}
        start: Json = whole | {"content": [], "stop_reason": None, "usage": whole["usage"] | begun}
        events: list[Json] = [{"type": "message_start", "message": start}, {"type": "ping"}]
        for index, block in enumerate(whole["content"]):
            events += self._block_events(index, block, reply.pieces)
        stop = {"stop_reason": whole["stop_reason"], "stop_sequence": None}
        events.append({"type": "message_delta", "delta": stop, "usage": whole["usage"]})
        events.append({"type": "message_stop"})
        return [_event(event) for event in events]

    def _block_events(self, index: int, block: Json, pieces: int) -> Iterator[Json]:
        if block["type"] == "text":
            empty: Json = {"type": "text", "text": ""}
            deltas = [{"type": "text_delta", "text": part} for part in _parts(block["text"], pieces)]
        else:
            empty = block | {"input": {}}
            parts = _parts(_written(block["input"]), pieces)
            deltas = [{"type": "input_json_delta", "partial_json": part} for part in parts]
        yield {"type": "content_block_start", "index": index, "content_block": empty}
        for delta in deltas:
            yield {"type": "content_block_delta", "index": index, "delta": delta}
        yield {"type": "content_block_stop", "index": index}

    def _usage(self, reply: Reply) -> Json:
        if not reply.reports_usage:
            return {}
        cached = {"cache_read_input_tokens": reply.cached_tokens, "cache_creation_input_tokens": 0}
        fresh = reply.input_tokens - reply.cached_tokens
        return {"input_tokens": fresh, "output_tokens": reply.output_tokens, **cached}


class OpenAIForm:
    """The forms of /v1/chat/completions. Pieces of calls that come at once are interleaved, as they may be."""

    _ERRORS: Mapping[int, str] = {400: "invalid_request_error", 429: "rate_limit_exceeded"}

    def error(self, refusal: Refusal) -> Json:
        kind = self._ERRORS.get(refusal.status, "server_error")
        return {
            "error": {"type": kind, "code": refusal.code or kind, "message": refusal.message, "param": None}
        }

    def error_event(self, kind: str, message: str) -> str:
        return f"data: {json.dumps({'error': {'type': kind, 'message': message}})}\n\n"

    def message(self, reply: Reply, request: Request, number: int) -> Json:
        message: Json = {"role": "assistant", "content": reply.text or None}
        if reply.refusal:
            message["refusal"] = reply.refusal
        if reply.calls:
            message["tool_calls"] = self._calls(reply.calls, number)
        choice = {"index": 0, "message": message, "finish_reason": self._reason(reply), "logprobs": None}
        usage = {"usage": self._usage(reply)} if reply.reports_usage else {}
        return self._frame("chat.completion", request, number, [choice]) | usage

    def events(self, reply: Reply, request: Request, number: int) -> list[str]:
        deltas: list[Json] = [{"role": "assistant", "content": "" if reply.text else None}]
        deltas += [{"content": part} for part in _parts(reply.text, reply.pieces) if part]
        deltas += [{"refusal": part} for part in _parts(reply.refusal, reply.pieces) if part]
        deltas += self._pieces_of_calls(reply, number)
        choices: list[list[Json]] = [
            [{"index": 0, "delta": delta, "finish_reason": None}] for delta in deltas
        ]
        choices.append([{"index": 0, "delta": {}, "finish_reason": self._reason(reply)}])
        frames = [self._frame("chat.completion.chunk", request, number, each) for each in choices]
        options: Json = request.body.get("stream_options") or {}
        if options.get("include_usage") and reply.reports_usage:
            last = self._frame("chat.completion.chunk", request, number, [])
            frames.append(last | {"usage": self._usage(reply)})
        return [f"data: {json.dumps(frame)}\n\n" for frame in frames] + ["data: [DONE]\n\n"]

    def _pieces_of_calls(self, reply: Reply, number: int) -> Iterator[Json]:
        calls = self._calls(reply.calls, number)
        parts = [_parts(call["function"]["arguments"], reply.pieces) for call in calls]
        for index, call in enumerate(calls):
            begun = call | {"index": index, "function": call["function"] | {"arguments": ""}}
            yield {"tool_calls": [begun]}
        for each in range(reply.pieces):
            for index, pieces in enumerate(parts):
                yield {"tool_calls": [{"index": index, "function": {"arguments": pieces[each]}}]}

    def _calls(self, calls: Sequence[ToolCall], number: int) -> list[Json]:
        return [
            {
                "id": f"call_{number}_{each}",
                "type": "function",
                "function": {"name": call.name, "arguments": _written(call.arguments)},
            }
            for each, call in enumerate(calls)
        ]

    def _reason(self, reply: Reply) -> str:
        return reply.finish or ("tool_calls" if reply.calls else "stop")

    def _usage(self, reply: Reply) -> Json:
        total = reply.input_tokens + reply.output_tokens
        return {
            "prompt_tokens": reply.input_tokens,
            "completion_tokens": reply.output_tokens,
            "total_tokens": total,
            "prompt_tokens_details": {"cached_tokens": reply.cached_tokens},
        }

    def _frame(self, kind: str, request: Request, number: int, choices: list[Json]) -> Json:
        return {
            "id": f"chatcmpl-{number}",
            "object": kind,
            "created": 0,
            "model": request.body["model"],
            "choices": choices,
        }


def _event(event: Json) -> str:
    return f"event: {event['type']}\ndata: {json.dumps(event)}\n\n"


def _written(arguments: Mapping[str, object] | str) -> str:
    return arguments if isinstance(arguments, str) else json.dumps(dict(arguments))


def _parts(text: str, pieces: int) -> list[str]:
    """Return a text in so many parts, of which the last ones are empty if it is short."""
    size = -(-len(text) // pieces) or 1
    return [text[size * each : size * (each + 1)] for each in range(pieces)]
