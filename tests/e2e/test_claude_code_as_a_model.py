"""Claude Code as the program behind a model: `command = ["claude", "-p"]`, at the command line and in the server."""

from __future__ import annotations

import json
import os
import sys
from pathlib import Path
from subprocess import DEVNULL, CompletedProcess
from typing import Any

import anyio
import anyio.to_thread
from mcp import Client, StdioServerParameters

from tests.e2e.grounds import Grounds, Running, all_ended, descendants, node_program, with_node
from tests.fakes.models import Reply, Request, ScriptedModel, Silence, Turn

PIECES = 5


async def rlm_run(
    grounds: Grounds, model: ScriptedModel, *arguments: str, command: tuple[str, ...] = ("-p",)
) -> CompletedProcess[bytes]:
    with anyio.fail_after(60):
        return await anyio.run_process(
            [sys.executable, "-m", "rlm_mcp", "run", *arguments],
            stdin=DEVNULL,
            cwd=grounds.project,
            env=environment(grounds, model, *command),
            check=False,
        )


def environment(grounds: Grounds, model: ScriptedModel, *command: str) -> dict[str, str]:
    """Return what a server sees that Claude Code itself has started, and that asks Claude Code."""
    return with_node(grounds.environment) | {
        "ANTHROPIC_BASE_URL": model.url,
        "ANTHROPIC_API_KEY": "the-key-of-the-test",
        "CLAUDECODE": "1",
        "CLAUDE_CODE_SESSION_ID": "0d9c6b6e-0000-4000-8000-000000000000",
        "CLAUDE_PROJECT_DIR": str(grounds.project),
        "RLM_BACKEND": "command",
        "RLM_COMMAND": json.dumps([node_program("claude"), *command]),
    }


def lay_snares(grounds: Grounds) -> Path:
    """Configure what Claude Code does at its start in this project; return the file that tells what it did of it."""
    did = grounds.folder / "did"
    ours = {"command": "/bin/sh", "args": ["-c", f"echo server >> {did}; exec {' '.join(grounds.server)}"]}
    hook = {"hooks": [{"type": "command", "command": f"echo hook >> {did}"}]}
    settings = {
        "hooks": {"SessionStart": [hook], "UserPromptSubmit": [hook]},
        "enableAllProjectMcpServers": True,
    }
    (grounds.home / ".claude").mkdir()
    (grounds.home / ".claude.json").write_text(json.dumps({"mcpServers": {"rlm": ours}}))
    (grounds.home / ".claude" / "settings.json").write_text(json.dumps(settings))
    (grounds.home / ".claude" / "CLAUDE.md").write_text("A note of the person.")
    (grounds.project / ".mcp.json").write_text(json.dumps({"mcpServers": {"rlm": ours}}))
    (grounds.project / "CLAUDE.md").write_text("A note of the project.")
    return did


async def test_it_answers_and_brings_nothing_of_the_person_or_the_project_along(grounds: Grounds) -> None:
    did = lay_snares(grounds)
    async with ScriptedModel([Reply("Forty-two.", input_tokens=100, output_tokens=20)]) as model:
        ran = await rlm_run(grounds, model, "What is it?", "--json")

    said, [request] = json.loads(ran.stdout)["data"], model.requests
    assert (said["response"], said["total_tokens"]) == ("Forty-two.", 120)
    assert said["cost_usd"] > 0
    assert request.tools == {} and "A note of" not in json.dumps(request.body)
    assert str(grounds.project) not in json.dumps(request.body)
    assert not did.exists()


async def test_the_model_that_is_asked_for_is_the_one_that_answers(grounds: Grounds) -> None:
    async with ScriptedModel([Reply("Yes."), Reply("Yes.")]) as model:
        await rlm_run(grounds, model, "Are you it?", "--model", "claude-haiku-4-5")
        await rlm_run(grounds, model, "Are you it?", command=("-p", "--model", "claude-sonnet-4-5"))

    assert [request.model for request in model.requests] == ["claude-haiku-4-5", "claude-sonnet-4-5"]


