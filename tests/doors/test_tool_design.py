"""What makes tools good for a model: few, plainly named, short in what they say, and honest about all of it."""

from __future__ import annotations

import json
import re
from itertools import combinations
from pathlib import Path
from typing import Any

import anyio
import pytest
from hypothesis import given
from hypothesis import strategies as st
from mcp import Client
from mcp_types import Tool

import rlm_mcp
from rlm_mcp import texts
from rlm_mcp.app import Surroundings, open_app
from rlm_mcp.server import INSTRUCTIONS, make_server
from rlm_mcp.sources import Sources
from rlm_sessions import CellError, CellResult, Display

from .conftest import Caller, text_of

MOST_TOOLS, MOST_NAME, MOST_DESCRIPTION, MOST_FIRST_SENTENCE = 8, 30, 2000, 200
MOST_CONCISE_TOKENS = 500
WAYS_OUT = re.compile(
    r"\b(Pass|Give|give|Choose|Wait|Use|use|Set|set|Leave|Name|add|look|did you mean|Nothing was|lists all|Ask|takes)\b"
)


# ---- what a client is told


async def _tools(call: Caller) -> list[Tool]:
    return (await call.client.list_tools()).tools


async def test_there_are_few_tools_with_names_that_say_when_to_use_them(call: Caller) -> None:
    names = [tool.name for tool in await _tools(call)]

    assert len(names) <= MOST_TOOLS
    for name in names:
        assert re.fullmatch(r"(execute|get|set|clear|rlm|answer)(_[a-z]+)+", name) and len(name) <= MOST_NAME
    for one, other in combinations(names, 2):
        assert one.split("_")[0] != other.split("_")[0] or (one, other) == ("rlm_complete", "rlm_status")


async def test_the_first_sentence_of_a_description_is_enough_and_the_rest_short(call: Caller) -> None:
    for tool in await _tools(call):
        assert tool.description and len(tool.description) < MOST_DESCRIPTION
        first = re.split(r"(?<=[.:]) ", tool.description)[0]
        assert 20 < len(first) <= MOST_FIRST_SENTENCE, tool.name


async def test_the_name_of_a_number_has_its_unit(call: Caller) -> None:
    for tool in await _tools(call):
        for name, facts in tool.input_schema["properties"].items():
            if facts.get("type") in ("number", "integer"):
                assert re.search(r"_(s|chars|bytes)$", name) or name == "after", name  # a number of an event


async def test_every_argument_has_a_type_and_no_argument_has_two_names(call: Caller) -> None:
    for tool in await _tools(call):
        for name, facts in tool.input_schema["properties"].items():
            assert "type" in facts or "anyOf" in facts, name
            assert set(facts) <= {
                "type", "anyOf", "description", "default", "items", "additionalProperties",
                "minimum", "maximum", "exclusiveMinimum",
            }  # fmt: skip


async def test_no_tool_says_a_thing_twice_in_text_and_in_structure(call: Caller) -> None:
    results = [
        await call("execute_python", code="x = 1\nx"),
        await call("get_repl_context"),
        await call("set_repl_context", values={"y": [1]}),
        await call("clear_repl_context", names=["x"]),
    ]

    assert all(tool.output_schema is None for tool in await _tools(call))
    assert all(result.structured_content is None for result in results)


async def test_code_that_may_use_the_network_is_told_to_reach_the_open_world(
    flags: dict[str, object], project: Path, tmp_path: Path
) -> None:
    sources = Sources(flags | {"sandbox.network": True}, {}, tmp_path / "config")
    async with (
        open_app(sources, Surroundings(None, project)) as app,
        Client(make_server(app), mode="2026-07-28") as client,
    ):
        hints = {tool.name: tool.annotations for tool in (await client.list_tools()).tools}

    assert {name: hint.open_world_hint for name, hint in hints.items() if hint} == {
        "execute_python": True,
        "get_repl_context": False,
        "set_repl_context": False,
        "clear_repl_context": False,
        "rlm_complete": True,
        "rlm_status": False,
        "answer_calls": False,
    }


