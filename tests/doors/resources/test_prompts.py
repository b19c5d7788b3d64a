"""Prompts and completions."""

from __future__ import annotations

import re
from pathlib import Path

import anyio
import pytest
from mcp import Client, MCPError
from mcp_types import PromptReference, ResourceTemplateReference

from rlm_mcp import completions, session_resources
from rlm_mcp.app import App
from rlm_mcp.known import Known
from rlm_mcp.tenants import OWNER, Tenant
from rlm_mcp.tools import Tools

from .conftest import Doors, busy, come_as, run, session_of
from .test_outputs import PICTURE

ARGUMENTS = {"path": "a {b}.csv", "question": "How many {c}?", "task": "{d}", "handle": "w-0"}
SESSION = ResourceTemplateReference(uri="rlm://sessions/{project}")
OUTPUT = ResourceTemplateReference(uri="rlm://outputs/{id}{?offset,limit}")
ANALYSE = PromptReference(name="analyse_file")


async def _texts(client: Client) -> dict[str, str]:
    found = dict[str, str]()
    for prompt in (await client.list_prompts()).prompts:
        given = {each.name: ARGUMENTS[each.name] for each in prompt.arguments or ()}
        message = (await client.get_prompt(prompt.name, given)).messages[0]
        assert message.content.type == "text"
        found[prompt.name] = message.content.text
    return found


async def test_prompts_are_short_and_say_what_they_are_for(client: Client) -> None:
    prompts = (await client.list_prompts()).prompts

    assert [prompt.name for prompt in prompts] == [
        "analyse_file",
        "repl_workflow",
        "rlm_workflow",
        "answer_in_parallel",
    ]
    assert all(prompt.title and prompt.description for prompt in prompts)
    assert all(len(text) < 2000 for text in (await _texts(client)).values())


async def test_prompts_name_only_tools_and_arguments_that_exist(client: Client, app: App) -> None:
    tools = {tool.name: set(tool.input_schema["properties"]) for tool in Tools(app).definitions}

    for text in (await _texts(client)).values():
        for tool, given in re.findall(r"\b(\w+)\(([^)]*)\)", text):
            if tool in ("len", "llm_map", "rlm_query"):
                continue
            assert set(re.findall(r"(\w+)=", given)) <= tools[tool]
        assert set(re.findall(r"\b\w+_(?:context|python)\b", text)) <= tools.keys()


async def test_what_a_person_wrote_stands_in_the_prompt_as_it_is(client: Client) -> None:
    text = (await _texts(client))["analyse_file"]

    assert "File: a {b}.csv\n" in text
    assert "Question: How many {c}?\n" in text


@pytest.mark.parametrize(
    ("name", "given", "said"),
    [
        ("nothing", {}, "there are analyse_file, repl_workflow"),
        ("analyse_file", {"path": "x"}, "'question' is missing"),
        ("analyse_file", {"path": " ", "question": "x"}, "'path' is missing"),
        ("analyse_file", {"path": "x", "question": "y" * 10_001}, "longer than"),
        ("repl_workflow", {"path": "x"}, "takes no arguments"),
    ],
)
async def test_a_prompt_that_cannot_be_given_says_what_is_wrong(
    client: Client, name: str, given: dict[str, str], said: str
) -> None:
    with pytest.raises(MCPError, match=said) as caught:
        await client.get_prompt(name, given)

    assert caught.value.code == -32602


async def test_a_cursor_of_prompts_is_refused(client: Client) -> None:
    with pytest.raises(MCPError, match="Leave the cursor out"):
        await client.list_prompts(cursor="x")


# ---- completions


async def _values(
    client: Client, ref: PromptReference | ResourceTemplateReference, **argument: str
) -> list[str]:
    ((name, value),) = argument.items()
    with anyio.fail_after(60):
        return (await client.complete(ref, {"name": name, "value": value})).completion.values


async def test_projects_complete_by_the_beginning_of_their_names_or_keys(client: Client, app: App) -> None:
    for name in ("Notes", "novel", "other"):
        await session_of(app, name)
    key = (await session_of(app, "other")).project.key

    assert await _values(client, SESSION, project="NO") == ["novel", "Notes"]
    assert await _values(client, SESSION, project=key[:-3]) == ["other"]
    assert await _values(client, SESSION, project="nothing") == []


async def test_a_busy_session_is_not_waited_for(client: Client, app: App) -> None:
    session = await session_of(app, "notes")
    await session.run("x = 1")
    async with busy(session):
        found = await _values(client, SESSION, project="n")

    assert found == ["notes"]


class Name(str):
    """A name that counts how often any of its kind is compared."""

    __slots__ = ()
    __hash__ = str.__hash__
    compared = 0

    def casefold(self) -> Name:
        return Name(super().casefold())

    def __eq__(self, other: object) -> bool:
        Name.compared += 1
        return super().__eq__(other)


async def test_ten_times_as_many_projects_do_not_take_a_hundred_times_as_long_to_complete(
    app: App, monkeypatch: pytest.MonkeyPatch
) -> None:
    many = [Known(f"p-{number}", Name(f"P{number}"), None, Path(), None, None) for number in range(500)]

    async def known_projects(*_: object) -> list[Known]:
        return many

    monkeypatch.setattr(session_resources, "known_projects", known_projects)
    found = await session_resources.projects_like(app, OWNER, "p")

    assert found == [known.name for known in many]
    assert Name.compared < 10 * len(many)


async def test_outputs_complete_by_their_ids_newest_first(client: Client, app: App) -> None:
    first, second = await run(app, "notes", PICTURE), await run(app, "notes", PICTURE)

    assert await _values(client, OUTPUT, id="c") == [second.displays[0].id, first.displays[0].id]
    assert await _values(client, OUTPUT, id="c1") == [first.displays[0].id]
    assert await _values(client, OUTPUT, offset="1") == []


async def test_no_more_than_a_hundred_are_told_and_that_there_are_more(
    client: Client, app: App, project: Path
) -> None:
    for number in range(105):
        (project / f"file{number:03}.txt").touch()
    found = (await client.complete(ANALYSE, {"name": "path", "value": "file"})).completion

    assert (len(found.values), found.total, found.has_more) == (completions.MOST, 105, True)


async def test_paths_complete_within_the_project_and_nowhere_else(client: Client, project: Path) -> None:
    (project / "src").mkdir()
    (project / "src" / "main.py").touch()
    (project / ".env").touch()
    (project / "out").symlink_to("/etc")

    assert await _values(client, ANALYSE, path="") == ["out/", "src/"]
    assert await _values(client, ANALYSE, path="src/m") == ["src/main.py"]
    for outside in ("../", "/etc/", "out/", "src/../../", "~/", "x\0", "src/" * 400):
        assert await _values(client, ANALYSE, path=outside) == []


async def test_what_is_not_known_completes_to_nothing(client: Client) -> None:
    assert await _values(client, PromptReference(name="unknown"), path="x") == []
    assert await _values(client, ResourceTemplateReference(uri="rlm://unknown/{x}"), x="x") == []
    assert await _values(client, ANALYSE, question="x") == []


async def test_a_tenant_completes_to_its_own_only(doors: Doors, app: App, project: Path, era: str) -> None:
    anna = Tenant("anna")
    (project / "file.txt").touch()
    owners = await run(app, "owners", PICTURE)
    await session_of(app, "annas", tenant=anna)
    come_as(anna)
    async with Client(doors.server, mode=era) as client:
        assert await _values(client, SESSION, project="") == ["annas"]
        assert await _values(client, OUTPUT, id=owners.displays[0].id or "") == []
        assert await _values(client, ANALYSE, path="") == []
