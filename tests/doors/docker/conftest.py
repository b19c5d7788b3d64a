"""What the tests of the doors share where sessions run in containers: settings, and a look at the engine."""

from __future__ import annotations

import importlib
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.docker.engine import Engine, engine_of
from tests.doors.cli.programs import Shell


@pytest.fixture(scope="session")
def engine() -> Engine:
    return engine_of()


@pytest.fixture
def client(engine: Engine) -> Iterator[Any]:
    """Docker's own client, with which tests look at the engine."""
    docker: Any = importlib.import_module("docker")
    opened = docker.APIClient(base_url=engine.host, version="auto")
    yield opened
    opened.close()


@pytest.fixture
def project(tmp_path: Path) -> Path:
    folder = tmp_path / "project"
    folder.mkdir()
    (folder / "notes.txt").write_text("from the project")
    return folder


@pytest.fixture
def flags(tmp_path: Path, engine: Engine) -> dict[str, object]:
    """Settings of a server whose sessions run in containers."""
    return {
        "sessions.state_dir": str(tmp_path / "state"),
        "sandbox.grace_seconds": 0.3,
        "rlm.environment": "docker",
        "rlm.docker_image": engine.image,
        "rlm.docker_host": engine.host,
    }


@pytest.fixture
def shell(tmp_path: Path, engine: Engine) -> Shell:
    shell = Shell(tmp_path)
    shell.environment |= {
        "RLM_ENVIRONMENT": "docker",
        "RLM_DOCKER_IMAGE": engine.image,
        "RLM_DOCKER_HOST": engine.host,
    }
    return shell
