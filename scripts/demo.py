"""The main job at work: a jailed session, step by step, as a caller of the library sees it."""

from __future__ import annotations

import tempfile
from pathlib import Path

import anyio

from rlm_sandboxes import Limits
from rlm_sandboxes.local import LocalSandbox
from rlm_sessions import CellResult, Session, open_session

STORY = (
    ("A cell runs, and its last expression is shown", "words = open('notes.txt').read().split()\nlen(words)"),
    ("A variable lives on, also after an error", "longest = max(words, key=len)\n1 / 0"),
    ("", "longest"),
    (
        "Functions, classes and top-level await: ordinary Python",
        "import asyncio\nawait asyncio.sleep(0.1, 'awaited')",
    ),
    ("An endless loop is stopped", "while True:\n    pass"),
    ("and the session lives, with its variables", "longest"),
    ("Files outside the project are out of reach", "open('/etc/hostname').read()"),
    ("The network is out of reach", "import urllib.request\nurllib.request.urlopen('http://127.0.0.1')"),
    ("So is more memory than it may have", "too_much = bytearray(10**10)"),
    ("It is still there", "f'{longest!r} of {len(words)} words'"),
)


async def main() -> None:
    """Tell the story in a project made for it."""
    limits = Limits(wall_seconds=1.5, memory_bytes=256 * 1024 * 1024)
    with tempfile.TemporaryDirectory() as folder:
        project = Path(folder)
        await anyio.Path(project / "notes.txt").write_text("a notebook next to a person's own files")
        async with (
            LocalSandbox() as sandbox,
            open_session(sandbox, project=project, limits=limits) as session,
        ):
            print(f"isolation: {session.isolation}\n")
            for title, code in STORY:
                await step(session, title, code)


async def step(session: Session, title: str, code: str) -> None:
    """Run one cell and print what came of it."""
    if title:
        print(f"# {title}")
    print("\n".join(f"{'>>>' if n == 0 else '...'} {line}" for n, line in enumerate(code.splitlines())))
    print(*shown(await session.run(code)), sep="\n", end="\n\n")


def shown(result: CellResult) -> list[str]:
    """Return what a person is shown of a result."""
    seconds = f"  ({result.duration_seconds * 1000:.1f} ms)"
    if result.error is not None:
        return [f"{result.error}{seconds}"]
    return [*([result.output] if result.output else []), f"{result.value or ''}{seconds}"]


if __name__ == "__main__":
    anyio.run(main)
