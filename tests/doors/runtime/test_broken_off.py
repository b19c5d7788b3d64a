"""A run whose server ends in the middle of it: the next server says so, and a terminal goes on with it."""

from __future__ import annotations

import re
import signal
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import anyio
import anyio.from_thread
import anyio.to_thread
import pytest

from tests.doors.cli.programs import Shell
from tests.fakes.models import Reply, Request, ScriptedModel, Silence, ToolCall

from .test_killed_servers import tool

CODE = """\
said = [llm_query("first leaf"), llm_query("second leaf")]
try:
    llm_query("third leaf")
except CallBudgetExhausted as problem:
    said.append(str(problem))
final(said)
"""


class Model(ScriptedModel):
    """One that is silent at the second leaf, until it is let."""

    def __init__(self) -> None:
        super().__init__(self._says)
        self.let = False

    def _says(self, request: Request) -> Any:
        if request.body.get("tools"):
            return Reply(calls=(ToolCall("run_python", {"code": CODE}),))
        return Reply(f"says {request.prompt}") if self.let or "second" not in request.prompt else Silence()


def asked_the_second(model: ScriptedModel) -> bool:
    return model.asked["second leaf"] == 1


@pytest.fixture
async def model() -> AsyncIterator[Model]:
    async with Model() as server:
        yield server


@pytest.mark.parametrize("number", [signal.SIGKILL, signal.SIGTERM])
async def test_it_is_told_what_became_of_it_and_it_is_gone_on_with_within_its_budget(
    model: Model, tmp_path: Path, number: signal.Signals
) -> None:
    shell = Shell(tmp_path)
    named = {"BACKEND": "openai", "MODEL": "m", "API_KEY": "k", "API_BASE": f"{model.url}/v1"}
    shell.environment |= {f"RLM_{name}": value for name, value in named.items()}

    def begin() -> str:
        with shell.serving() as server:
            server.run("text = 'abc' * 100_000")
            asked: dict[str, Any] = {"prompt": "Work.", "variables": ["text"], "background": True}
            begun = tool(server, "rlm_complete", **asked, budgets={"max_subcalls": 2})
            found = re.search(r'handle="(w-\w+)"', begun)
            assert found is not None, begun
            anyio.from_thread.run(model.until, asked_the_second)
            server.process.send_signal(number)
            server.process.wait(60)
        return found[1]

    def look(handle: str) -> tuple[str, str]:
        with shell.serving() as server:
            return tool(server, "rlm_status", handle=handle), tool(server, "rlm_status")

    with anyio.fail_after(120):
        handle = await anyio.to_thread.run_sync(begin)
        status, listed = await anyio.to_thread.run_sync(look, handle)
        model.let = True
        resume = re.search(r"rlm-mcp (run --resume [\w-]+)", status)
        assert resume is not None, status
        done = await anyio.to_thread.run_sync(lambda: shell(*resume[1].split()))

    why = "its server ended in the middle of it" if number == signal.SIGKILL else "its server was stopped"
    assert why in status and "'Work.'" in listed
    assert "says first leaf" in done.stdout and "says second leaf" in done.stdout, done
    assert "max_subcalls is used up: 2 of 2" in done.stdout
    assert (model.asked["first leaf"], model.asked["second leaf"], model.asked["third leaf"]) == (1, 2, 0)
