"""Draws the picture in the README: the main job at work, as `scripts/run` prints it.

    scripts/run > /tmp/story.txt && python scripts/picture.py /tmp/story.txt docs/at-work.svg

What is drawn is what was printed; only some steps are left out.
"""

from __future__ import annotations

import argparse
import base64
import html
import re
from collections.abc import Sequence
from pathlib import Path

SHOWN = (
    "A file of 10 MB",
    "Code looks at it",
    "A plot comes back",
    "An endless loop",
    "The server has ended",
)
COLUMNS, LINE, SIZE, MARGIN = 104, 17, 13, 18
PLOT = (350, 150)
COLOURS = {"#": "#7ee787", "->": "#79c0ff", "   |": "#c9d1d9", "<-": "#e3b341"}


def main() -> None:
    """Draw it."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("story", type=Path)
    parser.add_argument("picture", type=Path)
    asked = parser.parse_args()
    steps = asked.story.read_text().split("\n\n")
    chosen = [step for step in steps if step.startswith(tuple(f"# {title}" for title in SHOWN))]
    asked.picture.write_text(_drawn("\n\n".join(chosen).splitlines()))


def _drawn(lines: Sequence[str]) -> str:
    parts: list[str] = []
    y = MARGIN + SIZE
    for line in lines:
        saved = re.search(r"\[image/png, saved as (.*)\]", line)
        if saved:
            parts.append(_image(Path(saved[1]), y))
            y += PLOT[1] + LINE // 2
            continue
        colour = next((colour for start, colour in COLOURS.items() if line.startswith(start)), "#c9d1d9")
        parts.append(f'<text x="{MARGIN}" y="{y}" fill="{colour}">{html.escape(_cut(line))}</text>')
        y += LINE
    width = MARGIN * 2 + int(COLUMNS * SIZE * 0.602)
    return (
        f'<svg xmlns="http://www.w3.org/2000/svg" width="{width}" height="{y + MARGIN - SIZE}" '
        f'font-family="ui-monospace, Menlo, Consolas, monospace" font-size="{SIZE}" xml:space="preserve">\n'
        f'<rect width="100%" height="100%" rx="8" fill="#0d1117"/>\n' + "\n".join(parts) + "\n</svg>\n"
    )


def _image(path: Path, y: int) -> str:
    data = base64.b64encode(path.read_bytes()).decode()
    return (
        f'<image x="{MARGIN + 24}" y="{y - SIZE}" width="{PLOT[0]}" height="{PLOT[1]}" '
        f'href="data:image/png;base64,{data}"/>'
    )


def _cut(line: str) -> str:
    return line if len(line) <= COLUMNS else f"{line[: COLUMNS - 3]}..."


if __name__ == "__main__":
    main()