async def test_a_budget_in_dollars_holds_where_its_model_has_a_price(grounds: Grounds) -> None:
    (grounds.folder / "config").mkdir()
    (grounds.folder / "config" / "rlm.toml").write_text('[rlm.prices]\n"claude-haiku-4-5" = [1.0, 5.0]\n')
    async with ScriptedModel([Reply("Yes.")]) as model:
        unpriced = await rlm_run(grounds, model, "Is it cheap?", "--cost-budget", "0.5")
        asked_before = len(model.requests)
        priced = await rlm_run(
            grounds, model, "Is it cheap?", "--cost-budget", "0.5", "--model", "claude-haiku-4-5"
        )

    assert unpriced.returncode != 0 and b"price" in unpriced.stderr and asked_before == 0
    assert (priced.returncode, priced.stdout.strip()) == (0, b"Yes."), priced.stderr


async def test_a_run_whose_time_is_over_leaves_none_of_it_behind(grounds: Grounds) -> None:
    before, ours = descendants(os.getpid()), set[Running]()

    def look(_: Request) -> Turn:
        ours.update(descendants(os.getpid()) - before)
        return Silence(after_events=2)

    async with ScriptedModel(look) as model:
        ran = await rlm_run(grounds, model, "What is it?", "--timeout", "8")
        with anyio.fail_after(10):
            await model.until(lambda model: len(model.left) == 1)
            await all_ended(ours)

    assert ran.returncode != 0
    assert len(ours) >= 2  # the command line and Claude Code


async def test_a_cell_has_as_many_of_it_as_are_allowed_and_never_more(grounds: Grounds) -> None:
    code = f"print(list(llm_map([f'{{n}}?' for n in range({PIECES})])))"
    did = lay_snares(grounds)
    both = anyio.Event()

    async def answer(request: Request) -> Turn:
        if len(model.requests) >= 2:
            both.set()
        await both.wait()
        return Reply(request.prompt[:2])

    async with ScriptedModel(answer) as model:
        env = environment(grounds, model, "-p") | {"RLM_COMMAND_AT_ONCE": "2"}
        async with Client(_server(grounds, env)) as client:
            with anyio.fail_after(50):
                said: Any = (await client.call_tool("execute_python", {"code": code})).content[0]

    logged = await anyio.to_thread.run_sync(_ended, grounds.folder / "state")
    assert said.text.startswith(str([f"{n}?" for n in range(PIECES)])), said.text
    assert model.most_at_once == 2 and len(model.requests) == PIECES
    assert logged["token_usage"]["total_tokens"] == PIECES * 15 and logged["cost_usd"] > 0
    assert not did.exists()


async def test_a_server_that_it_starts_does_not_ask_it_again(grounds: Grounds) -> None:
    """Written with `{prompt}` it is a program like any other, and comes with the person's servers: with ours."""
    did = lay_snares(grounds)

    async with ScriptedModel(lambda _: Reply("forty-two")) as model:
        ran = await rlm_run(grounds, model, "What is it?", command=("-p", "{prompt}"))
        inner = environment(grounds, model, "-p") | await _environment_of_a_command(grounds, model)
        async with Client(_server(grounds, inner)) as client:
            asked_before = len(model.requests)
            with anyio.fail_after(30):
                said: Any = (
                    await client.call_tool("execute_python", {"code": "llm_query('Again?')"})
                ).content[0]

    assert ran.stdout.strip() == b"forty-two" and did.read_text()
    assert said.text.startswith("[waiting") and len(model.requests) == asked_before


async def _environment_of_a_command(grounds: Grounds, model: ScriptedModel) -> dict[str, str]:
    """Return what a program sees that a server asks."""
    told = grounds.folder / "seen.json"
    code = f"import json, os; json.dump(dict(os.environ), open({str(told)!r}, 'w')); print('Yes.')"
    seen = environment(grounds, model) | {"RLM_COMMAND": json.dumps([sys.executable, "-c", code])}
    async with Client(_server(grounds, seen)) as client:
        with anyio.fail_after(30):
            await client.call_tool("execute_python", {"code": "llm_query('Who?')"})
    found: dict[str, str] = json.loads(await anyio.Path(told).read_text())
    return found


def _server(grounds: Grounds, env: dict[str, str]) -> StdioServerParameters:
    command, *arguments = grounds.server
    return StdioServerParameters(command=command, args=arguments, env=env, cwd=str(grounds.project))


def _ended(state: Path) -> Any:
    (log,) = state.rglob("trajectories/*.jsonl")
    return json.loads(log.read_text().splitlines()[-1])
