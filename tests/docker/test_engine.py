"""The engine is taken from the environment, and a missing one is said, with what to do."""

from __future__ import annotations

import subprocess

import pytest

from tests.docker.engine import Engine, NoEngine, engine_of

IMAGE = {"RLM_TEST_DOCKER_IMAGE": "python:3.13-slim"}


def test_an_engine_for_tests_goes_before_the_ordinary_one() -> None:
    ordinary = {**IMAGE, "DOCKER_HOST": "unix:///ordinary"}

    assert engine_of(ordinary) == Engine("unix:///ordinary", "python:3.13-slim")
    assert engine_of({**ordinary, "RLM_TEST_DOCKER_HOST": "unix:///ours"}).host == "unix:///ours"


@pytest.mark.parametrize(
    "environment", [{}, IMAGE, {"DOCKER_HOST": "unix:///ours"}], ids=["both", "host", "image"]
)
def test_what_is_missing_is_an_error_that_names_it_and_the_script(environment: dict[str, str]) -> None:
    with pytest.raises(NoEngine, match=r"scripts/test") as caught:
        engine_of(environment)

    assert caught.value.missing in str(caught.value)


def test_the_image_runs_python_in_the_engine(docker_engine: Engine) -> None:
    command = f"docker --host {docker_engine.host} run --rm --network none {docker_engine.image} python3 -c print(6*7)"

    ran = subprocess.run(command.split(), capture_output=True, text=True, timeout=60, check=False)

    assert (ran.stdout, ran.returncode) == ("42\n", 0), ran.stderr
