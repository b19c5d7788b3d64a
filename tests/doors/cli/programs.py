"""The real program in real processes, with places of its own."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import time
from collections.abc import Generator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Self

import rlm_mcp
import rlm_runtime
import rlm_sandboxes
import rlm_sessions

PROGRAM = [sys.executable, "-m", "rlm_mcp"]
PATIENCE = 90.0
_PACKAGES = (rlm_mcp, rlm_runtime, rlm_sandboxes, rlm_sessions)


class Shell:
    """A shell in a project's folder, which runs our program."""

    def __init__(self, home: Path, *, state: Path | None = None) -> None:
        self.project = home / "project"
        self.state = state or home / "state"
        self.project.mkdir(parents=True, exist_ok=True)
        self.environment = {
            "PATH": os.environ["PATH"],
            "HOME": str(home),
            "TMPDIR": str(home),
            "PYTHONPATH": os.pathsep.join(str(Path(str(each.__file__)).parents[1]) for each in _PACKAGES),
            "RLM_CONFIG_DIR": str(home / "config"),
            "RLM_SESSIONS_STATE_DIR": str(self.state),
        }

    def __call__(
        self, *words: str, stdin: str = "", environment: Mapping[str, str] | None = None
    ) -> subprocess.CompletedProcess[str]:
        """Run the program to its end."""
        return subprocess.run(
            [*PROGRAM, *words],
            input=stdin,
            env=self.environment | dict(environment or {}),
            cwd=self.project,
            capture_output=True,
            text=True,
            timeout=PATIENCE,
            check=False,
        )

    def data(self, *words: str) -> Any:
        """Return what a command that succeeds prints with --json."""
        done = self(*words, "--json")
        assert done.returncode == 0, done
        return json.loads(done.stdout)["data"]

    def start(self, *words: str, **options: Any) -> subprocess.Popen[str]:
        """Start the program; whoever does ends it."""
        return subprocess.Popen(
            [*PROGRAM, *words],
            env=self.environment,
            cwd=self.project,
            stdin=options.pop("stdin", subprocess.DEVNULL),
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
            **options,
        )

    def door(self, server: Server) -> Path:
        """Return the folder of doors as soon as the server has one, which is after its first answer."""
        doors, deadline = self.state / "doors", time.monotonic() + PATIENCE
        while not (doors / str(server.process.pid)).exists():
            assert time.monotonic() < deadline, "there is no door"
            time.sleep(0.02)
        return doors

    @contextmanager
    def serving(self, *words: str) -> Generator[Server]:
        """Run a server on stdio, with a client that has said hello."""
        process = self.start(*(words or ("serve",)), stdin=subprocess.PIPE)
        with process:
            try:
                yield Server(process).greet()
            finally:
                process.kill()


class Server:
    """A server, and what its client says."""

    def __init__(self, process: subprocess.Popen[str]) -> None:
        self.process = process
        self._asked = 0

    def greet(self) -> Self:
        """Say hello."""
        about = {"name": "test", "version": "1"}
        self.ask("initialize", protocolVersion="2025-06-18", capabilities={}, clientInfo=about)
        self._write({"method": "notifications/initialized"})
        return self

    def run(self, code: str) -> str:
        """Return the text of what a cell answers."""
        self.begin(code)
        return self.answer()

    def begin(self, code: str) -> None:
        """Ask for a cell, and do not wait."""
        self._ask("tools/call", name="execute_python", arguments={"code": code})

    def answer(self) -> str:
        """Return the text of the next answer."""
        result = self._read()["result"]
        return "\n".join(block["text"] for block in result["content"] if block["type"] == "text")

    def ask(self, method: str, **params: Any) -> Any:
        """Return the answer to a request."""
        self._ask(method, **params)
        return self._read()

    def hang_up(self) -> int:
        """End its input, and return its exit code."""
        assert self.process.stdin is not None
        self.process.stdin.close()
        return self.process.wait(PATIENCE)

    def _ask(self, method: str, **params: Any) -> None:
        self._asked += 1
        self._write({"id": self._asked, "method": method, "params": params})

    def _write(self, message: dict[str, Any]) -> None:
        assert self.process.stdin is not None
        self.process.stdin.write(json.dumps({"jsonrpc": "2.0", **message}) + "\n")
        self.process.stdin.flush()

    def _read(self) -> Any:
        assert self.process.stdout is not None
        while True:
            message = json.loads(self.process.stdout.readline())
            if "id" in message:
                return message
