"""The archives as they would be published, and an empty environment that the wheel was installed into."""

from __future__ import annotations

import os
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent.parent


@dataclass(frozen=True)
class Archives:
    """What was built from the working tree."""

    sdist: Path
    wheel: Path


@dataclass(frozen=True)
class Installed:
    """An environment in which there is the wheel and what it needs, and nothing else."""

    folder: Path

    @property
    def programs(self) -> Path:
        return self.folder / ("Scripts" if os.name == "nt" else "bin")

    @property
    def environment(self) -> dict[str, str]:
        """An environment in which nothing of the repository can be found."""
        home = self.folder.parent / "home"
        home.mkdir(exist_ok=True)
        return {"HOME": str(home), "PATH": os.defpath}


def build(kind: str, source: Path, target: Path) -> Path:
    command = [sys.executable, "-m", "hatchling", "build", "-t", kind, "-d", str(target)]
    subprocess.run(command, cwd=source, check=True, capture_output=True, timeout=120)
    [archive] = target.iterdir()
    return archive


@pytest.fixture(scope="session")
def archives(tmp_path_factory: pytest.TempPathFactory) -> Archives:
    folder = tmp_path_factory.mktemp("dist")
    return Archives(build("sdist", ROOT, folder / "sdist"), build("wheel", ROOT, folder / "wheel"))


@pytest.fixture(scope="session")
def installed(archives: Archives, tmp_path_factory: pytest.TempPathFactory) -> Installed:
    folder = tmp_path_factory.mktemp("installed") / "environment"
    clean = {name: value for name, value in os.environ.items() if not name.startswith("PYTHON")}
    for command in (
        [sys.executable, "-m", "venv", str(folder)],
        [str(folder / "bin" / "python"), "-m", "pip", "install", "--quiet", str(archives.wheel)],
    ):
        subprocess.run(command, env=clean, check=True, capture_output=True, timeout=300)
    return Installed(folder)
