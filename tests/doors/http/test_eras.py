"""Clients of both eras over both transports, each as who it is."""

from __future__ import annotations

import anyio
import pytest
from mcp.types import CallToolResult

from rlm_mcp.http import Transport

from .conftest import ACCOUNT, ALICE, BOB, LEGACY, MODERN, Probe, Serve

TRANSPORTS = ("streamable-http", "sse")
ERAS = (MODERN, LEGACY)


def text_of(result: CallToolResult) -> str:
    return "".join(block.text for block in result.content if block.type == "text")


@pytest.mark.parametrize("mode", ERAS)
@pytest.mark.parametrize("transport", TRANSPORTS)
async def test_each_call_is_made_as_whose_token_it_came_with(
    serve: Serve, transport: Transport, mode: str
) -> None:
    said: dict[str, str] = {}
    with anyio.fail_after(30):
        async with serve(transport) as served:
            for token in (ALICE, BOB, ACCOUNT):
                async with served.client(token, mode=mode) as client:
                    said[token] = text_of(await client.call_tool("whose", {}))

    assert said == {ALICE: "alice", BOB: "bob", ACCOUNT: "the account"}


@pytest.mark.parametrize("mode", ERAS)
@pytest.mark.parametrize("transport", TRANSPORTS)
async def test_progress_comes_before_the_result(serve: Serve, transport: Transport, mode: str) -> None:
    seen: list[float] = []

    async def note(progress: float, total: float | None, message: str | None) -> None:
        seen.append(progress)

    with anyio.fail_after(30):
        async with serve(transport) as served, served.client(mode=mode) as client:
            result = await client.call_tool("steps", {}, progress_callback=note)

    assert text_of(result) == "three steps"
    assert seen == [1, 2, 3]


@pytest.mark.parametrize("mode", ERAS)
@pytest.mark.parametrize("transport", TRANSPORTS)
async def test_a_call_that_its_client_gives_up_is_cancelled(
    serve: Serve, probe: Probe, transport: Transport, mode: str
) -> None:
    with anyio.fail_after(30):
        async with serve(transport) as served, served.client(mode=mode) as client:
            async with anyio.create_task_group() as tasks:
                tasks.start_soon(client.call_tool, "wait")
                await probe.begun.wait()
                tasks.cancel_scope.cancel()
            await probe.cancelled.wait()


@pytest.mark.parametrize("mode", ERAS)
@pytest.mark.parametrize("transport", TRANSPORTS)
async def test_a_large_result_arrives_whole(serve: Serve, transport: Transport, mode: str) -> None:
    with anyio.fail_after(30):
        async with serve(transport) as served, served.client(mode=mode) as client:
            result = await client.call_tool("much", {"characters": 900_000})

    assert len(text_of(result)) == 900_000


async def test_the_negotiated_eras_are_those_that_were_asked_for(serve: Serve) -> None:
    with anyio.fail_after(30):
        async with serve() as served:
            async with served.client(mode=MODERN) as modern, served.client(mode=LEGACY) as legacy:
                versions = modern.protocol_version, legacy.protocol_version

    assert versions[0] == "2026-07-28"
    assert versions[1].startswith("2025-")
