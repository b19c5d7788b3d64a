"""Long runs as tasks, for a client that knows the extension; others get the plain result."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any, Literal

import anyio
import pytest
from mcp import Client
from mcp.client.extension import ClaimContext, ClientExtension, ResultClaim
from mcp.shared.exceptions import MCPError
from mcp_types import CallToolResult, Request, RequestParams, Result, TextContent

from rlm_mcp import tasks
from rlm_mcp.app import App, Surroundings, open_app
from rlm_mcp.server import make_server
from rlm_mcp.sources import Sources
from tests.fakes.models import Reply, ScriptedModel, Silence

from ..conftest import text_of


class Task(Result):
    result_type: Literal["task"] = "task"
    task_id: str
    status: str


class Status(Result):
    task_id: str = ""
    status: str = ""
    status_message: str = ""
    result: dict[str, Any] | None = None


class Params(RequestParams):
    task_id: str


class Ask(Request[Params, str]):
    method: str
    params: Params


class Polling(ClientExtension):
    """A client that asks until its task is over."""

    identifier = tasks.EXTENSION

    def __init__(self) -> None:
        self.seen: list[str] = []

    def claims(self) -> Sequence[ResultClaim[Any]]:
        return [ResultClaim(result_type="task", model=Task, resolve=self.finish)]

    async def finish(self, task: Task, context: ClaimContext) -> CallToolResult:
        while True:
            ask = Ask(method="tasks/get", params=Params(task_id=task.task_id))
            status = await context.session.send_request(ask, Status)
            self.seen.append(status.status)
            if status.result is not None:
                return CallToolResult.model_validate(status.result)
            if status.status == "cancelled":
                return CallToolResult(content=[TextContent(text="cancelled")], is_error=True)
            if self.seen.count("working") == 3:
                stop = Ask(method="tasks/cancel", params=Params(task_id=task.task_id))
                await context.session.send_request(stop, Status)
            await anyio.sleep(0.05)


def settings(flags: dict[str, object], model: ScriptedModel, tmp_path: Path) -> Sources:
    named = {"rlm.backend": "openai", "rlm.model": "m", "rlm.api_base": f"{model.url}/v1", "rlm.api_key": "k"}
    return Sources(flags | named, {}, tmp_path / "config")


async def called(app: App, client_extension: Polling) -> CallToolResult:
    async with Client(make_server(app), mode="2026-07-28", extensions=[client_extension]) as client:
        with anyio.fail_after(30):
            return await client.call_tool("rlm_complete", {"prompt": "What?"})


async def test_a_run_that_takes_long_is_a_task_until_its_answer_is_there(
    flags: dict[str, object], project: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("rlm_mcp.runs.DIRECT_SECONDS", 0.0)
    async with ScriptedModel(lambda request: Reply("An answer.")) as model:
        async with open_app(settings(flags, model, tmp_path), Surroundings(None, project)) as app:
            polling = Polling()
            result = await called(app, polling)

    assert text_of(result).startswith("An answer.") and polling.seen[-1] == "completed"


async def test_a_run_that_is_soon_over_is_answered_directly(
    flags: dict[str, object], project: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("rlm_mcp.runs.DIRECT_SECONDS", 25.0)
    async with ScriptedModel(lambda request: Reply("An answer.")) as model:
        async with open_app(settings(flags, model, tmp_path), Surroundings(None, project)) as app:
            polling = Polling()
            result = await called(app, polling)

    assert text_of(result).startswith("An answer.") and polling.seen == []


async def test_a_task_that_is_cancelled_ends_its_run(
    flags: dict[str, object], project: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("rlm_mcp.runs.DIRECT_SECONDS", 0.2)
    async with ScriptedModel(lambda request: Silence()) as model:
        async with open_app(settings(flags, model, tmp_path), Surroundings(None, project)) as app:
            result = await called(app, Polling())
            with anyio.fail_after(20):
                await model.until(lambda server: bool(server.left))

    assert text_of(result) == "cancelled" and len(model.left) == 1


async def test_a_task_that_is_not_there_is_an_error(app: App) -> None:
    async with Client(make_server(app), mode="2026-07-28", extensions=[Polling()]) as client:
        ask = Ask(method="tasks/get", params=Params(task_id="w-0123456789abcdef"))
        with pytest.raises(MCPError, match="There is no task"):
            await client.session.send_request(ask, Status)
