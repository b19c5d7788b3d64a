"""The folders that a client works in, asked of it where nothing else says which project is meant.

Until 2025-11-25 a client is sent a question; from 2026-07-28 on it finds the question in place of a result and
makes the same call again, with its answer. No call fails because of roots: who does not answer has none.
"""

from __future__ import annotations

import logging
import weakref
from collections.abc import Sequence
from typing import Any

import anyio
from mcp.server.context import ServerRequestContext
from mcp.shared.message import ServerMessageMetadata
from mcp_types import (
    InitializeRequestParams,
    InputRequiredResult,
    InputResponseRequestParams,
    ListRootsRequest,
    ListRootsResult,
)
from mcp_types.version import MODERN_PROTOCOL_VERSIONS
from pydantic import ValidationError

PATIENCE_SECONDS = 2.0
MOST_ROOTS, MOST_CHARACTERS = 50, 4096

_KEY = "roots"
_log = logging.getLogger(__name__)


class _Answer:
    """What the client of one connection said, once it was asked."""

    def __init__(self) -> None:
        self.asking = anyio.Lock()
        self.roots: tuple[str, ...] | None = None


_answers: dict[int, tuple[weakref.ref[InitializeRequestParams], _Answer]] = {}


async def roots_of(
    ctx: ServerRequestContext[Any, Any], params: InputResponseRequestParams, *, needed: bool
) -> Sequence[str] | InputRequiredResult:
    """Return the client's roots, or the question for them, which is then the answer to the call.

    There are none unless they are `needed`: that is, no project was named, set, or given by the host.
    """
    capabilities = ctx.session.client_capabilities
    if not needed or capabilities is None or capabilities.roots is None:
        return ()
    if ctx.protocol_version in MODERN_PROTOCOL_VERSIONS:
        return _asked_with_the_call(params)
    return await _asked_once(ctx)


def _asked_with_the_call(params: InputResponseRequestParams) -> Sequence[str] | InputRequiredResult:
    if params.input_responses is None and params.request_state is None:
        return InputRequiredResult(input_requests={_KEY: ListRootsRequest()}, request_state=_KEY)
    answer = (params.input_responses or {}).get(_KEY)
    if answer is None:
        return ()
    try:
        wire = answer.model_dump(mode="json", by_alias=True, exclude_none=True)
        return _uris(ListRootsResult.model_validate(wire))
    except ValidationError:
        return ()


async def _asked_once(ctx: ServerRequestContext[Any, Any]) -> Sequence[str]:
    client = ctx.session.client_params
    if client is None or not ctx.session.can_send_request:
        return ()
    answer = _answer_of(client)
    async with answer.asking:
        if answer.roots is None:
            answer.roots = await _ask(ctx)
    return answer.roots


def _answer_of(client: InitializeRequestParams) -> _Answer:
    """Return the answer of a connection. What a client said at its start lives as long as its connection does."""
    key = id(client)
    if key not in _answers:
        gone = weakref.ref(client, lambda _: _answers.pop(key, None))
        _answers[key] = (gone, _Answer())
    return _answers[key][1]


async def _ask(ctx: ServerRequestContext[Any, Any]) -> tuple[str, ...]:
    try:
        with anyio.fail_after(PATIENCE_SECONDS):
            # The question goes along with the call, so a client needs no stream of its own for it.
            metadata = ServerMessageMetadata(related_request_id=ctx.request_id)
            return _uris(
                await ctx.session.send_request(ListRootsRequest(), ListRootsResult, metadata=metadata)
            )
    except Exception as problem:  # noqa: BLE001 -- whatever a client does here must not fail its call
        _log.debug("The client did not tell its roots: %r", problem)
        return ()


def _uris(result: ListRootsResult) -> tuple[str, ...]:
    uris = (str(root.uri) for root in result.roots[:MOST_ROOTS])
    return tuple(uri for uri in uris if len(uri) <= MOST_CHARACTERS)
