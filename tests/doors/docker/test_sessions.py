"""Sessions in containers, as a client has them."""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Any

import anyio
import anyio.to_thread
import pytest
from mcp import Client

from rlm_mcp.app import App, Surroundings, open_app
from rlm_mcp.server import make_server
from rlm_mcp.sources import Sources
from tests.doors.conftest import Caller, text_of

WHERE = "import os; os.path.exists('/.dockerenv')"
FIGURE = "class P:\n    def _repr_png_(self): return b'\\x89PNG' + bytes(1000)\nP()"


async def test_code_runs_in_a_container_that_sees_the_project_and_no_network(call: Caller) -> None:
    assert "True" in await call.run(WHERE)
    assert "from the project" in await call.run("open('notes.txt').read()")
    refused = await call("execute_python", code="import socket; socket.create_connection(('127.0.0.1', 1))")
    assert refused.is_error and "docker_network_disabled = false in [rlm]" in text_of(refused)


async def test_a_figure_comes_back_as_an_image(call: Caller) -> None:
    result = await call("execute_python", code=FIGURE)

    assert [block.mime_type for block in result.content if block.type == "image"] == ["image/png"]


async def test_a_large_file_of_the_project_becomes_a_variable(call: Caller) -> None:
    await anyio.Path(call.project / "large.txt").write_text("x" * 30_000_000)

    said = await call.said("set_repl_context", files={"large": "large.txt"})

    assert said == "large: 30000000 characters from large.txt"
    assert "30000000" in await call.run("len(large)")


async def test_an_endless_loop_is_stopped_and_the_variables_are_there(call: Caller) -> None:
    stopped = await call("execute_python", code="kept = 1\nwhile True: pass", timeout_s=0.5)

    assert stopped.is_error and "timeout_s = 0.5" in text_of(stopped)
    assert "1" in await call.run("kept")


async def test_too_much_memory_is_an_error_that_names_the_setting_of_containers(call: Caller) -> None:
    refused = await call("execute_python", code="x = bytearray(10**9)")

    assert refused.is_error
    assert "docker_memory in [rlm]" in text_of(refused) and "536870912" in text_of(refused)


async def test_what_isolates_a_session_is_told_as_it_is(call: Caller) -> None:
    await call.run("1")

    told = json.loads(await _resource(call, f"rlm://sessions/{call.project.name}"))

    held = {layer["name"]: layer for layer in told["isolation"]["layers"]}
    assert told["isolation"]["strong"] is True and held["container"]["holds"] is True
    assert held["policy(off)"] == {"name": "policy(off)", "holds": False, "why": "not needed in a container"}


async def _resource(call: Caller, uri: str) -> str:
    with anyio.fail_after(30):
        read = await call.client.read_resource(uri)
    return str(getattr(read.contents[0], "text"))  # noqa: B009 -- the other kind has none


async def test_a_policy_that_was_asked_for_holds_in_a_container_too(call: Caller) -> None:
    await anyio.Path(call.project / "rlm.toml").write_text('[sandbox]\npolicy = "strict"\n')
    await call.run("1")

    told = json.loads(await _resource(call, f"rlm://sessions/{call.project.name}"))

    assert "policy(strict)" in [layer["name"] for layer in told["isolation"]["layers"] if layer["holds"]]


async def test_a_session_moves_into_a_container_and_back_with_its_variables(
    flags: dict[str, object], project: Path, tmp_path: Path
) -> None:
    del flags["rlm.environment"]
    await anyio.Path(project / "rlm.toml").write_text("")
    async with (
        open_app(Sources(flags, {}, tmp_path / "config"), Surroundings(None, project)) as app,
        Client(make_server(app), mode="2026-07-28") as client,
    ):
        call = Caller(client, project)
        first = await call.run(f"seen = []\n{WHERE}")
        for environment, inside in (("docker", "True"), ("local", "False")):
            await anyio.Path(project / "rlm.toml").write_text(f'[rlm]\nenvironment = "{environment}"\n')
            with anyio.fail_after(60):
                while inside not in await call.run(f"seen.append(os.path.exists('/.dockerenv'))\n{WHERE}"):
                    continue  # a file is not read anew for each call
        seen = await call.run("list(dict.fromkeys(seen)), seen[-1]")

    assert "False" in first
    assert "([False, True], False)" in seen or "([True, False], False)" in seen


