"""Runs whose code works in containers: by the command, and by the Python API."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import anyio
import anyio.to_thread

from rlm_runtime import RLM
from tests.docker.engine import Engine
from tests.doors.cli.programs import PATIENCE, Shell
from tests.fakes.models import Reply, ScriptedModel, conversation
from tests.runtime.runs import code

from .test_commands import containers_of

_LOOK = "import os; print(os.path.exists('/.dockerenv'), context, llm_query('how many?'))"


def _script() -> Any:
    def answer(request: Any) -> Any:
        return Reply("seven") if request.prompt == "how many?" else root(request)

    root = conversation(
        code(_LOOK, wire="openai"), lambda request: Reply(request.results[-1].text.splitlines()[1])
    )
    return answer


async def test_run_has_its_code_work_in_a_container(shell: Shell) -> None:
    (shell.project / "words.txt").write_text("one two", "utf-8")
    del shell.environment["RLM_ENVIRONMENT"]
    async with ScriptedModel(_script()) as server:
        who = ("--backend", "openai", "--api-base", f"{server.url}/v1", "--model", "root")
        words = ("run", "Look.", "--context", "words.txt", "--recursive", "--env", "docker", *who)
        with anyio.fail_after(PATIENCE):
            done = await anyio.to_thread.run_sync(lambda: shell(*words))

    assert (done.returncode, done.stdout) == (0, "True one two seven\n"), done.stderr


async def test_the_python_api_has_its_code_work_in_a_container(
    engine: Engine, client: Any, tmp_path: Path
) -> None:
    words = tmp_path / "words.txt"
    words.write_text("one two", "utf-8")
    words.chmod(0o600)
    async with ScriptedModel(_script()) as server:
        rlm = RLM(
            "root",
            "openai",
            environment="docker",
            docker_image=engine.image,
            docker_memory="256m",
            recursive=True,
            token_budget=None,
            log_dir=tmp_path / "logs",
            environ={"OPENAI_BASE_URL": f"{server.url}/v1", "DOCKER_HOST": engine.host},
        )
        with anyio.fail_after(PATIENCE):
            result = await rlm.completion("Look.", context=words)

    assert result.response == "True one two seven"
    assert containers_of(client, os.getpid()) == []
