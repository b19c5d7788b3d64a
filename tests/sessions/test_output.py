"""Long output: both ends stay, the middle is counted, and little is held."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from rlm_sessions import shorten
from rlm_sessions.output import Output

parts = st.lists(st.text(max_size=60), max_size=30)
keeps = st.integers(2, 80)


def gathered(texts: list[str], keep: int) -> Output:
    output = Output(keep)
    for text in texts:
        output.add(text)
    return output


@given(parts, keeps)
def test_it_does_not_matter_how_text_arrives(texts: list[str], keep: int) -> None:
    assert gathered(texts, keep).text() == shorten("".join(texts), keep=keep)


@given(parts, keeps)
def test_short_text_is_kept_whole_and_of_long_text_both_ends(texts: list[str], keep: int) -> None:
    whole, output = "".join(texts), gathered(texts, keep)

    if len(whole) <= keep:
        assert (output.text(), output.left_out) == (whole, 0)
    else:
        assert output.text().startswith(whole[: keep - keep // 2] + "\n[... ")
        assert output.text().endswith(" ...]\n" + whole[-(keep // 2) :])
        assert output.left_out == len(whole) - keep


@given(parts, keeps)
def test_everything_is_counted(texts: list[str], keep: int) -> None:
    assert gathered(texts, keep).characters == sum(map(len, texts))


@given(st.lists(st.integers(0, 300), max_size=40), keeps)
def test_no_more_is_held_than_asked_for(sizes: list[int], keep: int) -> None:
    output = gathered(["x" * size for size in sizes], keep)

    head, tail = vars(output)["_head"], vars(output)["_tail"]
    assert sum(map(len, head)) + sum(map(len, tail)) <= 2 * keep
    assert len(head) <= keep
