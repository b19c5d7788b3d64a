"""Claude Code, started as on a person's machine, with a scripted model behind it and our server beside it."""

from __future__ import annotations

import json
from collections.abc import AsyncGenerator, Mapping, Sequence
from contextlib import asynccontextmanager
from subprocess import DEVNULL, PIPE

import anyio
import anyio.abc

from tests.e2e.grounds import Grounds, node_program, with_node
from tests.fakes.models import ScriptedModel

PYTHON = "mcp__rlm__execute_python"
SET = "mcp__rlm__set_repl_context"
ANSWER = "mcp__rlm__answer_calls"
COMPLETE = "mcp__rlm__rlm_complete"
STATUS = "mcp__rlm__rlm_status"
READ = "ReadMcpResourceTool"


async def claude(
    grounds: Grounds,
    model: ScriptedModel,
    prompt: str = "Do it.",
    *,
    server: object = None,
    settings: Mapping[str, str] | None = None,
    environment: Mapping[str, str] | None = None,
) -> str:
    """Run Claude Code without a terminal, and return what it said in the end.

    `settings` are variables for our server, `environment` those for Claude Code.
    """
    command = _command(grounds, prompt, server or _stdio(grounds, settings or {}))
    with anyio.fail_after(60):
        ran = await anyio.run_process(
            command,
            stdin=DEVNULL,
            cwd=grounds.project,
            env=_environment(grounds, model) | dict(environment or {}),
            check=False,
        )

    assert ran.returncode == 0, ran.stdout + ran.stderr
    return ran.stdout.decode().strip()


@asynccontextmanager
async def running_claude(
    grounds: Grounds, model: ScriptedModel, *, settings: Mapping[str, str]
) -> AsyncGenerator[anyio.abc.Process]:
    """Have Claude Code run, and end it in the end if it has not."""
    process = await anyio.open_process(
        _command(grounds, "Do it.", _stdio(grounds, settings)),
        stdin=DEVNULL,
        stdout=PIPE,
        stderr=PIPE,
        cwd=grounds.project,
        env=_environment(grounds, model),
    )
    try:
        yield process
    finally:
        with anyio.CancelScope(shield=True):
            if process.returncode is None:
                process.kill()
            await process.aclose()


def _stdio(grounds: Grounds, settings: Mapping[str, str]) -> object:
    command, *arguments = grounds.server
    return {"command": command, "args": arguments, "env": grounds.environment | dict(settings)}


def _command(grounds: Grounds, prompt: str, server: object) -> Sequence[str]:
    config = grounds.folder / "mcp.json"
    config.write_text(json.dumps({"mcpServers": {"rlm": server}}))
    options = ["--mcp-config", str(config), "--strict-mcp-config", "--allowedTools", "mcp__rlm"]
    return [node_program("claude"), "-p", prompt, *options]


def _environment(grounds: Grounds, model: ScriptedModel) -> dict[str, str]:
    return with_node(grounds.environment) | {
        "ANTHROPIC_BASE_URL": model.url,
        "ANTHROPIC_API_KEY": "none",
        "CLAUDE_CODE_DISABLE_NONESSENTIAL_TRAFFIC": "1",
        "DISABLE_AUTOUPDATER": "1",
    }
