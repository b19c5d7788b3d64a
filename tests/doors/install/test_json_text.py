"""One member is changed, and every other byte of the text stays."""

from __future__ import annotations

import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as some

from rlm_mcp.json_text import NotEditable, masked, parse, span_of, with_member, without_member

PATH = ("mcpServers", "rlm")
ENTRY = {"command": "/usr/bin/uvx", "args": ["rlm-mcp", "serve"]}

_values = some.recursive(
    some.none() | some.booleans() | some.integers() | some.text(max_size=8),
    lambda below: some.lists(below, max_size=3) | some.dictionaries(some.text(max_size=4), below, max_size=3),
    max_leaves=8,
)
_objects = some.dictionaries(some.text(max_size=4), _values, max_size=3)
_indents = some.sampled_from([None, 2, 4, "\t"])


@given(others=_objects, servers=_objects, indent=_indents, newline=some.sampled_from(["\n", "\r\n"]))
def test_what_is_put_in_is_there_and_all_else_is_as_before(
    others: dict[str, Any], servers: dict[str, Any], indent: int | str | None, newline: str
) -> None:
    before = {**others, "mcpServers": servers}
    text = json.dumps(before, indent=indent).replace("\n", newline) + newline

    after = with_member(text, PATH, ENTRY)

    assert json.loads(after) == {**before, "mcpServers": {**servers, "rlm": ENTRY}}
    assert list(json.loads(after)) == list(before)
    assert after.endswith(newline)
    assert newline == "\n" or "\n" not in after.replace("\r\n", "")


@given(others=_objects, servers=_objects, indent=_indents)
def test_taking_out_what_was_put_in_gives_the_same_text_again(
    others: dict[str, Any], servers: dict[str, Any], indent: int | str | None
) -> None:
    text = json.dumps({**others, "mcpServers": {"a": 1, **servers}}, indent=indent)

    assert without_member(with_member(text, PATH, ENTRY), PATH) == text


def test_numbers_escapes_and_spacing_of_others_stay_as_they_were_written() -> None:
    text = '{ "x":1.50e+1 ,\n\t"mcpServers" : { "gh":{"command":"\\u0061"} } , "y" : [ ] }'

    after = with_member(text, PATH, 1)

    assert after == text.replace("} }", '}, "rlm": 1 }', 1)


def test_the_indentation_of_the_file_is_kept() -> None:
    text = '{\n\t"mcpServers": {\n\t\t"gh": {}\n\t}\n}\n'

    after = with_member(text, PATH, {"command": "x"})

    assert after == '{\n\t"mcpServers": {\n\t\t"gh": {},\n\t\t"rlm": {\n\t\t\t"command": "x"\n\t\t}\n\t}\n}\n'


@pytest.mark.parametrize("place", ["first", "middle", "last"])
def test_a_member_is_taken_out_with_its_comma(place: str) -> None:
    names = {"first": "rab", "middle": "arb", "last": "abr"}[place].replace("r", "R")
    text = json.dumps({"mcpServers": {name: {"x": [1, 2]} for name in names}}, indent=2)

    after = without_member(text, ("mcpServers", "R"))

    assert after == json.dumps({"mcpServers": {name: {"x": [1, 2]} for name in "ab"}}, indent=2)


def test_what_is_not_there_is_not_taken_out() -> None:
    text = '{"mcpServers": {"gh": {}}}'

    assert without_member(text, PATH) == text
    assert without_member("", PATH) == ""


@pytest.mark.parametrize("text", ["", " \n"])
def test_an_empty_file_becomes_a_whole_one(text: str) -> None:
    assert json.loads(with_member(text, PATH, ENTRY)) == {"mcpServers": {"rlm": ENTRY}}


@pytest.mark.parametrize(
    ("text", "why"),
    [
        ('{"a": 1, // why\n "b": 2}', "comments"),
        ('{\n  "a": 1,\n}', "line"),
        ("[]", "no JSON object"),
        ('{"a": NaN}', "NaN"),
        ('{"mcpServers": {}, "mcpServers": {}}', "twice"),
        ('{"a": ' * 100_000, "deep"),
        ('{"a"', "not valid JSON at line 1"),
        ('{"a": ' + "9" * 100_000 + "}", "too long"),
    ],
)
def test_what_is_not_plain_json_is_refused_with_the_reason(text: str, why: str) -> None:
    with pytest.raises(NotEditable, match=why):
        parse(text)


def test_an_object_is_not_put_where_something_else_is() -> None:
    with pytest.raises(NotEditable, match="mcpServers"):
        with_member('{"mcpServers": []}', PATH, ENTRY)


def test_values_of_others_are_hidden_and_names_are_shown() -> None:
    text = '{"gh": {"env": {"TOKEN": "s\\"ecret: 1", "N": "${N}"}, "args": ["--key=s"]}, "rlm": {"command": "uvx"}}'

    shown = masked(text, [span_of(text, ("rlm", "command"))])

    assert (
        shown == '{"gh": {"env": {"TOKEN": "...", "N": "${N}"}, "args": ["..."]}, "rlm": {"command": "uvx"}}'
    )
