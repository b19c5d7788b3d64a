"""`sessions`: what there is to see, and what can be done about it."""

from __future__ import annotations

import json
import os
import pty
import shutil
import subprocess
import time

import anyio
import anyio.to_thread
import pytest

from rlm_mcp.trajectory_places import FOLDER
from rlm_runtime.trajectory import open_log

from . import runs
from .programs import PATIENCE, PROGRAM, Shell

_LONG = "import time\nbegan = 1\nwhile True: time.sleep(0.05)"


def test_the_list_is_empty_at_first(shell: Shell) -> None:
    done = shell("sessions")

    assert (done.returncode, done.stdout) == (0, "")
    assert "no sessions yet" in done.stderr
    assert shell.data("sessions", "list") == []


def test_the_list_tells_what_is_kept_and_who_has_it(shell: Shell) -> None:
    shell("exec", "--project", "notes", "x = 1")
    with shell.serving() as server:
        server.run("x = 1")
        found = {each["name"]: each for each in shell.data("sessions", "list")}
        text = shell("sessions", "list").stdout

    assert (found["notes"]["state"], found["notes"]["pid"], found["notes"]["folder"]) == ("kept", None, None)
    assert (found["project"]["state"], found["project"]["pid"]) == ("idle", server.process.pid)
    assert found["project"]["folder"] == str(shell.project)
    assert found["notes"]["kept"]["total"] > 0
    assert str(server.process.pid) in text and "notes" in text


def test_a_session_is_shown_with_variables_and_cells(shell: Shell) -> None:
    shell("exec", "answer = 6 * 7\nname = 'x'")

    facts, text = shell.data("sessions", "show"), shell("sessions", "show", ".").stdout

    assert {each["name"]: each["preview"] for each in facts["variables"]} == {"answer": "42", "name": "'x'"}
    assert [cell["code"] for cell in facts["cells"]] == ["answer = 6 * 7\nname = 'x'"]
    assert facts["isolation"] and facts["problem"] is None
    assert "answer" in text and "42" in text


def test_a_session_in_a_server_is_shown_even_while_it_is_busy(shell: Shell) -> None:
    with shell.serving() as server:
        server.run("x = 1")
        server.begin(_LONG)
        while (facts := shell.data("sessions", "show"))["state"] != "busy":
            pass
        shell("sessions", "interrupt")
        server.answer()

    assert "x" in {each["name"] for each in facts["variables"]}


@pytest.mark.parametrize("named", ["project", "PROJECT", "../project", ""])
def test_a_project_is_found_by_folder_name_or_key(shell: Shell, named: str) -> None:
    key = shell.data("exec", "x = 1")["project"]["key"]

    words = [named] if named else []
    assert shell.data("sessions", "show", *words)["key"] == key
    assert shell.data("sessions", "show", key)["key"] == key


def test_a_project_whose_folder_is_gone_is_found_as_well(shell: Shell) -> None:
    gone = shell.project.parent / "gone"
    gone.mkdir()
    shell("exec", "--project", str(gone), "x = 1")
    shutil.rmtree(gone)

    assert shell.data("sessions", "show", str(gone))["folder"] == str(gone)
    assert shell("sessions", "purge", "../gone", "--yes").returncode == 0
    assert shell.data("sessions", "list") == []


def test_an_unknown_project_is_an_error(shell: Shell) -> None:
    done = shell("sessions", "show", "nothing-like-it", "--json")

    assert done.returncode == 1
    assert json.loads(done.stdout)["error"]["code"] == "not_found"


@pytest.mark.parametrize("with_server", [False, True])
def test_reset_forgets_the_variables(shell: Shell, with_server: bool) -> None:
    shell("exec", "x = 1")
    if with_server:
        with shell.serving() as server:
            server.run("x")
            assert shell("sessions", "reset").returncode == 0
            assert "NameError" in server.run("x")
    else:
        assert shell("sessions", "reset", "project").returncode == 0

    assert shell("exec", "x").returncode == 1
    assert shell.data("sessions", "show")["cells"][0]["code"] == "x = 1"


def test_interrupt_ends_the_cell_of_a_client(shell: Shell) -> None:
    with shell.serving() as server:
        server.run("1")
        server.begin(_LONG)
        while not shell.data("sessions", "interrupt")["interrupted"]:
            pass
        answer = server.answer()

        assert "KeyboardInterrupt" in answer
        assert server.run("began").startswith("1")
        assert shell.data("sessions", "interrupt")["interrupted"] is False


