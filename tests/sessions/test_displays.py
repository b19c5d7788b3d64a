"""Results that are more than text."""

from __future__ import annotations

import io

import pytest
from PIL import Image

from rlm_sandboxes.local import LocalSandbox
from rlm_sessions import Session, open_session


async def test_figures_are_shown_without_being_asked_for(session: Session) -> None:
    result = await session.run("import matplotlib.pyplot as plt\nplt.plot([1, 2, 3])\nplt.show()\n1")

    assert result.error is None and result.output == ""
    assert [shown.mime for shown in result.displays] == ["image/png"]
    assert Image.open(io.BytesIO(result.displays[0].data)).size[0] > 200


@pytest.mark.parametrize("last", ["figure", "display(figure)"])
async def test_a_figure_that_is_the_value_of_its_cell_is_shown_once(session: Session, last: str) -> None:
    result = await session.run(f"import matplotlib.pyplot as plt\nfigure, _ = plt.subplots()\n{last}")
    later = await session.run("figure")

    assert [shown.mime for shown in result.displays] == ["image/png"]
    assert [shown.mime for shown in later.displays] == ["image/png"]


async def test_figures_are_shown_once_and_also_when_the_cell_fails(session: Session) -> None:
    failed = await session.run("import matplotlib.pyplot as plt\nplt.plot([1])\nplt.figure()\n1 / 0")
    after = await session.run("1")

    assert len(failed.displays) == 2 and after.displays == ()


async def test_frames_are_compact_tables_with_their_shape(session: Session) -> None:
    pandas = await session.run("import pandas as pd\npd.DataFrame({'number': range(1000), 'name': 'x'})")
    series = await session.run("pd.Series(range(1000))")
    polars = await session.run("import polars as pl\npl.DataFrame({'number': range(1000)})")

    for result, shape in ((pandas, "1000 x 2"), (series, "1000 rows"), (polars, "(1_000, 1)")):
        assert result.value is not None, result.error
        assert shape in result.value
        assert len(result.value.splitlines()) < 30


async def test_pictures_and_markdown_are_shown_as_such(session: Session) -> None:
    image = await session.run("from PIL import Image\nImage.new('RGB', (3, 4), 'red')")
    code = "class Note:\n    def _repr_markdown_(self): return '# Title'\nNote()"
    note = await session.run(code)

    assert [shown.mime for shown in image.displays] == ["image/png"]
    assert Image.open(io.BytesIO(image.displays[0].data)).size == (3, 4)
    assert [(shown.mime, shown.data) for shown in note.displays] == [("text/markdown", b"# Title")]


async def test_display_shows_at_once_what_is_given(session: Session) -> None:
    result = await session.run(
        "from PIL import Image\nfor n in range(3): display(Image.new('L', (n + 1, 1)))\ndisplay([1])"
    )

    assert len(result.displays) == 3 and result.output == "[1]\n"


async def test_pictures_are_capped_in_number(session: Session) -> None:
    result = await session.run("from PIL import Image\nfor _ in range(100): display(Image.new('L', (1, 1)))")

    assert len(result.displays) == 20


async def test_a_picture_that_is_too_large_is_left_out(session: Session) -> None:
    code = "class Huge:\n    def _repr_png_(self): return bytes(9_000_000)\nHuge()"

    result = await session.run(code)

    assert result.displays == () and result.value is not None


async def test_a_long_value_shows_both_ends(sandbox: LocalSandbox) -> None:
    async with open_session(sandbox) as session:
        text = await session.run("'begin' + 'x' * 10_000_000 + 'end'")
        numbers = await session.run("list(range(1_000_000))")

    assert text.value is not None and len(text.value) < 25_000
    assert (
        text.value.startswith("'begin")
        and text.value.endswith("end'")
        and "10000008 characters" in text.value
    )
    assert (
        numbers.value is not None
        and numbers.value.startswith("[0, 1, 2")
        and "1000000 items" in numbers.value
    )


async def test_a_value_that_cannot_be_shown_is_an_error_of_the_cell(session: Session) -> None:
    result = await session.run("class Bad:\n    def __repr__(self): raise ValueError('no')\nbad = Bad()\nbad")

    assert result.error is not None and result.error.name == "ValueError"
    assert (await session.run("type(bad).__name__")).value == "'Bad'"


async def test_a_figure_that_is_closed_after_it_was_shown_was_shown(session: Session) -> None:
    code = "import matplotlib.pyplot as plt\nplt.plot([1, 2])\nplt.show()\nplt.close('all')"
    result = await session.run(code)

    assert result.error is None, result.error
    assert [shown.mime for shown in result.displays] == ["image/png"]


async def test_each_show_shows_what_was_drawn_since_the_last_one(session: Session) -> None:
    code = (
        "import matplotlib.pyplot as plt\nfor n in (1, 2):\n    plt.plot([n])\n    plt.show()\nplt.plot([3])"
    )
    results = [await session.run(code), await session.run("plt.plot([4]); plt.show()")]

    assert [len(result.displays) for result in results] == [3, 1]
    assert all(result.output == "" for result in results)
