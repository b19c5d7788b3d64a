"""What happened is written once, as it happens, for those who may read it, and can be read whatever became of it."""

from __future__ import annotations

import json
import os
import signal
import stat
import subprocess
import sys
from pathlib import Path
from typing import Any

import anyio
import anyio.to_thread
import pytest

from rlm_runtime.blobs import text_of
from rlm_runtime.errors import TrajectoryError
from rlm_runtime.events import Event
from rlm_runtime.log import Log
from rlm_runtime.trajectory import Trajectory, find, new_id, open_log, read, trajectories

RUN: dict[str, Any] = {"call_id": "0", "parent_call_id": "", "depth": 0}
LONG = "a long text, äöü \ud800 and \U0001f600. " * 20


async def _read(path: Path) -> Trajectory:
    return await anyio.to_thread.run_sync(read, path)


async def _wholes(found: Trajectory) -> list[Event]:
    return await anyio.to_thread.run_sync(lambda: [found.whole(event) for event in found.events])


def _files(folder: Path) -> list[Path]:
    return [path for path in folder.rglob("*") if path.is_file()]


async def _written(folder: Path, *, end: bool = True, **facts: Any) -> Path:
    async with open_log(folder) as log:
        await log.write("run_started", **RUN, prompt="Count.", model="m", **facts)
        if end:
            await log.write("run_ended", **RUN, response="3", finish="answered", cost_usd=0.5)
    return folder / f"{log.trajectory_id}.jsonl"


# ---- writing


async def test_an_event_is_in_the_file_when_write_returns(tmp_path: Path) -> None:
    async with open_log(tmp_path) as log:
        await log.write("note", **RUN, note="begun")

        lines = (tmp_path / f"{log.trajectory_id}.jsonl").read_bytes().splitlines()
    event = json.loads(lines[0])

    assert (event["n"], event["kind"], event["note"], event["schema"]) == (1, "note", "begun", 1)
    assert event["trajectory_id"] == log.trajectory_id and event["time"].endswith("Z")


async def test_a_killed_process_loses_nothing_that_was_answered(tmp_path: Path) -> None:
    program = (
        "import anyio, os, signal, sys\n"
        "from pathlib import Path\n"
        "from rlm_runtime.trajectory import open_log\n"
        "async def main():\n"
        "    async with open_log(Path(sys.argv[1]), 'killed') as log:\n"
        "        async with anyio.create_task_group() as tasks:\n"
        "            for number in range(50):\n"
        "                tasks.start_soon(one, log, number)\n"
        "        os.kill(os.getpid(), signal.SIGKILL)\n"
        "async def one(log, number):\n"
        "    await log.write('note', call_id='0', parent_call_id='', depth=0, text='x' * 300 + str(number))\n"
        "anyio.run(main)\n"
    )

    done = await anyio.to_thread.run_sync(
        lambda: subprocess.run([sys.executable, "-c", program, str(tmp_path)], check=False, timeout=60)
    )
    found = await _read(tmp_path / "killed.jsonl")
    wholes = await _wholes(found)

    assert done.returncode == -signal.SIGKILL
    assert {event["text"][300:] for event in wholes} == {str(n) for n in range(50)}
    assert (found.state, found.torn, found.damaged) == ("cut", False, 0)


async def test_events_written_at_once_are_numbered_in_the_order_of_their_lines(tmp_path: Path) -> None:
    heard: list[int] = []
    async with open_log(tmp_path) as log:
        log.listeners.append(lambda event: heard.append(event["n"]))
        async with anyio.create_task_group() as tasks:
            for number in range(200):
                tasks.start_soon(_note, log, number)

    found = await _read(tmp_path / f"{log.trajectory_id}.jsonl")
    assert [event["n"] for event in found.events] == heard == list(range(1, 201))
    assert sorted(event["number"] for event in found.events) == list(range(200))


async def _note(log: Log, number: int) -> None:
    await log.write("note", **RUN, number=number)


async def test_an_event_of_a_caller_that_is_cancelled_is_not_lost(tmp_path: Path) -> None:
    async with open_log(tmp_path) as log:
        with anyio.CancelScope() as scope:
            scope.cancel()
            await log.write("note", **RUN, note="cancelled")

    assert [event["note"] for event in (await _read(tmp_path / f"{log.trajectory_id}.jsonl")).events] == [
        "cancelled"
    ]


async def test_calls_are_named_after_their_parents_in_order() -> None:
    log = Log.nowhere()

    assert [log.call_id("0"), log.call_id("0"), log.call_id("0.2"), log.call_id("0")] == [
        "0.1",
        "0.2",
        "0.2.1",
        "0.3",
    ]


