"""Events are the same however their bytes are cut."""

from __future__ import annotations

from itertools import pairwise

from hypothesis import given
from hypothesis import strategies as st

from rlm_runtime.models.sse import Events

_DATA = st.text(st.characters(codec="utf-8", exclude_characters="\r\n"), max_size=12)


def heard(*chunks: bytes) -> list[str]:
    events = Events()
    return [data for chunk in chunks for data in events.feed(chunk)] + events.end()


@given(st.lists(_DATA, max_size=5), st.sampled_from(["\n", "\r\n"]), st.sets(st.integers(0, 200)))
def test_what_is_cut_anywhere_adds_up_to_the_same_events(said: list[str], end: str, cuts: set[int]) -> None:
    stream = "".join(f": ping{end}event: x{end}data: {data}{end}{end}" for data in said).encode()
    places = sorted({0, len(stream), *(cut for cut in cuts if cut < len(stream))})

    assert heard(*(stream[begin:stop] for begin, stop in pairwise(places))) == said


def test_data_may_have_several_lines_and_no_space_before_it() -> None:
    assert heard(b"data: one\ndata:two\n\n") == ["one\ntwo"]


def test_the_last_event_counts_also_if_no_empty_line_follows() -> None:
    assert heard(b"data: one") == ["one"]


def test_lines_that_say_nothing_of_data_are_no_events() -> None:
    assert heard(b": comment\n\nid: 7\nretry: 3\n\n\n") == []
