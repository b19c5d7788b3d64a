"""`logs`: what there is to see of runs, at a terminal and for scripts."""

from __future__ import annotations

import json
import os
import pty
import subprocess
import time
from pathlib import Path

import anyio
import pytest

from rlm_mcp.trajectory_places import FOLDER
from rlm_runtime.trajectory import open_log

from . import runs
from .programs import PATIENCE, PROGRAM, Shell


@pytest.fixture
def place(shell: Shell) -> Path:
    """Where the runs of the project lie."""
    key: str = shell.data("exec", "1")["project"]["key"]
    return shell.state / "projects" / key / FOLDER


def test_the_list_is_empty_at_first(shell: Shell) -> None:
    done = shell("logs")

    assert (done.returncode, done.stdout) == (0, "")
    assert "no trajectories yet" in done.stderr
    assert shell.data("logs") == []


def test_the_list_has_the_runs_of_all_usual_places_the_newest_first(shell: Shell, place: Path) -> None:
    elsewhere = shell.project.parent / "elsewhere"
    shell.environment["RLM_LOG_DIR"] = str(elsewhere)
    ids = [runs.write(where) for where in (place, elsewhere, shell.project / "logs")]

    assert [each["id"] for each in shell.data("logs")] == ids[::-1]
    text = shell("logs").stdout
    assert all(
        word in text for word in (*ids, "answered", "gpt-test", "1,204", "$0.01", "1.6 s", runs.PROMPT)
    )


def test_the_list_can_be_narrowed(shell: Shell, place: Path) -> None:
    whole = runs.write(place)
    cut = runs.write(place, cut=True, model="other")
    gave_up = runs.write(place, finish="gave_up")
    old = runs.write(place, id_="20200101T000000000000-0123456789abcdef")

    def found(*words: str) -> list[str]:
        return [each["id"] for each in shell.data("logs", *words)]

    assert found("--failed") == [gave_up, cut]
    assert found("--model", "OTHER") == [cut]
    assert found("--limit", "2") == [gave_up, cut]
    assert set(found("--since", "1h")) == {whole, cut, gave_up, old}
    assert found("--since", "2999-01-01") == []
    assert found("--project", "nothing-here") == []
    assert set(found("--project", str(shell.project))) == {whole, cut, gave_up, old}
    assert found("--dir", str(shell.project)) == []


def test_a_run_is_shown_as_a_tree(shell: Shell, place: Path) -> None:
    id_ = runs.write(place)

    text = shell("logs", id_[:30]).stdout
    lines = text.splitlines()

    assert lines[0].startswith(f"{id_}  answered") and lines[1] == runs.PROMPT
    assert "├─ root gpt-test  I ask.  1,204 tokens  $0.01  1.5 s" in lines
    assert any("code" in line and "print(llm_query('count'))" in line for line in lines)
    assert any("llm_query small  ModelBusy: too many requests" in line for line in lines)
    assert lines[-1] == "1 call, 1,000 + 204 tokens, $0.01, depth 1, 1.6 s"


def test_nothing_in_a_log_reaches_the_terminal_as_a_command(shell: Shell, place: Path) -> None:
    id_ = runs.write(place)

    for words in (["--full"], [], ["--follow"]):
        text = shell("logs", id_, *words).stdout
        assert "\x1b" not in text and "count" in text


def test_full_shows_prompts_and_outputs_whole(shell: Shell, place: Path) -> None:
    text = shell("logs", runs.write(place), "--full").stdout

    assert "You have a REPL. " * 49 in text and "[system]" in text and "42" in text


def test_a_script_gets_all_events_with_their_texts(shell: Shell, place: Path) -> None:
    told = shell.data("logs", runs.write(place))
    event = shell.data("logs", told["id"], "--event", "3")

    assert (told["state"], told["finish"], told["totals"]["calls"]) == ("ended", "answered", 1)
    assert [event["kind"] for event in told["events"]][:2] == ["run_started", "call_started"]
    assert event in told["events"] and event["prompt"][0]["content"] == "You have a REPL. " * 50


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["logs", "2"], "There is no trajectory '2'"),
        (["logs", "../etc"], "is no id of a trajectory"),
        (["logs", "mine", "--event", "99"], "has no event 99"),
        (["logs", "--event", "1"], "--event needs the id"),
        (["logs", "--since", "yesterday"], "is no time"),
        (["logs", "--limit", "0"], "is no number of 1 or more"),
        (["logs", "--follow"], "no run to follow"),
    ],
)
def test_what_is_not_there_is_said_with_advice(shell: Shell, words: list[str], said: str) -> None:
    if "mine" in words:
        runs.write(shell.project / "logs", id_="mine")
    done = shell(*words)

    assert done.returncode in (1, 2)
    assert said in done.stderr and "Traceback" not in done.stderr


def test_a_run_that_was_cut_off_says_how_to_go_on(shell: Shell, place: Path) -> None:
    id_ = runs.write(place, cut=True)
    done = shell("logs", id_)

    assert f"{id_}  cut" in done.stdout and f"--resume {id_}" in done.stderr


async def test_follow_prints_events_until_the_run_ends(shell: Shell) -> None:
    with anyio.fail_after(PATIENCE):
        async with open_log(shell.project / "logs") as log:
            await runs.begin(log)
            process = await anyio.to_thread.run_sync(lambda: shell.start("logs", "--follow", "--json"))
            try:
                first = await anyio.to_thread.run_sync(_lines, process, 7)
                await runs.end(log)
                last = await anyio.to_thread.run_sync(_lines, process, 1)
                code = await anyio.to_thread.run_sync(process.wait)
            finally:
                process.kill()
                await anyio.to_thread.run_sync(process.communicate)

    assert [event["kind"] for event in first + last][-2:] == ["cell_ended", "run_ended"]
    assert code == 0


