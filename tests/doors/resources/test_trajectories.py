"""Trajectories as resources: the list, one by pages, one event, and notices while a run goes on."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import anyio
import pytest
from mcp import Client, MCPError

from rlm_mcp.app import App, Change, root_of
from rlm_mcp.known import places_of
from rlm_mcp.tenants import OWNER, Tenant
from rlm_mcp.trajectory_places import folder_for
from rlm_mcp.trajectory_resources import telling
from rlm_runtime.trajectory import open_log
from tests.doors.cli import runs

from .conftest import Doors, come_as, json_at, run, text_at

ANNA, BEN = Tenant("anna"), Tenant("ben")


async def _folder(app: App, tenant: Tenant = OWNER) -> Path:
    """Return where the runs of a tenant's only project are logged."""
    await run(app, "notes", "1", tenant=tenant)
    (place,) = await anyio.to_thread.run_sync(lambda: places_of(root_of(app.settings, tenant)))
    return folder_for(app.settings, tenant, place)


async def test_there_is_no_list_of_runs_before_the_first(client: Client, app: App) -> None:
    await run(app, "notes", "1")
    listed = [each.uri for each in (await client.list_resources()).resources]

    assert not [uri for uri in listed if "trajectories" in uri]
    assert (await json_at(client, "rlm://trajectories")) == {"trajectories": [], "total": 0}


async def test_the_newest_runs_are_listed_and_each_can_be_read(client: Client, app: App) -> None:
    folder = await _folder(app)
    ids = [await runs.written(folder) for _ in range(25)]
    listed = [each.uri for each in (await client.list_resources()).resources]
    found = [uri for uri in listed if "trajectories" in uri]

    assert found[0] == "rlm://trajectories" and len(found) == 21
    for uri in found:
        assert await json_at(client, uri)
    newest = {id_[:21] for id_ in sorted(ids)[-20:]}
    assert {uri.rpartition("/")[2][:21] for uri in found[1:]} <= newest


async def test_pages_of_the_list_leave_nothing_out(client: Client, app: App) -> None:
    folder = await _folder(app)
    ids = [await runs.written(folder) for _ in range(7)]
    uri: str | None = "rlm://trajectories?limit=3"
    found: list[dict[str, Any]] = []
    while uri is not None:
        told = await json_at(client, uri)
        found += told["trajectories"]
        uri = told.get("next")

    assert sorted(each["id"] for each in found) == sorted(ids)
    assert (found[0]["state"], found[0]["finish"], found[0]["title"]) == ("ended", "answered", runs.PROMPT)
    assert "path" not in found[0]


async def test_pages_of_events_are_the_whole_run(client: Client, app: App) -> None:
    id_ = await runs.written(await _folder(app))
    uri: str | None = f"rlm://trajectories/{id_}?limit=3"
    events: list[dict[str, Any]] = []
    told: dict[str, Any] = {}
    while uri is not None:
        told = await json_at(client, uri)
        events += told["events"]
        uri = told.get("next")

    assert [each["kind"] for each in events][-3:] == ["call_ended", "cell_ended", "run_ended"]
    assert len(events) == 8 and told["totals"]["calls"] == 1
    prompt = events[1]["prompt"][0]["content"]
    assert prompt.endswith("... [850 characters in all]")


async def test_an_event_has_its_whole_texts(client: Client, app: App) -> None:
    id_ = await runs.written(await _folder(app))
    told = await json_at(client, f"rlm://trajectories/{id_}")
    event = await json_at(client, told["events"][1]["uri"])

    assert event["prompt"][0]["content"] == "You have a REPL. " * 50
    part = await text_at(client, f"{told['events'][1]['uri']}?limit=100")
    assert "offset=100&limit=100]" in part


@pytest.mark.parametrize(
    "path",
    [
        "nothing",
        "..",
        "%2e%2e%2fx",
        "ID.jsonl",
        "ID/events",
        "ID/events/99",
        "ID/events/x",
        "ID?x=1",
        "ID/more",
    ],
)
async def test_what_is_no_trajectory_is_refused(doors: Doors, app: App, path: str) -> None:
    id_ = await runs.written(await _folder(app))
    with pytest.raises(MCPError) as caught:
        await doors.resources.read(OWNER, f"rlm://trajectories/{path.replace('ID', id_)}")

    assert caught.value.code == -32602


async def test_the_runs_of_another_tenant_are_not_there(doors: Doors, app: App, era: str) -> None:
    id_ = await runs.written(await _folder(app, BEN))
    mine = await runs.written(await _folder(app, ANNA))
    nowhere = "20251121T000000000-0123456789abcdef"
    come_as(ANNA)
    answers: list[str] = []
    async with Client(doors.server, mode=era) as client:
        told = await json_at(client, "rlm://trajectories")
        for each in (id_, nowhere):
            with pytest.raises(MCPError) as caught:
                await client.read_resource(f"rlm://trajectories/{each}")
            answers.append(str(caught.value).replace(each, "ID"))

    assert [each["id"] for each in told["trajectories"]] == [mine]
    assert answers[0] == answers[1]


async def test_ids_are_completed(doors: Doors, app: App) -> None:
    id_ = await runs.written(await _folder(app))

    assert await doors.resources.families["trajectories"].complete(OWNER, "id", id_[:5]) == [id_]


async def test_changes_are_told_while_a_run_goes_on(doors: Doors, app: App) -> None:
    heard: list[Change] = []

    async def hear(change: Change) -> None:
        heard.append(change)

    folder = await _folder(app)
    app.listeners.append(hear)
    async with open_log(folder) as log:
        log.listeners.append(telling(app, OWNER))
        await runs.begin(log)
        during = await doors.resources.read(OWNER, f"rlm://trajectories/{log.trajectory_id}")
        subject = await doors.resources.subject(OWNER, f"rlm://trajectories/{log.trajectory_id}?after=3")

    assert '"state": "running"' in str(during.contents[0].text)  # type: ignore[union-attr]
    assert [change.kind for change in heard][:2] == ["listed", "updated"] and len(heard) == 8
    assert {change.uri for change in heard} == {"", subject}
