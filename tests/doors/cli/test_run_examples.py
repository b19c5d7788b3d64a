"""What docs/command-line.md shows of `run` is what happens: each line as it stands there, in a real shell."""

from __future__ import annotations

import json
import os
import re
import signal
import subprocess
import sys
from collections.abc import AsyncIterator
from pathlib import Path

import anyio
import anyio.to_thread
import pytest

from tests.fakes.models import Reply, Request, ScriptedModel, Silence, Turn
from tests.runtime.runs import code

from .programs import PATIENCE, Shell

pytestmark = pytest.mark.skipif(os.name == "nt", reason="the lines are for a shell of Unix")

PAGE = Path(__file__).parents[3] / "docs" / "command-line.md"
SECTION = re.findall(r"^## run\n(.*?)^## ", PAGE.read_text("utf-8"), re.DOTALL | re.MULTILINE)[0]
TICKETS, JOURNAL, DATES, REPOSITORY, RESUME = re.findall(
    r"^rlm-mcp run .*|^journalctl .*", SECTION, re.MULTILINE
)

_SCHEMA = {"type": "object", "properties": {"dates": {"type": "array"}}, "required": ["dates"]}
_CODE = {
    "customers": "said = llm_map('Too dear? {item}', list(context.values()))\nprint(said.ok.count('yes'), 'do')",
    "went wrong": "print(context.splitlines()[0])",
    "dates": "import re\nprint(re.findall(r'\\d{4}-\\d\\d-\\d\\d', context))",
    "repository": "from pathlib import Path\nprint(*sorted(each.name for each in Path().iterdir()))",
}


def _model(request: Request) -> Turn:
    if "Too dear?" in request.prompt:
        return Reply("yes" if "dear" in request.prompt.partition("?")[2] else "no")
    look = next(look for word, look in _CODE.items() if word in json.dumps(request.body["messages"]))
    if not request.results:
        return code(look, wire="openai") if request.tools else Reply('{"dates": ["2025-11-21"]}')
    return Reply(request.results[-1].text.splitlines()[1])


@pytest.fixture
async def server(shell: Shell) -> AsyncIterator[ScriptedModel]:
    """A model that the user's own settings name."""
    programs = shell.project.parent / "bin"
    programs.mkdir()
    journal = 'printf "disk full\\nno answer\\n"'
    for name, does in {"rlm-mcp": f'exec "{sys.executable}" -m rlm_mcp "$@"', "journalctl": journal}.items():
        (programs / name).write_text(f"#!/bin/sh\n{does}\n")
        (programs / name).chmod(0o755)
    shell.environment["PATH"] = f"{programs}{os.pathsep}{shell.environment['PATH']}"
    async with ScriptedModel(_model) as opened:
        _configure(shell, opened.url)
        yield opened


def _configure(shell: Shell, url: str) -> None:
    folder = Path(shell.environment["RLM_CONFIG_DIR"])
    folder.mkdir()
    settings = f'backend = "openai"\nmodel = "root"\napi_base = "{url}/v1"\napi_key = "key"\n'
    (folder / "rlm.toml").write_text(f"[rlm]\n{settings}", "utf-8")


async def _run(shell: Shell, line: str) -> subprocess.CompletedProcess[str]:
    def run() -> subprocess.CompletedProcess[str]:
        words = ["bash", "-c", line]
        return subprocess.run(
            words, env=shell.environment, cwd=shell.project, capture_output=True, text=True, check=False
        )

    with anyio.fail_after(PATIENCE):
        return await anyio.to_thread.run_sync(run, abandon_on_cancel=True)


def _tickets(folder: Path) -> None:
    (folder / "tickets").mkdir()
    for number in range(9):
        said = "dear" if number % 3 else "late"
        (folder / "tickets" / f"{number}.txt").write_text(f"Customer {number}: {said} {'.' * 4000}", "utf-8")


async def test_files_by_a_pattern_are_asked_about_one_by_one(shell: Shell, server: ScriptedModel) -> None:
    _tickets(shell.project)

    done = await _run(shell, TICKETS)

    assert (done.returncode, done.stdout) == (0, "6 do\n"), done.stderr
    assert len(server.requests) == 11


async def test_what_another_program_says_is_the_context(shell: Shell, server: ScriptedModel) -> None:
    done = await _run(shell, f"{JOURNAL} --recursive")

    assert (done.returncode, done.stdout) == (0, "disk full\n"), done.stderr


async def test_an_answer_by_a_schema_comes_with_all_that_it_took(shell: Shell, server: ScriptedModel) -> None:
    (shell.project / "log.txt").write_text("2025-11-21 it began", "utf-8")
    (shell.project / "dates.json").write_text(json.dumps(_SCHEMA), "utf-8")

    done = await _run(shell, DATES)

    assert json.loads(done.stdout)["data"]["value"] == {"dates": ["2025-11-21"]}, done.stderr


async def test_code_sees_the_folder_if_it_is_let(shell: Shell, server: ScriptedModel) -> None:
    (shell.project / "setup.cfg").touch()

    done = await _run(shell, REPOSITORY)

    assert (done.returncode, done.stdout) == (0, "setup.cfg\n"), done.stderr
    assert {request.model for request in server.requests} == {"anthropic/claude-sonnet-4-5"}


async def test_a_run_that_was_interrupted_goes_on(shell: Shell, server: ScriptedModel) -> None:
    _tickets(shell.project)
    stuck = anyio.Event()

    async def answer(request: Request) -> Turn:
        return Silence() if "Customer 4" in request.prompt and not stuck.is_set() else _model(request)

    async with ScriptedModel(answer) as other:
        shell.environment["RLM_API_BASE"] = f"{other.url}/v1"
        words = [TICKETS.removeprefix("rlm-mcp "), "--at-once 1"]
        process = await anyio.to_thread.run_sync(lambda: _start(shell, " ".join(words)))
        with process, anyio.fail_after(PATIENCE):
            await other.until(lambda model: any("Customer 4" in each.prompt for each in model.requests))
            process.send_signal(signal.SIGINT)
            _, told = await anyio.to_thread.run_sync(process.communicate)
        stuck.set()
        id_ = told.splitlines()[0].removeprefix("[trajectory ")[:11]
        done = await _run(shell, RESUME.replace("20251121T09", id_))

    assert process.returncode == 130
    assert (done.returncode, done.stdout) == (0, "6 do\n"), done.stderr
    assert [
        sum(f"Too dear? Customer {number}:" in prompt for prompt in other.asked.elements())
        for number in range(9)
    ] == [1, 1, 1, 1, 2, 1, 1, 1, 1]


def _start(shell: Shell, words: str) -> subprocess.Popen[str]:
    return subprocess.Popen(
        ["bash", "-c", f"exec rlm-mcp {words}"],
        env=shell.environment,
        cwd=shell.project,
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )
