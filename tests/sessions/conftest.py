"""A sandbox for all tests of this folder, and a session for each."""

from __future__ import annotations

from collections.abc import AsyncIterator
from typing import Any

import anyio
import pytest

from rlm_sandboxes import Limits
from rlm_sandboxes.local import LocalSandbox
from rlm_sessions import Session, open_session


@pytest.fixture(scope="package")
async def sandbox() -> AsyncIterator[LocalSandbox]:
    async with LocalSandbox() as opened:
        yield opened


async def answer(name: str, payload: Any) -> Any:
    """Answer what the tests ask: "double" doubles, "wait" never answers, all else is wrong."""
    if name == "double":
        return payload * 2
    if name == "wait":
        await anyio.sleep_forever()
    raise ValueError(f"nobody knows {name}")


@pytest.fixture
async def session(sandbox: LocalSandbox) -> AsyncIterator[Session]:
    limits = Limits(wall_seconds=20, grace_seconds=0.5, output_bytes=2_000_000)
    async with open_session(sandbox, limits=limits, answer=answer) as opened:
        yield opened
