"""Trajectories are removed when they are too many or too old, by whoever asks; and never what somebody needs."""

from __future__ import annotations

import fcntl
import os
import time
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import anyio
import anyio.to_thread
import pytest

from rlm_runtime.log import is_written, lock, open_log
from rlm_runtime.pruning import ALWAYS_KEPT, Bound, Removed, beyond, keep_within, kept_in, remove, sweep
from rlm_runtime.trajectory import is_running, read, trajectories

RUN: dict[str, Any] = {"call_id": "0", "parent_call_id": "", "depth": 0}
DAY = 24 * 3600.0


async def _written(folder: Path, *, days_ago: float = 0, context: str = "", end: bool = True) -> str:
    """Write a trajectory of then and return its id."""
    async with open_log(folder) as log:
        contexts = {"context": await log.keep(context)} if context else {}
        await log.write("run_started", **RUN, prompt="Count.", model="m", contexts=contexts)
        if end:
            await log.write("run_ended", **RUN, response="3", finish="answered")
    await anyio.to_thread.run_sync(_age, [folder / f"{log.trajectory_id}.jsonl"], days_ago)
    await anyio.to_thread.run_sync(_age, (folder / "blobs").glob("*"), 1)
    return log.trajectory_id


def _age(paths: Iterable[Path], days: float) -> None:
    for path in paths:
        then = time.time() - days * DAY
        os.utime(path, (then, then))


def _ids(folder: Path) -> set[str]:
    return {path.stem for path in folder.glob("*.jsonl")}


def _pruned(folder: Path, **bound: Any) -> Removed:
    return remove(folder, beyond(folder, Bound(**bound)))


async def _do(function: Any, *arguments: Any, **options: Any) -> Any:
    with anyio.fail_after(30):
        return await anyio.to_thread.run_sync(lambda: function(*arguments, **options))


async def test_what_was_not_written_to_for_so_many_days_goes(tmp_path: Path) -> None:
    old = await _written(tmp_path, days_ago=31)
    new = await _written(tmp_path, days_ago=29)

    assert (await _do(_pruned, tmp_path, days=30)).ids == (old,)
    assert _ids(tmp_path) == {new}


async def test_beyond_so_many_bytes_the_oldest_go_with_their_contexts(tmp_path: Path) -> None:
    ids = [await _written(tmp_path, context=f"{n}" * 10_000) for n in range(5)]

    removed = await _do(_pruned, tmp_path, most_bytes=25_000)

    assert (removed.ids, removed.contexts) == (tuple(ids[:3]), 3)
    assert removed.freed_bytes > 30_000
    assert _ids(tmp_path) == set(ids[3:]) and len([*(tmp_path / "blobs").iterdir()]) == 2


async def test_a_context_stays_as_long_as_a_trajectory_names_it(tmp_path: Path) -> None:
    first, second = [await _written(tmp_path, context="shared" * 1000) for _ in range(2)]

    removed = await _do(_pruned, tmp_path, most_bytes=7_000)
    there = await _do(read, tmp_path / f"{second}.jsonl")

    assert (removed.ids, removed.contexts) == ((first,), 0)
    ref = there.started["contexts"]["context"]["ref"]
    assert await _do(there.text, ref) == "shared" * 1000
    assert (await _do(_pruned, tmp_path, most_bytes=0)).contexts == 1


async def test_what_is_being_written_is_never_removed_nor_its_context(tmp_path: Path) -> None:
    async with open_log(tmp_path) as log:
        contexts = {"context": await log.keep("mine" * 1000)}
        begun = await _do(_pruned, tmp_path, most_bytes=0, days=0)
        await log.write("run_started", **RUN, prompt="Count.", contexts=contexts)
        _age([tmp_path / f"{log.trajectory_id}.jsonl", *(tmp_path / "blobs").iterdir()], 1000)
        going_on = await _do(_pruned, tmp_path, most_bytes=0, days=0)
        named = await _do(lambda: remove(tmp_path, kept_in(tmp_path)))

    assert (begun, going_on, named) == (Removed(), Removed(), Removed())
    assert (await _do(_pruned, tmp_path, most_bytes=0)).ids == (log.trajectory_id,)
    assert [*(tmp_path / "blobs").iterdir()] == []


async def test_a_run_that_was_cut_off_is_removed_like_one_that_ended(tmp_path: Path) -> None:
    cut = await _written(tmp_path, days_ago=40, end=False)

    assert (await _do(_pruned, tmp_path, days=30)).ids == (cut,)


async def test_what_is_no_trajectory_of_ours_stays(tmp_path: Path) -> None:
    strangers = {
        "data.jsonl": b'{"a": 1}\n',
        "20200101T000000000000-0123456789abcdef.jsonl": b'{"schema":99,"trajectory_id":"x","n":1}\n',
        "copy.jsonl": b'{"schema":1,"trajectory_id":"another","n":1}\n',
        "empty.jsonl": b"",
    }
    for name, data in strangers.items():
        (tmp_path / name).write_bytes(data)
    _age([tmp_path / name for name in strangers], 1000)

    assert await _do(_pruned, tmp_path, days=1, most_bytes=0) == Removed()
    assert all((tmp_path / name).exists() for name in strangers)


