"""A process that is killed in the middle of a run leaves nothing alive, a log that can be read, and all paid answers."""

from __future__ import annotations

import os
import signal
import sys
from pathlib import Path

import anyio
import anyio.to_thread

from rlm_runtime.cache import AnswerStore
from rlm_runtime.trajectory import read
from rlm_sandboxes.local import LocalSandbox
from tests.fakes.models import Oracle, Request, Silence, by_model, conversation
from tests.fakes.turns import Turn
from tests.runtime.runs import code, descendants, scene

QUESTIONS = """
answers = [*llm_map([f"question {n}" for n in range(60)])]
answers.append(llm_query("the one after them"))
final(answers)
"""
RUNNER = """
import sys
from pathlib import Path
import anyio
from rlm_runtime.answers import Ladder
from rlm_runtime.cache import AnswerStore
from rlm_runtime.log import open_log
from rlm_runtime.models.openai import OpenAIModel
from rlm_runtime.rooms import Rooms
from rlm_runtime.run import Job, run
from rlm_sandboxes.local import LocalSandbox
from tests.runtime.runs import PRICES, WIDE

async def main():
    url, folder = sys.argv[1], Path(sys.argv[2])
    async with LocalSandbox() as sandbox, OpenAIModel("root", api_base=url, prices=PRICES) as model:
        async with open_log(folder / "logs", "killed") as log:
            job = Job("Ask.", sub_model="leaf", budget=WIDE, recursive=True)
            store = AnswerStore(folder / "answers")
            await run(job, ladder=Ladder([model]), rooms=Rooms(sandbox), log=log, store=store)

anyio.run(main)
"""


def opened(pid: int) -> list[int]:
    """Return a descriptor for each process that this one started, which can be read when that has ended."""
    return [os.pidfd_open(each) for each in descendants(pid)] if hasattr(os, "pidfd_open") else []


async def test_what_was_answered_before_a_kill_is_not_asked_again(
    sandbox: LocalSandbox, tmp_path: Path
) -> None:
    oracle = Oracle("killed")

    def leaf(request: Request) -> Turn:
        return Silence() if "after them" in request.prompt else oracle(request)

    root = conversation(code(QUESTIONS, wire="openai"))
    async with scene(sandbox, by_model({"root": root, "leaf": leaf})) as made:
        with anyio.fail_after(60):
            command = [sys.executable, "-c", RUNNER, f"{made.server.url}/v1", str(tmp_path)]
            environment = os.environ | {"PYTHONPATH": os.pathsep.join(sys.path)}
            async with await anyio.open_process(
                command, env=environment, stdout=None, stderr=None
            ) as process:
                await made.server.until(lambda server: server.asked["the one after them"] == 1)
                alive = await anyio.to_thread.run_sync(opened, process.pid)
                os.kill(process.pid, signal.SIGKILL)
                await process.wait()
                for ended in alive:
                    await anyio.wait_readable(ended)
                    os.close(ended)
            await made.server.until(lambda server: server.at_once == 0)
    cut = await anyio.to_thread.run_sync(read, tmp_path / "logs" / "killed.jsonl")

    async with scene(
        sandbox, by_model({"root": root, "leaf": oracle}), store=AnswerStore(tmp_path / "answers")
    ) as again:
        with anyio.fail_after(60):
            outcome = await again.run("Ask.")

    questions = [*(f"question {n}" for n in range(60)), "the one after them"]
    assert outcome.value == [oracle.says(question) for question in questions]
    assert (len(made.server.requests), len(again.server.requests)) == (1 + 61, 1 + 1)
    assert again.server.asked["the one after them"] == 1
    assert cut.state == "cut" and len(alive) >= 2
