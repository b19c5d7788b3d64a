"""What is known of runs: those that go on, those that wait, and those that are long over, also after a restart."""

from __future__ import annotations

import json
import re
from collections.abc import AsyncIterator
from contextlib import AbstractAsyncContextManager
from pathlib import Path
from typing import Any

import anyio
import pytest
from mcp import Client

from rlm_mcp.app import App, Surroundings, open_app
from rlm_mcp.server import make_server
from rlm_mcp.sources import Sources
from rlm_mcp.tenants import Tenant
from tests.fakes.models import Reply, Request, ScriptedModel, Silence, ToolCall

from ..conftest import Caller, text_of
from ..resources.conftest import come_as
from .test_waiting import ASKS_TWO, handle_in

ANSWERS = {"big": "'x' * 1_000_000", "typed": "{'n': 41}"}


def script(request: Request) -> Any:
    """Answer at once, by code where the task wants that, or say nothing for ever."""
    if "silence" in request.prompt:
        return Silence()
    kind = next((each for each in ANSWERS if each in request.text), "")
    if kind:
        return Reply(calls=(ToolCall("run_python", {"code": f"final({ANSWERS[kind]})"}),))
    return Reply("An answer.")


@pytest.fixture
async def model() -> AsyncIterator[ScriptedModel]:
    async with ScriptedModel(script) as server:
        yield server


class Servers:
    """Servers, one after another, with the same places."""

    def __init__(self, flags: dict[str, object], project: Path, config: Path) -> None:
        self.flags, self.project, self.config = flags, project, config

    def open(self) -> AbstractAsyncContextManager[App]:
        """Open the next one."""
        return open_app(Sources(self.flags, {}, self.config), Surroundings(None, self.project))

    async def said(self, app: App, tool: str, **arguments: Any) -> str:
        """Return what a client is told that comes for this and leaves again."""
        async with Client(make_server(app), mode="2026-07-28") as client:
            return await Caller(client, self.project).said(tool, **arguments)


@pytest.fixture
def servers(flags: dict[str, object], project: Path, tmp_path: Path) -> Servers:
    return Servers(flags, project, tmp_path / "config")


@pytest.fixture
def asking(servers: Servers, model: ScriptedModel) -> Servers:
    """The same, with a model."""
    servers.flags |= {"rlm.backend": "openai", "rlm.model": "m", "rlm.api_key": "k"}
    servers.flags |= {"rlm.api_base": f"{model.url}/v1"}
    return servers


def handle_of(begun: str) -> str:
    found = re.search(r'rlm_status\(handle="(w-\w+)"\)', begun)
    assert found is not None, begun
    return found[1]


async def test_a_run_that_is_over_is_known_to_the_next_server_by_handle_and_by_trajectory(
    asking: Servers,
) -> None:
    async with asking.open() as app:
        begun = await asking.said(app, "rlm_complete", prompt="the usual", background=True)
        handle = handle_of(begun)
        before = await asking.said(app, "rlm_status", handle=handle, wait_s=30)
    found = re.search(r"rlm://trajectories/([\w-]+)", before)
    assert found is not None, before

    async with asking.open() as app:
        after = await asking.said(app, "rlm_status", handle=handle)
        by_id = await asking.said(app, "rlm_status", handle=found[1])
        listed = await asking.said(app, "rlm_status")

    assert before.startswith("An answer.\n[direct: 1 requests, 15 tokens, cost unknown, depth 0, ")
    assert after == by_id == before.partition("\n[note")[0]
    assert re.search(rf"^{found[1]}: \w+, \d+ tokens, cost unknown, \d+\.\d s: 'the usual'$", listed)


@pytest.mark.parametrize("kind", ["big", "typed"])
async def test_an_answer_that_is_long_or_typed_is_the_same_from_memory_and_from_disk(
    asking: Servers, kind: str
) -> None:
    schema = {"type": "object", "properties": {"n": {"type": "integer"}}, "required": ["n"]}
    more: dict[str, Any] = {"output_schema": schema} if kind == "typed" else {}
    async with asking.open() as app:
        await asking.said(app, "execute_python", code="data = 'y' * 100_000")
        begun = await asking.said(
            app, "rlm_complete", prompt=f"A {kind} one", variables=["data"], background=True, **more
        )
        before = await asking.said(app, "rlm_status", handle=handle_of(begun), wait_s=60)

    async with asking.open() as app:
        after = await asking.said(app, "rlm_status", handle=handle_of(begun))

    assert after == before.partition("\n[note")[0] and len(after) < 45_000
    if kind == "typed":
        assert json.loads(after.splitlines()[0]) == {"n": 41}
    else:
        assert "text of 1000000 characters. All of it: rlm://trajectories/" in after