async def test_what_a_killed_writer_left_goes_after_an_hour(tmp_path: Path) -> None:
    await _written(tmp_path, context="kept" * 100)
    for name in (".tmp-old", ".tmp-new", "0" * 64):
        (tmp_path / "blobs" / name).write_bytes(b"1234")
    _age([tmp_path / "blobs" / ".tmp-old", tmp_path / "blobs" / ("0" * 64)], 1)

    assert await _do(sweep, tmp_path) == (2, 8)
    assert len([*(tmp_path / "blobs").iterdir()]) == 2


async def test_a_context_of_a_form_that_is_not_known_yet_stays(tmp_path: Path) -> None:
    id_ = await _written(tmp_path, context="kept" * 100)
    path = tmp_path / f"{id_}.jsonl"
    path.write_bytes(path.read_bytes().replace(b'"schema":1', b'"schema":9'))

    assert await _do(_pruned, tmp_path, days=0, most_bytes=0) == Removed()


async def test_two_at_once_remove_each_thing_once(tmp_path: Path) -> None:
    ids = [await _written(tmp_path, context=f"{n}" * 1000) for n in range(20)]
    results = list[Removed]()

    async def prune() -> None:
        results.append(await _do(_pruned, tmp_path, most_bytes=0))

    async with anyio.create_task_group() as tasks:
        for _ in range(4):
            tasks.start_soon(prune)
    await _do(sweep, tmp_path)

    assert sorted(id_ for each in results for id_ in each.ids) == ids
    assert [*(tmp_path / "blobs").iterdir()] == []


async def test_by_itself_it_is_done_once_an_hour_and_the_newest_stay(tmp_path: Path) -> None:
    old = [await _written(tmp_path, days_ago=1000) for _ in range(ALWAYS_KEPT + 2)]
    bound = Bound(days=30, most_bytes=10**9)

    first = await _do(keep_within, tmp_path, bound)
    late = await _written(tmp_path, days_ago=1000)
    again = await _do(keep_within, tmp_path, bound)
    _age([tmp_path / ".swept"], 1)
    later = await _do(keep_within, tmp_path, bound)

    assert (first.ids, again, later.ids) == (tuple(old[:2]), Removed(), (old[2],))
    assert late in _ids(tmp_path)


async def test_much_that_comes_at_once_is_not_waited_with(tmp_path: Path) -> None:
    bound = Bound(days=30, most_bytes=100_000)
    ids = list[str]()
    for n in range(6):
        async with open_log(tmp_path, bound=bound) as log:
            contexts = {"context": await log.keep(f"{n}" * 40_000)}
            await log.write("run_started", **RUN, prompt="Count.", contexts=contexts)
        ids.append(log.trajectory_id)
        _age((tmp_path / "blobs").iterdir(), 0.001)

    assert _ids(tmp_path) == set(ids[-2:])
    assert sum(path.stat().st_size for path in (tmp_path / "blobs").iterdir()) == 80_000


async def test_a_writer_gets_its_lock_also_from_somebody_who_just_looks(tmp_path: Path) -> None:
    path = tmp_path / "log"
    path.touch()
    writer, looker, third = (os.open(path, os.O_RDWR) for _ in range(3))
    try:
        fcntl.flock(looker, fcntl.LOCK_SH)
        with anyio.fail_after(30):
            async with anyio.create_task_group() as tasks:
                tasks.start_soon(anyio.to_thread.run_sync, lock, writer)
                await anyio.wait_all_tasks_blocked()
                await anyio.to_thread.run_sync(fcntl.flock, looker, fcntl.LOCK_UN)

        assert is_written(third)
    finally:
        for file in (writer, looker, third):
            os.close(file)


async def test_whether_one_is_running_is_told_by_its_lock(tmp_path: Path) -> None:
    async with open_log(tmp_path) as log:
        during = await _do(is_running, tmp_path / f"{log.trajectory_id}.jsonl")

    assert during and not await _do(is_running, tmp_path / f"{log.trajectory_id}.jsonl")


@pytest.mark.parametrize("value", [["x" * 150] * 1000, "x" * 200_000])
async def test_a_run_with_a_long_end_is_listed_as_ended(tmp_path: Path, value: Any) -> None:
    async with open_log(tmp_path) as log:
        await log.write("run_started", **RUN, prompt="Count.")
        await log.write("run_ended", **RUN, response="r", value=value, finish="answered")

    (found,) = await _do(lambda: [*trajectories(tmp_path)])
    assert (found.state, found.finish) == ("ended", "answered")


async def test_the_bytes_are_bounded_however_few_the_runs_are(tmp_path: Path) -> None:
    ids = [await _written(tmp_path, context=f"{n}" * 30_000) for n in range(5)]

    removed = await _do(keep_within, tmp_path, Bound(days=30, most_bytes=100_000))

    assert (removed.ids, removed.contexts) == (tuple(ids[:2]), 2)
