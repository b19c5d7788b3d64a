"""Every sandbox that there is. A new backend joins the contract suite with one line in `SANDBOXES`."""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable
from contextlib import AbstractAsyncContextManager
from pathlib import Path
from typing import Any

import pytest

from rlm_sandboxes import Package, Program, Sandbox
from rlm_sandboxes.docker import DockerSandbox
from rlm_sandboxes.local import LocalSandbox
from rlm_sandboxes.local.posix import PosixSandbox
from tests.docker.engine import engine_of
from tests.fakes.sandbox import FakeSandbox

PROBE = Program(
    Package("rlm_probe", Path(__file__).parent.parent / "programs" / "probe"), "rlm_probe.main:main"
)


def open_docker() -> DockerSandbox:
    engine = engine_of()
    return DockerSandbox(engine.image, engine=engine.host, pull="never")


SANDBOXES: dict[str, Callable[[], AbstractAsyncContextManager[Any]]] = {
    "fake": FakeSandbox,
    "local": LocalSandbox,
    "spawned": PosixSandbox,
    "local without any layer": lambda: LocalSandbox(layers=frozenset()),
    "docker": open_docker,
}
WITH_WALLS = ("local", "docker")
WITH_GUARDED_CHANNELS = ("local",)
WITH_COPIES = ("local", "docker")


@pytest.fixture(params=SANDBOXES)
async def sandbox(request: pytest.FixtureRequest) -> AsyncIterator[Sandbox]:
    """Each sandbox in turn, whatever walls it has."""
    async with SANDBOXES[request.param]() as opened:
        yield opened


@pytest.fixture(params=WITH_WALLS)
async def walls(request: pytest.FixtureRequest) -> AsyncIterator[Sandbox]:
    """Each sandbox in turn that keeps a program in."""
    async with SANDBOXES[request.param]() as opened:
        yield opened


@pytest.fixture(params=WITH_GUARDED_CHANNELS)
async def guarded(request: pytest.FixtureRequest) -> AsyncIterator[Sandbox]:
    """Each sandbox in turn whose channels to the host are out of reach of code inside."""
    async with SANDBOXES[request.param]() as opened:
        yield opened


@pytest.fixture(params=WITH_COPIES)
async def copying(request: pytest.FixtureRequest) -> AsyncIterator[Sandbox]:
    """Each sandbox in turn which lets a program copy itself, and has a second way out of it."""
    async with SANDBOXES[request.param]() as opened:
        yield opened