def _lines(process: subprocess.Popen[str], count: int) -> list[dict[str, str]]:
    assert process.stdout is not None
    return [json.loads(process.stdout.readline()) for _ in range(count)]


def test_ids_are_completed(shell: Shell, place: Path) -> None:
    id_ = runs.write(place)

    done = shell("completion", "words", "logs", id_[:3])
    assert done.stdout == f"{id_}\t{runs.PROMPT}\n"


def test_a_terminal_that_knows_ascii_only_gets_a_tree_of_it(shell: Shell, place: Path) -> None:
    done = shell("logs", runs.write(place), environment={"PYTHONIOENCODING": "ascii"})

    assert "|- root gpt-test  I ask." in done.stdout and "\n|  -> 42" in done.stdout


def test_the_end_of_a_run_that_failed_is_told_with_its_reason(shell: Shell, place: Path) -> None:
    id_ = runs.write(place, finish="gave_up", reason="The model refused \x1b[31m.", cost_usd=0.0000123)
    lines = shell("logs", id_).stdout.splitlines()

    assert lines[-2] == "The model refused \\x1b[31m."
    assert "$0.0000123" in shell("logs").stdout


@pytest.mark.parametrize(
    ("columns", "first"), [(70, "ID STATE PROMPT"), (120, "ID STATE MODEL TOKENS COST TOOK PROMPT")]
)
def test_a_narrow_terminal_gets_as_many_columns_as_leave_room_for_the_prompts(
    shell: Shell, place: Path, columns: int, first: str
) -> None:
    id_ = runs.write(place)
    ours, theirs = pty.openpty()
    shell.environment |= {"COLUMNS": str(columns), "TERM": "dumb"}
    process = subprocess.Popen(
        [*PROGRAM, "logs"],
        env=shell.environment,
        cwd=shell.project,
        stdin=subprocess.DEVNULL,
        stdout=theirs,
        stderr=theirs,
    )
    os.close(theirs)
    process.wait(PATIENCE)
    told = os.read(ours, 100_000).decode().splitlines()
    os.close(ours)

    assert " ".join(told[0].split()) == first
    assert told[1].startswith(id_) and all(len(line) <= columns for line in told)


# ---- removing


def test_a_run_is_removed_by_its_id_with_its_context(shell: Shell, place: Path) -> None:
    one, other = runs.write(place), runs.write(shell.project / "logs")

    told = shell.data("logs", "--remove", one, other, "--yes")

    assert set(told["removed"]) == {one, other} and told["contexts"] == 2
    assert shell.data("logs") == [] and not [*(place / "blobs").iterdir()]


def test_a_script_is_not_asked_and_is_shown_what_would_go(shell: Shell, place: Path) -> None:
    id_ = runs.write(place)

    done = shell("logs", "--remove", id_)

    assert done.returncode == 2 and "nothing was changed" in done.stderr
    assert id_ in done.stderr and runs.PROMPT in done.stderr
    assert [each["id"] for each in shell.data("logs")] == [id_]


def test_pruning_removes_what_is_older_or_more(shell: Shell, place: Path) -> None:
    old, new = runs.write(place), runs.write(place)
    os.utime(place / f"{old}.jsonl", (0, 0))

    assert shell.data("logs", "--prune", "--older-than", "30d", "--yes")["removed"] == [old]
    assert shell.data("logs", "--prune", "--yes")["removed"] == []
    assert shell.data("logs", "--prune", "--keep-bytes", "1g", "--yes")["removed"] == []
    assert "Removed: 1 run, 1 context" in shell("logs", "--prune", "--keep-bytes", "0", "--yes").stdout
    assert shell.data("logs") == [] and new
    assert "nothing to remove" in shell("logs", "--prune").stdout


def test_pruning_goes_by_the_settings_where_nothing_is_said(shell: Shell, place: Path) -> None:
    old, _ = runs.write(place), runs.write(place)
    two_days_ago = time.time() - 2 * 86_400
    os.utime(place / f"{old}.jsonl", (two_days_ago, two_days_ago))
    shell.environment["RLM_TRAJECTORY_DAYS"] = "1"

    assert shell.data("logs", "--prune", "--yes")["removed"] == [old]


async def test_a_run_that_goes_on_is_not_removed(shell: Shell) -> None:
    with anyio.fail_after(PATIENCE):
        async with open_log(shell.project / "logs") as log:
            await runs.begin(log)
            id_ = log.trajectory_id
            done = await anyio.to_thread.run_sync(lambda: shell("logs", "--remove", id_, "--yes"))
            pruned = await anyio.to_thread.run_sync(
                lambda: shell.data("logs", "--prune", "--keep-bytes", "0", "--yes")
            )

    assert done.returncode == 1 and f"The run {id_} goes on." in done.stderr
    assert pruned["removed"] == []


@pytest.mark.parametrize(
    "words",
    [
        ["--remove", "x", "--prune"],
        ["--older-than", "30d"],
        ["--prune", "--older-than", "soon"],
        ["--prune", "--keep-bytes", "much"],
        ["--prune", "--follow"],
        ["--yes"],
    ],
)
def test_what_does_not_go_together_is_refused(shell: Shell, words: list[str]) -> None:
    done = shell("logs", *words)

    assert done.returncode == 2 and "Traceback" not in done.stderr
