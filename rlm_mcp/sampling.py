"""Calls that the client's own model answers, where the client offers that: `sampling/createMessage`.

Until 2025-11-25 the client is sent a question while its call is at work. From 2026-07-28 on it finds questions in
place of a result, and makes the same call again with the answers; `requests_of` and `texts_of` are for that.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import TYPE_CHECKING, Any

import anyio
from mcp.shared.exceptions import MCPError
from mcp.shared.message import ServerMessageMetadata
from mcp_types import (
    INVALID_PARAMS,
    INVALID_REQUEST,
    METHOD_NOT_FOUND,
    CreateMessageRequest,
    CreateMessageRequestParams,
    CreateMessageResult,
    SamplingMessage,
    TextContent,
)
from mcp_types.version import MODERN_PROTOCOL_VERSIONS
from pydantic import ValidationError

from .waiting import Call

if TYPE_CHECKING:
    from rlm_runtime import Bound, Finish, ModelKind, OnText, Reply, Request

MAX_TOKENS = 4096
_REJECTED = -1  # as clients say when the person behind them does not want it
_NOT_ASKED = (METHOD_NOT_FOUND, INVALID_PARAMS, INVALID_REQUEST)
_ADVICE = "Configure a model ([rlm] model), or answer calls by answer_calls."


def offers_sampling(ctx: Any) -> bool:
    """Return whether a client lets its model answer."""
    capabilities = ctx.session.client_capabilities
    return capabilities is not None and capabilities.sampling is not None


def is_modern(ctx: Any) -> bool:
    """Return whether a client gets questions in place of a result."""
    return ctx.protocol_version in MODERN_PROTOCOL_VERSIONS


class SamplingModel:
    """The model of a client, asked while a call of the client is at work, and waited for so long."""

    name = "sampling"
    kind: ModelKind = "sampling"
    native_tools = False

    def __init__(self, ctx: Any, *, answer_seconds: float) -> None:
        self._session = ctx.session
        self._call = ctx.request_id
        self._answer_seconds = answer_seconds

    def window_tokens(self, model: str = "") -> int | None:
        """Return that nobody knows it."""
        return None

    def bound(self, request: Request) -> Bound:
        """Return what a request can use at most; the client pays for it."""
        from rlm_runtime import Bound, most_tokens

        return Bound(most_tokens(request), request.max_tokens or MAX_TOKENS, 0.0)

    async def complete(self, request: Request, *, on_text: OnText | None = None) -> Reply:
        """Return what the client's model replies. Raise `ModelRefused` or `ModelUnavailable`."""
        from rlm_runtime import ModelRefused, ModelUnavailable, Reply

        messages = [(each.role, each.content) for each in request.messages]
        asked = _request(messages, request.max_tokens, request.temperature, request.stop)
        try:
            # The question goes along with the call, so a client needs no stream of its own for it.
            metadata = ServerMessageMetadata(related_request_id=self._call)
            with anyio.fail_after(self._answer_seconds):
                result = await self._session.send_request(asked, CreateMessageResult, metadata=metadata)
        except TimeoutError:
            late = ModelUnavailable(
                self.name, f"there was no answer in {self._answer_seconds:g} seconds", _ADVICE
            )
            late.may_be_billed = True
            raise late from None
        except MCPError as problem:
            if problem.error.code == _REJECTED:
                raise ModelRefused(self.name, problem.error.message) from problem
            unavailable = ModelUnavailable(self.name, problem.error.message, _ADVICE)
            unavailable.may_be_billed = problem.error.code not in _NOT_ASKED
            raise unavailable from problem
        text = _text_of(result)
        if text is None:
            refused = ModelRefused(self.name, "its answer is no text")
            refused.may_be_billed = True
            raise refused
        finish: Finish = "length" if result.stop_reason == "maxTokens" else "stop"
        usage = _estimated(request, text)
        return Reply(text, usage=usage, model=result.model or self.name, finish=finish)


def _estimated(request: Request, text: str) -> Any:
    """Return the most that can have been used by a client that keeps to `max_tokens`: none tells."""
    from rlm_runtime import Message, Request, Usage, most_tokens

    said = most_tokens(Request((Message("assistant", text),))) - most_tokens(Request(()))
    most_out = min(said, request.max_tokens or MAX_TOKENS)
    return Usage(most_tokens(request), most_out, 0.0, estimated=True)


def requests_of(calls: Iterable[Call]) -> dict[str, CreateMessageRequest]:
    """Return the questions that a client finds in place of a result."""
    return {call.id: _request(list(call.messages)) for call in calls}


def texts_of(responses: Mapping[str, Any] | None) -> dict[str, str]:
    """Return the answers that came with a call made again, as far as they are any."""
    found = dict[str, str]()
    for id_, answer in (responses or {}).items():
        try:
            wire = answer.model_dump(mode="json", by_alias=True, exclude_none=True)
            text = _text_of(CreateMessageResult.model_validate(wire))
        except ValidationError:
            continue
        if text is not None:
            found[id_] = text
    return found


def _request(
    messages: list[tuple[Any, str]],
    max_tokens: int | None = None,
    temperature: float | None = None,
    stop: tuple[str, ...] = (),
) -> CreateMessageRequest:
    system = "\n\n".join(content for role, content in messages if role == "system")
    said = [
        SamplingMessage(
            role="assistant" if role == "assistant" else "user", content=TextContent(text=content)
        )
        for role, content in messages
        if role != "system"
    ]
    return CreateMessageRequest(
        params=CreateMessageRequestParams(
            messages=said,
            system_prompt=system or None,
            max_tokens=max_tokens or MAX_TOKENS,
            temperature=temperature,
            stop_sequences=list(stop) or None,
        )
    )


def _text_of(result: CreateMessageResult) -> str | None:
    return result.content.text if result.content.type == "text" else None
