"""Every sandbox that there is. A new backend joins the contract suite with one line in `SANDBOXES`."""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable
from contextlib import AbstractAsyncContextManager
from pathlib import Path
from typing import Any

import pytest

from rlm_sandboxes import Package, Program, Sandbox
from rlm_sandboxes.local import LocalSandbox
from rlm_sandboxes.local.posix import PosixSandbox
from tests.fakes.sandbox import FakeSandbox

PROBE = Program(
    Package("rlm_probe", Path(__file__).parent.parent / "programs" / "probe"), "rlm_probe.main:main"
)

SANDBOXES: dict[str, Callable[[], AbstractAsyncContextManager[Any]]] = {
    "fake": FakeSandbox,
    "local": LocalSandbox,
    "spawned": PosixSandbox,
    "local without any layer": lambda: LocalSandbox(layers=frozenset()),
}
WITH_WALLS = ("local",)


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