@pytest.mark.parametrize("do", ["interrupt", "close"])
def test_what_another_command_runs_is_not_said_to_be_at_rest(shell: Shell, do: str) -> None:
    with shell.start("exec", "import time\nprint(1, flush=True)\ntime.sleep(60)") as running:
        assert running.stdout is not None
        running.stdout.readline()
        done = shell("sessions", do)
        listed = shell.data("sessions", "list")[0]
        running.kill()

    assert done.returncode == 1
    assert f"{running.pid}" in done.stderr and "Ctrl-C" in done.stderr
    assert (listed["state"], listed["pid"]) == ("open", running.pid)


def test_close_has_the_server_let_go(shell: Shell) -> None:
    with shell.serving() as server:
        server.run("x = 1")
        assert shell.data("sessions", "close")["closed"] is True
        here = shell.data("exec", "x")

        assert (here["value"], here["server"]) == ("1", None)
        assert [(each["state"], each["pid"]) for each in shell.data("sessions", "list")] == [("kept", None)]
        assert server.run("x").startswith("1")


def test_purge_removes_all_that_is_kept(shell: Shell) -> None:
    shell("exec", "x = 1")

    done = shell.data("sessions", "purge", "project", "--yes")

    assert (len(done["removed"]), done["refused"]) == (1, [])
    assert done["freed_bytes"] > 0
    assert shell.data("sessions", "list") == []


def test_purge_is_refused_while_a_server_has_the_project(shell: Shell) -> None:
    shell("exec", "--project", "other", "x = 1")
    with shell.serving() as server:
        server.run("x = 1")
        done = shell("sessions", "purge", "--all", "--yes", "--json")
        again = server.run("x")

    answer = json.loads(done.stdout)
    assert done.returncode == 1
    assert str(server.process.pid) in answer["error"]["message"]
    assert (len(answer["data"]["removed"]), len(answer["data"]["refused"])) == (1, 1)
    assert again.startswith("1")


def test_purge_of_what_was_not_used_leaves_the_rest(shell: Shell) -> None:
    old = shell.data("exec", "--project", "old", "1")["project"]["key"]
    shell("exec", "--project", "new", "1")
    before = time.time() - 40 * 24 * 3600
    folder = shell.state / "projects" / old
    for path in [*folder.rglob("*"), folder]:
        os.utime(path, (before, before))

    done = shell.data("sessions", "purge", "--unused", "30", "--yes")

    assert done["removed"] == [old]
    assert [each["name"] for each in shell.data("sessions", "list")] == ["new"]


def test_purge_asks_and_takes_only_yes_for_yes(shell: Shell) -> None:
    shell("exec", "x = 1")

    assert shell("sessions", "purge", "project").returncode == 2
    assert _answered(shell, "n\n") == 1
    assert len(shell.data("sessions", "list")) == 1
    assert _answered(shell, "y\n") == 0
    assert shell.data("sessions", "list") == []


def _answered(shell: Shell, answer: str) -> int:
    ours, theirs = pty.openpty()
    os.write(ours, answer.encode())
    program = subprocess.run(
        [*PROGRAM, "sessions", "purge", "project"],
        stdin=theirs,
        capture_output=True,
        env=shell.environment,
        cwd=shell.project,
        timeout=PATIENCE,
        check=False,
    )
    os.close(ours)
    os.close(theirs)
    assert b"Remove all" in program.stderr
    return program.returncode


def test_names_from_elsewhere_cannot_write_to_the_terminal(shell: Shell) -> None:
    key = shell.data("exec", "x = '\x1b[31m'")["project"]["key"]
    note = shell.state / "projects" / key / "project.json"
    note.write_text(json.dumps({**json.loads(note.read_text()), "name": "\x1b[31mred"}))

    assert "\x1b" not in shell("sessions", "show", key).stdout
    assert "\x1b" not in shell("sessions", "list").stdout


async def test_purge_is_refused_while_a_run_of_the_project_goes_on_and_then_takes_its_trajectories(
    shell: Shell,
) -> None:
    with anyio.fail_after(PATIENCE):
        key = await anyio.to_thread.run_sync(lambda: shell.data("exec", "1")["project"]["key"])
        folder = shell.state / "projects" / key / FOLDER
        async with open_log(folder) as log:
            await runs.begin(log)
            kept = await anyio.to_thread.run_sync(lambda: shell.data("sessions", "list")[0]["kept"])
            refused = await anyio.to_thread.run_sync(lambda: shell("sessions", "purge", "project", "--yes"))
            there = await anyio.Path(folder / f"{log.trajectory_id}.jsonl").exists()
        done = await anyio.to_thread.run_sync(lambda: shell.data("sessions", "purge", "project", "--yes"))

    assert kept["other"] > 8000 and there
    assert refused.returncode == 1 and f"the run {log.trajectory_id} goes on" in refused.stderr
    assert done["removed"] == [key] and not await anyio.Path(folder).exists()
