"""The door: the command line and the clients of a running server share its sessions."""

from __future__ import annotations

import json
import signal
import socket
import stat
from collections.abc import Generator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

from rlm_mcp.door import MOST_REQUEST_BYTES, reachable

from .programs import PATIENCE, Server, Shell

_BUSY = "import time, pathlib\nprint('begun', flush=True)\ntime.sleep({})\nbusy = 'done'"
_UNTIL_TOLD = (
    "import os, time\nprint('begun', flush=True)\n"
    "while not os.path.exists('go'):\n    time.sleep(0.01)\nbusy = 'done'"
)


def _mode(path: Path) -> int:
    return stat.S_IMODE(path.stat().st_mode)


@contextmanager
def _visitor(shell: Shell, server: Server) -> Generator[socket.socket]:
    with socket.socket(socket.AF_UNIX) as visitor:
        visitor.settimeout(PATIENCE)
        with reachable(shell.door(server), str(server.process.pid)) as path:
            visitor.connect(path)
        yield visitor


def _request(shell: Shell, server: Server, **facts: Any) -> bytes:
    key = (shell.door(server) / f"{server.process.pid}.key").read_text()
    return json.dumps({"door": 1, "key": key, **facts}).encode() + b"\n"


def _answers(visitor: socket.socket) -> list[Any]:
    with visitor.makefile("rb") as said:
        return [json.loads(line) for line in said]


def _problem(visitor: socket.socket) -> str:
    return str(_answers(visitor)[-1]["problem"]["code"])


# ---- one session, two ways in


def test_variables_are_shared_both_ways(shell: Shell) -> None:
    with shell.serving() as server:
        server.run("from_client = 20")
        seen = shell.data("exec", "from_shell = from_client + 1; from_shell")
        answer = server.run("from_shell * 2")

    assert (seen["value"], seen["server"]) == ("21", server.process.pid)
    assert answer.splitlines()[0] == "42"
    assert len(shell.data("sessions", "list")) == 1


def test_output_comes_while_the_code_runs(shell: Shell) -> None:
    with shell.serving() as server:
        server.run("1")
        with shell.start("exec", _BUSY.format(600)) as program:
            assert program.stdout is not None
            first = program.stdout.readline()
            program.kill()

    assert first == "begun\n"


def test_a_busy_session_is_waited_for(shell: Shell) -> None:
    with shell.serving() as server:
        server.run("1")
        server.begin(_UNTIL_TOLD)
        with shell.start("exec", "busy") as program:
            _until_somebody_waits(shell)
            (shell.project / "go").touch()
            printed, _ = program.communicate(timeout=PATIENCE)
        server.answer()

    assert (program.returncode, printed) == (0, "'done'\n")


def _until_somebody_waits(shell: Shell) -> None:
    while not any(each["session"]["waiting"] for each in shell.data("sessions", "list")):
        pass


def test_errors_limits_and_time_outs_have_the_same_exit_codes(shell: Shell) -> None:
    with shell.serving("serve", "--set", "sandbox.output_bytes=2000") as server:
        server.run("1")

        assert shell("exec", "1/0").returncode == 1
        assert shell("exec", "while True: pass", "--timeout", "0.5").returncode == 124
        assert shell("exec", "print('x' * 9000)").returncode == 4
        assert server.run("'still here'").startswith("'still here'")


def test_ctrl_c_interrupts_the_code_and_neither_session_nor_server(shell: Shell) -> None:
    with shell.serving() as server:
        server.run("kept = 1")
        with shell.start("exec", f"fresh = 2\n{_BUSY.format(600)}") as program:
            assert program.stdout is not None
            program.stdout.readline()
            program.send_signal(signal.SIGINT)
            _, said = program.communicate(timeout=PATIENCE)
        answer = server.run("kept, fresh")

    assert program.returncode == 130
    assert "interrupted" in said
    assert answer.startswith("(1, 2)")


def test_ctrl_c_while_waiting_does_not_touch_the_cell_of_another(shell: Shell) -> None:
    with shell.serving() as server:
        server.run("1")
        server.begin(_UNTIL_TOLD)
        with shell.start("exec", "never = 1") as program:
            _until_somebody_waits(shell)
            program.send_signal(signal.SIGINT)
            program.communicate(timeout=PATIENCE)
        (shell.project / "go").touch()
        first, second = server.answer(), server.run("busy, 'never' in globals()")

    assert program.returncode == 130
    assert "begun" in first and "Interrupt" not in first
    assert second.startswith("('done', False)")


