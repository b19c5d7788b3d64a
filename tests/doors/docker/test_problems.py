"""What keeps sessions out of containers, as a model reads it: what happened, what it cost, what to do."""

from __future__ import annotations

import os
import socket
from collections.abc import AsyncGenerator, Iterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import anyio
import pytest
from mcp import Client

from rlm_mcp.app import Surroundings, open_app
from rlm_mcp.server import make_server
from rlm_mcp.sources import Sources
from tests.doors.cli.programs import Shell
from tests.doors.conftest import Caller, text_of

from .registry import Registry, serving


@asynccontextmanager
async def server(flags: dict[str, object], project: Path) -> AsyncGenerator[Caller]:
    config = project.parent / "config"
    async with (
        open_app(Sources(flags, {}, config), Surroundings(None, project)) as app,
        Client(make_server(app), mode="2026-07-28") as client,
    ):
        yield Caller(client, project)


async def problem(call: Caller) -> str:
    result = await call("execute_python", code="open('ran', 'w')")
    assert result.is_error
    return text_of(result)


async def test_without_an_engine_the_server_lists_its_tools_and_a_call_says_what_to_do(
    flags: dict[str, object], project: Path
) -> None:
    flags["rlm.docker_host"] = f"unix://{project}/none.sock"
    async with server(flags, project) as call:
        tools = (await call.client.list_tools()).tools
        said = await problem(call)

    assert "execute_python" in [tool.name for tool in tools]
    assert f"{project}/none.sock" in said and "Start Docker" in said
    assert 'environment = "docker" is set by --set rlm.environment; "local" needs no engine.' in said
    assert "Nothing was run" in said and not await anyio.Path(project / "ran").exists()


async def test_a_call_after_the_engine_has_come_up_runs(flags: dict[str, object], project: Path) -> None:
    path = anyio.Path(project.parent / "engine.sock")
    there, flags["rlm.docker_host"] = str(flags["rlm.docker_host"]), f"unix://{path}"
    async with server(flags, project) as call:
        before = await problem(call)
        await path.symlink_to(there.removeprefix("unix://"))
        after = await call.run("6 * 7")

    assert "none answers there" in before and "42" in after


async def test_an_engine_that_does_not_let_us_in_is_said_to(flags: dict[str, object], project: Path) -> None:
    if os.geteuid() == 0:
        pytest.skip("root is let in everywhere")
    path = project.parent / "engine.sock"
    with socket.socket(socket.AF_UNIX) as engine:
        engine.bind(str(path))
        engine.listen()
        path.chmod(0)
        async with server(flags | {"rlm.docker_host": f"unix://{path}"}, project) as call:
            said = await problem(call)

    assert "this user may not use it" in said and "group 'docker'" in said


async def test_an_image_that_is_not_there_and_may_not_be_fetched_is_said_to(
    flags: dict[str, object], project: Path
) -> None:
    flags |= {"rlm.docker_image": "nobody/has-this:1", "rlm.docker_pull": "never"}
    async with server(flags, project) as call:
        said = await problem(call)

    assert "nobody/has-this:1 is not on the engine" in said and "docker pull" in said


async def test_a_runtime_that_the_engine_does_not_have_is_said_with_those_that_it_has(
    flags: dict[str, object], project: Path
) -> None:
    async with server(flags | {"rlm.docker_runtime": "no-such"}, project) as call:
        said = await problem(call)

    assert "no runtime 'no-such'; it has" in said and "runc" in said


def test_without_dockers_library_it_is_said_how_to_install_it(shell: Shell) -> None:
    missing = shell.project.parent / "missing" / "docker.py"
    missing.parent.mkdir()
    missing.write_text("raise ModuleNotFoundError('No module named docker', name='docker')")
    path = f"{missing.parent}{os.pathsep}{shell.environment['PYTHONPATH']}"

    done = shell("exec", "1 + 1", environment={"PYTHONPATH": path})

    assert (done.returncode, done.stdout) == (5, "")
    assert "pip install 'rlm-mcp[docker]'" in done.stderr and "uvx --from 'rlm-mcp[docker]'" in done.stderr


# ---- fetching


@pytest.fixture
def registry(client: Any) -> Iterator[Registry]:
    with serving() as running:
        yield running
    if client.images(name=running.image.rpartition(":")[0]):
        client.remove_image(running.image, force=True)


async def test_an_image_is_fetched_with_progress_and_one_without_python_is_said_to_be_so(
    flags: dict[str, object], project: Path, registry: Registry
) -> None:
    told: list[str] = []

    async def hear(progress: float, total: float | None, message: str | None) -> None:
        told.append(message or "")
        if "fetching the image" in told[-1]:
            registry.may_go_on.set()

    async with server(flags | {"rlm.docker_image": registry.image}, project) as call:
        with anyio.fail_after(60):
            result = await call.client.call_tool("execute_python", {"code": "1"}, progress_callback=hear)

    assert any(f"fetching the image {registry.image}: " in each for each in told)
    assert result.is_error
    assert f"{registry.image} cannot be used: it has no 'python3'" in text_of(result)
    assert "Python 3.9 or newer" in text_of(result)


def test_a_shell_is_told_how_an_image_is_fetched(shell: Shell, registry: Registry) -> None:
    registry.may_go_on.set()

    done = shell("exec", "1", environment={"RLM_DOCKER_IMAGE": registry.image})

    assert f"[fetching the image {registry.image}: " in done.stderr
    assert (done.returncode, done.stdout) == (5, "") and "error: The container image" in done.stderr
