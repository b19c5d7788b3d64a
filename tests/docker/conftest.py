"""The engine and the image for each test in this folder."""

from __future__ import annotations

import pytest

from tests.docker.engine import Engine, NoEngine, engine_of


@pytest.fixture(scope="session")
def docker_engine() -> Engine:
    try:
        return engine_of()
    except NoEngine as missing:
        problem = str(missing)
    pytest.fail(problem, pytrace=False)


@pytest.fixture(scope="session")
def docker_host(docker_engine: Engine) -> str:
    return docker_engine.host


@pytest.fixture(scope="session")
def docker_image(docker_engine: Engine) -> str:
    return docker_engine.image
