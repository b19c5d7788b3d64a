"""LiteLLM behind a real server over stdio, the oldest and the newest that we take: calls, keys, and how it ends."""

from __future__ import annotations

import importlib.metadata
import json
import os
import select
import signal
import subprocess
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import anyio
import anyio.to_thread
import platformdirs
import pytest
import RestrictedPython

from tests.doors.cli.programs import Server, Shell
from tests.fakes.models import Reply, Request, ScriptedModel, ToolCall
from tests.runtime.models.test_litellm import python_of

from .test_killed_servers import tool

_LACKED = (RestrictedPython, platformdirs)  # what we need, and an environment made for LiteLLM has not
KEY = "sk-proj-0123456789abcdefSECRET"


def script(request: Request) -> Any:
    """Answer as the root where there are tools, and as a leaf elsewhere."""
    if not request.body.get("tools"):
        return Reply(f"leaf says {request.prompt[:20]}")
    return Reply(calls=(ToolCall("run_python", {"code": "final(llm_query('piece ' + text[:3]))"}),))


@pytest.fixture
async def model() -> AsyncIterator[ScriptedModel]:
    async with ScriptedModel(script) as server:
        yield server


class LiteShell(Shell):
    """A shell whose Python has LiteLLM, and of this project's environment only what it lacks."""

    def __init__(self, home: Path, version: str, url: str) -> None:
        super().__init__(home)
        beside = home / "beside"
        beside.mkdir()
        for each in (*(Path(str(lacked.__file__)).parent for lacked in _LACKED), _metadata()):
            (beside / each.name).symlink_to(each)
        self.python = python_of(version)
        self.environment: dict[str, str] = self.environment | {
            "PYTHONPATH": f"{self.environment['PYTHONPATH']}{os.pathsep}{beside}",
            "RLM_BACKEND": "litellm",
            "RLM_MODEL": "openai/m",
            "RLM_API_BASE": f"{url}/v1",
            "OPENAI_API_KEY": KEY,
        }

    def serve(self) -> subprocess.Popen[str]:
        """Start a server on stdio."""
        return subprocess.Popen(
            [self.python, "-m", "rlm_mcp", "serve"],
            env=dict(self.environment),
            cwd=self.project,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )


def _metadata() -> Path:
    ours = importlib.metadata.distribution("rlm-mcp")
    return Path(str(ours.locate_file(f"rlm_mcp-{ours.version}.dist-info")))


def workers_of(server: Server) -> list[int]:
    """Return descriptors of the processes of LiteLLM that a server has; each can be read from when its process ends."""
    found = list[int]()
    for entry in Path("/proc").iterdir():
        try:
            command = (entry / "cmdline").read_bytes()
            parent = (entry / "stat").read_text().rpartition(")")[2].split()[1]
        except OSError:
            continue
        if b"litellm_worker.py" in command and int(parent) == server.process.pid:
            found.append(os.pidfd_open(int(entry.name)))
    return found


def has_ended(worker: int) -> bool:
    """Wait until a process has ended."""
    try:
        return bool(select.select([worker], [], [], 30)[0])
    finally:
        os.close(worker)


def files_with(folder: Path, text: bytes) -> list[Path]:
    return [path for path in folder.rglob("*") if path.is_file() and text in path.read_bytes()]


@pytest.mark.parametrize("version", ["oldest", "newest"])
async def test_cells_and_runs_ask_it_and_nothing_of_it_is_left_or_told(
    version: str, model: ScriptedModel, tmp_path: Path
) -> None:
    shell = LiteShell(tmp_path, version, model.url)

    def work() -> dict[str, Any]:
        with shell.serve() as process:
            try:
                server = Server(process).greet()
                said: dict[str, Any] = {
                    "cell": server.run("print(list(llm_map('{item}', ['a', 'b'])))"),
                    "seen": server.run(
                        "import os; text = 'abc' * 100_000; print(sorted(os.environ.items()))"
                    ),
                    "run": tool(server, "rlm_complete", prompt="What is it?", variables=["text"]),
                    "workers": (workers := workers_of(server)),
                    "code": server.hang_up(),
                    "ended": [has_ended(worker) for worker in workers],
                }
                assert process.stdout is not None and process.stderr is not None
                said["rest"], said["log"] = process.stdout.read(), process.stderr.read()
            finally:
                process.kill()
        return said

    with anyio.fail_after(120):
        said = await anyio.to_thread.run_sync(work)
    left = await anyio.to_thread.run_sync(files_with, tmp_path, KEY.encode())

    assert said["cell"].startswith("['leaf says a', 'leaf says b']")
    assert said["run"].startswith("leaf says piece abc\n[answered: 2 requests")
    assert len(said["workers"]) == 1 and said["ended"] == [True] and said["code"] == 0
    assert all("jsonrpc" in json.loads(line) for line in said["rest"].splitlines())
    assert KEY not in said["seen"] + said["cell"] + said["run"] + said["log"] and left == []
    assert {request.headers["authorization"] for request in model.requests} == {f"Bearer {KEY}"}


@pytest.mark.parametrize("version", ["oldest", "newest"])
async def test_its_process_ends_with_a_server_that_is_killed(
    version: str, model: ScriptedModel, tmp_path: Path
) -> None:
    shell = LiteShell(tmp_path, version, model.url)

    def work() -> list[bool]:
        with shell.serve() as process:
            try:
                server = Server(process).greet()
                server.run("llm_query('hello')")
                workers = workers_of(server)
                process.send_signal(signal.SIGKILL)
                return [has_ended(worker) for worker in workers]
            finally:
                process.kill()

    with anyio.fail_after(120):
        assert await anyio.to_thread.run_sync(work) == [True]
