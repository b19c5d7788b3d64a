"""Calls that a configured model answers, in cells and in runs, over real HTTP."""

from __future__ import annotations

import re
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import anyio
import anyio.to_thread
import pytest
from mcp import Client

from rlm_mcp.app import Surroundings, open_app
from rlm_mcp.server import make_server
from rlm_mcp.sources import Sources
from tests.fakes.models import Refusal, Reply, Request, ScriptedModel, Silence, ToolCall

from ..conftest import Caller, text_of


def script(request: Request) -> Any:
    """Answer as the root where there are tools, and as a leaf elsewhere."""
    if request.prompt.startswith("never"):
        return Silence()
    if request.prompt.startswith("refused"):
        return Refusal(400, "no such thing")
    if not request.body.get("tools"):
        return Reply(f"leaf says {request.prompt[:20]}")
    if not request.results:
        name = "context" if "in a child" in request.prompt else "text"
        code = f"final(llm_query('piece ' + {name}[:3]))"
        return Reply(calls=(ToolCall("run_python", {"code": code}),))
    return Reply("done")


def files_with(folder: Path, text: bytes) -> list[Path]:
    return [path for path in folder.rglob("*") if path.is_file() and text in path.read_bytes()]


@pytest.fixture
async def model() -> AsyncIterator[ScriptedModel]:
    async with ScriptedModel(script) as server:
        yield server


@pytest.fixture
def flags(flags: dict[str, object], model: ScriptedModel) -> dict[str, object]:
    return flags | {
        "rlm.backend": "openai",
        "rlm.model": "m",
        "rlm.api_base": f"{model.url}/v1",
        "rlm.api_key": "sk-very-secret-key",
    }


async def test_code_in_a_cell_asks_the_configured_model(call: Caller, model: ScriptedModel) -> None:
    said = await call.run("print(list(llm_map('{item}', ['a', 'b'])))")

    assert said.startswith("['leaf says a', 'leaf says b']")
    assert sorted(request.prompt for request in model.requests) == ["a", "b"]


async def test_a_refusal_of_the_model_reaches_the_code_as_an_error_it_can_catch(call: Caller) -> None:
    said = await call.run(
        "try:\n    llm_query('refused')\nexcept ModelRefused as problem:\n    print('caught', problem)"
    )

    assert said.startswith("caught") and "no such thing" in said


async def test_a_cell_stays_within_the_calls_that_the_settings_allow(
    flags: dict[str, object], model: ScriptedModel, project: Path, tmp_path: Path
) -> None:
    sources = Sources(flags | {"rlm.max_subcalls": 3}, {}, tmp_path / "config")
    async with (
        open_app(sources, Surroundings(None, project)) as app,
        Client(make_server(app), mode="2026-07-28") as client,
    ):
        said = await Caller(client, project).run(
            "answers = llm_map('{index}', range(10))\nprint(len(answers.failed))"
        )

    assert said.startswith("7") and len(model.requests) == 3


async def test_the_key_stands_in_no_log_and_reaches_no_cell(call: Caller, tmp_path: Path) -> None:
    await call.run("print(llm_query('hello'))")
    said = await call.run("import os; print(sorted(os.environ.items()))")

    assert "sk-very-secret-key" not in said
    assert await anyio.to_thread.run_sync(files_with, tmp_path, b"sk-very-secret") == []


async def test_a_run_answers_from_data_that_its_model_never_read(call: Caller, model: ScriptedModel) -> None:
    await call.run("text = 'abc' + 'x' * 1_000_000")

    said = await call.said("rlm_complete", prompt="What is it?", variables=["text"])

    assert said.startswith("leaf says piece abc")
    assert re.search(r"\[answered: 2 requests, \d+ tokens.*rlm://trajectories/", said)
    assert all("x" * 10_000 not in str(request.body) for request in model.requests)


async def test_a_run_in_the_background_is_looked_at_until_it_is_done(call: Caller) -> None:
    await call.run("text = 'abc' * 100_000")
    begun = await call.said("rlm_complete", prompt="What is it?", variables=["text"], background=True)
    found = re.search(r'rlm_status\(handle="(w-\w+)"\)', begun)
    assert found is not None

    said = await call.said("rlm_status", handle=found[1], wait_s=30)
    again = await call.said("rlm_status", handle=found[1], wait_s=0)

    assert said.startswith("leaf says piece abc") and again == said


async def test_a_run_in_the_background_tells_where_it_stands_and_can_be_cancelled(
    call: Caller, model: ScriptedModel
) -> None:
    begun = await call.said("rlm_complete", prompt="never", background=True)
    handle = re.search(r"w-\w+", begun)
    assert handle is not None
    with anyio.fail_after(20):
        await model.until(lambda server: bool(server.requests))

    at_work = await call.said("rlm_status", handle=handle[0], wait_s=0)
    ended = await call("rlm_status", handle=handle[0], cancel=True)
    with anyio.fail_after(20):
        await model.until(lambda server: bool(server.left))

    assert "at work for" in at_work
    assert ended.is_error and "was cancelled" in text_of(ended)


async def test_a_client_that_goes_away_ends_its_run(call: Caller, model: ScriptedModel) -> None:
    with anyio.move_on_after(2):
        await call("rlm_complete", prompt="never ends")
    with anyio.fail_after(20):
        await model.until(lambda server: bool(server.left))

    assert len(model.left) == 1


async def test_a_run_may_spend_less_than_the_settings_allow_and_never_more(call: Caller) -> None:
    await call.run("text = 'abc' * 100_000")
    said = await call.said(
        "rlm_complete", prompt="What is it?", variables=["text"], budgets={"max_subcalls": 0}
    )
    wrong = await call("rlm_complete", prompt="x", budgets={"tokens": 1})

    assert "leaf says" not in said
    assert wrong.is_error and "budgets.tokens" in text_of(wrong)


async def test_tools_for_runs_are_told_of_where_a_model_is_configured(call: Caller) -> None:
    names = [tool.name for tool in (await call.client.list_tools()).tools]

    assert "rlm_complete" in names and "rlm_status" in names and len(names) <= 8


async def test_code_in_a_cell_starts_child_runs(call: Caller, model: ScriptedModel) -> None:
    said = await call.run("print(rlm_query('What is it, in a child?', context='xyz' * 10_000))")

    assert said.startswith("leaf says piece xyz")
    assert all("xyz" * 1000 not in str(request.body) for request in model.requests)


async def test_a_command_answers_where_the_model_cannot_be_asked_at_all(
    flags: dict[str, object], project: Path, tmp_path: Path
) -> None:
    sources = Sources(
        flags | {"rlm.backend": "command", "rlm.command": ["sh", "-c", "echo heard: $(cat)"]},
        {},
        tmp_path / "config",
    )
    async with (
        open_app(sources, Surroundings(None, project)) as app,
        Client(make_server(app), mode="2026-07-28") as client,
    ):
        said = await Caller(client, project).run("print(llm_query('hello'))")

    assert said.startswith("heard: hello")


async def test_the_client_answers_where_the_command_is_not_there_and_is_told_why(
    flags: dict[str, object], project: Path, tmp_path: Path
) -> None:
    sources = Sources(
        flags | {"rlm.backend": "command", "rlm.command": ["/nowhere/program"]}, {}, tmp_path / "config"
    )
    async with (
        open_app(sources, Surroundings(None, project)) as app,
        Client(make_server(app), mode="2026-07-28") as client,
    ):
        said = await Caller(client, project).said("execute_python", code="print(llm_query('hello'))")

    assert said.startswith("[waiting") and "/nowhere/program" in said
