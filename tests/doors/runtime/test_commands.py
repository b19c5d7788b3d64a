"""A program that answers calls, through a server: how many at once, how long, and what ends it."""

from __future__ import annotations

from collections.abc import AsyncGenerator, Awaitable, Callable
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from pathlib import Path
from typing import Any

import anyio
import anyio.to_thread
import pytest
from mcp import Client

from rlm_mcp.app import Surroundings, open_app
from rlm_mcp.server import make_server
from rlm_mcp.sources import Sources

from ..conftest import Caller

# Each notes that it began, and how many run; it answers when the file "let" is there, or ends after a while.
PROGRAM = """\
prompt=$(cat); : > "$0/begun-$prompt-$$"
begun=$(ls "$0" | grep -c ^begun-); ended=$(ls "$0" | grep -c ^ended-); : > "$0/with-$((begun - ended))-$$"
for _ in $(seq 1000); do [ -e "$0/let" ] && break; sleep 0.02; done
: > "$0/ended-$prompt-$$"; echo "heard $prompt"
"""
Open = Callable[..., AbstractAsyncContextManager[Caller]]


@pytest.fixture
def notes(tmp_path: Path) -> Path:
    folder = tmp_path / "notes"
    folder.mkdir()
    return folder


@pytest.fixture
def opened(flags: dict[str, object], project: Path, notes: Path, tmp_path: Path) -> Open:
    """Opens a server whose calls are answered by the program."""

    @asynccontextmanager
    async def opened(**rlm: object) -> AsyncGenerator[Caller]:
        named = {f"rlm.{name}": value for name, value in rlm.items()}
        command = ["sh", "-c", PROGRAM, str(notes)]
        given = {**flags, "rlm.backend": "command", "rlm.command": command, **named}
        async with (
            open_app(
                Sources(given, {"PATH": "/usr/bin:/bin"}, tmp_path / "config"), Surroundings(None, project)
            ) as app,
            Client(make_server(app), mode="2026-07-28") as client,
        ):
            yield Caller(client, project)

    return opened


async def noted(folder: Path, pattern: str) -> list[str]:
    return await anyio.to_thread.run_sync(lambda: sorted(path.name for path in folder.glob(pattern)))


async def until(true: Callable[[], Awaitable[Any]]) -> None:
    with anyio.fail_after(30):
        while not await true():
            await anyio.sleep(0.02)


async def running(folder: Path) -> list[str]:
    """Return those that began and still run."""
    begun = await noted(folder, "begun-*")
    return [name for name in begun if await anyio.Path("/proc", name.rpartition("-")[2]).exists()]


async def test_no_more_programs_run_at_once_than_the_settings_allow(opened: Open, notes: Path) -> None:
    said = list[str]()

    async def cell(call: Caller, project: str) -> None:
        code = f"print(len(llm_map('{project}{{item}}', range(3))))"
        said.append(await call.run(code, project=project))

    async def at_work(number: int) -> bool:
        return len(await noted(notes, "with-*")) == number

    async with opened(command_at_once=2) as call, anyio.create_task_group() as tasks:
        for project in ("one", "two"):
            tasks.start_soon(cell, call, project)
        await until(lambda: at_work(2))
        await anyio.Path(notes / "let").touch()

    together = {name.split("-")[1] for name in await noted(notes, "with-*")}
    assert together <= {"1", "2"} and "2" in together
    assert said == ["3", "3"] and len(await noted(notes, "ended-*")) == 6


async def test_a_program_that_takes_too_long_is_killed_and_said_to_have(opened: Open, notes: Path) -> None:
    code = "try:\n    llm_query('slow')\nexcept CallFailed as problem:\n    print(problem)"
    async with opened(command_seconds=0.2) as call:
        said = await call.run(code)
        left = await running(notes)

    assert "did not end within 0.2 seconds" in said
    assert left == [] and await noted(notes, "ended-*") == []


@pytest.mark.parametrize("tool", ["execute_python", "rlm_complete"])
async def test_a_call_that_is_given_up_ends_the_program_that_it_waits_for(
    opened: Open, notes: Path, tool: str
) -> None:
    asked = {"code": "llm_query('slow')"} if tool == "execute_python" else {"prompt": "slow"}
    async with opened() as call:
        with anyio.fail_after(60):
            async with anyio.create_task_group() as tasks:
                tasks.start_soon(call.client.call_tool, tool, asked)
                await until(lambda: noted(notes, "begun-*"))
                tasks.cancel_scope.cancel()

        async def gone() -> bool:
            return not await running(notes)

        await until(gone)
        after = await call.run("1 + 1")

    assert after == "2" and await noted(notes, "ended-*") == []