def test_a_caller_that_is_killed_cancels_its_cell(shell: Shell) -> None:
    with shell.serving() as server:
        server.run("1")
        with shell.start("exec", _BUSY.format(600)) as program:
            assert program.stdout is not None
            program.stdout.readline()
            program.kill()
        answer = server.run("'free again'")

    assert answer.startswith("'free again'")


def test_figures_and_huge_code_pass_through(shell: Shell) -> None:
    figure = "import matplotlib.pyplot as plt\nplt.plot([1, 2])\nplt.show()"
    with shell.serving() as server:
        server.run("1")
        size = shell("exec", stdin=f"text = '{'x' * 5_000_000}'\nlen(text)")
        shell("exec", figure, "--plot-dir", "figures")

    assert size.stdout == "5000000\n"
    assert (shell.project / "figures" / "figure-1.png").read_bytes().startswith(b"\x89PNG")


def test_a_visitor_that_does_not_read_holds_up_nobody(shell: Shell) -> None:
    with shell.serving() as server, _visitor(shell, server) as visitor:
        key = shell.data("exec", "1")["project"]["key"]
        server.run("1")
        prints = "for n in range(300): print('x' * 10_000)\ndone = True"
        visitor.sendall(_request(shell, server, do="run", project=key, code=prints))
        answer = server.run("done")
        while answer.splitlines()[0] != "True":
            answer = server.run("done")

        answers = _answers_of_run(visitor)

    assert sum(len(each["output"][1]) for each in answers[:-1]) == 300 * 10_001
    assert answers[-1]["result"]["error"] is None


def _answers_of_run(visitor: socket.socket) -> list[Any]:
    answers: list[Any] = []
    with visitor.makefile("rb") as said:
        while not answers or "output" in answers[-1]:
            answers.append(json.loads(said.readline()))
    return answers


# ---- when the server goes


def test_the_door_is_for_this_account_alone_and_goes_with_its_server(shell: Shell) -> None:
    with shell.serving() as server:
        doors, pid = shell.door(server), server.process.pid
        modes = [_mode(path) for path in (doors, doors / str(pid), doors / f"{pid}.key")]
        is_socket = stat.S_ISSOCK((doors / str(pid)).stat().st_mode)
        server.hang_up()

    assert modes == [0o700, 0o600, 0o600]
    assert is_socket
    assert list(doors.iterdir()) == []


def test_after_a_server_was_killed_the_shell_goes_on_and_its_door_is_cleared_away(shell: Shell) -> None:
    with shell.serving() as server:
        server.run("kept = 1")
        shell.door(server)
        server.process.kill()
        server.process.wait(PATIENCE)
        left = len(list((shell.state / "doors").iterdir()))
        done = shell("exec", "kept")
    with shell.serving() as other:
        names = {entry.stem for entry in shell.door(other).iterdir()}

    assert left == 2
    assert (done.returncode, done.stdout) == (0, "1\n")
    assert names == {str(other.process.pid)}


def test_a_server_that_ends_while_a_cell_of_the_shell_runs_is_told_of(shell: Shell) -> None:
    with shell.serving() as server:
        server.run("kept = 1")
        with shell.start("exec", _BUSY.format(600)) as program:
            assert program.stdout is not None
            program.stdout.readline()
            server.process.kill()
            _, said = program.communicate(timeout=PATIENCE)

    assert program.returncode == 1
    assert "ended before it answered" in said
    assert shell("exec", "kept").stdout == "1\n"


def test_a_deep_folder_for_the_state_has_a_door_as_well(tmp_path: Path) -> None:
    shell = Shell(tmp_path, state=tmp_path / "/".join(["a-folder-with-a-long-name"] * 6))
    with shell.serving() as server:
        server.run("x = 1")
        seen = shell.data("exec", "x")

    assert seen["server"] == server.process.pid