@pytest.mark.parametrize("id_", ["../x", "a/b", "", ".", "..", "a.b", "-x", "a\0b", "x" * 101, "a\n"])
async def test_an_id_that_is_no_plain_name_is_refused(tmp_path: Path, id_: str) -> None:
    with pytest.raises(TrajectoryError, match="is no id"):
        async with open_log(tmp_path / "logs", id_):
            pass

    assert not (tmp_path / "logs").exists()


async def test_an_id_is_given_once(tmp_path: Path) -> None:
    async with open_log(tmp_path, "mine"):
        with pytest.raises(TrajectoryError, match="already"):
            async with open_log(tmp_path, "mine"):
                pass


async def test_ids_sort_by_time_and_cannot_be_guessed() -> None:
    ids = [new_id() for _ in range(50)]

    assert [id_[:21] for id_ in ids] == sorted(id_[:21] for id_ in ids)
    assert len({id_[22:] for id_ in ids}) == 50 and all(len(id_) == 38 for id_ in ids)


async def test_logs_are_for_this_account_alone(tmp_path: Path) -> None:
    async with open_log(tmp_path / "logs") as log:
        await log.keep("a context")

    places = [tmp_path / "logs", tmp_path / "logs" / "blobs"]
    files = [tmp_path / "logs" / f"{log.trajectory_id}.jsonl", *places[1].iterdir()]
    assert [stat.S_IMODE(each.stat().st_mode) for each in places] == [0o700, 0o700]
    assert [stat.S_IMODE(each.stat().st_mode) for each in files] == [0o600, 0o600]


async def test_a_listener_that_fails_ends_neither_the_run_nor_what_others_hear() -> None:
    log, heard = Log.nowhere(), list[Event]()

    def fail(event: Event) -> None:
        raise RuntimeError("the terminal is gone")

    log.listeners += [fail, heard.append]
    await log.write("note", **RUN, note=LONG)
    await log.write("note", **RUN, note="second")

    assert [event["note"] for event in heard] == [LONG, "second"]


async def test_a_writer_that_is_cancelled_leaves_nothing_untold() -> None:
    log, heard = Log.nowhere(), list[str]()
    both_wait, told = anyio.Event(), anyio.Event()

    async def listen(event: Event) -> None:
        heard.append(event["note"])
        if event["note"] == "first":
            await both_wait.wait()  # and are written together
        if event["note"] == "second":
            told.set()
            await anyio.sleep_forever()

    async def write(note: str, scope: anyio.CancelScope) -> None:
        with scope:
            await log.write("note", **RUN, note=note)

    log.listeners.append(listen)
    scopes = {note: anyio.CancelScope() for note in ("first", "second", "third")}
    with anyio.fail_after(10):
        async with anyio.create_task_group() as tasks:
            for note, scope in scopes.items():
                tasks.start_soon(write, note, scope)
                await anyio.wait_all_tasks_blocked()
            both_wait.set()
            await told.wait()
            scopes["second"].cancel()

    assert heard == ["first", "second", "third"]


async def test_a_name_that_every_event_has_is_refused() -> None:
    with pytest.raises(TypeError, match="'schema' has a meaning of its own"):
        await Log.nowhere().write("note", **RUN, schema={})


async def test_a_context_that_cannot_be_kept_is_told_of_and_ends_nothing(tmp_path: Path) -> None:
    await anyio.Path(tmp_path / "blobs").write_text("no folder")
    async with open_log(tmp_path, "t") as log:
        facts = await log.keep("x" * 50_000)

    assert facts == {"type": "text", "size": 50_000, "ref": ""}
    assert "could not be kept" in log.problem


# ---- secrets


async def test_secrets_stand_nowhere(tmp_path: Path) -> None:
    secret = "sk-very-secret-1234567890"
    async with open_log(tmp_path, secrets=[secret]) as log:
        await log.keep(f"context with {secret}")
        (tmp_path / "file").write_text(f"file with {secret}")
        await log.keep(tmp_path / "file")
        (tmp_path / "file").unlink()
        await log.write("run_started", **RUN, prompt=[{"role": "user", "content": secret + LONG}])
        event = await log.write("note", **RUN, deep={secret: [{"x": f"a{secret}b"}]})

    everything = b"".join(path.read_bytes() for path in _files(tmp_path))
    assert secret.encode() not in everything
    assert event["deep"] == {"[secret]": [{"x": "a[secret]b"}]}


# ---- nothing is written twice


