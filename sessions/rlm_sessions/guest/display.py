"""What a value looks like: as text always, as a picture or Markdown where it can be.

The text is never much longer than its cap, and a long value is not written out
in full first: a list of ten million numbers costs no more than its beginning.
"""

from __future__ import annotations

import io
import reprlib
import sys
from typing import Any, Callable, NamedTuple

MAX_TEXT = 20_000
MAX_DISPLAYS = 20
MAX_DISPLAY_BYTES = 8 * 1024 * 1024
_MANY = 2_000
_ROWS, _COLUMNS = 20, 20


class Display(NamedTuple):
    """Something to look at."""

    mime: str
    data: bytes


def text_of(value: Any) -> str:
    """Return `value` as a REPL would show it, cut where it is long."""
    kind: type[Any] = type(value)
    if kind in (str, bytes, bytearray) and len(value) > MAX_TEXT:
        return _ends(repr(value[: MAX_TEXT // 2]), repr(value[-MAX_TEXT // 2 :]), len(value), "characters")
    if _is_frame(value):
        return _frame_text(value)
    if kind in (list, tuple, set, frozenset, dict) and len(value) > _MANY:
        return f"{_short_repr(value)}  # {len(value)} items"
    text = str.__str__(repr(value))  # a class may return a text that lies about itself
    if len(text) <= MAX_TEXT:
        return text
    return _ends(text[: MAX_TEXT // 2], text[-MAX_TEXT // 2 :], len(text), "characters of its text")


def _ends(head: str, tail: str, size: int, what: str) -> str:
    return f"{head}\n[... the middle is left out; it has {size} {what} ...]\n{tail}"


def _short_repr(value: Any) -> str:
    short = reprlib.Repr()
    short.maxlist = short.maxtuple = short.maxset = short.maxfrozenset = short.maxdict = 100
    short.maxstring = short.maxother = 500
    return short.repr(value)


def _is_frame(value: Any) -> bool:
    module = type(value).__module__.partition(".")[0]
    return module in ("pandas", "polars") and type(value).__name__ in ("DataFrame", "Series")


def _frame_text(value: Any) -> str:
    if type(value).__module__.startswith("polars"):
        return repr(value)[:MAX_TEXT]
    options = (
        {"max_rows": _ROWS} if type(value).__name__ == "Series" else {"max_rows": _ROWS, "max_cols": _COLUMNS}
    )
    text = str(value.to_string(**options))
    shape = " x ".join(str(n) for n in value.shape)
    what = "rows x columns" if len(value.shape) == 2 else "rows"
    return f"{text[:MAX_TEXT]}\n[{shape} {what}]"


def picture_of(value: Any) -> Display | None:
    """Return the picture or Markdown that `value` offers of itself, if any."""
    for mime, make in _pictures(value):
        data = make()
        if isinstance(data, str):
            data = data.encode("utf-8", "backslashreplace")
        if isinstance(data, (bytes, bytearray)) and len(data) <= MAX_DISPLAY_BYTES:
            return Display(mime, bytes(data))
    return None


def _pictures(value: Any) -> list[tuple[str, Callable[[], Any]]]:
    kind: type[Any] = type(value)
    if isinstance(value, type) or _is_frame(value):
        return []
    found: list[tuple[str, Callable[[], Any]]] = []
    if _is_figure(value):
        found.append(("image/png", lambda: png_of_figure(value)))
    for name, mime in (
        ("_repr_png_", "image/png"),
        ("_repr_jpeg_", "image/jpeg"),
        ("_repr_markdown_", "text/markdown"),
    ):
        method = getattr(kind, name, None)
        if callable(method):
            found.append((mime, lambda method=method: method(value)))  # type: ignore[misc]
    return found


def _is_figure(value: Any) -> bool:
    kind: type[Any] = type(value)
    return kind.__module__ == "matplotlib.figure" and kind.__name__ == "Figure"


def shown(value: Any) -> None:
    """Close a figure that was shown, so that it is not shown once more at the end of its cell."""
    pyplot = sys.modules.get("matplotlib.pyplot")
    if pyplot is not None and _is_figure(value):
        pyplot.close(value)


def png_of_figure(figure: Any) -> bytes:
    """Return a matplotlib figure as PNG."""
    buffer = io.BytesIO()
    figure.savefig(buffer, format="png", bbox_inches="tight")
    return buffer.getvalue()


def open_figures() -> list[Display]:
    """Return the matplotlib figures that are open, as PNG, and close them."""
    pyplot = sys.modules.get("matplotlib.pyplot")
    if pyplot is None:
        return []
    numbers = pyplot.get_fignums()
    try:
        figures = [pyplot.figure(number) for number in numbers[:MAX_DISPLAYS]]
        return [Display("image/png", png_of_figure(figure)) for figure in figures]
    finally:
        pyplot.close("all")