async def test_a_run_that_its_server_cut_off_is_told_to_be_so_and_how_to_go_on(
    asking: Servers, model: ScriptedModel
) -> None:
    async with asking.open() as app:
        begun = await asking.said(app, "rlm_complete", prompt="silence", background=True)
        with anyio.fail_after(20):
            await model.until(lambda server: bool(server.requests))

    async with asking.open() as app:
        async with Client(make_server(app), mode="2026-07-28") as client:
            result = await Caller(client, asking.project)("rlm_status", handle=handle_of(begun))
        listed = await asking.said(app, "rlm_status")

    said = text_of(result)
    assert result.is_error and "its server was stopped" in said and "rlm-mcp run --resume 2" in said
    assert re.search(r": cancelled, .*'silence'$", listed)


async def test_what_waits_is_known_after_a_restart_before_anybody_answers(servers: Servers) -> None:
    async with servers.open() as app:
        await servers.said(app, "execute_python", code="text = 'abc' * 100_000")
        run = handle_in(await servers.said(app, "rlm_complete", prompt="What is it?", variables=["text"]))
        cell = handle_in(await servers.said(app, "execute_python", code=ASKS_TWO))
        await servers.said(app, "answer_calls", handle=cell, answers={"1": "eins"})
        awake = await servers.said(app, "rlm_status")

    async with servers.open() as app:
        listed = await servers.said(app, "rlm_status")
        status = await servers.said(app, "rlm_status", handle=cell)
        of_run = await servers.said(app, "rlm_status", handle=run)
        done = await servers.said(app, "answer_calls", handle=cell, answers={"2": "zwei"})
        gone = await servers.said(app, "rlm_status", handle=run, cancel=True)
        nothing = await servers.said(app, "answer_calls", handle=run)

    assert f"{cell}: waits for you, calls open: 1; answer_calls shows them" in awake
    assert f"{cell}: execute_python waits for you since before a restart, calls open: 1" in listed
    assert f"{run}: rlm_complete waits for you since before a restart, calls open: 1" in listed
    assert status.startswith("[waiting: the code asks 1 call") and "two?" in status and "one?" not in status
    assert "What is it?" in of_run and "since before a restart" in of_run
    assert done.startswith("['eins', 'zwei'] 1")
    assert "cancelled" in gone and "Nothing waits under the handle" in nothing


async def test_a_run_is_cancelled_once_however_often_that_is_asked(
    asking: Servers, model: ScriptedModel
) -> None:
    async with asking.open() as app:
        handle = handle_of(await asking.said(app, "rlm_complete", prompt="silence", background=True))
        with anyio.fail_after(20):
            await model.until(lambda server: bool(server.requests))
        first = await asking.said(app, "rlm_status", handle=handle, cancel=True)
        second = await asking.said(app, "rlm_status", handle=handle, cancel=True)
        over = handle_of(await asking.said(app, "rlm_complete", prompt="quick", background=True))
        answer = await asking.said(app, "rlm_status", handle=over, wait_s=30)
        late = await asking.said(app, "rlm_status", handle=over, cancel=True)

    assert first == second and "was cancelled" in first
    assert late == answer and answer.startswith("An answer.")


