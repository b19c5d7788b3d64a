"""What the README shows is what happens."""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
from collections.abc import Mapping
from pathlib import Path

import anyio
import anyio.to_thread
from mcp import Client

from rlm_mcp.app import Surroundings, open_app
from rlm_mcp.server import make_server
from rlm_mcp.sources import Sources
from tests.fakes.models import Reply, Request, ScriptedModel, ToolCall, Turn

README = Path(__file__).parent.parent / "README.md"
SECTION = re.findall(r"^## Recursion\n(.*?)^## ", README.read_text("utf-8"), re.DOTALL | re.MULTILINE)[0]


async def test_the_example_of_recursion_asks_models_about_pieces_of_a_file(tmp_path: Path) -> None:
    (tmp_path / "tickets.txt").write_text("\n".join(f"Order {n} came late" + "." * 1500 for n in range(30)))
    async with ScriptedModel(_model) as model:
        environment = {"OPENAI_API_KEY": "key", "OPENAI_BASE_URL": f"{model.url}/v1"}
        with anyio.fail_after(90):
            printed = await anyio.to_thread.run_sync(lambda: _printed_by(0, tmp_path, environment))

    assert printed == ["late, 30 times 1 32"]


def _model(request: Request) -> Turn:
    if request.model == "gpt-4o-mini":
        return Reply("late" if "came late" in request.prompt else "?")
    if request.results:
        return Reply(request.results[-1].text.splitlines()[1])
    look = "said = llm_map('About what? {item}', context.splitlines())\nprint(f'{said[0]}, {len(said.ok)} times')"
    return Reply(calls=(ToolCall("run_python", {"code": look}),))


# ---- the shell


async def test_the_lines_for_a_shell_run_a_task_show_it_and_play_it_again_offline(tmp_path: Path) -> None:
    (tmp_path / "tickets").mkdir()
    for number in range(12):
        about = "too dear" if number % 3 else "late"
        (tmp_path / "tickets" / f"{number}.txt").write_text(f"Customer {number}: {about}" + "." * 3000)
    key, task, listed, tree, again = _shell_lines(1)
    home = _home(tmp_path)
    async with ScriptedModel(_reader) as model:
        home["OPENAI_BASE_URL"] = f"{model.url}/v1"

        async def shell(line: str) -> subprocess.CompletedProcess[str]:
            with anyio.fail_after(90):
                return await anyio.to_thread.run_sync(lambda: _in_bash(f"{key}\n{line}", tmp_path, home))

        ran = await shell(task)
        id_ = re.findall(r"\[trajectory (\S+)\]", ran.stderr)[0]
        asked = len(model.requests)
        list_, one, replayed = [await shell(each.replace(" ID", f" {id_}")) for each in (listed, tree, again)]

    assert ran.stdout == "8 of 12 customers\n", ran.stderr
    assert asked == 14 and {each.headers["authorization"] for each in model.requests} == {"Bearer sk-..."}
    assert id_ in list_.stdout and one.stdout.count("llm_query") == 12
    assert replayed.stdout == ran.stdout and len(model.requests) == asked, replayed.stderr


def _reader(request: Request) -> Turn:
    if not request.tools:
        return Reply("yes" if "too dear" in request.prompt else "no")
    if request.results:
        return Reply(request.results[-1].text.splitlines()[1])
    look = (
        "said = llm_map('Does this complain about the price? {item}', list(context.values()))\n"
        "print(f'{said.ok.count(\"yes\")} of {len(context)} customers')"
    )
    return Reply(calls=(ToolCall("run_python", {"code": look}),))


def _shell_lines(block: int) -> list[str]:
    found = re.findall(r"```console\n(.*?)```", SECTION, re.DOTALL)[block - 1]
    return [line.removeprefix("$ ") for line in found.splitlines()]