async def test_the_instructions_name_the_workflow_the_session_the_cap_and_the_resources(call: Caller) -> None:
    names = {tool.name for tool in await _tools(call)}

    assert len(INSTRUCTIONS) <= 2000
    assert set(re.findall(r"\b\w+_(?:context|python)\b", INSTRUCTIONS)) <= names
    places = [
        INSTRUCTIONS.index(each)
        for each in ("set_repl_context", "execute_python", "get_repl_context", "one session", "Long output")
    ]
    assert places == sorted(places)
    assert "rlm://outputs/ID" in INSTRUCTIONS and "rlm://sessions" in INSTRUCTIONS


# ---- what it answers


async def test_answers_hold_nothing_that_says_nothing(call: Caller) -> None:
    (call.project / "a.txt").write_text("one two")
    said = [
        await call.said("get_repl_context"),
        await call.said("set_repl_context"),
        await call.said("set_repl_context", values={"n": 1}, files={"a": "a.txt"}),
        await call.said("execute_python", code="words = a.split()\nprint(words)\nlen(words) + n"),
        await call.said("execute_python", code="n = None\nn"),
        await call.said("execute_python", code=""),
        await call.said("get_repl_context", names=["words", "gone"]),
        await call.said("get_repl_context"),
        await call.said("clear_repl_context", names=[]),
        await call.said("clear_repl_context", names=["words", "gone"]),
        await call.said("clear_repl_context"),
    ]

    assert said == [
        "[no variables]",
        "Nothing to set: give `values`, or `files`.",
        "n: int\na: 7 characters from a.txt",
        "['one', 'two']\n3\n[set: words]",
        "[no output]\n[set: n]",
        "[no output]",
        'words = ["one", "two"]\ngone: no such variable; get_repl_context without names lists all',
        "a: str, 56 B: 'one two'\nn: NoneType, 16 B: None\nwords: list, 256 B: ['one', 'two'] # 2 items",
        "Nothing to delete.",
        "Deleted: words.\nNot there: gone.",
        "All variables are gone; the next call begins in a fresh interpreter.",
    ]


async def test_a_list_of_large_variables_is_short(call: Caller) -> None:
    await call.run("for n in range(20): globals()[f'v{n}'] = [str(n) * 1000] * 1000")
    said = await call.said("get_repl_context")

    assert said.count("list, ") == 20
    assert len(said) / 4 < MOST_CONCISE_TOKENS * 2


async def test_what_is_not_listed_can_be_asked_for_as_it_says(call: Caller) -> None:
    await call.run("for n in range(300): globals()[f'v{n:03}'] = n")
    last = (await call.said("get_repl_context")).splitlines()[-1]

    assert re.match(r"\[\d+ more variables are not listed: execute_python with dir\(\) names all", last)
    assert "'v299'" in await call.run("dir()")
    assert await call.said("get_repl_context", names=["v299"]) == "v299 = 299"


async def test_more_names_than_are_told_are_said_to_be_more(call: Caller) -> None:
    said = await call.run("for n in range(300): globals()[f'v{n:03}'] = n")

    assert re.search(r" and at least \d+ more\]", said)


async def test_a_value_that_is_cut_is_where_it_says(call: Caller) -> None:
    said = await call.run("list(map(str, range(90)))[0] * 15_000")

    assert "characters left out" in said and "[the value is cut; it is in the variable _]" in said
    assert await call.run("len(_)") == "15000"


async def test_figures_that_were_dropped_are_said_to_be(call: Caller) -> None:
    show = "class P:\n    def _repr_png_(self): return b'\\x89PNG'\nfor _ in range({}): display(P())"
    many, few = await call.run(show.format(60)), await call.run(show.format(6))

    assert "20 figures at most; any after these were dropped" in many
    assert "figures" not in few


async def test_long_texts_that_code_shows_are_cut_and_the_whole_can_be_read(call: Caller) -> None:
    show = (
        "class M:\n    def _repr_markdown_(self): return 'm' * 8_000 + 'end'\nfor _ in range(5): display(M())"
    )
    said = await call.run(show)

    ids = re.findall(
        r"\[a text of 8003 characters is (?:cut|left out); all of it: (rlm://outputs/[\w-]+)\]", said
    )
    assert len(said) < 2 * texts.MOST_VALUE and len(ids) == 4
    [contents] = (await call.client.read_resource(ids[-1])).contents
    assert "end" in str(contents)


