"""The short form of `scripts/crash_test`, which goes on for as long as one likes."""

from __future__ import annotations

import random
import time
from pathlib import Path

import pytest

from tests.crashes.crashes import DOCKER_VICTIMS, VICTIMS, Crashes, DockerCrashes

_LEFT_SECONDS = 40


@pytest.mark.parametrize("victims", [(victim,) for victim in VICTIMS] + [VICTIMS], ids="+".join)
def test_whatever_is_killed_the_state_is_that_of_the_last_answer(
    tmp_path: Path, victims: tuple[str, ...]
) -> None:
    _run(Crashes(tmp_path, durable=False, seed=1), victims, rounds=25)


@pytest.mark.parametrize("seed", [2, 3])
def test_with_large_values_too(tmp_path: Path, seed: int) -> None:
    _run(Crashes(tmp_path, durable=False, seed=seed, heavy=True), ("server", "zygote", "guest"), rounds=25)


@pytest.mark.parametrize("seed", [4, 5])
def test_a_durable_session_loses_nothing_whatever_is_killed(tmp_path: Path, seed: int) -> None:
    crashes = Crashes(tmp_path, durable=True, seed=seed, heavy=seed % 2 == 1)

    _run(crashes, VICTIMS, rounds=25)

    assert crashes.lost == 0


@pytest.mark.parametrize("durable", [False, True], ids=["at once", "durable"])
def test_of_a_session_in_a_container_nothing_is_lost_and_nothing_left(tmp_path: Path, durable: bool) -> None:
    crashes = DockerCrashes(tmp_path, durable=durable, seed=6, heavy=durable)

    _run(crashes, DOCKER_VICTIMS, rounds=6 if durable else 10)
    end = time.monotonic() + _LEFT_SECONDS
    while crashes.left() and time.monotonic() < end:
        time.sleep(0.1)

    assert crashes.left() == []
    assert not (durable and crashes.lost)


def _run(crashes: Crashes, victims: tuple[str, ...], *, rounds: int) -> None:
    chance = random.Random(crashes.seed)
    crashes.begin()
    try:
        for _ in range(rounds):
            crashes.round(chance.choice(victims))
    finally:
        crashes.end()

    assert sum(crashes.kills.values()) == rounds
