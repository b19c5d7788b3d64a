"""No tenant can see, use or guess what another has."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import anyio
import pytest
from mcp import Client
from mcp_types import CallToolResult

from rlm_mcp.app import Surroundings, open_app
from rlm_mcp.server import make_server
from rlm_mcp.sources import Sources
from rlm_mcp.tenants import OWNER, Tenant

from .conftest import ACCOUNT, ALICE, BOB, INITIALIZE, LEGACY, MODERN, Serve, Served
from .test_hostile import open_stream

PING = {"jsonrpc": "2.0", "id": 5, "method": "ping"}


def text_of(result: CallToolResult) -> str:
    return "".join(block.text for block in result.content if block.type == "text")


async def session_of(served: Served, token: str) -> str:
    answer = await served.post(INITIALIZE, token=token)
    return answer.headers["mcp-session-id"]


async def test_a_session_id_of_another_tenant_is_answered_like_one_that_does_not_exist(serve: Serve) -> None:
    async with serve() as served:
        session = await session_of(served, ALICE)
        own = await served.post(PING, token=ALICE, headers={"Mcp-Session-Id": session})
        others = await served.post(PING, token=BOB, headers={"Mcp-Session-Id": session})
        owners = await served.post(PING, token=ACCOUNT, headers={"Mcp-Session-Id": session})
        unknown = await served.post(PING, token=BOB, headers={"Mcp-Session-Id": "0" * 32})

    assert own.status_code == 200
    assert others.status_code == owners.status_code == unknown.status_code == 404
    assert others.content == owners.content == unknown.content
    assert set(others.headers) == set(unknown.headers)


async def test_a_session_of_another_tenant_can_be_neither_listened_to_nor_ended(serve: Serve) -> None:
    import httpx2

    async with serve() as served, httpx2.AsyncClient() as web:
        session = await session_of(served, ALICE)
        headers = {"Authorization": f"Bearer {BOB}", "Mcp-Session-Id": session, "Accept": "text/event-stream"}
        listened = await web.get(served.url, headers=headers)
        ended = await web.delete(served.url, headers=headers)
        own = await served.post(PING, token=ALICE, headers={"Mcp-Session-Id": session})

    assert (listened.status_code, ended.status_code, own.status_code) == (404, 404, 200)


async def test_a_stream_of_another_tenant_cannot_be_posted_to(serve: Serve) -> None:
    with anyio.fail_after(30):
        async with serve("sse") as served, open_stream(served, ALICE) as (web, address):
            unknown = re.sub(r"session_id=.*", f"session_id={'0' * 32}", address)
            own = await web.post(address, json=PING)
            others = await web.post(address, json=PING, headers={"Authorization": f"Bearer {BOB}"})
            missing = await web.post(unknown, json=PING, headers={"Authorization": f"Bearer {BOB}"})

    assert own.status_code == 202
    assert others.status_code == missing.status_code == 404
    assert others.content == missing.content


async def run(client: Client, code: str, **arguments: Any) -> str:
    return text_of(await client.call_tool("execute_python", {"code": code, **arguments}))


@pytest.mark.parametrize("mode", [MODERN, LEGACY])
async def test_projects_of_one_name_are_different_sessions_for_different_tenants(
    serve: Serve, mode: str
) -> None:
    with anyio.fail_after(120):
        async with serve(make=make_server) as served:
            async with served.client(ALICE, mode=mode) as alice, served.client(BOB, mode=mode) as bob:
                await run(alice, "secret = 'of-alice'")
                await run(alice, "secret = 'of-alice-too'", project="work")
                seen = [
                    await run(bob, "print('secret' in globals())"),
                    await run(bob, "print('secret' in globals())", project="work"),
                    text_of(await bob.call_tool("get_repl_context", {"project": "work"})),
                ]
                kept = await run(alice, "print(secret)", project="work")

    assert [each.split()[0] for each in seen[:2]] == ["False", "False"]
    assert "alice" not in "".join(seen)
    assert "of-alice-too" in kept


async def test_a_tenant_cannot_name_folders_that_are_not_his(
    serve: Serve, tmp_path: Path, project: Path
) -> None:
    (project / "note.txt").write_text("the owner's note", encoding="utf-8")
    mine = tmp_path / "mine"
    mine.mkdir()
    (mine / "note.txt").write_text("alice's note", encoding="utf-8")
    reading = "print(open('note.txt').read())"
    with anyio.fail_after(120):
        async with serve(make=make_server, folders={"alice": (str(mine),)}) as served:
            async with (
                served.client(ALICE) as alice,
                served.client(BOB) as bob,
                served.client(ACCOUNT) as owner,
            ):
                own = await run(alice, reading, project=str(mine))
                refused = [
                    await run(who, reading, project=str(folder))
                    for who in (alice, bob)
                    for folder in (
                        project,
                        mine / "..",
                        tmp_path,
                        tmp_path / "state",
                        "/",
                        "/etc",
                        "../project",
                    )
                ]
                bobs = await run(bob, reading, project=str(mine))
                owners = await run(owner, reading)

    assert "alice's note" in own
    assert "the owner's note" in owners
    assert not any("note.txt" in each and "'s note" in each for each in (*refused, bobs))
    assert all("may not be used" in each or "Error" in each or "project" in each for each in refused)


async def test_a_tenant_is_not_told_whether_there_is_a_folder_or_a_file_that_is_not_his(
    serve: Serve, tmp_path: Path, project: Path
) -> None:
    mine, theirs = tmp_path / "mine", project / "theirs"
    mine.mkdir()
    theirs.mkdir()
    (theirs / "note.txt").touch()
    (mine / "link").symlink_to(theirs)
    (mine / "broken").symlink_to(project / "nothing")
    there = [theirs, theirs / "note.txt", mine / "link", mine / "link" / "note.txt", Path.home(), "~"]
    not_there = [
        project / "nothing",
        mine / "broken",
        mine / "broken" / "note.txt",
        "/proc/1/cwd",
        "~/nothing",
    ]
    with anyio.fail_after(120):
        async with (
            serve(make=make_server, folders={"alice": (str(mine),)}) as served,
            served.client(ALICE) as alice,
        ):
            projects = [await run(alice, "1", project=str(each)) for each in (*there, *not_there)]
            loads = [
                text_of(
                    await alice.call_tool("set_repl_context", {"files": {"x": str(each)}, "project": where})
                )
                for each in (*there, *not_there)
                for where in (None, str(mine))
                if not str(each).startswith("~")
            ]

    assert all("may not be used as a project" in each for each in projects)
    assert all("it lies outside the project" in each for each in loads)
    assert not any(str(project) in each for each in projects[2:4])


async def test_a_tenant_is_not_told_of_the_servers_environment(
    serve: Serve, tmp_path: Path, project: Path, flags: dict[str, object]
) -> None:
    sources = Sources(flags, {"RLM_PLANTED": "1"}, tmp_path / "config")
    with anyio.fail_after(60):
        async with open_app(sources, Surroundings(None, project)) as app:
            alice = Tenant("alice")
            told = await app.first_notes(alice, await app.project(alice, None))
            owner = await app.first_notes(OWNER, await app.project(OWNER, None))

    assert told == ()
    assert "RLM_PLANTED" in "".join(owner)


async def test_what_is_kept_of_a_tenant_is_named_by_nothing_of_his(serve: Serve, tmp_path: Path) -> None:
    with anyio.fail_after(60):
        async with serve(make=make_server) as served, served.client(ALICE) as alice:
            await run(alice, "x = 1", project="plans")
    kept = list((tmp_path / "state" / "tenants").iterdir())

    assert len(kept) == 1
    assert "alice" not in kept[0].name
