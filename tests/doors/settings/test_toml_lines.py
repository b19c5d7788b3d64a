"""The lines that are told are those on which the keys stand, whatever valid TOML they stand in."""

from __future__ import annotations

import tomllib
from collections.abc import Iterator
from typing import cast

import pytest
from hypothesis import given
from hypothesis import strategies as st

from rlm_mcp.toml_lines import MAX_DEPTH, Place, TooDeep, lines_of


def places_in(value: object, place: Place = ()) -> Iterator[Place]:
    """Yield where each key of a parsed document is."""
    if isinstance(value, dict):
        for name, inner in cast("dict[str, object]", value).items():
            yield (*place, name)
            yield from places_in(inner, (*place, name))
    if isinstance(value, list):
        for number, inner in enumerate(cast("list[object]", value)):
            yield from places_in(inner, (*place, number))


def agrees(text: str) -> bool:
    return set(lines_of(text)) == set(places_in(tomllib.loads(text)))


# ---- documents that are written in every way TOML has

names = st.text(st.characters(codec="utf-8", exclude_characters="\r"), max_size=5)
blanks = st.sampled_from(["", " ", "\t"])
comments = st.sampled_from(["", " # a comment", '# """ [x] = {', "\t# 'y.z = [1,"])


@st.composite
def written_names(draw: st.DrawFn, name: str) -> str:
    bare = name != "" and name.isascii() and name.replace("-", "").replace("_", "").isalnum()
    literal = "'" not in name and name.isprintable()
    escaped = "".join(
        f"\\U{ord(char):08x}" if char in '"\\' or not char.isprintable() else char for char in name
    )
    ways = [f'"{escaped}"', *([name] if bare else []), *([f"'{name}'"] if literal else [])]
    return draw(st.sampled_from(ways))


scalars = st.sampled_from(
    [
        *("1", "-0.5e3", "true", "inf", "0xff", "1979-05-27 07:32:00", "1979-05-27T07:32:00Z", "07:32:00"),
        *(
            '""',
            "''",
            '"a # b"',
            "'[x]'",
            '"\\" = ]"',
            '"""a"""',
            "'''b'''",
            '""""""',
            "''''''",
            '""""x"" y"""""',
        ),
        *('"""\na = 1\n[b]\n"""', "'''\nc = {\n'''", '"""\\\n  d\\\\"""', "''''e'''''", '"""\n"""', '"\\\\"'),
    ]
)


@st.composite
def values(draw: st.DrawFn, depth: int = 0) -> str:
    kind = draw(st.sampled_from(["scalar", "scalar", "list", "table"] if depth < 3 else ["scalar"]))
    if kind == "scalar":
        return draw(scalars)
    if kind == "list":
        gap = st.sampled_from(["", " ", "\n", " # ] }\n\t"])
        items = draw(st.lists(values(depth + 1), max_size=3))
        inner = ",".join(f"{draw(gap)}{item}{draw(gap)}" for item in items)
        return f"[{inner}{draw(st.sampled_from(['', ','])) if items else ''}{draw(gap)}]"
    keys = draw(st.lists(names, max_size=3, unique=True))
    return "{" + ", ".join([f"{draw(assigned([key]))}{draw(values(depth + 1))}" for key in keys]) + "}"


@st.composite
def assigned(draw: st.DrawFn, path: list[str]) -> str:
    dot = f"{draw(blanks)}.{draw(blanks)}"
    return f"{dot.join([draw(written_names(name)) for name in path])}{draw(blanks)}={draw(blanks)}"


@st.composite
def documents(draw: st.DrawFn) -> str:
    lines = list[str]()
    for _ in range(draw(st.integers(0, 6))):
        path = draw(st.lists(names, min_size=1, max_size=3))
        written = ".".join([draw(written_names(name)) for name in path])
        head = draw(st.sampled_from(["", "", "[{}]", "[[{}]]", "[ {} ]"]))
        body = head.format(written) if head else draw(assigned(path)) + draw(values())
        lines += [draw(blanks) + body + draw(comments), *draw(st.lists(comments, max_size=2))]
    return draw(st.sampled_from(["\n", "\r\n"])).join(lines) + draw(st.sampled_from(["", "\n"]))


