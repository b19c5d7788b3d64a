"""A user's configuration and a project, each with a file of its own, and the program that is run there."""

from __future__ import annotations

import json
import os
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from rlm_mcp.cli.main import main
from rlm_mcp.sources import Loaded, SettingsError, Sources

LONG_AGO = (1_000_000_000, 1_000_000_000)


@dataclass
class Desk:
    """The folders in which the files lie that settings come from."""

    config: Path
    project: Path

    def user(self, text: str) -> Path:
        """Write the user's own file."""
        return _write(self.config / "rlm.toml", text)

    def theirs(self, text: str) -> Path:
        """Write the project's file."""
        return _write(self.project / "rlm.toml", text)

    def sources(
        self, flags: Mapping[str, object] | None = None, environment: Mapping[str, str] | None = None
    ) -> Sources:
        """Return where settings come from."""
        return Sources(flags or {}, environment or {}, self.config)

    def load(
        self, flags: Mapping[str, object] | None = None, environment: Mapping[str, str] | None = None
    ) -> Loaded:
        """Return the settings of the project."""
        return self.sources(flags, environment).load(self.project)

    def problems(
        self, flags: Mapping[str, object] | None = None, environment: Mapping[str, str] | None = None
    ) -> list[str]:
        """Return what is wrong, with the folders left out."""
        with pytest.raises(SettingsError) as caught:
            self.load(flags, environment)
        assert str(caught.value) == "\n".join(caught.value.problems) or len(caught.value.problems) > 20
        return [self.shortened(each) for each in caught.value.problems]

    def shortened(self, text: str) -> str:
        """Return a text in which the folders have names."""
        return text.replace(str(self.project), "PROJECT").replace(str(self.config), "CONFIG")


def _write(path: Path, text: str) -> Path:
    path.write_text(text)
    os.utime(path, LONG_AGO)
    return path


@pytest.fixture
def desk(tmp_path: Path) -> Desk:
    config, project = tmp_path.resolve() / "config", tmp_path.resolve() / "project"
    config.mkdir()
    project.mkdir()
    return Desk(config, project)


class Command:
    """The program, as it is run in the project."""

    def __init__(self, desk: Desk, captured: pytest.CaptureFixture[str]) -> None:
        self.desk = desk
        self._captured = captured
        self.out = self.err = ""

    def __call__(self, *words: str, code: int = 0) -> str:
        """Run it; return what it printed on stdout."""
        assert main(words) == code, self._captured.readouterr()
        said = self._captured.readouterr()
        self.out, self.err = self.desk.shortened(said.out), self.desk.shortened(said.err)
        return self.out

    def data(self, *words: str, code: int = 0) -> Any:
        """Run it with --json; return the object that it printed."""
        answer = json.loads(self(*words, "--json", code=code))
        assert answer["ok"] is (code == 0)
        return answer["data"] if code == 0 else answer["error"]


@pytest.fixture
def command(desk: Desk, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> Command:
    for name in os.environ:
        if name.startswith(("RLM_", "SNIPARA_", "CLAUDE_PROJECT_DIR")):
            monkeypatch.delenv(name)
    monkeypatch.setenv("RLM_CONFIG_DIR", str(desk.config))
    monkeypatch.chdir(desk.project)
    return Command(desk, capsys)
