"""What was paid for is not paid for again: in plain cells, after `kill -9` of a server, and of `run`."""

from __future__ import annotations

import json
import os
import signal
from collections.abc import AsyncIterator
from pathlib import Path

import anyio
import anyio.to_thread
import pytest

from tests.doors.cli.programs import Shell
from tests.fakes.models import Oracle, Request, ScriptedModel, Silence, by_model, conversation
from tests.fakes.turns import Turn
from tests.runtime.runs import code, descendants

from ..conftest import Caller

QUESTIONS = [f"question {n}" for n in range(100)]
PATIENCE = 90.0
ASK = 'answers = llm_map([f"question {n}" for n in range(100)])\n'


class Leaves:
    """Leaves of which the last twenty say nothing until they are `willing`."""

    def __init__(self) -> None:
        self.oracle = Oracle("paid")
        self.willing = False

    def __call__(self, request: Request) -> Turn:
        late = int(request.prompt.split()[-1]) >= 80
        return Silence() if late and not self.willing else self.oracle(request)

    @property
    def says(self) -> list[str]:
        return [self.oracle.says(question) for question in QUESTIONS]


@pytest.fixture
def leaves() -> Leaves:
    return Leaves()


@pytest.fixture
async def model(leaves: Leaves) -> AsyncIterator[ScriptedModel]:
    root = conversation(code(ASK + "final(list(answers))", wire="openai"))
    async with ScriptedModel(by_model({"root": root, "leaf": leaves})) as server:
        yield server


@pytest.fixture
def flags(flags: dict[str, object], model: ScriptedModel) -> dict[str, object]:
    return flags | {
        "rlm.backend": "openai",
        "rlm.model": "leaf",
        "rlm.api_base": f"{model.url}/v1",
        "rlm.api_key": "key",
        "rlm.max_subcalls": 100,
        "rlm.token_budget": 1_000_000,
    }


@pytest.fixture
def shell(tmp_path: Path, model: ScriptedModel) -> Shell:
    shell = Shell(tmp_path)
    folder = Path(shell.environment["RLM_CONFIG_DIR"])
    folder.mkdir(parents=True)
    settings = (
        f'backend = "openai"\napi_base = "{model.url}/v1"\nmax_subcalls = 200\ntoken_budget = 1_000_000\n'
        'model = "leaf"\nat_once = 10\n'
    )
    (folder / "rlm.toml").write_text(f"[rlm]\n{settings}", "utf-8")
    shell.environment["OPENAI_API_KEY"] = "key"
    return shell


async def until_only_silence_is_in_flight(model: ScriptedModel) -> None:
    """Wait until all places are taken by questions that are not answered, so that all others are stored."""
    await model.until(
        lambda server: server.at_once == sum(server.asked[each] for each in QUESTIONS[80:]) == 10
    )


def paid(model: ScriptedModel) -> set[int]:
    """Return how often each of the first eighty, which were answered, was asked."""
    return {model.asked[question] for question in QUESTIONS[:80]}


async def test_a_plain_cell_that_raises_after_80_of_100_answers_pays_20_on_the_next_try(
    call: Caller, model: ScriptedModel, leaves: Leaves
) -> None:
    leaves.willing = True
    one_by_one = (
        "answers = []\nfor n in range(100):\n    answers.append(llm_query(f'question {n}'))\n"
        "    if n == 79 and fails: raise ValueError('after most of it')\n"
    )
    failed = await call.said("execute_python", code=f"fails = True\n{one_by_one}")
    asked = len(model.requests)
    said = await call.run(f"fails = False\n{one_by_one}print(answers)")

    assert "ValueError: after most of it" in failed and asked == 80
    assert said.startswith(str(leaves.says))
    assert (len(model.requests), paid(model)) == (100, {1})


async def test_what_was_answered_before_a_server_was_killed_is_there_for_the_next_one(
    shell: Shell, model: ScriptedModel, leaves: Leaves
) -> None:
    with anyio.fail_after(PATIENCE), shell.serving() as server:
        server.begin(ASK)
        await until_only_silence_is_in_flight(model)
        alive = await anyio.to_thread.run_sync(opened, server.process.pid)
        os.kill(server.process.pid, signal.SIGKILL)
        await ended(alive)
        await model.until(lambda gone: gone.at_once == 0)
    leaves.willing = True
    with anyio.fail_after(PATIENCE), shell.serving() as server:
        said = await anyio.to_thread.run_sync(server.run, f"{ASK}print(list(answers))")

    assert said.startswith(str(leaves.says))
    assert paid(model) == {1} and len(model.requests) == 100 + 10
    assert len(alive) >= 1


async def test_a_run_that_was_killed_is_gone_on_with_and_pays_for_the_rest_only(
    shell: Shell, model: ScriptedModel, leaves: Leaves
) -> None:
    words = ("run", "Ask.", "--recursive", "--model", "root", "--sub-model", "leaf")
    with anyio.fail_after(PATIENCE):
        process = await anyio.to_thread.run_sync(lambda: shell.start(*words))
        with process:
            await until_only_silence_is_in_flight(model)
            alive = await anyio.to_thread.run_sync(opened, process.pid)
            os.kill(process.pid, signal.SIGKILL)
            _, stderr = await anyio.to_thread.run_sync(process.communicate)
        await ended(alive)
        await model.until(lambda gone: gone.at_once == 0)
        leaves.willing = True
        id_ = stderr.splitlines()[0].removeprefix("[trajectory ").removesuffix("]")
        done = await anyio.to_thread.run_sync(lambda: shell("run", "--resume", id_))

    assert done.returncode == 0, done.stderr
    assert done.stdout.strip() == json.dumps(leaves.says)
    assert paid(model) == {1} and len(model.requests) == 1 + 100 + 10
    assert len(alive) >= 1


def opened(pid: int) -> list[int]:
    """Return a descriptor for each process that this one started, which can be read when that has ended."""
    return [os.pidfd_open(each) for each in descendants(pid)] if hasattr(os, "pidfd_open") else []


async def ended(alive: list[int]) -> None:
    """Wait until all these processes have ended."""
    for process in alive:
        await anyio.wait_readable(process)
        os.close(process)