async def test_events_are_told_from_any_of_them_on(asking: Servers, model: ScriptedModel) -> None:
    steps = iter(range(60))

    def work(request: Request) -> Any:
        number = next(steps, None)
        if number is None:
            return Silence()
        return Reply(calls=(ToolCall("run_python", {"code": f"print('step', {number})"}),))

    seen: list[int] = []
    async with ScriptedModel(work) as worker:
        asking.flags |= {"rlm.api_base": f"{worker.url}/v1"}
        async with asking.open() as app:
            await asking.said(app, "execute_python", code="data = 'y' * 100_000")
            begun = await asking.said(
                app, "rlm_complete", prompt="Work.", variables=["data"], background=True
            )
            handle, after = handle_of(begun), 1
            with anyio.fail_after(60):
                await worker.until(lambda server: len(server.requests) > 20)
            while True:
                said = await asking.said(app, "rlm_status", handle=handle, wait_s=0, after=after)
                told = [int(each) for each in re.findall(r"^(\d+): ", said, re.MULTILINE)]
                seen += told
                assert all(number > after for number in told), said
                upto = re.search(r"told up to event (\d+)", said)
                assert upto is not None, said
                if int(upto[1]) >= 45:
                    break
                after = max(1, int(upto[1]))
            await asking.said(app, "rlm_status", handle=handle, cancel=True)

    assert seen == sorted(set(seen)) and len(seen) > 15


async def test_a_handle_of_nobody_and_one_of_somebody_else_are_answered_alike(
    asking: Servers, model: ScriptedModel
) -> None:
    async with asking.open() as app:
        begun = await asking.said(app, "rlm_complete", prompt="the usual", background=True)
        handle = handle_of(begun)
        done = await asking.said(app, "rlm_status", handle=handle, wait_s=30)
        trajectory = re.search(r"rlm://trajectories/([\w-]+)", done)
        assert trajectory is not None
        come_as(Tenant("another"))
        said = [
            await asking.said(app, "rlm_status", handle=each, cancel=True)
            for each in (handle, trajectory[1], "w-0123456789abcdef", "../../etc/passwd", "")
        ]
        listed = await asking.said(app, "rlm_status")

    assert all(each.startswith("There is no run of yours with the handle") for each in said)
    assert listed == "[there are no runs; rlm_complete begins one]"


async def test_runs_are_told_of_and_waited_for_where_only_the_client_answers(call: Caller) -> None:
    names = {tool.name for tool in (await call.client.list_tools()).tools}
    waiting = await call.said("rlm_complete", prompt="What is two and two?")
    done = await call.said("answer_calls", handle=handle_in(waiting), answers={"1": "four"})

    assert {"rlm_complete", "rlm_status", "answer_calls"} <= names
    assert waiting.startswith("[waiting: the code asks 1 call") and "What is two and two?" in waiting
    assert done.startswith("four\n")


async def test_the_budgets_that_a_run_was_given_hold_after_a_restart_too(servers: Servers) -> None:
    first = (
        "```python\none = llm_query('first leaf?')\ntwo = llm_query('second leaf?')\nfinal(one + two)\n```"
    )
    async with servers.open() as app:
        await servers.said(app, "execute_python", code="text = 'abc' * 100_000")
        asked = await servers.said(
            app, "rlm_complete", prompt="What?", variables=["text"], budgets={"max_subcalls": 1}
        )
        handle = handle_in(asked)
        await servers.said(app, "answer_calls", handle=handle, answers={"1": first})

    async with servers.open() as app:
        said = await servers.said(app, "answer_calls", handle=handle, answers={"2": "one"})

    assert "max_subcalls is used up: 1 of 1" in said


async def test_verbose_tells_what_runs_do_and_nothing_of_what_is_said_in_them(
    asking: Servers, caplog: pytest.LogCaptureFixture
) -> None:
    asking.flags |= {"rlm.verbose": True}
    async with asking.open() as app:
        await asking.said(app, "rlm_complete", prompt="private words")
        await asking.said(app, "execute_python", code="llm_query('more private words')")

    lines = [each.getMessage() for each in caplog.records if each.name == "rlm_mcp.stories"]
    assert any(" run_ended " in each and " finish=direct" in each for each in lines)
    assert sum(" call_ended " in each and "tokens=15" in each for each in lines) == 2
    assert "private" not in "\n".join(lines) and "An answer" not in "\n".join(lines)


async def test_a_server_that_is_not_verbose_tells_nothing_of_runs(
    asking: Servers, caplog: pytest.LogCaptureFixture
) -> None:
    async with asking.open() as app:
        await asking.said(app, "rlm_complete", prompt="private words")

    assert [each for each in caplog.records if each.name == "rlm_mcp.stories"] == []
