"""Being told of changes, in both eras."""

from __future__ import annotations

from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager
from typing import Any

import anyio
import pytest
from mcp import Client, MCPError
from mcp.server.subscriptions import ResourcesListChanged, ResourceUpdated
from mcp.shared.memory import create_client_server_memory_streams
from mcp.shared.message import SessionMessage
from mcp_types import (
    EmptyResult,
    JSONRPCNotification,
    JSONRPCRequest,
    ResourceUpdatedNotification,
    SubscribeRequest,
    SubscribeRequestParams,
    UnsubscribeRequest,
    UnsubscribeRequestParams,
)

from rlm_mcp import notices as notices_module
from rlm_mcp.app import App, Change
from rlm_mcp.session_resources import session_uri
from rlm_mcp.tenants import OWNER, Tenant

from .conftest import Doors, come_as, run, session_of

ANNA = Tenant("anna")
LAST = "rlm://sessions/last"


@asynccontextmanager
async def hearing(doors: Doors, era: str, *uris: str) -> AsyncGenerator[Any]:
    """Yield a function that returns what a client was told, up to and with the first that is about the last of `uris`."""
    if era == "legacy":
        async with _hearing_2025(doors, uris) as hear:
            yield hear
    else:
        async with _hearing_2026(doors, uris) as hear:
            yield hear


@asynccontextmanager
async def _hearing_2025(doors: Doors, uris: tuple[str, ...]) -> AsyncGenerator[Any]:
    send, receive = anyio.create_memory_object_stream[Any](1000)

    async def handle(message: Any) -> None:
        is_update = isinstance(message, ResourceUpdatedNotification)
        send.send_nowait(ResourceUpdated(str(message.params.uri)) if is_update else ResourcesListChanged())

    async with send, receive, Client(doors.server, mode="legacy", message_handler=handle) as client:
        for uri in uris:
            await subscribe(client, uri)

        async def hear() -> list[Any]:
            told = list[Any]()
            while not told or told[-1] != ResourceUpdated(uris[-1]):
                told.append(await receive.receive())
            return told

        yield hear


@asynccontextmanager
async def _hearing_2026(doors: Doors, uris: tuple[str, ...]) -> AsyncGenerator[Any]:
    async with Client(doors.server, mode="2026-07-28") as client:
        async with client.listen(resources_list_changed=True, resource_subscriptions=uris) as events:

            async def hear() -> list[Any]:
                told = list[Any]()
                while not told or told[-1] != ResourceUpdated(uris[-1]):
                    told.append(await anext(events))
                return told

            yield hear


async def subscribe(client: Client, uri: str, *, no_more: bool = False) -> None:
    if no_more:
        gone = UnsubscribeRequest(params=UnsubscribeRequestParams(uri=uri))
        await client.session.send_request(gone, EmptyResult)
    else:
        await client.session.send_request(
            SubscribeRequest(params=SubscribeRequestParams(uri=uri)), EmptyResult
        )


async def publish(app: App, uri: str, *, tenant: Tenant = OWNER, times: int = 1) -> None:
    for _ in range(times):
        await app.changed(Change(tenant, uri, "updated"))


@pytest.fixture
async def notes(app: App) -> str:
    await session_of(app, "last")
    return session_uri((await session_of(app, "notes")).project.key)


async def test_a_change_of_the_list_is_told(doors: Doors, app: App, era: str, notes: str) -> None:
    with anyio.fail_after(30):
        async with hearing(doors, era, LAST) as hear:
            await app.changed(Change(OWNER, "", "listed"))
            await publish(app, session_uri((await session_of(app, "last")).project.key))
            told = await hear()

    assert told == [ResourcesListChanged(), ResourceUpdated(LAST)]


async def test_a_resource_is_told_of_by_the_address_that_the_client_gave(
    doors: Doors, app: App, era: str, notes: str
) -> None:
    given = ("rlm://sessions/notes/cells?limit=5", "rlm://sessions/NOTES", "rlm://sessions")
    with anyio.fail_after(30):
        async with hearing(doors, era, *given) as hear:
            await publish(app, notes)
            told = await hear()

    assert told == [ResourceUpdated(uri) for uri in given]