@given(documents())
def test_every_key_that_the_parser_finds_has_a_line_and_no_other_has(text: str) -> None:
    try:
        tomllib.loads(text)
    except tomllib.TOMLDecodeError:
        lines_of(text)  # it only has to end
        return

    assert agrees(text)


@given(st.text(st.sampled_from("ab.=[]{},\"'\\#\n\r\t 1é\0")))
def test_any_text_at_all_is_gone_through_and_if_it_is_toml_the_keys_agree(text: str) -> None:
    lines_of(text)
    try:
        tomllib.loads(text)
    except ValueError:
        return

    assert agrees(text.replace("\r\n", "\n"))


@given(
    st.lists(
        st.tuples(
            st.lists(comments | scalars.map(lambda s: "#" + s.replace("\n", " ")), max_size=3), scalars
        ),
        max_size=6,
    )
)
def test_a_key_has_the_line_that_it_was_written_on(entries: list[tuple[list[str], str]]) -> None:
    text, expected = "", dict[Place, int]()
    for number, (before, value) in enumerate(entries):
        text += "".join(f"{line}\n" for line in before)
        expected[(f"k{number}",)] = text.count("\n") + 1
        text += f"k{number} = {value}\n"

    assert lines_of(text) == expected


def test_tables_dotted_keys_inline_tables_and_long_values_each_have_their_own_line() -> None:
    text = '''
a = """
b = 1
"""
[t]
x.y = [
  { p = 1, "q r" = 2 },
  { p = [
      3 ] },
]
x.z = 1
[[l]]
[l.m]
n = 1
[[l]]
m = 2
'''

    assert lines_of(text) == {
        ("a",): 2,
        ("t",): 5,
        ("t", "x"): 6,
        ("t", "x", "y"): 6,
        ("t", "x", "y", 0, "p"): 7,
        ("t", "x", "y", 0, "q r"): 7,
        ("t", "x", "y", 1, "p"): 8,
        ("t", "x", "z"): 11,
        ("l",): 12,
        ("l", 0, "m"): 13,
        ("l", 0, "m", "n"): 14,
        ("l", 1, "m"): 16,
    }


@pytest.mark.parametrize(
    "text",
    [
        "a" + ".a" * MAX_DEPTH + " = 1",
        "[a" + ".a" * 200_000 + "]",
        "[[a" + ". a" * 200_000 + "]]",
        "[[a" + ". a" * MAX_DEPTH + "]]",
        "x = " + "[" * 500_000,
        "x = " + "{a=" * 300_000,
        "x = " + "[{a.b=" * 100_000,
        "x = [" + "[[],{a={}}]," * 3 + "[" * MAX_DEPTH,
    ],
    ids=["dots", "header", "list header", "short list header", "lists", "tables", "both", "late"],
)
def test_what_is_nested_too_deeply_is_refused_with_its_line(text: str) -> None:
    with pytest.raises(TooDeep) as caught:
        lines_of("# first\n" + text)

    assert caught.value.line == 2


def test_as_deep_as_may_be_is_not_too_deep() -> None:
    assert agrees("a" + ".a" * (MAX_DEPTH - 1) + " = 1")


@pytest.mark.parametrize(
    "text",
    ["a" * 1_000_000, '"' + "\\" * 999_999, '"""' + '"' * 999_999, "[" + " " * 999_999, "#" * 1_000_000,
     "a=1\n" * 200_000, "x=[" + "1," * 400_000, "'''" + "'" * 999_999, "a=" + "{},[" * 9, "x=[" + "{}" * 300_000,
     "a = " + "\\" * 1_000_000, " \n" * 500_000, "[[a]]\n" * 150_000],
    ids=range(13),
)  # fmt: skip
def test_a_million_characters_of_anything_are_gone_through(text: str) -> None:
    lines_of(text)
