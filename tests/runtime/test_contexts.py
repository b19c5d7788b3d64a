"""Contexts arrive in a room as they were given, of whatever size."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import anyio
import pytest

from rlm_runtime.contexts import ContextFile, check_names, describe, put
from rlm_runtime.rooms import Rooms
from rlm_sandboxes.local import LocalSandbox
from tests.runtime.runs import LIMITS

ODD = "CR\r\nLF\n NUL\0 lone \ud800 surrogate \U0001f600 \u2028"


async def nobody(name: str, payload: Any) -> Any:
    raise ValueError(name)


@pytest.mark.parametrize(
    ("content", "same"),
    [
        (ODD, f"context == {ODD!a}"),
        (ODD * 200_000, f"context == {ODD!a} * 200_000"),
        (b"\0\xff" * 10_000_000, "context == b'\\0\\xff' * 10_000_000"),
        ([1, None, {"a": [True, 1.5, ODD]}], f"context == [1, None, {{'a': [True, 1.5, {ODD!a}]}}]"),
        (["abcdefgh"] * 600_000, "context == ['abcdefgh'] * 600_000"),
        (7, "context == 7"),
    ],
    ids=["text", "long text", "long bytes", "json", "long json", "number"],
)
async def test_a_context_arrives_exactly(sandbox: LocalSandbox, content: Any, same: str) -> None:
    with anyio.fail_after(60):
        async with Rooms(sandbox, limits=LIMITS).room(nobody) as session:
            await put(session, "context", content)
            result = await session.run(f"print({same}, [name for name in dir() if 'pieces' in name])")

    assert (result.output, result.error) == ("True []\n", None)


async def test_a_file_is_read_by_the_guest_and_its_neighbours_stay_out_of_sight(
    sandbox: LocalSandbox, tmp_path: Path
) -> None:
    file, secret = tmp_path / "book.txt", tmp_path / "secret.txt"
    await anyio.Path(file).write_bytes(b"caf\xc3\xa9 \xff\r\n")
    await anyio.Path(secret).write_text("secret")

    with anyio.fail_after(30):
        async with Rooms(sandbox, limits=LIMITS).room(nobody, readable=[file]) as session:
            await put(session, "book", ContextFile(file))
            await put(session, "raw", ContextFile(file, "bytes"))
            read = await session.run("print(ascii(book), raw)")
            missing = await session.run(f"open({str(secret)!r})")

    assert read.output == "'caf\\xe9 \\udcff\\r\\n' b'caf\\xc3\\xa9 \\xff\\r\\n'\n"
    assert missing.error is not None


async def test_a_file_is_described_without_reading_it_whole(tmp_path: Path) -> None:
    file = tmp_path / "book.txt"
    await anyio.Path(file).write_text("begin" + "x" * 1_000_000 + "end")

    told = await describe("book", ContextFile(file))

    assert (told.type, told.size) == ("str", "1,000,008 bytes as the file book.txt")
    assert told.head.startswith("begin") and told.tail.endswith("end") and len(told.head + told.tail) <= 600


async def test_what_is_no_context_is_refused_by_name() -> None:
    with pytest.raises(TypeError, match=r"'thing'.*neither text, bytes nor JSON"):
        await describe("thing", {1, 2})
    for name in ("two words", "class", "llm_query", "history", "1st"):
        with pytest.raises(ValueError, match="cannot be named"):
            check_names({name: ""})


async def test_rooms_share_nothing(sandbox: LocalSandbox) -> None:
    rooms = Rooms(sandbox, limits=LIMITS)
    with anyio.fail_after(30):
        async with rooms.room(nobody) as first, rooms.room(nobody) as second:
            await first.run("mine = 1; open('file', 'w').write('x')")
            seen = await second.run("import os\nprint('mine' in dir(), os.listdir('.'))")

    assert seen.output == "False []\n"