async def test_what_changes_a_thousand_times_in_a_moment_is_told_once(
    doors: Doors, app: App, era: str, notes: str
) -> None:
    last = session_uri((await session_of(app, "last")).project.key)
    with anyio.fail_after(30):
        async with hearing(doors, era, notes, last) as hear:
            await publish(app, notes, times=1000)
            await publish(app, last)
            told = await hear()

    assert told == [ResourceUpdated(notes), ResourceUpdated(last)]


async def test_a_resource_that_nobody_asked_for_is_not_told_of(
    doors: Doors, app: App, era: str, notes: str
) -> None:
    last = session_uri((await session_of(app, "last")).project.key)
    with anyio.fail_after(30):
        async with hearing(doors, era, last) as hear:
            await publish(app, notes)
            await publish(app, last)
            told = await hear()

    assert told == [ResourceUpdated(last)]


async def test_no_tenant_hears_of_changes_of_another(doors: Doors, app: App, era: str, notes: str) -> None:
    key = (await session_of(app, "notes", tenant=ANNA)).project.key
    assert session_uri(key) == notes
    last = session_uri((await session_of(app, "last", tenant=ANNA)).project.key)
    come_as(ANNA)
    with anyio.fail_after(30):
        async with hearing(doors, era, "rlm://sessions", notes, last) as hear:
            await publish(app, notes)
            await app.changed(Change(OWNER, "", "listed"))
            await app.changed(Change(Tenant("ben"), "", "listed"))
            await publish(app, last, tenant=ANNA)
            told = await hear()

    assert told == [ResourceUpdated("rlm://sessions"), ResourceUpdated(last)]


async def test_a_client_of_2026_is_promised_only_what_is_its_own(doors: Doors, app: App, notes: str) -> None:
    result = await run(app, "notes", "print('x' * 50_000)")
    others = await run(app, "annas", "print('x' * 50_000)", tenant=ANNA)
    anna = session_uri((await session_of(app, "annas", tenant=ANNA)).project.key)
    own = ["rlm://sessions", notes, f"rlm://outputs/{result.output_id}"]
    not_own = [
        anna,
        f"rlm://outputs/{others.output_id}",
        "file:///etc/passwd",
        "rlm://sessions/%00",
        "x" * 10_000,
    ]
    with anyio.fail_after(30):
        async with Client(doors.server, mode="2026-07-28") as client:
            async with client.listen(tools_list_changed=True, resource_subscriptions=own + not_own) as events:
                honored = events.honored

    assert honored.resource_subscriptions == own
    assert (honored.tools_list_changed, honored.resources_list_changed) == (True, None)


async def test_a_client_of_2025_cannot_subscribe_to_what_is_not_its_own(
    doors: Doors, app: App, notes: str
) -> None:
    anna = session_uri((await session_of(app, "annas", tenant=ANNA)).project.key)
    async with Client(doors.server, mode="legacy") as client:
        for uri in (anna, "rlm://sessions/none", "file:///etc/passwd"):
            with pytest.raises(MCPError) as caught:
                await subscribe(client, uri)
            assert caught.value.code == -32602


async def test_a_client_of_2025_hears_no_more_of_what_it_unsubscribed_from(
    doors: Doors, app: App, notes: str
) -> None:
    send, receive = anyio.create_memory_object_stream[Any](100)

    async def handle(message: Any) -> None:
        await send.send(str(message.params.uri))

    with anyio.fail_after(30):
        async with send, receive, Client(doors.server, mode="legacy", message_handler=handle) as client:
            await subscribe(client, notes)
            await subscribe(client, LAST)
            await publish(app, notes)
            await subscribe(client, notes, no_more=True)
            await publish(app, session_uri((await session_of(app, "last")).project.key))
            told = await receive.receive()

    assert told == LAST


async def ask_for(client: Client, era: str, uris: list[str]) -> None:
    if era == "legacy":
        for uri in uris:
            await subscribe(client, uri)
    else:
        async with client.listen(resource_subscriptions=uris):
            pass