async def test_names_in_answers_are_short(call: Caller) -> None:
    said = await call.run("print('x' * 100_000)")

    [id_] = re.findall(r"rlm://outputs/([\w-]+)", said)
    assert len(id_) <= 20


# ---- nothing is over the cap


def _texts() -> st.SearchStrategy[str]:
    """Texts of all sizes, with what terminals and encodings mind."""
    units = st.sampled_from(["a", "line\n", "\x1b[31mred", "\udcff", "é", "\U0001f40d", "\0", "\x1b", "]"])
    counts = st.sampled_from([0, 1, 30, 99, 2_000, 25_000, 120_000])
    return st.builds(
        lambda *parts: "".join(unit * count for unit, count in parts), *[st.tuples(units, counts)] * 2
    )


def _displays() -> st.SearchStrategy[Display]:
    sizes = st.sampled_from([0, 10, 11_000, 1_000_000, 5_000_000])
    ids = st.sampled_from([None, "abcd1234"])
    mimes = st.sampled_from(["image/png", "image/jpeg", "text/markdown"])
    return st.builds(Display, mimes, sizes.map(bytes), ids)


def _errors() -> st.SearchStrategy[CellError]:
    limits = st.sampled_from([None, "wall_seconds", "memory_bytes"])
    return st.builds(CellError, _texts(), _texts(), _texts(), limits)


RESULTS = st.builds(
    CellResult,
    cell=st.just(1),
    output=_texts(),
    output_characters=st.integers(0, 10**9),
    left_out=st.sampled_from([0, 5, 10**9]),
    value=st.none() | _texts(),
    displays=st.lists(_displays(), max_size=25).map(tuple),
    error=st.none() | _errors(),
    exit_code=st.none() | _texts(),
    changed=st.lists(_texts(), max_size=60).map(tuple),
    removed=st.lists(_texts(), max_size=3).map(tuple),
    duration_seconds=st.floats(0, 10**6),
    notes=st.lists(_texts(), max_size=5).map(tuple),
    output_id=st.just("abcd1234"),
)


@pytest.mark.parametrize(
    ("result", "said"),
    [
        (CellResult(1, displays=(Display("image/png", b"png", None),)), "[no text, only what is shown]"),
        (CellResult(1, output="\n\n", output_characters=2), "[only blank lines were printed]"),
    ],
)
def test_a_cell_without_any_text_is_told_in_words(result: CellResult, said: str) -> None:
    text, *_ = texts.of_cell(result)

    assert text.type == "text" and text.text == said


@given(RESULTS, st.lists(_texts(), max_size=3))
def test_whatever_came_of_a_cell_the_answer_is_within_bounds(result: CellResult, notes: list[str]) -> None:
    text, *others = texts.of_cell(result, notes)

    assert text.type == "text" and len(text.text) <= texts.MOST_CHARACTERS
    assert text.text.encode() and "\x1b[" not in text.text
    images = [block for block in others if block.type == "image"]
    links = [block for block in others if block.type == "resource_link"]
    assert len(images) <= texts.MOST_IMAGES and len(images) + len(links) == len(others)
    assert sum(len(image.data) for image in images) <= texts.MOST_IMAGE_BYTES * 4 / 3 + 4 * texts.MOST_IMAGES
    if result.left_out:
        assert (
            f"[{result.left_out} of {result.output_characters} printed characters left out; all of it: "
            in text.text
        )
    shown = sum(each.mime.startswith("image/") for each in result.displays)
    assert len(others) == shown or f"[{shown - len(others)} figures are left out" in text.text


@given(_texts(), st.integers(texts.MOST_CHARACTERS - 200, texts.MOST_CHARACTERS) | st.integers(100, 5_000))
def test_a_text_that_is_shortened_is_never_longer_than_asked_for(text: str, keep: int) -> None:
    short = texts.shorten(text, keep)

    assert len(short) <= keep
    assert short == text or "characters left out" in short


LONG = "x" * 300_000