async def test_texts_come_back_as_they_were(tmp_path: Path) -> None:
    lookalike = {"ref": "sha256:0", "characters": 3}
    values = [
        LONG,
        "short",
        lookalike,
        {"escaped": {"escaped": 1}},
        {"same_as": 1, "messages": 1},
        {"a": [LONG]},
    ]
    async with open_log(tmp_path) as log:
        await log.write("note", **RUN, values=values)
    found = await _read(tmp_path / f"{log.trajectory_id}.jsonl")

    assert (await _wholes(found))[0]["values"] == values


async def test_a_history_that_grows_is_written_once_and_its_context_as_well(tmp_path: Path) -> None:
    context = "0123456789" * 100_000
    said = len(context)
    messages = [
        {"role": "system", "content": "You look at contexts. " * 100},
        {"role": "user", "content": "Go."},
    ]
    prompts: list[list[dict[str, str]]] = []
    async with open_log(tmp_path) as log:
        kept = await log.keep(context)
        await log.keep(context)
        await log.write("run_started", **RUN, prompt="Go.", contexts={"context": kept})
        for turn in range(10):
            place: dict[str, Any] = {"call_id": log.call_id("0"), "parent_call_id": "0", "depth": 0}
            await log.write("call_started", **place, name="root", prompt=messages)
            prompts.append([*messages])
            reply, output = f"look {turn} " * 200, f"seen {turn} " * 500
            await log.write("call_ended", **place, response=reply)
            messages += [{"role": "assistant", "content": reply}, {"role": "user", "content": output}]
            messages += [{"role": "assistant", "content": "ok"}, {"role": "user", "content": "go on"}]
        said += sum(len(message["content"]) for message in messages)
    path = tmp_path / f"{log.trajectory_id}.jsonl"
    found = await _read(path)

    written = sum(each.stat().st_size for each in _files(tmp_path))
    assert written < 1.2 * said
    assert path.stat().st_size < 3 * (said - len(context))
    starts = [event for event in await _wholes(found) if event["kind"] == "call_started"]
    assert [event["prompt"] for event in starts] == prompts
    assert await anyio.to_thread.run_sync(found.text, kept["ref"]) == context


async def test_many_short_turns_grow_with_what_is_said_and_not_with_its_square(tmp_path: Path) -> None:
    sizes: list[int] = []
    for turns in (50, 100):
        async with open_log(tmp_path, f"turns{turns}") as log:
            messages: list[dict[str, str]] = []
            for turn in range(turns):
                messages += [
                    {"role": "user", "content": f"turn {turn}"},
                    {"role": "assistant", "content": "ok"},
                ]
                await log.write("call_started", **RUN, prompt=messages)
        sizes.append((tmp_path / f"turns{turns}.jsonl").stat().st_size)
        found = await _read(tmp_path / f"turns{turns}.jsonl")
        assert (await _wholes(found))[-1]["prompt"] == messages

    assert sizes[1] < 2.2 * sizes[0]


@pytest.mark.parametrize(
    ("value", "kind"), [("text\ud800", "text"), (b"\0\xff", "bytes"), ({"a": [1, None]}, "json")]
)
async def test_a_context_is_kept_as_it_is(tmp_path: Path, value: Any, kind: str) -> None:
    async with open_log(tmp_path) as log:
        kept = await log.keep(value)
        await log.write("note", **RUN)
    found = await _read(tmp_path / f"{log.trajectory_id}.jsonl")
    data = await anyio.to_thread.run_sync(found.blobs.read, kept["ref"])

    assert kept["type"] == kind
    read_as: dict[str, Any] = {"text": text_of, "bytes": bytes, "json": json.loads}
    assert read_as[kind](data) == value


# ---- reading


async def test_a_torn_last_line_never_happened(tmp_path: Path) -> None:
    path = await _written(tmp_path, end=False)
    with path.open("ab") as file:
        file.write(path.read_bytes().splitlines()[0][:-10])
    found = await _read(path)

    assert (len(found.events), found.torn, found.damaged, found.state) == (1, True, 0, "cut")


async def test_damaged_lines_are_counted_and_passed_over(tmp_path: Path) -> None:
    path = await _written(tmp_path)
    lines = path.read_bytes().splitlines(keepends=True)
    path.write_bytes(lines[0] + b"{nonsense\n" + b"[1]\n" + b"[" * 100_000 + b"\n" + lines[1])
    found = await _read(path)

    assert ([event["kind"] for event in found.events], found.damaged) == (["run_started", "run_ended"], 3)


async def test_a_log_of_a_later_form_is_refused(tmp_path: Path) -> None:
    path = await _written(tmp_path)
    path.write_bytes(path.read_bytes().replace(b'"schema":1', b'"schema":2'))

    with pytest.raises(TrajectoryError, match="Update it"):
        await _read(path)
    assert [*await anyio.to_thread.run_sync(lambda: [*trajectories(tmp_path)])] == []


