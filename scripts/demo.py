"""The main job at work: a project's session, step by step, as a caller of the library sees it."""

from __future__ import annotations

import tempfile
from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager
from pathlib import Path

import anyio

from rlm_sandboxes import Limits
from rlm_sandboxes.local import LocalSandbox
from rlm_sessions import Care, CellResult, Places, ProjectSession, identify, open_manager

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
    ("Some things cannot be kept", "lines = (line for line in words)"),
)
NEXT_DAY = (
    ("The server has ended and started again; the session is there", "f'{longest!r} of {len(words)} words'"),
    ("A loop in C that no interrupt reaches is killed, and its process with it", "sum(range(10**13))"),
    ("and the next cell runs in the state before it", "len(words)"),
)


async def main() -> None:
    """Tell the story in a project made for it."""
    with tempfile.TemporaryDirectory() as folder:
        project = Path(folder, "project")
        await anyio.Path(project).mkdir()
        await anyio.Path(project / "notes.txt").write_text("a notebook next to a person's own files")
        for story in (STORY, NEXT_DAY):
            async with session_of(project, Path(folder, "home")) as session:
                for title, code in story:
                    await step(session, title, code)
                print(f"isolation: {session.isolation}\n")


@asynccontextmanager
async def session_of(project: Path, home: Path) -> AsyncGenerator[ProjectSession, None]:
    """Start all that a server has, and end it."""
    care = Care(limits=Limits(wall_seconds=1.5, memory_bytes=256 * 1024 * 1024))
    async with LocalSandbox() as sandbox, open_manager(sandbox, Places(home), care=care) as manager:
        yield await manager.session(identify(named=str(project)))


async def step(session: ProjectSession, title: str, code: str) -> None:
    """Run one cell and print what came of it."""
    if title:
        print(f"# {title}")
    print("\n".join(f"{'>>>' if n == 0 else '...'} {line}" for n, line in enumerate(code.splitlines())))
    print(*shown(await session.run(code)), sep="\n", end="\n\n")


def shown(result: CellResult) -> list[str]:
    """Return what a person is shown of a result."""
    notes = [f"[{note}]" for note in result.notes]
    seconds = f"  ({result.duration_seconds * 1000:.1f} ms)"
    if result.error is not None:
        return [*notes, f"{result.error}{seconds}"]
    return [*notes, *([result.output] if result.output else []), f"{result.value or ''}{seconds}"]


if __name__ == "__main__":
    anyio.run(main)
