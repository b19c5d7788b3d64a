"""`replay`: a run again, in a process that can reach no model; and from an event on with another one."""

from __future__ import annotations

import json
from typing import Any

import anyio
import anyio.to_thread
import pytest

from rlm_runtime.log import open_log
from rlm_sandboxes.local import LocalSandbox
from tests.fakes.models import Reply, ScriptedModel, by_model, conversation
from tests.runtime.runs import code, scene

from . import runs
from .programs import PATIENCE, Shell

_LOOK = "print(*llm_map('shout {item}', context.split()))"


@pytest.fixture
async def made(shell: Shell) -> str:
    """A run that was made with a model that is gone."""
    root = conversation(code(_LOOK, wire="openai"), Reply("All were shouted."))
    script = by_model({"root": root, "leaf": lambda request: Reply(request.prompt.split()[-1].upper())})
    async with LocalSandbox() as sandbox, scene(sandbox, script) as setting:
        with anyio.fail_after(PATIENCE):
            async with open_log(shell.project / "logs") as log:
                await setting.run(log=log, contexts={"context": "one two three"})
    return log.trajectory_id


async def _run(shell: Shell, *words: str) -> Any:
    return await anyio.to_thread.run_sync(lambda: shell(*words))


async def test_a_run_is_played_again_without_a_model(shell: Shell, made: str) -> None:
    done = await _run(shell, "replay", made, "--verbose")
    told = json.loads((await _run(shell, "replay", made[:30], "--json")).stdout)["data"]

    assert (done.returncode, done.stdout) == (0, "All were shouted.\n"), done.stderr
    assert "5 answers from the log, no model asked" in done.stderr and "shout two" in done.stderr
    assert (told["identical"], told["from_log"], told["asked"], told["finish"]) == (True, 5, 0, "answered")


async def test_the_first_difference_is_told_with_its_event(shell: Shell, made: str) -> None:
    path = shell.project / "logs" / f"{made}.jsonl"
    path.write_bytes(path.read_bytes().replace(b"TWO", b"ZWEI").replace(b"ZWEI THREE", b"TWO THREE"))
    done = await _run(shell, "replay", made)

    assert done.returncode == 1
    assert (
        "left its path at event" in done.stderr and "ZWEI" in done.stderr and "Traceback" not in done.stderr
    )


async def test_from_an_event_on_another_model_is_asked(shell: Shell, made: str) -> None:
    path = shell.project / "logs" / f"{made}.jsonl"
    events = [json.loads(line) for line in path.read_bytes().splitlines()]
    second = [e["n"] for e in events if e["kind"] == "call_started" and e["depth"] == 0][1]
    async with ScriptedModel([Reply("Another answer.")]) as model:
        shell.environment |= {
            "RLM_BACKEND": "openai",
            "RLM_MODEL": "other",
            "RLM_API_BASE": f"{model.url}/v1",
            "RLM_API_KEY": "sk-of-the-test-0123456789",
        }
        done = await _run(shell, "replay", made, "--from", str(second), "--json")
        assert done.returncode == 0, done.stderr
        told = json.loads(done.stdout)["data"]
        listed = await anyio.to_thread.run_sync(lambda: shell.data("logs", told["trajectory_id"]))

    assert (told["response"], told["from_log"], told["asked"]) == ("Another answer.", 4, 1), done.stderr
    assert listed["finish"] == "answered" and "sk-of-the-test" not in json.dumps(listed)


@pytest.mark.parametrize("cell", [True, False])
async def test_what_cannot_be_played_is_said(shell: Shell, cell: bool) -> None:
    id_ = await runs.written(shell.project / "logs") if cell else "nothing"
    done = await _run(shell, "replay", id_)

    assert done.returncode == 1
    assert ("can be read and not played" if cell else "There is no trajectory") in done.stderr
