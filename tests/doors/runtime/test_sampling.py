"""Calls that the client's own model answers, in both eras of the protocol."""

from __future__ import annotations

import json
import re
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import anyio
import anyio.to_thread
import pytest
from mcp import Client
from mcp.shared.exceptions import MCPError
from mcp_types import CreateMessageRequestParams, CreateMessageResult, TextContent

from rlm_mcp.app import App
from rlm_mcp.server import make_server
from rlm_mcp.tenants import OWNER

from ..conftest import Caller

ERAS = ["2025-11-25", "2026-07-28"]


def mode_of(era: str) -> str:
    return "legacy" if era == "2025-11-25" else era


async def sample(context: Any, params: CreateMessageRequestParams) -> CreateMessageResult:
    content: Any = params.messages[-1].content
    text = f"sampled {content.text}"
    return CreateMessageResult(role="assistant", content=TextContent(text=text), model="theirs")


@pytest.mark.parametrize("era", ERAS)
async def test_the_model_of_a_client_that_offers_it_answers(app: App, project: Path, era: str) -> None:
    async with Client(make_server(app), mode=mode_of(era), sampling_callback=sample) as client:
        call = Caller(client, project)
        said = await call.run("first = llm_map(['a', 'b'])\nprint(list(first), llm_query('c'))")

    assert said.startswith("['sampled a', 'sampled b'] sampled c")


async def test_what_a_client_does_not_tell_is_counted_at_its_most(
    app: App, project: Path, tmp_path: Path
) -> None:
    def logged() -> list[Any]:
        (path,) = tmp_path.rglob("trajectories/*.jsonl")
        return [json.loads(line) for line in path.read_text().splitlines()]

    async with Client(make_server(app), mode="legacy", sampling_callback=sample) as client:
        await Caller(client, project).run("llm_query('ä' * 300)")
    events = await anyio.to_thread.run_sync(logged)

    [usage] = [event["token_usage"] for event in events if event["kind"] == "call_ended"]
    assert usage["estimated"] and usage["input_tokens"] >= 600 and usage["output_tokens"] >= 600


async def test_a_person_who_does_not_want_it_is_an_error_that_code_can_catch(app: App, project: Path) -> None:
    async def refuse(context: Any, params: CreateMessageRequestParams) -> CreateMessageResult:
        raise MCPError(-1, "the person said no")

    async with Client(make_server(app), mode="legacy", sampling_callback=refuse) as client:
        said = await Caller(client, project).run(
            "try:\n    llm_query('a')\nexcept CallFailed as e:\n    print(e)"
        )

    assert "the person said no" in said


async def test_a_client_without_sampling_answers_by_itself_in_the_older_era_too(
    app: App, project: Path
) -> None:
    async with Client(make_server(app), mode="legacy") as client:
        said = await Caller(client, project).said("execute_python", code="llm_query('a')")

    assert said.startswith("[waiting: the code asks 1 call")


class Person:
    """A client's model, and how much it is asked at once. It answers when it is let."""

    def __init__(self, *, let: bool = False) -> None:
        self.now = self.most = self.given_up = 0
        self.changed = anyio.Event()
        self.let = anyio.Event()
        if let:
            self.let.set()

    async def until(self, true: Callable[[], bool]) -> None:
        with anyio.fail_after(30):
            while not true():
                await self.changed.wait()

    def _change(self, by: int) -> None:
        self.now += by
        self.most = max(self.most, self.now)
        self.changed.set()
        self.changed = anyio.Event()

    async def __call__(self, context: Any, params: CreateMessageRequestParams) -> CreateMessageResult:
        self._change(1)
        try:
            await self.let.wait()
        except BaseException:
            self.given_up += 1
            raise
        finally:
            self._change(-1)
        return await sample(context, params)


@pytest.fixture
def flags(flags: dict[str, object]) -> dict[str, object]:
    return flags | {"rlm.at_once": 3, "rlm.answer_seconds": 2.0}


async def test_a_client_is_asked_no_more_at_once_than_the_settings_allow(app: App, project: Path) -> None:
    person = Person()
    async with Client(make_server(app), mode="legacy", sampling_callback=person) as client:
        async with anyio.create_task_group() as tasks:
            tasks.start_soon(Caller(client, project).run, "print(len(llm_map('{item}', range(9))))")
            await person.until(lambda: person.now == 3)
            await anyio.wait_all_tasks_blocked()
            person.let.set()

    assert person.most == 3


@pytest.mark.parametrize("era", ERAS)
async def test_a_call_that_is_given_up_asks_no_more_and_leaves_the_session_free(
    app: App, project: Path, era: str
) -> None:
    person = Person()
    async with Client(make_server(app), mode=mode_of(era), sampling_callback=person) as client:
        call = Caller(client, project)
        with anyio.fail_after(30):
            async with anyio.create_task_group() as tasks:
                tasks.start_soon(call, "execute_python")  # what is wrong with it is told, and it is over
                tasks.start_soon(partial(call, "execute_python", code="kept = 7\nllm_query('a')"))
                await person.until(lambda: person.now == 1)
                tasks.cancel_scope.cancel()
            await person.until(lambda: person.now == 0)
        async with Client(make_server(app), mode=mode_of(era)) as other:
            told = await Caller(other, project).said("execute_python", code="kept")
            handle = re.search(r'handle="(w-\w+)", cancel=true', told)
            if handle is not None:  # it had been given its questions, and its cell waits for them
                await Caller(other, project).said("answer_calls", handle=handle[1], cancel=True)
                told = await Caller(other, project).said("execute_python", code="kept")

    assert person.given_up == 1
    assert (handle is None) == (era == "2025-11-25") and told.startswith("7")


async def test_who_does_not_answer_in_time_is_passed_by_and_told_so(app: App, project: Path) -> None:
    person = Person()
    async with Client(make_server(app), mode="legacy", sampling_callback=person) as client:
        call = Caller(client, project)
        said = await call.said("execute_python", code="print(llm_query('a'))")
        handle = re.search(r'handle="(w-\w+)"', said)
        assert handle is not None, said
        done = await call.said("answer_calls", handle=handle[1], answers={"1": "by hand"})

    assert said.startswith("[waiting: the code asks 1 call") and "no answer in 2 seconds" in said
    assert done.startswith("by hand")


async def test_answers_that_come_too_late_are_told_to_be(app: App, project: Path) -> None:
    person = Person()

    async def hold() -> None:
        await person.until(lambda: person.now == 1)
        [job] = app.jobs.all_of(OWNER)
        await job.over.wait()
        person.let.set()

    said = list[str]()
    async with Client(make_server(app), mode="2026-07-28", sampling_callback=person) as client:
        async with anyio.create_task_group() as tasks:
            tasks.start_soon(hold)
            said.append(await Caller(client, project).said("execute_python", code="print(llm_query('a'))"))

    assert "nobody answered its calls for 2 s" in said[0]
