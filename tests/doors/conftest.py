"""What the tests of the doors share: an app with places of its own, and a client for its server."""

from __future__ import annotations

from collections.abc import AsyncIterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import anyio
import pytest
from mcp import Client
from mcp_types import CallToolResult

from rlm_mcp.app import App, Surroundings, open_app
from rlm_mcp.server import make_server
from rlm_mcp.sources import Sources


@dataclass
class Caller:
    """A client, and what it is told."""

    client: Client
    project: Path

    async def __call__(self, tool: str, /, **arguments: Any) -> CallToolResult:
        """Call a tool."""
        with anyio.fail_after(60):
            return await self.client.call_tool(tool, arguments)

    async def said(self, tool: str, /, **arguments: Any) -> str:
        """Return the text that a tool answers."""
        return text_of(await self(tool, **arguments))

    async def run(self, code: str, /, **arguments: Any) -> str:
        """Return what a cell that must not fail answers."""
        result = await self("execute_python", code=code, **arguments)
        assert not result.is_error, text_of(result)
        return text_of(result)


def text_of(result: CallToolResult) -> str:
    """Return all the text of a result."""
    return "\n".join(block.text for block in result.content if block.type == "text")


@pytest.fixture
def project(tmp_path: Path) -> Path:
    folder = tmp_path / "project"
    folder.mkdir()
    return folder


@pytest.fixture
def flags(tmp_path: Path) -> dict[str, object]:
    """Settings of the server; a test may add to them before it asks for `app`."""
    return {"sessions.state_dir": str(tmp_path / "state"), "sandbox.grace_seconds": 0.3}


@pytest.fixture
async def app(flags: dict[str, object], project: Path, tmp_path: Path) -> AsyncIterator[App]:
    sources = Sources(flags, {}, tmp_path / "config")
    async with open_app(sources, Surroundings(None, project)) as opened:
        yield opened


@pytest.fixture
async def call(app: App, project: Path) -> AsyncIterator[Caller]:
    async with Client(make_server(app), mode="2026-07-28") as client:
        yield Caller(client, project)
