"""Answers are found again by what was asked, by any process; what is damaged is not there; nothing grows for ever."""

from __future__ import annotations

import os
import stat
import sys
import time
from dataclasses import replace
from pathlib import Path

import anyio
import pytest
from hypothesis import given
from hypothesis import strategies as st

from rlm_runtime.cache import AnswerStore, Stored, key_of, key_of_facts
from rlm_runtime.model import Message, Request, ToolSpec

YES = Stored({"text": "yes"}, "yes", "model")
ASKED = Request((Message("user", "hello"),))
KEY = key_of(ASKED, "model")


def files_in(folder: Path) -> list[Path]:
    return sorted(path for path in folder.rglob("*") if path.is_file())


async def test_what_was_put_is_got_by_its_number(tmp_path: Path) -> None:
    store = AnswerStore(tmp_path / "answers")

    await store.put(KEY, 1, YES)

    assert await store.get(KEY, 1) == YES
    assert await store.get(KEY, 0) is None and await store.get(key_of_facts({}), 1) is None
    assert await AnswerStore(tmp_path / "answers").get(KEY, 1) == YES


async def test_any_text_and_any_value_come_back_as_they_were(tmp_path: Path) -> None:
    store = AnswerStore(tmp_path)
    odd = "\x00 CR\r\n \ud800 \U0001f600" + "x" * 1_000_000
    stored = Stored({"value": {"a": [1, None, 1.5, odd]}}, odd)

    await store.put(KEY, 0, stored)

    assert await store.get(KEY, 0) == stored


def test_everything_that_can_change_an_answer_changes_its_key() -> None:
    others = [
        replace(ASKED, messages=(Message("system", "hello"),)),
        replace(ASKED, messages=(Message("user", "hello"), Message("assistant", ""))),
        replace(ASKED, tools=(ToolSpec("a", "b", {}),)),
        replace(ASKED, max_tokens=5),
        replace(ASKED, temperature=0.0),
        replace(ASKED, schema={"type": "string"}),
        replace(ASKED, stop=("x",)),
    ]

    keys = {key_of(other, "model") for other in others} | {KEY, key_of(ASKED, "other")}

    assert len(keys) == len(others) + 2


@given(st.text(), st.text())
def test_texts_have_one_key_only_if_they_are_one(one: str, other: str) -> None:
    keys = [key_of(Request((Message("user", text),)), "model") for text in (one, other)]

    assert (keys[0] == keys[1]) == (one == other)


@pytest.mark.parametrize(
    "damage",
    [
        b"",
        b"{",
        b"[]",
        b"null",
        b'{"form":1}',
        b'{"form":2,"answer":{},"text":"","model":""}',
        b"\xff" * 9,
        b"[" * 100_000,
    ],
)
async def test_a_damaged_answer_is_not_there_and_can_be_put_again(tmp_path: Path, damage: bytes) -> None:
    store = AnswerStore(tmp_path)
    await store.put(KEY, 0, YES)
    files_in(tmp_path)[0].write_bytes(damage)

    found = await store.get(KEY, 0)
    await store.put(KEY, 0, YES)

    assert found is None and await store.get(KEY, 0) == YES


async def test_nobody_else_can_read_it_and_no_link_is_followed(tmp_path: Path) -> None:
    store = AnswerStore(tmp_path / "answers")
    await store.put(KEY, 0, YES)
    file = files_in(tmp_path)[0]
    modes = [stat.S_IMODE(path.stat().st_mode) for path in (tmp_path / "answers", file.parent, file)]
    elsewhere = file.rename(tmp_path / "elsewhere")
    file.symlink_to(elsewhere)

    found = await store.get(KEY, 0)

    assert modes == [0o700, 0o700, 0o600] and found is None


async def test_the_answers_used_longest_ago_go_first(tmp_path: Path) -> None:
    store = AnswerStore(tmp_path, max_answers=10)
    keys = [key_of_facts({"n": n}) for n in range(11)]
    for number, key in enumerate(keys[:10]):
        await store.put(key, 0, YES)
        os.utime(next(path for path in files_in(tmp_path) if path.name == f"{key}.0"), (number, number))
    await store.get(keys[0], 0)

    await store.put(keys[10], 0, YES)

    there = [number for number, key in enumerate(keys) if await store.get(key, 0) is not None]
    assert there == [0, 3, 4, 5, 6, 7, 8, 9, 10]


async def test_it_never_holds_more_bytes_than_it_may(tmp_path: Path) -> None:
    store = AnswerStore(tmp_path, max_bytes=10_000)
    large = Stored({"text": "x" * 600}, "x" * 600)

    for number in range(30):
        await store.put(key_of_facts({"n": number}), 0, large)
        assert sum(path.stat().st_size for path in files_in(tmp_path)) <= 10_000

    await store.put(KEY, 0, Stored({"text": "x" * 9000}, ""))
    assert await store.get(KEY, 0) is None
    assert await store.get(key_of_facts({"n": 29}), 0) == large


async def test_what_a_killed_process_left_half_written_is_cleared_away(tmp_path: Path) -> None:
    old, new = tmp_path / "ab" / ".tmp-old", tmp_path / "ab" / ".tmp-new"
    old.parent.mkdir()
    for path in (old, new):
        path.write_bytes(b"half")
    os.utime(old, (time.time() - 7200, time.time() - 7200))

    await AnswerStore(tmp_path).put(KEY, 0, YES)

    assert not old.exists() and new.exists()


async def test_a_folder_that_cannot_be_written_is_an_error_for_who_puts_and_none_for_who_gets(
    tmp_path: Path,
) -> None:
    (tmp_path / "answers").write_text("a file")
    store = AnswerStore(tmp_path / "answers")

    assert await store.get(KEY, 0) is None
    with pytest.raises(OSError, match="answers"):
        await store.put(KEY, 0, YES)


async def test_who_is_cancelled_leaves_the_others_served(tmp_path: Path) -> None:
    store, found = AnswerStore(tmp_path), list[Stored | None]()
    await store.put(KEY, 0, YES)

    async def get() -> None:
        found.append(await store.get(KEY, 0))

    with anyio.fail_after(5):
        async with anyio.create_task_group() as group:
            for turns in range(8):
                async with anyio.create_task_group() as cancelled:
                    for _ in range(3):
                        cancelled.start_soon(get)
                    for _ in range(turns):
                        await anyio.lowlevel.checkpoint()
                    group.start_soon(get)
                    cancelled.cancel_scope.cancel()
        await get()

    assert len(found) >= 9 and set(map(repr, found)) == {repr(YES)}


async def test_several_processes_share_one_folder(tmp_path: Path) -> None:
    code = f"""
import anyio, random
from pathlib import Path
from rlm_runtime.cache import AnswerStore, Stored, key_of_facts

async def main():
    store = AnswerStore(Path({str(tmp_path)!r}), max_answers=40)
    for n in random.choices(range(60), k=300):
        found = await store.get(key_of_facts({{"n": n}}), 0)
        assert found is None or found.text == str(n) * 500, found
        await store.put(key_of_facts({{"n": n}}), 0, Stored({{}}, str(n) * 500))

anyio.run(main)
"""
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)}
    failed: list[bytes] = []

    async def one() -> None:
        ended = await anyio.run_process([sys.executable, "-c", code], check=False, env=environment)
        failed.extend([ended.stderr] if ended.returncode else [])

    with anyio.fail_after(60):
        async with anyio.create_task_group() as group:
            for _ in range(3):
                group.start_soon(one)

    assert not failed