@pytest.mark.parametrize(
    ("tool", "arguments"),
    [
        ("execute_python", {"code": "1", "project": LONG[:4000]}),
        ("execute_python", {"code": "1", LONG: 1}),
        ("get_repl_context", {"names": [LONG]}),
        ("set_repl_context", {"values": {LONG: 1}}),
        ("set_repl_context", {"values": {f"v{n}": 1 for n in range(5000)}}),
        ("set_repl_context", {"files": {"x": LONG}}),
        ("set_repl_context", {"files": {"x": LONG + "*"}}),
        ("set_repl_context", {"files": {LONG: "x"}}),
        ("set_repl_context", {"files": {"x": [{LONG: 1}]}}),
        ("clear_repl_context", {"names": [LONG]}),
    ],
)
async def test_what_was_asked_for_is_not_told_back_at_length(
    call: Caller, tool: str, arguments: dict[str, Any]
) -> None:
    assert len(await call.said(tool, **arguments)) <= texts.MOST_CHARACTERS


# ---- errors


ERRORS: list[tuple[str, dict[str, Any]]] = [
    ("execute_python", {"code": "1", "timeout": 3}),
    ("execute_python", {"code": "1", "timeout_s": 10**6}),
    ("execute_python", {"code": "1", "timeout_s": 1e-9}),
    ("execute_python", {"code": "1", "project": "/"}),
    ("execute_python", {"code": "1", "project": "/etc"}),
    ("execute_python", {"code": "1", "project": "a\0b"}),
    ("execute_python", {"code": "1", "project": "./gone"}),
    ("get_repl_context", {"names": "x"}),
    ("set_repl_context", {"values": {"not a name": 1}}),
    ("set_repl_context", {"values": {"class": 1}}),
    ("set_repl_context", {"files": {"x": "gone.txt"}}),
    ("set_repl_context", {"files": {"x": "/etc/passwd"}}),
    ("set_repl_context", {"files": {"x": "nothing*"}}),
    ("set_repl_context", {"files": {"x": "**x"}}),
    ("set_repl_context", {"files": {"x": "a\0*"}}),
    ("set_repl_context", {"files": {"x": "."}}),
]


@pytest.mark.parametrize(("tool", "arguments"), ERRORS)
async def test_an_error_says_what_to_do_next_and_nothing_of_our_files(
    call: Caller, tool: str, arguments: dict[str, Any]
) -> None:
    result = await call(tool, **arguments)

    said = text_of(result)
    assert result.is_error and WAYS_OUT.search(said), said
    assert "Traceback" not in said and str(Path(rlm_mcp.__file__).parent) not in said
    assert "The server failed" not in said


# ---- secrets


SEARCH = """
import os
found = [str(dict(os.environ))]
for folder, _, names in os.walk("/"):
    if folder.startswith(("/sys", "/usr", "/lib")) or folder.count("/") > 3:
        continue
    for name in names:
        if name in ("environ", "cmdline", "rlm.toml"):
            try:
                found.append(open(os.path.join(folder, name), errors="replace").read())
            except OSError:
                pass
[secret in text for text in found for secret in ("sk-" + "planted", "snip-" + "planted")].count(True)
"""


@pytest.fixture
async def told_secrets(flags: dict[str, object], project: Path, tmp_path: Path) -> Any:
    config = tmp_path / "config"
    await anyio.Path(config).mkdir()
    await anyio.Path(config / "rlm.toml").write_text('[rlm]\nsnipara_api_key = "snip-planted"\n')
    sources = Sources(
        flags, {"RLM_API_KEY": "sk-planted", "RLM_HTTP_TOKEN": "sk-planted-token-0123456789"}, config
    )
    async with (
        open_app(sources, Surroundings(None, project)) as app,
        Client(make_server(app), mode="2026-07-28") as client,
    ):
        yield Caller(client, project)


async def test_keys_of_the_server_are_nowhere_in_a_session(
    told_secrets: Caller, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("RLM_API_KEY", "sk-planted")
    result = await told_secrets("execute_python", code=SEARCH)

    assert text_of(result).startswith("0"), text_of(result)


async def test_no_argument_asks_for_a_secret(call: Caller) -> None:
    for tool in await _tools(call):
        asked = json.dumps(tool.input_schema).lower()
        assert not re.search(r"api.?key|token(?!_budget)|password|secret", asked)
