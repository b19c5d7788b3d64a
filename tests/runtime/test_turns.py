"""Which part of a reply is code, and what becomes of the rest."""

from __future__ import annotations

import pytest

from rlm_runtime.turns import FENCED, NATIVE, Said, read, without_thought


def test_a_reply_without_a_block_is_words() -> None:
    assert read("It is 42.", FENCED) == Said(kept="It is 42.")


@pytest.mark.parametrize("name", ["repl", "python", "py", "Python", "REPL"])
@pytest.mark.parametrize("fence", ["```", "~~~", "`````"])
def test_a_block_is_code(name: str, fence: str) -> None:
    said = read(f"Let me look.\n{fence}{name}\nprint(1)\n{fence}\n", FENCED)

    assert (said.code, said.left_out, said.cut_off) == ("print(1)\n", False, False)


@pytest.mark.parametrize("name", ["", "json", "output", "bash", "text", "pythonic"])
def test_a_block_of_something_else_is_not(name: str) -> None:
    assert read(f"```{name}\nprint(1)\n```", FENCED).code == ""


def test_python_is_an_answer_where_code_has_a_tool_of_its_own() -> None:
    text = "Use this:\n```python\nprint(1)\n```"

    assert read(text, NATIVE) == Said(kept=text)
    assert read("```repl\nprint(1)\n```", NATIVE).code == "print(1)\n"


def test_what_was_invented_after_the_code_is_left_out() -> None:
    text = "Look.\n```repl\nprint(x)\n```\nOutput: 7\n```repl\nfinal(7)\n```\nFINAL(7)"

    said = read(text, FENCED)

    assert (said.code, said.left_out) == ("print(x)\n", True)
    assert said.kept == "Look.\n```repl\nprint(x)\n```"


def test_blocks_with_nothing_between_are_one_piece_of_code() -> None:
    said = read("```repl\na = 1\n```\n\n  \n```python\nprint(a)\n```\n\n", FENCED)

    assert (said.code, said.left_out) == ("a = 1\n\nprint(a)\n", False)


def test_an_output_in_a_fence_ends_the_code() -> None:
    said = read("```repl\na = 1\n```\n```output\n1\n```\n```repl\nfinal(a)\n```", FENCED)

    assert (said.code, said.left_out) == ("a = 1\n", True)


def test_a_fence_within_the_code_does_not_end_it() -> None:
    code = 'prompt = """\n```json\n{}\n```\n"""\nprint(prompt)\n'

    assert read(f"```repl\n{code}```\nDone.", FENCED).code == code


def test_code_that_is_no_python_ends_at_the_first_fence() -> None:
    said = read("```repl\nprint(\n```\nThen:\n```repl\nprint(1)\n```", FENCED)

    assert (said.code, said.left_out) == ("print(\n", True)


def test_code_within_a_block_of_something_else_is_not_run() -> None:
    assert read("````markdown\n```repl\nprint(1)\n```\n````", FENCED).code == ""


def test_a_thought_is_neither_code_nor_answer() -> None:
    assert without_thought("<think>\n```repl\nprint(1)\n```\n</think>\n\nIt is 7.") == "It is 7."
    assert without_thought("It is <think>.</think>") == "It is <think>.</think>"


def test_only_a_line_feed_begins_a_line() -> None:
    assert read("It says\u2028```repl\u2028final(1)\u2028```\x0c```repl\x0c", FENCED).code == ""


def test_a_block_without_an_end_is_run_unless_the_reply_was_cut_off() -> None:
    text = "```repl\nprint(1)"

    assert read(text, FENCED).code == "print(1)"
    assert read(text, FENCED, cut_off=True) == Said(kept=text, cut_off=True)


def test_whole_code_before_one_that_was_cut_off_is_run() -> None:
    said = read("```repl\na = 1\n```\n```repl\nprint(", FENCED, cut_off=True)

    assert (said.code, said.left_out) == ("a = 1\n", True)


def test_code_with_await_is_whole() -> None:
    code = 'x = await f("""\n```\n""")\n'

    assert read(f"```repl\n{code}```", FENCED).code == code


@pytest.mark.parametrize(
    "text", ["", "\n\n", "```", "```repl", "~~~\n```repl\n", "```repl\n```", "`" * 100_000]
)
def test_nothing_breaks_on_an_odd_reply(text: str) -> None:
    read(text, FENCED)
    read(text, FENCED, cut_off=True)
