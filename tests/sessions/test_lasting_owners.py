"""Of two servers one owns a project; the other is given a copy, and can change nothing of the first's."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import anyio
import anyio.abc
import anyio.to_thread
import pytest

from rlm_sandboxes.local import LocalSandbox
from rlm_sessions import Project, ProjectInUse, ProjectSession, identify
from tests.sessions.homes import NOTES, Home, notes_of, value

SERVER = """
import json, sys
from pathlib import Path
import anyio, anyio.to_thread
from rlm_sandboxes.local import LocalSandbox
from rlm_sessions import Care, Places, identify, open_manager

async def main(root, named):
    async with LocalSandbox() as sandbox, open_manager(sandbox, Places(Path(root)), care=Care(policy="off")) as manager:
        session = await manager.session(identify(named=named))
        while line := await anyio.to_thread.run_sync(sys.stdin.readline, abandon_on_cancel=True):
            result = await session.run(json.loads(line))
            print(json.dumps([result.value, list(result.notes), session.project.name]), flush=True)

anyio.run(main, *sys.argv[1:])
"""


class OtherServer:
    """A server of one project in a process of its own."""

    def __init__(self, process: anyio.abc.Process) -> None:
        self.process = process
        self._held = b""

    async def run(self, code: str) -> tuple[str | None, str, str]:
        """Run a cell there; return its value, its notes, and the name of the project as it is there."""
        assert self.process.stdin is not None and self.process.stdout is not None
        await self.process.stdin.send(json.dumps(code).encode() + b"\n")
        while b"\n" not in self._held:
            self._held += await self.process.stdout.receive()
        line, _, self._held = self._held.partition(b"\n")
        told: list[Any] = json.loads(line)
        return told[0], "\n".join(told[1]), told[2]

    async def leave(self) -> None:
        """End it as its user would."""
        assert self.process.stdin is not None
        await self.process.stdin.aclose()
        await self.process.wait()


@asynccontextmanager
async def other_server(home: Home, named: str = NOTES.name) -> AsyncGenerator[OtherServer, None]:
    """Have another server for the length of a block."""
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(filter(None, sys.path))}
    command = [sys.executable, "-c", SERVER, str(home.folder), named]
    async with await anyio.open_process(command, env=environment, stderr=subprocess.DEVNULL) as process:
        try:
            yield OtherServer(process)
        finally:
            if process.returncode is None:
                process.kill()


@asynccontextmanager
async def owned(home: Home, code: str) -> AsyncGenerator[ProjectSession, None]:
    """Have the project open here, and a cell run and written down."""
    async with home.session() as session:
        await value(session, code)
        assert await session.sleep()
        yield session


@pytest.fixture
def home(sandbox: LocalSandbox, tmp_path: Path) -> Home:
    return Home(sandbox, tmp_path / "home")


@pytest.fixture
def project(tmp_path: Path) -> Project:
    (tmp_path / "project").mkdir()
    (tmp_path / "project" / "a.txt").write_text("in the folder")
    return identify(named=str(tmp_path / "project"))


async def test_the_second_server_gets_a_copy_and_is_told_its_name(home: Home) -> None:
    with anyio.fail_after(60):
        async with owned(home, "x = ['ours']"), other_server(home) as other:
            shown, notes, name = await other.run("x")
            _, later, _ = await other.run("x")

    assert (shown, name) == ("['ours']", "notes copy 2")
    assert f"process {os.getpid()} has the project 'notes' open" in notes
    assert "copy of it by the name 'notes copy 2', made from its state after step 1" in notes
    assert later == ""


async def test_neither_server_sees_what_the_other_does(home: Home) -> None:
    with anyio.fail_after(60):
        async with (
            owned(home, "x = ['ours']; big = bytearray(5_000_000)") as session,
            other_server(home) as other,
        ):
            await other.run("x.append('theirs'); big[0] = 9; y = 1")
            before = await value(session, "x, big[0], 'y' in globals()")
            await session.run("x.append('again'); big[0] = 7")
            theirs, _, _ = await other.run("x, big[0]")
            await other.leave()
        async with home.session() as session:
            after = await value(session, "x, big[0], 'y' in globals()")

    assert before == "(['ours'], 0, False)"
    assert theirs == "(['ours', 'theirs'], 9)"
    assert after == "(['ours', 'again'], 7, False)"


async def test_the_copy_can_be_opened_later_by_its_name(home: Home) -> None:
    with anyio.fail_after(60):
        async with owned(home, "x = ['ours']"), other_server(home) as other:
            _, _, name = await other.run("x.append('theirs')")
            await other.leave()
        async with home.managed() as manager:
            copy = await manager.session(identify(named=name))
            original = await manager.session(NOTES)
            shown = await value(copy, "x"), await value(original, "x")

    assert shown == ("['ours', 'theirs']", "['ours']")


async def test_a_copy_that_is_opened_by_its_name_still_sees_the_folder(home: Home, project: Project) -> None:
    read = f"x, open({str(project.folder)!r} + '/a.txt').read()"
    with anyio.fail_after(60):
        async with home.session(project) as session, home.session(project) as copy:
            await session.run("x = 1")
            at_first = await copy.run(read.removeprefix("x, "))
            name = copy.project.name
            await copy.run("x = 2")
        async with home.session(identify(named=name)) as copy:
            later = await copy.run(read)

    assert at_first.value == "'in the folder'"
    assert later.value == "(2, 'in the folder')", later.error


@pytest.mark.parametrize("name", ["~drafts", "n" * 210])
async def test_a_project_of_any_name_can_be_copied(home: Home, tmp_path: Path, name: str) -> None:
    (tmp_path / name).mkdir()
    project = await anyio.to_thread.run_sync(lambda: identify(named=str(tmp_path / name)))
    with anyio.fail_after(30):
        async with home.session(project) as session:
            await session.run("x = 1")
            assert await session.sleep()
            async with home.managed() as manager:
                copy = await manager.session(project)
                shown = await value(copy, "x")

    assert shown == "1"


async def test_each_further_server_gets_a_copy_of_its_own(home: Home) -> None:
    with anyio.fail_after(60):
        async with home.session() as one, home.session() as two, home.session() as three:
            sessions = (one, two, three)
            for number, session in enumerate(sessions):
                await session.run(f"x = {number}")
            names = [session.project.name for session in sessions]
            shown = [await value(session, "x") for session in sessions]

    assert names == ["notes", "notes copy 2", "notes copy 3"]
    assert shown == ["0", "1", "2"]


async def test_a_dead_owner_holds_nothing_and_loses_nothing(home: Home) -> None:
    with anyio.fail_after(60):
        async with other_server(home) as other:
            await other.run("x = [1]")
            await other.run("x.append(2)")
            other.process.kill()
            await other.process.wait()
        async with home.session() as session:
            result = await session.run("x")
            name = session.project.name

    assert (result.value, name) == ("[1, 2]", "notes")


async def test_a_cell_at_work_when_its_server_was_killed_is_told_of(home: Home) -> None:
    with anyio.fail_after(60):
        async with other_server(home) as other:
            await other.run("x = [1]")
            assert other.process.stdin is not None
            await other.process.stdin.send(json.dumps("x.append(2)\nwhile True: pass").encode() + b"\n")
            while len(home.told("cell")) < 2:
                await anyio.sleep(0.01)
            other.process.kill()
            await other.process.wait()
        async with home.session() as session:
            result = await session.run("x")

    assert result.value == "[1]"
    assert "Step 2 was at work when its server or its engine ended" in notes_of(result)


async def test_an_owner_that_left_leaves_the_project_to_the_next(home: Home) -> None:
    with anyio.fail_after(60):
        async with other_server(home) as other:
            await other.run("x = 'theirs'")
            await other.leave()
        async with home.session() as session, other_server(home) as other:
            shown = await value(session, "x")
            _, notes, name = await other.run("x")

    assert shown == "'theirs'"
    assert name == "notes copy 2" and str(os.getpid()) in notes


async def test_what_another_server_has_open_cannot_be_purged(home: Home) -> None:
    with anyio.fail_after(60):
        async with other_server(home) as other, home.managed() as manager:
            await other.run("x = 1")
            try:
                await manager.purge(NOTES)
            except ProjectInUse as problem:
                said = str(problem)
            else:
                said = ""
            shown, _, _ = await other.run("x")

    assert f"process {other.process.pid}" in said and "Nothing was removed" in said
    assert shown == "1"
