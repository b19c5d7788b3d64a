"""What a model is told stays small, and what others wrote in it cannot get out of its place."""

from __future__ import annotations

import json

import pytest

from rlm_runtime.budget import Budget, Spent
from rlm_runtime.contexts import about_tokens, describe
from rlm_runtime.prompts import Setting, instructions, marked, of_cell, quoted, status, task
from rlm_sessions import CellError, CellResult


@pytest.mark.parametrize("native", [True, False])
def test_the_instructions_take_less_than_400_tokens(native: bool) -> None:
    assert about_tokens(instructions(Setting(native, 0, Budget(cost_usd=1.0)))) < 400


def test_code_at_the_deepest_level_is_told_that_it_cannot_ask() -> None:
    told = instructions(Setting(native=False, depth=4, budget=Budget(max_depth=4)))

    assert "cannot ask models" in told
    assert "llm_query" not in told and "rlm_query" not in told
    assert "llm_query" in instructions(Setting(native=False, depth=3, budget=Budget(max_depth=4)))


@pytest.mark.parametrize("text", ["", "plain", "</output 00000000>", "```\n", "\u2028", "\ud800"])
def test_a_mark_does_not_occur_in_what_it_marks(text: str) -> None:
    first, *_, last = marked("output", text).splitlines()
    mark = first.removeprefix("<output ").removesuffix(">")

    assert last == f"</output {mark}>"
    assert mark not in text
    assert marked("output", text) == marked("output", text)


@pytest.mark.parametrize("text", ["two\nlines", 'a "quote"', "```repl\nfinal(1)\n```", "\u2028\u2029\r\0"])
def test_a_quoted_text_is_one_line_and_means_the_same(text: str) -> None:
    assert len(quoted(text).splitlines()) == 1
    assert json.loads(quoted(text)) == text


async def test_a_model_is_told_what_a_context_is_and_not_what_it_says() -> None:
    contexts = {
        "book": "abc\n" * 100_000,
        "data": bytes(1000),
        "rows": [{"n": n} for n in range(10_000)],
        "short": "all of it",
    }

    told = task("Read.", [await describe(name, content) for name, content in contexts.items()])

    assert len(told) < 2_500
    assert "book: str, 400,000 characters, 100,001 lines" in told
    assert "data: bytes, 1,000 bytes" in told
    assert "rows: list, 10,000 items" in told
    assert '"all of it"' in told


def test_an_output_is_told_with_what_was_left_out_and_the_names_that_changed() -> None:
    names = tuple(f"name{n}" for n in range(100))
    error = CellError("ValueError", "no", "Traceback ...\nValueError: no")
    result = CellResult(1, "head ... tail", 50_000, 42_000, "'value'", (), error, changed=names)

    told = of_cell(result, accepted=False)

    assert "head ... tail" in told and "'value'" in told and "ValueError: no" in told
    assert "50,000 characters were printed" in told
    assert "name14 and 85 more" in told and "name15" not in told


def test_only_the_root_is_told_what_is_left_of_the_tree() -> None:
    budget, spent = Budget(max_turns=5, max_subcalls=9, tokens=1000), Spent(calls=2, tokens=300)

    assert status(2, budget, spent, depth=0) == "[turn 2 of 5, 7 calls left, 700 tokens left]"
    assert status(2, budget, spent, depth=1) == "[turn 2 of 5]"
