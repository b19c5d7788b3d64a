"""A bound of tokens holds for whatever a text is cut into, and gets closer to what a server counts."""

from __future__ import annotations

import unicodedata

import pytest
from hypothesis import given
from hypothesis import strategies as st

from rlm_runtime.model import Message, Reply, Request, ToolSpec, ToolUse
from rlm_runtime.models.bounds import Counted, most_reply_tokens, most_tokens


def ask(*texts: str, tools: tuple[ToolSpec, ...] = ()) -> Request:
    return Request(tuple(Message("user", text) for text in texts), tools=tools)


@given(st.text())
def test_no_text_has_more_tokens_than_its_bound_even_if_each_byte_is_one(text: str) -> None:
    normal = unicodedata.normalize("NFKC", text).encode("utf-8", "replace")

    assert most_tokens(ask(text)) >= max(len(normal), len(text.encode("utf-8", "replace")))


@pytest.mark.parametrize("form", ["ﷺ", "㌖", "½"])
def test_a_text_that_gets_longer_when_it_is_normalised_is_counted_at_its_longer_form(form: str) -> None:
    longer = unicodedata.normalize("NFKC", form)

    assert most_tokens(ask(form * 100)) - most_tokens(ask("")) == 100 * len(longer.encode())


@given(st.lists(st.text(max_size=20), min_size=1, max_size=6), st.integers(1, 6))
def test_what_was_counted_for_a_beginning_counts_for_all_that_begin_with_it(
    texts: list[str], length: int
) -> None:
    counted, length = Counted(), min(length, len(texts))
    counted.learn(ask(*texts[:length]), "m", 7)

    new = most_tokens(ask(*texts)) - most_tokens(ask(*texts[:length]))
    assert counted.most_tokens(ask(*texts), "m") == 7 + new
    assert counted.most_tokens(ask(*texts), "another") == most_tokens(ask(*texts))


def test_another_message_tool_or_schema_makes_it_another_conversation() -> None:
    counted = Counted()
    counted.learn(ask("one", "two"), "m", 7)
    tool = ToolSpec("f", "", {})

    for other in (
        ask("one", "2"),
        ask("two"),
        ask("one", "two", tools=(tool,)),
        Request(ask("one", "two").messages, schema={}),
    ):
        assert counted.most_tokens(other, "m") == most_tokens(other)


def test_only_so_many_conversations_are_remembered() -> None:
    counted = Counted(most=2)
    for number in range(3):
        counted.learn(ask(str(number)), "m", 7)

    assert [counted.most_tokens(ask(str(number)), "m") == 7 for number in range(3)] == [False, True, True]


def test_calls_of_tools_count_for_what_is_asked_and_for_what_is_replied() -> None:
    uses = (ToolUse("t1", "f", {"code": "x" * 1000}),)

    assert most_tokens(Request((Message("assistant", "", uses),))) > 1000
    assert most_reply_tokens(Reply("", uses)) > 1000
