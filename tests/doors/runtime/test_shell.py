"""`rlm-mcp exec` has its calls answered too, with a running server and without."""

from __future__ import annotations

from pathlib import Path

from tests.doors.cli.programs import Shell
from tests.doors.runtime.test_killed_servers import handle_in, tool

ANSWERS = {"RLM_BACKEND": "command", "RLM_COMMAND": '["sh", "-c", "echo heard: $(cat)"]'}


def test_code_from_a_shell_asks_the_command(tmp_path: Path) -> None:
    shell = Shell(tmp_path)

    done = shell("exec", "print(llm_query('hello'))", environment=ANSWERS)

    assert done.stdout.startswith("heard: hello"), done


def test_code_from_a_shell_asks_by_a_running_server(tmp_path: Path) -> None:
    shell = Shell(tmp_path)
    shell.environment |= ANSWERS

    with shell.serving() as server:
        shell.door(server)
        server.run("x = 1")
        done = shell("exec", "print(x, llm_query('hello'))")

    assert done.stdout.startswith("1 heard: hello"), done


def test_code_from_a_shell_is_told_when_nobody_answers(tmp_path: Path) -> None:
    done = Shell(tmp_path)("exec", "llm_query('hello')")

    assert "ModelUnavailable" in done.stderr and "rlm init" in done.stderr


def test_a_session_that_is_closed_while_a_cell_waits_goes_on_with_it_later(tmp_path: Path) -> None:
    shell = Shell(tmp_path)

    with shell.serving() as server:
        shell.door(server)
        server.run("count = 1")
        said = server.run("count += 1\nprint(count, llm_query('one?'))")
        handle = handle_in(said)
        closed = shell("sessions", "close", str(shell.project))
        told = server.run("count")
        done = tool(server, "answer_calls", handle=handle, answers={"1": "eins"})

    assert closed.returncode == 0, closed
    assert "waits for answers" in told
    assert done.startswith("2 eins"), done


def test_a_session_that_is_reset_while_a_cell_waits_ends_it(tmp_path: Path) -> None:
    shell = Shell(tmp_path)

    with shell.serving() as server:
        shell.door(server)
        server.run("llm_query('one?')")
        done = shell("sessions", "reset", str(shell.project))
        after = server.run("1 + 1")

    assert done.returncode == 0, done
    assert after == "2"
