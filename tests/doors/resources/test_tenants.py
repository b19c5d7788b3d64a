"""What one tenant has is not there for another, and not told apart from what is nowhere."""

from __future__ import annotations

import pytest
from mcp import Client, MCPError

from rlm_mcp.app import App
from rlm_mcp.tenants import OWNER, Tenant

from .conftest import Doors, come_as, json_at, run
from .test_outputs import PICTURE

ANNA, BEN = Tenant("anna"), Tenant("ben")


async def test_a_tenant_sees_its_own_sessions_and_outputs_only(doors: Doors, app: App, era: str) -> None:
    for tenant in (ANNA, BEN, OWNER):
        await run(app, f"of {tenant.name or 'owner'}", PICTURE, tenant=tenant)
    come_as(ANNA)
    async with Client(doors.server, mode=era) as client:
        listed = [each.name for each in (await client.list_resources()).resources]
        told = await json_at(client, "rlm://sessions")

    assert len(listed) == 3
    assert [each["project"] for each in told["sessions"]] == ["of anna"]


async def test_the_keys_and_ids_of_another_tenant_answer_like_those_that_do_not_exist(
    doors: Doors, app: App, era: str
) -> None:
    result = await run(app, "secret", PICTURE, tenant=BEN)
    project = await app.project(BEN, "secret")
    there = [f"rlm://sessions/{project.key}", f"rlm://outputs/{result.displays[0].id}"]
    nowhere = ["rlm://sessions/secret-00000000000000000000", "rlm://outputs/c1-0123456789abcdef"]
    come_as(ANNA)
    answers = list[str]()
    async with Client(doors.server, mode=era) as client:
        for uri in there + nowhere:
            with pytest.raises(MCPError) as caught:
                await client.read_resource(uri)
            assert caught.value.data == {"uri": uri}
            answers.append(str(caught.value).replace(uri, "URI").replace(uri.rpartition("/")[2], "LAST"))

    assert answers[:2] == answers[2:]


async def test_the_same_name_is_another_project_for_each_tenant(doors: Doors, app: App, era: str) -> None:
    await run(app, "notes", "whose = 'ben'", tenant=BEN)
    await run(app, "notes", "whose = 'anna'", tenant=ANNA)
    come_as(ANNA)
    async with Client(doors.server, mode=era) as client:
        told = await json_at(client, "rlm://sessions/notes")

    assert [each["preview"] for each in told["variables"]] == ["'anna'"]