def _home(folder: Path) -> dict[str, str]:
    """Return the environment of a user whose `rlm` is ours."""
    programs = folder / "bin"
    programs.mkdir()
    for name in ("rlm", "rlm-mcp"):
        (programs / name).write_text(f'#!/bin/sh\nexec "{sys.executable}" -m rlm_mcp "$@"\n')
        (programs / name).chmod(0o755)
    places = {"RLM_CONFIG_DIR": "config", "RLM_SESSIONS_STATE_DIR": "state", "HOME": "home"}
    return {
        "PATH": f"{programs}{os.pathsep}{os.environ['PATH']}",
        "PYTHONPATH": os.pathsep.join(str(Path(each).absolute()) for each in sys.path),
        **{name: str(folder / place) for name, place in places.items()},
    }


def _in_bash(line: str, folder: Path, environment: Mapping[str, str]) -> subprocess.CompletedProcess[str]:
    command = ["bash", "-c", line]
    return subprocess.run(
        command, env=dict(environment), cwd=folder, capture_output=True, text=True, timeout=80, check=False
    )


# ---- a client that answers by itself


async def test_what_a_client_calls_waits_for_its_answers_and_then_says_what_came_of_them(
    tmp_path: Path,
) -> None:
    failures = ["disk full", "time-out", "time-out", "no such host", "time-out"]
    project = tmp_path / "project"
    project.mkdir()
    (project / "server.log").write_text("\n\n".join(f"{n}: {each}" for n, each in enumerate(failures)))
    first, second = _tool_calls()
    sources = Sources({"sessions.state_dir": str(tmp_path / "state")}, {}, tmp_path / "config")

    with anyio.fail_after(90):
        async with (
            open_app(sources, Surroundings(None, project)) as app,
            Client(make_server(app), mode="2026-07-28") as client,
        ):
            await client.call_tool(first[0], json.loads(first[1]))
            waits = await _said(client, second[0], code=second[1])
            prompts = re.findall(r"Which kind of failure is this\? One word\.\n\d+: ([^\n]+)", waits)
            handle = re.findall(r'handle="([^"]+)"', waits)[0]
            answers = {str(number): each.split()[0] for number, each in enumerate(prompts, 1)}
            done = await _said(client, "answer_calls", handle=handle, answers=answers)

    assert prompts == failures and waits.startswith("[waiting")
    assert "[('time-out', 3), ('disk', 1), ('no', 1)]" in done


async def _said(client: Client, tool: str, **arguments: object) -> str:
    result = await client.call_tool(tool, arguments)
    return "\n".join(block.text for block in result.content if block.type == "text")


def _tool_calls() -> list[tuple[str, str]]:
    """Return the calls of tools that the section shows: a name, and what is given to it in a column of its own."""
    [block] = re.findall(r"```\n(set_repl_context.*?)```", SECTION, re.DOTALL)
    calls: list[tuple[str, str]] = []
    for line in block.splitlines():
        name, given = line[:19].strip(), line[19:]
        calls += [(name, given)] if name else []
        calls[-1] = calls[-1] if name else (calls[-1][0], f"{calls[-1][1]}\n{given}")
    return calls


# ---- Python


def test_the_example_of_a_session_prints_what_it_says() -> None:
    value, error, kept, isolation = _printed_by(1)

    assert (value, kept) == ("42", "41")
    assert "wall_seconds" in error and "Limits(wall_seconds=" in error
    assert "seccomp" in isolation


def test_the_session_of_the_example_that_lasts_is_there_on_the_next_day() -> None:
    today, tomorrow = _printed_by(2)

    assert today == "today 1"
    assert tomorrow.startswith("tomorrow 2 The session is back from disk")


def _printed_by(example: int, folder: Path | None = None, more: Mapping[str, str] | None = None) -> list[str]:
    code = re.findall(r"```python\n(.*?)```", README.read_text(), re.DOTALL)[example]
    path = os.pathsep.join(str(Path(each).absolute()) for each in sys.path)
    environment = {**os.environ, "PYTHONPATH": path, **(more or {})}

    command = [sys.executable, "-c", code]
    ran = subprocess.run(
        command, env=environment, cwd=folder, capture_output=True, text=True, timeout=60, check=False
    )

    assert ran.returncode == 0, ran.stderr
    return ran.stdout.splitlines()