def test_the_state_of_one_account_elsewhere_is_not_this_one(shell: Shell, tmp_path: Path) -> None:
    with shell.serving() as server:
        server.run("x = 1")
        done = shell("exec", "x", "--state-dir", str(tmp_path / "other"))

    assert done.returncode == 1
    assert "NameError" in done.stderr


# ---- who comes in


@pytest.mark.parametrize(
    ("line", "code"),
    [
        (b"\n", "garbage"),
        (b"GET / HTTP/1.1\r\n\r\n", "garbage"),
        (b"\xff\xfe\x00\n", "garbage"),
        (b"[" * 100_000 + b"\n", "garbage"),
        (b'["door",1]\n', "garbage"),
        (b'{"door":2,"do":"sessions"}\n', "version"),
        (b'{"door":1,"do":"sessions"}\n', "key"),
        (b'{"door":1,"key":"\\ud800","do":"sessions"}\n', "key"),
    ],
)
def test_what_is_no_request_is_refused(shell: Shell, line: bytes, code: str) -> None:
    with shell.serving() as server, _visitor(shell, server) as visitor:
        visitor.sendall(line)

        assert _problem(visitor) == code
        assert server.run("1").startswith("1")


@pytest.mark.parametrize(
    ("facts", "code"),
    [
        ({"do": "dance", "project": "x"}, "unknown"),
        ({"do": ["run"]}, "garbage"),
        ({"do": "run", "project": "../../etc", "code": "1"}, "not_here"),
        ({"do": "run", "project": "x", "code": 1}, "garbage"),
        ({"do": "run", "project": "x", "code": "1", "timeout_s": -1}, "garbage"),
        ({"do": "run", "project": "x", "code": "1", "timeout_s": 1e30}, "garbage"),
        ({"do": "run", "project": "x", "code": "1", "timeout_s": True}, "garbage"),
    ],
)
def test_a_request_that_makes_no_sense_is_refused(shell: Shell, facts: dict[str, Any], code: str) -> None:
    with shell.serving() as server, _visitor(shell, server) as visitor:
        visitor.sendall(_request(shell, server, **facts))

        assert _problem(visitor) == code


def test_a_line_without_end_is_cut_off(shell: Shell) -> None:
    with shell.serving() as server, _visitor(shell, server) as visitor:
        piece, sent = b"x" * 1024 * 1024, 0
        try:
            while sent <= 2 * MOST_REQUEST_BYTES:
                visitor.sendall(piece)
                sent += len(piece)
        except OSError:
            pass

        assert sent < 2 * MOST_REQUEST_BYTES
        assert server.run("1").startswith("1")


def test_those_who_say_nothing_keep_nobody_out(shell: Shell) -> None:
    with shell.serving() as server:
        server.run("x = 1")
        silent = [socket.socket(socket.AF_UNIX) for _ in range(20)]
        for each in silent:
            with reachable(shell.door(server), str(server.process.pid)) as path:
                each.connect(path)
            each.sendall(b'{"door":1,')
        done = shell("exec", "x")
        for each in silent:
            each.close()

        assert done.stdout == "1\n"
        assert server.hang_up() == 0


def test_a_server_ends_at_once_although_visitors_are_there(shell: Shell) -> None:
    with shell.serving() as server, _visitor(shell, server):
        key = shell.data("exec", "1")["project"]["key"]
        server.run("1")
        with _visitor(shell, server) as other:
            other.sendall(_request(shell, server, do="run", project=key, code=_BUSY.format(600)))
            with other.makefile("rb") as said:
                said.readline()
                server.process.send_signal(signal.SIGTERM)

                assert server.process.wait(PATIENCE) == 128 + signal.SIGTERM


def test_a_server_over_http_has_a_door_too(shell: Shell) -> None:
    with shell.start("serve", "--transport", "http", "--port", "0") as server:
        try:
            assert server.stderr is not None
            while "http" not in server.stderr.readline():
                pass
            doors = {entry.name for entry in (shell.state / "doors").iterdir()}
            server.send_signal(signal.SIGTERM)
            exit_code = server.wait(PATIENCE)
        finally:
            server.kill()

    assert doors == {str(server.pid), f"{server.pid}.key"}
    assert exit_code == 128 + signal.SIGTERM
    assert list((shell.state / "doors").iterdir()) == []