async def test_a_lost_text_is_an_error_and_no_other_text(tmp_path: Path) -> None:
    async with open_log(tmp_path) as log:
        await log.write("note", **RUN, note=LONG)
    path = tmp_path / f"{log.trajectory_id}.jsonl"
    lines = path.read_bytes().splitlines(keepends=True)
    path.write_bytes(lines[1])
    found = await _read(path)

    with pytest.raises(TrajectoryError, match="not there any more"):
        found.whole(found.events[0])


async def test_a_run_is_running_until_it_ends_or_is_cut_off(tmp_path: Path) -> None:
    def states() -> list[str]:
        return [each.state for each in trajectories(tmp_path)]

    async with open_log(tmp_path) as log:
        await log.write("run_started", **RUN, prompt="Count.")
        found = await _read(tmp_path / f"{log.trajectory_id}.jsonl")
        during, running = await anyio.to_thread.run_sync(states), found.state
        await log.write("run_ended", **RUN, finish="answered")
        more = [event["kind"] for event in await anyio.to_thread.run_sync(found.read_on)]
    await _written(tmp_path, end=False)

    assert (during, running, more, found.state) == (["running"], "running", ["run_ended"], "ended")
    assert await anyio.to_thread.run_sync(states) == ["cut", "ended"]


async def test_the_list_tells_of_each_the_newest_first(tmp_path: Path) -> None:
    paths = [await _written(tmp_path) for _ in range(3)]
    async with open_log(tmp_path) as log:
        await log.write("run_started", **RUN, prompt=LONG * 10_000)
        await log.write(
            "run_ended", **RUN, finish="exhausted", response=LONG * 2000, token_usage={"input_tokens": 3}
        )
    found = await anyio.to_thread.run_sync(lambda: [*trajectories(tmp_path)])

    assert {each.id for each in found[1:]} == {path.stem for path in paths}
    assert (found[0].id, found[0].failed, found[0].tokens) == (log.trajectory_id, True, 3)
    assert found[0].title == LONG[:100].strip() and not found[1].failed
    assert (found[1].title, found[1].model, found[1].cost_usd, found[1].events) == ("Count.", "m", 0.5, 2)


async def test_a_trajectory_is_found_by_the_beginning_of_its_id(tmp_path: Path) -> None:
    for id_ in ("alpha", "alphabet", "beta"):
        async with open_log(tmp_path, id_):
            pass

    def found(beginning: str) -> str:
        return find([tmp_path], beginning).stem

    assert [await anyio.to_thread.run_sync(found, each) for each in ("alpha", "b")] == ["alpha", "beta"]
    for beginning, problem in (
        ("alp", "2 trajectories begin"),
        ("../beta", "is no id"),
        ("gamma", "no trajectory"),
    ):
        with pytest.raises(TrajectoryError, match=problem):
            await anyio.to_thread.run_sync(found, beginning)


async def test_the_tree_has_each_call_below_the_one_that_made_it(tmp_path: Path) -> None:
    async with open_log(tmp_path) as log:
        await log.write("run_started", **RUN, prompt="Count.")
        root: dict[str, Any] = {"call_id": log.call_id("0"), "parent_call_id": "0", "depth": 0}
        await log.write("call_started", **root, name="root", prompt=[])
        usage = {"input_tokens": 10, "output_tokens": 5}
        await log.write("call_ended", **root, response="x", token_usage=usage, cost_usd=0.25)
        await log.write("cell_started", **RUN, code="1")
        leaf: dict[str, Any] = {"call_id": log.call_id("0"), "parent_call_id": "0", "depth": 1}
        await log.write("call_started", **leaf, name="llm_query", prompt=[])
        await log.write("call_ended", **leaf, response="y", token_usage=usage, cost_usd=None)
        await log.write("cell_ended", **RUN, tool_results=[{"output": "1"}])
    found = await _read(tmp_path / f"{log.trajectory_id}.jsonl")
    tree, totals = found.tree(), found.totals()

    assert [(call.name, call.depth) for call in tree.children] == [("root", 0), ("llm_query", 1)]
    assert [cell[0]["code"] for cell in tree.cells] == ["1"]
    assert (totals.calls, totals.tokens, totals.cost_usd, totals.depth_reached) == (1, 30, None, 1)


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="there is no device that is always full")
async def test_a_full_disk_is_told_of_and_stops_nothing(tmp_path: Path) -> None:
    file = os.open("/dev/full", os.O_WRONLY)
    log = Log("full", file, None)
    event = await log.write("note", **RUN, note="not written")
    await log.aclose()

    assert event["note"] == "not written" and "No space left" in log.problem
