"""Sessions as resources: what is told of them, awake or asleep."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from mcp import Client, MCPError

from rlm_mcp.app import App, Surroundings, open_app
from rlm_mcp.sources import Sources
from rlm_mcp.tenants import OWNER

from .conftest import Doors, busy, json_at, run, session_of


async def test_before_anything_ran_there_are_no_sessions(client: Client, app: App) -> None:
    told = await json_at(client, "rlm://sessions")

    assert told == {"sessions": [], "total": 0}
    assert not app.managers()


async def test_a_session_is_listed_with_its_state_step_and_size(client: Client, app: App) -> None:
    await run(app, "notes", "x = 1")
    (told,) = (await json_at(client, "rlm://sessions"))["sessions"]

    assert (told["project"], told["state"], told["step"], told["folder"]) == ("notes", "idle", 1, None)
    assert told["kept_bytes"]["journal"] > 0
    assert told["uri"] == f"rlm://sessions/{told['key']}"


async def test_a_session_tells_its_variables_isolation_and_cells(client: Client, app: App) -> None:
    await run(app, "notes", "answer = 42\nprint('said')")
    await run(app, "notes", "1 / 0")
    told = await json_at(client, "rlm://sessions/notes")

    assert told["variables"] == [{"name": "answer", "type": "int", "size_bytes": 28, "preview": "42"}]
    assert any(layer["holds"] for layer in told["isolation"]["layers"])
    assert [cell["code"] for cell in told["recent_cells"]] == ["1 / 0", "answer = 42\nprint('said')"]
    assert told["recent_cells"][0]["error"]["name"] == "ZeroDivisionError"
    assert told["recent_cells"][1]["output"] == "said\n"


async def test_a_session_is_found_by_its_key_and_by_its_name_in_any_case(client: Client, app: App) -> None:
    await run(app, "My Notes", "x = 1")
    by_name = await json_at(client, "rlm://sessions/my%20NOTES")
    by_key = await json_at(client, by_name["uri"])

    assert by_name["key"] == by_key["key"]


async def test_a_name_that_several_projects_have_is_answered_with_their_keys(
    client: Client, app: App, tmp_path: Path, flags: dict[str, object]
) -> None:
    await run(app, "twin", "x = 1")
    folder = tmp_path / "twin"
    folder.mkdir()
    sources = Sources(flags, {}, tmp_path / "config")
    async with open_app(sources, Surroundings(None, folder)) as other:
        await (await other.session(OWNER, await other.project(OWNER, None))).run("y = 2")
    keys = [told["key"] for told in (await json_at(client, "rlm://sessions"))["sessions"]]

    with pytest.raises(MCPError) as caught:
        await json_at(client, "rlm://sessions/twin")

    assert len(keys) == 2
    assert all(key in str(caught.value) for key in keys)


async def test_a_busy_session_tells_what_runs_and_is_not_waited_for(client: Client, app: App) -> None:
    session = await session_of(app, "notes")
    await session.run("x = 1")
    async with busy(session):
        (listed,) = (await json_at(client, "rlm://sessions"))["sessions"]
        told = await json_at(client, "rlm://sessions/notes")

    assert "time.sleep(600)" in listed["running"]["code"]
    assert '"x"' in json.dumps(told["variables"])
    assert told["recent_cells"][0]["ended"] is False


async def test_a_session_that_sleeps_is_read_without_waking_it(client: Client, app: App) -> None:
    await run(app, "notes", "x = 1")
    session = await session_of(app, "notes")
    assert await session.sleep()
    told = await json_at(client, "rlm://sessions/notes")
    cells = await json_at(client, "rlm://sessions/notes/cells")

    assert not session.awake
    assert (told["state"], told["step"], told["variables"]) == ("asleep", 1, None)
    assert "get_repl_context" in told["variables_note"]
    assert cells["cells"][0]["code"] == "x = 1"


async def test_what_an_earlier_server_kept_is_read_without_taking_the_project(
    flags: dict[str, object], project: Path, tmp_path: Path, era: str
) -> None:
    from rlm_mcp.notices import Notices
    from rlm_mcp.resources import Resources

    sources = Sources(flags, {}, tmp_path / "config")
    async with open_app(sources, Surroundings(None, project)) as earlier:
        await run(earlier, "notes", "x = 1")
    async with open_app(sources, Surroundings(None, project)) as app:
        resources = Resources(app)
        async with Client(Doors(app, resources, Notices(app, resources)).server, mode=era) as client:
            told = await json_at(client, "rlm://sessions/notes")
            cells = await json_at(client, "rlm://sessions/notes/cells?search=x%20%3D")

        assert not app.managers()
    assert (told["state"], told["step"]) == ("asleep", 1)
    assert cells["cells"][0]["step"] == 1


async def test_the_list_of_sessions_is_paged_without_loss_or_repetition_while_more_come(
    client: Client, app: App
) -> None:
    for name in ("delta", "alpha", "charlie", "bravo", "echo"):
        await session_of(app, name)
    seen: list[str] = []
    uri: str | None = "rlm://sessions?limit=2"
    while uri is not None:
        page = await json_at(client, uri)
        seen += [told["project"] for told in page["sessions"]]
        await session_of(app, f"aa{len(seen)}")
        uri = page.get("next")

    assert [name for name in seen if not name.startswith("aa")] == [
        "alpha",
        "bravo",
        "charlie",
        "delta",
        "echo",
    ]
    assert len(seen) == len(set(seen))


async def test_cells_are_paged_oldest_first_while_more_run(client: Client, app: App) -> None:
    session = await session_of(app, "notes")
    for number in range(7):
        await session.run(f"a{number} = {number}")
    steps: list[int] = []
    uri: str | None = "rlm://sessions/notes/cells?limit=3"
    while uri is not None:
        page = await json_at(client, uri)
        steps += [cell["step"] for cell in page["cells"]]
        if len(steps) == 3:
            await session.run("late = True")
        uri = page.get("next")

    assert steps == [1, 2, 3, 4, 5, 6, 7, 8]


async def test_a_text_is_found_in_code_and_in_output_and_each_cell_told_once(
    client: Client, app: App
) -> None:
    session = await session_of(app, "notes")
    for code in ("n = 1", "print('nee' + 'dle')", "'needle'", "print('hay')", "# needle"):
        await session.run(code)
    found: list[int] = []
    uri: str | None = "rlm://sessions/notes/cells?search=needle&limit=1"
    while uri is not None:
        page = await json_at(client, uri)
        found += [cell["step"] for cell in page["cells"]]
        uri = page.get("next")

    assert found == [2, 3, 5]


async def test_one_cell_alone_is_told_whole(client: Client, app: App) -> None:
    code = "x = '" + "y" * 30_000 + "'"
    await run(app, "notes", code)
    several = await json_at(client, "rlm://sessions/notes/cells")
    alone = await json_at(client, "rlm://sessions/notes/cells?limit=1")

    assert len(several["cells"][0]["code"]) < 3000
    assert alone["cells"][0]["code"] == code


async def test_reading_a_copy_of_a_project_that_another_server_has_makes_no_other_copy(
    client: Client, app: App, flags: dict[str, object], tmp_path: Path
) -> None:
    sources = Sources(flags, {}, tmp_path / "config")
    async with open_app(sources, Surroundings(None, None)) as other:
        await run(other, "notes", "x = 'original'")
        await run(app, "notes", "y = 'in the copy'")
        told = await json_at(client, "rlm://sessions/notes%20copy%202")
        names = [each["project"] for each in (await json_at(client, "rlm://sessions"))["sessions"]]

    assert (told["state"], told["recent_cells"][0]["code"]) == ("idle", "y = 'in the copy'")
    assert [variable["name"] for variable in told["variables"]][-1] == "y"
    assert sorted(names) == ["notes", "notes copy 2"]