async def test_one_client_cannot_subscribe_to_everything(
    client: Client, era: str, notes: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(notices_module, "MOST_SUBSCRIPTIONS", 3)
    uris = [f"{notes}/cells?after={number}" for number in range(4)]
    with anyio.fail_after(30), pytest.raises(MCPError, match="Subscribe to rlm://sessions"):
        await ask_for(client, era, uris)


async def test_a_client_that_left_is_forgotten(doors: Doors, app: App, era: str, notes: str) -> None:
    with anyio.fail_after(30):
        async with hearing(doors, era, notes):
            assert doors.notices.listening == 1
        while doors.notices.listening:
            await anyio.sleep(0.01)

    await publish(app, notes)


async def test_streams_end_with_an_answer_when_the_server_ends(doors: Doors, app: App, notes: str) -> None:
    with anyio.fail_after(30):
        async with Client(doors.server, mode="2026-07-28") as client:
            async with client.listen(resource_subscriptions=[notes]) as events:
                await publish(app, notes)
                doors.notices.close()
                told = [event async for event in events]

    assert told == [ResourceUpdated(notes)]


async def test_no_more_clients_listen_than_there_is_room_for(
    doors: Doors, era: str, notes: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(notices_module, "MOST_LISTENERS", 1)
    with anyio.fail_after(30):
        async with hearing(doors, "2026-07-28", notes), Client(doors.server, mode=era) as client:
            with pytest.raises(MCPError):
                await ask_for(client, era, [notes])
            assert doors.notices.listening == 1


ENVELOPE = {
    "io.modelcontextprotocol/protocolVersion": "2026-07-28",
    "io.modelcontextprotocol/clientInfo": {"name": "raw", "version": "1"},
    "io.modelcontextprotocol/clientCapabilities": {},
}


def _messages(era: str, uri: str) -> list[JSONRPCRequest | JSONRPCNotification]:
    if era != "legacy":
        wanted = {
            "notifications": {"resourceSubscriptions": [uri], "resourcesListChanged": True},
            "_meta": ENVELOPE,
        }
        return [JSONRPCRequest(jsonrpc="2.0", id=1, method="subscriptions/listen", params=wanted)]
    info = {
        "protocolVersion": "2025-11-25",
        "capabilities": {},
        "clientInfo": {"name": "raw", "version": "1"},
    }
    return [
        JSONRPCRequest(jsonrpc="2.0", id=1, method="initialize", params=info),
        JSONRPCNotification(jsonrpc="2.0", method="notifications/initialized"),
        JSONRPCNotification(jsonrpc="2.0", method="notifications/initialized"),
        JSONRPCRequest(jsonrpc="2.0", id=2, method="resources/subscribe", params={"uri": uri}),
    ]


async def test_a_client_that_does_not_read_makes_nobody_wait_and_is_told_each_thing_once_later(
    doors: Doors, app: App, era: str, notes: str
) -> None:
    answers, told = 1 if era != "legacy" else 2, set[str]()
    async with create_client_server_memory_streams() as (client, server), anyio.create_task_group() as tasks:
        tasks.start_soon(doors.server.run, *server, doors.server.create_initialization_options())
        with anyio.fail_after(30):
            for message in _messages(era, notes):
                await client[1].send(SessionMessage(message))
            for _ in range(answers):
                await client[0].receive()
            for _ in range(50):
                await publish(app, notes, times=200)
                await app.changed(Change(OWNER, notes, "listed"))
                await anyio.sleep(0.005)
            told |= {_method(await client[0].receive()) for _ in range(2)}
            async with hearing(doors, era, notes) as hear:
                await publish(app, notes)
                await hear()
        tasks.cancel_scope.cancel()

    assert told == {"notifications/resources/updated", "notifications/resources/list_changed"}
    assert doors.notices.listening == 0


def _method(message: SessionMessage | Exception) -> str:
    assert isinstance(message, SessionMessage)
    assert isinstance(message.message, JSONRPCNotification)
    return message.message.method
