"""A home folder of its own for each test, in which the real command runs in a process of its own."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Any

_CLAUDE = """\
#!/bin/sh
for word in "$@"; do printf '%s\\n' "$word"; done >>"{said}"
echo . >>"{said}"
exit {code}
"""


@dataclass(frozen=True)
class Ran:
    """What a command came to."""

    code: int
    out: str
    err: str

    @property
    def data(self) -> Any:
        """What it printed with --json."""
        return json.loads(self.out)["data"]


@dataclass(frozen=True)
class Home:
    """A home folder and a project in it."""

    folder: Path

    @property
    def project(self) -> Path:
        """The folder in which commands run."""
        return self.folder / "project"

    @property
    def desktop(self) -> Path:
        """Claude Desktop's file."""
        return self.folder / ".config" / "Claude" / "claude_desktop_config.json"

    @property
    def programs(self) -> Path:
        """The only folder on the PATH."""
        return self.folder / "programs"

    def make(self) -> Home:
        """Make the folders."""
        for folder in (self.project, self.programs):
            folder.mkdir(parents=True)
        return self

    def with_desktop(self, text: str) -> Path:
        """Have Claude Desktop with this in its file, and return the file."""
        self.desktop.parent.mkdir(parents=True)
        self.desktop.write_bytes(text.encode())
        return self.desktop

    def with_claude(self, *, code: int = 0) -> None:
        """Have a `claude` that notes what it is asked for, and ends with `code`."""
        program = self.programs / "claude"
        program.write_text(_CLAUDE.format(said=self.folder / "said", code=code))
        program.chmod(0o755)

    def asked_of_claude(self) -> list[list[str]]:
        """Return the arguments of each run of `claude`."""
        said = self.folder / "said"
        runs = said.read_text().split(".\n") if said.exists() else []
        return [run.splitlines() for run in runs if run]

    def run(self, *words: str, given: str = "", **environment: str) -> Ran:
        """Run `rlm-mcp` with `words` in the project, without a terminal."""
        ran = subprocess.run(
            [sys.executable, "-m", "rlm_mcp", *words],
            cwd=self.project,
            env=self.environment() | environment,
            input=given,
            capture_output=True,
            text=True,
            timeout=60,
            check=False,
        )
        return Ran(ran.returncode, ran.stdout, ran.stderr)

    def environment(self) -> dict[str, str]:
        """Return an environment in which nothing of the real home can be found."""
        return {
            "HOME": str(self.folder),
            "PATH": str(self.programs),
            "PYTHONPATH": os.pathsep.join(path for path in sys.path if path),
            "PYTHONDONTWRITEBYTECODE": "1",
        }