async def test_a_project_may_ask_for_containers_while_others_stay_local(
    flags: dict[str, object], project: Path, tmp_path: Path
) -> None:
    del flags["rlm.environment"]
    other = project / "other"
    await anyio.Path(other).mkdir()
    await anyio.Path(other / "rlm.toml").write_text('[rlm]\nenvironment = "docker"\n')
    async with (
        open_app(Sources(flags, {}, tmp_path / "config"), Surroundings(None, project)) as app,
        Client(make_server(app), mode="2026-07-28") as client,
    ):
        call = Caller(client, project)
        here, there = await call.run(WHERE), await call.run(WHERE, project=str(other))

    assert "False" in here and "True" in there


async def test_a_folder_of_the_containers_can_be_read_and_loaded_from(
    flags: dict[str, object], project: Path, tmp_path: Path
) -> None:
    shared = tmp_path / "shared"
    await anyio.Path(shared).mkdir()
    await anyio.Path(shared / "more.txt").write_text("from elsewhere")
    flags["rlm.docker_mounts"] = [str(shared)]
    async with (
        open_app(Sources(flags, {}, tmp_path / "config"), Surroundings(None, project)) as app,
        Client(make_server(app), mode="2026-07-28") as client,
    ):
        call = Caller(client, project)
        await call.said("set_repl_context", files={"more": str(shared / "more.txt")})
        assert "from elsewhere" in await call.run("more")
        refused = await call("execute_python", code=f"open({str(shared / 'new')!r}, 'w')")
        assert "Read-only" in text_of(refused)


async def test_copied_files_are_loaded_and_said_to_be_copies(
    flags: dict[str, object], project: Path, tmp_path: Path
) -> None:
    flags["rlm.docker_copy_files"] = True
    async with (
        open_app(Sources(flags, {}, tmp_path / "config"), Surroundings(None, project)) as app,
        Client(make_server(app), mode="2026-07-28") as client,
    ):
        call = Caller(client, project)
        said = await call.said("set_repl_context", files={"notes": "notes.txt"})
        assert "notes: 16 characters" in said and "sees copies of the project's files" in said

        await anyio.Path(project / "later.txt").write_text("later")
        late = await call("set_repl_context", files={"later": "later.txt"})
        assert late.is_error and "later.txt" in text_of(late)
        await call.said("clear_repl_context")
        assert "5 characters" in await call.said("set_repl_context", files={"later": "later.txt"})


async def test_settings_that_do_not_count_in_a_container_are_said_once(
    flags: dict[str, object], project: Path, tmp_path: Path
) -> None:
    flags |= {"sandbox.memory_bytes": "4g", "sandbox.python": "/usr"}
    async with (
        open_app(Sources(flags, {}, tmp_path / "config"), Surroundings(None, project)) as app,
        Client(make_server(app), mode="2026-07-28") as client,
    ):
        call = Caller(client, project)
        first, second = await call.run("1"), await call.run("1")

    assert '(--memory) does not count in Docker: docker_memory = "512m" in [rlm] does' in first
    assert "(--python) does not count in Docker" in first and "does not count" not in second


async def test_the_first_session_of_a_server_finds_a_container_ready(
    app: App, client: Any, project: Path
) -> None:
    with anyio.fail_after(60):
        await app.warm_up()
    (ready,) = await anyio.to_thread.run_sync(_own_containers, client)

    async with Client(make_server(app), mode="2026-07-28") as opened:
        said = await Caller(opened, project).run("open('/proc/self/mountinfo').read()")

    assert ready in said


def _own_containers(client: Any) -> list[str]:
    found = client.containers(all=True, filters={"label": "rlm-mcp.owner"})
    ours = f":{os.getpid()}:"
    return [str(each["Id"]) for each in found if ours in each["Labels"]["rlm-mcp.owner"]]


@pytest.mark.parametrize(
    "asked", ['docker_runtime = "mine"', 'docker_python = "/evil"', 'docker_mounts = ["/etc"]']
)
async def test_a_project_that_nobody_trusts_changes_nothing_about_containers(
    call: Caller, asked: str
) -> None:
    await anyio.Path(call.project / "rlm.toml").write_text(f"[rlm]\n{asked}\n")

    said = await call.run(WHERE)

    assert "True" in said and f"rlm.{asked}" in said and "not applied" in said
