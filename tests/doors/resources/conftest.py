"""A server that has resources, prompts, completions and notices and nothing else, and clients of both eras for it."""

from __future__ import annotations

import json
from collections.abc import AsyncGenerator, Awaitable, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from typing import Any

import anyio
import pytest
from mcp import Client
from mcp.server.auth.middleware.auth_context import auth_context_var
from mcp.server.auth.middleware.bearer_auth import AuthenticatedUser
from mcp.server.lowlevel import Server
from mcp_types import BlobResourceContents, PaginatedRequestParams, TextResourceContents

from rlm_mcp import completions, prompts
from rlm_mcp.app import App
from rlm_mcp.callers import TenantToken, tenant_of
from rlm_mcp.notices import Notices
from rlm_mcp.resources import Resources
from rlm_mcp.tenants import OWNER, Tenant
from rlm_sessions import CellResult, ProjectSession

ERAS = ("legacy", "2026-07-28")


@dataclass
class Doors:
    """A server, and what it is made of."""

    app: App
    resources: Resources
    notices: Notices
    server: Server[Any] = field(init=False)

    def __post_init__(self) -> None:
        resources, notices, app = self.resources, self.notices, self.app
        self.server = Server(
            "test",
            on_list_resources=lambda _, params: resources.list(tenant_of(), cursor_of(params)),
            on_list_resource_templates=lambda _, params: resources.templates(tenant_of(), cursor_of(params)),
            on_read_resource=lambda _, params: resources.read(tenant_of(), params.uri),
            on_subscribe_resource=notices.subscribe,
            on_unsubscribe_resource=notices.unsubscribe,
            on_subscriptions_listen=notices.listen,
            on_list_prompts=_now(lambda params: prompts.list_prompts(cursor_of(params))),
            on_get_prompt=_now(lambda params: prompts.get_prompt(params.name, params.arguments)),
            on_completion=lambda _, params: completions.complete(
                app, tenant_of(), params, resources=resources
            ),
        )
        notices.join(self.server)


def cursor_of(params: PaginatedRequestParams | None) -> str | None:
    """Return the cursor of a request for a list."""
    return params.cursor if params is not None else None


def _now(answer: Callable[[Any], Any]) -> Callable[[Any, Any], Awaitable[Any]]:
    async def handler(_: Any, params: Any) -> Any:
        return answer(params)

    return handler


@pytest.fixture
def doors(app: App) -> Doors:
    resources = Resources(app)
    return Doors(app, resources, Notices(app, resources))


@pytest.fixture(params=ERAS)
def era(request: pytest.FixtureRequest) -> str:
    return str(request.param)


@pytest.fixture
async def client(doors: Doors, era: str) -> Any:
    async with Client(doors.server, mode=era) as opened:
        yield opened


def come_as(tenant: Tenant) -> None:
    """Have what this task does from now on, clients that it opens included, count as that tenant's."""
    token = TenantToken(token="secret", client_id=tenant.name, scopes=[], tenant=tenant)
    auth_context_var.set(AuthenticatedUser(token))


async def session_of(app: App, name: str, *, tenant: Tenant = OWNER) -> ProjectSession:
    """Return the session of a project, which is opened."""
    return await app.session(tenant, await app.project(tenant, name))


async def run(app: App, name: str, code: str, *, tenant: Tenant = OWNER) -> CellResult:
    """Run a cell in the session of a project."""
    with anyio.fail_after(60):
        return await (await session_of(app, name, tenant=tenant)).run(code)


async def text_at(client: Client, uri: str) -> str:
    """Return the text of a resource."""
    with anyio.fail_after(60):
        contents = (await client.read_resource(uri)).contents[0]
    assert isinstance(contents, TextResourceContents)
    return contents.text


async def json_at(client: Client, uri: str) -> Any:
    """Return what a resource of JSON says."""
    return json.loads(await text_at(client, uri))


async def blob_at(client: Client, uri: str) -> BlobResourceContents:
    """Return a resource of bytes."""
    with anyio.fail_after(60):
        contents = (await client.read_resource(uri)).contents[0]
    assert isinstance(contents, BlobResourceContents)
    return contents


@asynccontextmanager
async def busy(session: ProjectSession) -> AsyncGenerator[None]:
    """Keep a session busy with a cell that would take ten minutes."""
    async with anyio.create_task_group() as tasks:
        tasks.start_soon(session.run, "import time\ntime.sleep(600)")
        with anyio.fail_after(60):
            while session.info().state != "busy":
                await anyio.sleep(0.01)
            yield
            while not await session.interrupt():
                await anyio.sleep(0.01)
