"""Runs over HTTP: begun by one client, looked at and ended by another of the same tenant, and by nobody else."""

from __future__ import annotations

import re
from collections.abc import AsyncIterator
from typing import Any

import anyio
import pytest
from mcp import Client

from rlm_mcp.http import Transport
from rlm_mcp.server import make_server
from tests.fakes.models import Reply, Request, ScriptedModel, Silence

from ..runtime.test_status import handle_of
from ..runtime.test_tasks import Ask, Params, Polling, Status
from .conftest import ACCOUNT, ALICE, BOB, Serve
from .test_waiting import WAYS, said


def script(request: Request) -> Any:
    return Silence() if "silence" in request.prompt else Reply("An answer.")


@pytest.fixture
async def model(flags: dict[str, object]) -> AsyncIterator[ScriptedModel]:
    async with ScriptedModel(script) as server:
        flags |= {"rlm.backend": "openai", "rlm.model": "m", "rlm.api_key": "k"}
        flags |= {"rlm.api_base": f"{server.url}/v1"}
        yield server


@WAYS
async def test_a_run_in_the_background_outlives_its_client_and_is_ended_by_the_next(
    serve: Serve, model: ScriptedModel, transport: Transport, mode: str
) -> None:
    async with serve(transport, make=make_server) as served:
        async with served.client(mode=mode) as client:
            handle = handle_of(await said(client, "rlm_complete", prompt="silence", background=True))
            over = handle_of(await said(client, "rlm_complete", prompt="quick", background=True))
        with anyio.fail_after(30):
            await model.until(lambda server: len(server.requests) == 2)
        async with served.client(mode=mode) as client:
            at_work = await said(client, "rlm_status", handle=handle, wait_s=0)
            listed = await said(client, "rlm_status")
            answer = await said(client, "rlm_status", handle=over, wait_s=30)
            ended = await said(client, "rlm_status", handle=handle, cancel=True)
        with anyio.fail_after(30):
            await model.until(lambda server: bool(server.left))

    assert at_work.startswith("[at work for ") and f"{handle}: at work for" in listed
    assert answer.startswith("An answer.") and "was cancelled" in ended


@WAYS
async def test_a_run_can_be_neither_seen_nor_ended_by_another_tenant(
    serve: Serve, model: ScriptedModel, transport: Transport, mode: str
) -> None:
    heard: list[str] = []
    async with serve(transport, make=make_server) as served, served.client(ALICE, mode=mode) as alice:
        handle = handle_of(await said(alice, "rlm_complete", prompt="silence", background=True))
        with anyio.fail_after(30):
            await model.until(lambda server: bool(server.requests))
        for token in (BOB, ACCOUNT):
            async with served.client(token, mode=mode) as other:
                heard.append(await said(other, "rlm_status", handle=handle, cancel=True))
                listed = await said(other, "rlm_status")
                assert handle not in listed and "silence" not in listed
        still = await said(alice, "rlm_status", handle=handle, wait_s=0)

    assert all(each.startswith("There is no run of yours") for each in heard)
    assert still.startswith("[at work for ")


@WAYS
async def test_a_run_that_is_not_in_the_background_ends_with_the_call_of_its_client(
    serve: Serve, model: ScriptedModel, transport: Transport, mode: str
) -> None:
    async with serve(transport, make=make_server) as served, served.client(mode=mode) as client:
        with anyio.fail_after(60):
            async with anyio.create_task_group() as tasks:
                tasks.start_soon(client.call_tool, "rlm_complete", {"prompt": "silence"})
                await model.until(lambda server: bool(server.requests))
                tasks.cancel_scope.cancel()
            await model.until(lambda server: bool(server.left))
            while "at work" in (listed := await said(client, "rlm_status")):
                await anyio.sleep(0.05)

    assert re.search(r"^[\w-]+: cancelled, .*'silence'$", listed)


async def test_a_task_is_known_to_the_next_server_and_to_no_other_tenant(
    serve: Serve, model: ScriptedModel, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("rlm_mcp.runs.DIRECT_SECONDS", 0.0)

    class Seeing(Polling):
        async def finish(self, task: Any, context: Any) -> Any:
            ids.append(task.task_id)
            return await super().finish(task, context)

    async def asked(client: Client, method: str) -> Status:
        ask = Ask(method=method, params=Params(task_id=ids[0]))
        return await client.session.send_request(ask, Status)

    ids: list[str] = []
    with anyio.fail_after(60):
        async with serve(make=make_server) as served, served.client(extensions=[Seeing()]) as client:
            before = await said(client, "rlm_complete", prompt="quick")
        async with serve(make=make_server) as served:
            async with served.client(BOB, extensions=[Seeing()]) as bob:
                for method in ("tasks/get", "tasks/cancel", "tasks/update"):
                    with pytest.raises(Exception, match="There is no task"):
                        await asked(bob, method)
            async with served.client(extensions=[Seeing()]) as client:
                after = await asked(client, "tasks/get")

    assert before.startswith("An answer.") and after.status == "completed" and after.result is not None
    assert after.result["content"][0]["text"] == before.partition("\n[note")[0]
