"""`exec` where no server has the session: what it runs, what it prints, how it ends."""

from __future__ import annotations

import json
import os
import pty
import signal
from pathlib import Path

import pytest

from .programs import PATIENCE, Shell

_PRINTS_FOR_LONG = "import time\nkept = 'yes'\nprint('begun', flush=True)\nwhile True: time.sleep(0.05)"


def test_it_prints_as_python_would(shell: Shell) -> None:
    done = shell("exec", "import sys; print('out'); print('err', file=sys.stderr); 6 * 7")

    assert (done.returncode, done.stdout, done.stderr) == (0, "out\n42\n", "err\n")


def test_variables_stay_for_the_next_time(shell: Shell) -> None:
    shell("exec", "x = 41")

    assert shell("exec", "x + 1").stdout == "42\n"


@pytest.mark.parametrize(
    ("code", "flags", "exit_code", "said"),
    [
        ("1/0", [], 1, "ZeroDivisionError: division by zero"),
        ("print(", [], 1, "SyntaxError"),
        ("raise SystemExit(3)", [], 1, "exit(3)"),
        ("while True: pass", ["--timeout", "0.5"], 124, "--timeout"),
        ("open('new', 'w')", [], 4, "--files write"),
        ("x = bytearray(10**9)", ["--memory", "64m"], 4, "--memory"),
        ("print('x' * 9000)", ["--set", "sandbox.output_bytes=2000"], 4, "output_bytes"),
        ("1", ["--python", "no/such/python"], 5, "no/such/python"),
        ("1", ["--project", "./no-such-folder"], 2, "no such folder"),
        ("1", ["--file", "x.py"], 2, "not both"),
    ],
)
def test_it_ends_as_its_code_does(
    shell: Shell, code: str, flags: list[str], exit_code: int, said: str
) -> None:
    done = shell("exec", code, *flags)

    assert done.returncode == exit_code, done
    assert said in done.stderr


def test_what_it_says_of_an_error_is_for_a_terminal_and_said_once(shell: Shell) -> None:
    late = shell("exec", "while True: pass", "--timeout", "0.5").stderr
    denied = shell("exec", "open('new', 'w')").stderr
    refused = shell("exec", "import subprocess").stderr

    assert "timeout_s" not in late and "variables are kept" in late
    assert denied.count("Read-only file system") == 1
    assert "\nModuleRefused: " in refused and "rlm_guest" not in refused


def test_code_comes_from_a_pipe_a_file_or_the_line(shell: Shell) -> None:
    (shell.project / "code.py").write_bytes("# coding: latin-1\r\nprint('é')\r\n".encode("latin-1"))

    assert shell("exec", stdin="print('piped')").stdout == "piped\n"
    assert shell("exec", "-", stdin="print('dash')").stdout == "dash\n"
    assert shell("exec", "-f", "code.py").stdout == "é\n"


def test_huge_code_runs(shell: Shell) -> None:
    code = f"text = '{'x' * 5_000_000}'\nlen(text)"

    assert shell("exec", stdin=code).stdout == "5000000\n"


def test_everything_is_one_json_object(shell: Shell) -> None:
    done = shell("exec", "import sys; print('a'); print('b', file=sys.stderr); 7", "--json")

    answer = json.loads(done.stdout)
    facts = answer["data"]
    assert answer["ok"] and done.stderr == ""
    assert (facts["stdout"], facts["stderr"], facts["value"], facts["server"]) == ("a\n", "b\n", "7", None)
    assert facts["project"]["folder"] == str(shell.project)
    assert facts["changed"] == ["sys"]


def test_an_error_in_the_code_is_in_the_json_too(shell: Shell) -> None:
    done = shell("exec", "print('before'); 1/0", "--json")

    answer = json.loads(done.stdout)
    assert done.returncode == 1
    assert (answer["ok"], answer["error"]["code"]) == (False, "code")
    assert answer["data"]["stdout"] == "before\n"
    assert "ZeroDivisionError" in answer["data"]["error"]["traceback"]


def test_figures_are_saved_where_it_is_said(shell: Shell, tmp_path: Path) -> None:
    code = "import matplotlib.pyplot as plt\nplt.plot([1, 2])\nplt.show()"

    first, second = (shell("exec", code, "--plot-dir", "figures") for _ in range(2))
    elsewhere = shell("exec", code)

    saved = sorted(path.name for path in (shell.project / "figures").iterdir())
    assert saved == ["figure-1.png", "figure-2.png"]
    assert str(shell.project / "figures" / "figure-1.png") in first.stderr
    assert str(shell.project / "figures" / "figure-2.png") in second.stderr
    assert f"{tmp_path}/rlm-figures-" in elsewhere.stderr
    assert (shell.project / "figures" / "figure-1.png").read_bytes().startswith(b"\x89PNG")


def test_quiet_leaves_out_what_was_not_asked_for(shell: Shell) -> None:
    done = shell("exec", "--quiet", "print(1); raise SystemExit")

    assert (done.stdout, done.stderr) == ("1\n", "")


def test_settings_are_flags(shell: Shell) -> None:
    code = "open('made-here', 'w').write('x')"

    assert shell("exec", code).returncode != 0
    assert shell("exec", code, "--files", "write").returncode == 0
    assert (shell.project / "made-here").read_text() == "x"


@pytest.mark.parametrize("whole_group", [False, True])
def test_ctrl_c_interrupts_the_code_and_keeps_the_session(shell: Shell, whole_group: bool) -> None:
    with shell.start("exec", _PRINTS_FOR_LONG, start_new_session=True) as program:
        assert program.stdout is not None
        assert program.stdout.readline() == "begun\n"
        (os.killpg if whole_group else os.kill)(program.pid, signal.SIGINT)
        _, said = program.communicate(timeout=PATIENCE)

    assert program.returncode == 130
    assert "interrupted" in said
    assert shell("exec", "kept").stdout == "'yes'\n"


def test_ctrl_c_twice_quits(shell: Shell) -> None:
    stubborn = (
        "print('begun', flush=True)\nwhile True:\n  try:\n    while True: pass\n  except BaseException: pass"
    )
    shell("exec", "kept = 1")
    with shell.start("exec", stubborn, "--set", "sandbox.grace_seconds=60") as program:
        assert program.stdout is not None
        assert program.stdout.readline() == "begun\n"
        program.send_signal(signal.SIGINT)
        program.send_signal(signal.SIGINT)
        program.communicate(timeout=PATIENCE)

    assert program.returncode == 130
    assert shell("exec", "kept").stdout == "1\n"


def test_several_at_once_take_turns_in_one_session(shell: Shell) -> None:
    shell("exec", "seen = []")
    programs = [shell.start("exec", f"import time; time.sleep(0.3); seen.append({n})") for n in range(3)]

    for program in programs:
        program.communicate(timeout=PATIENCE)

    assert [program.returncode for program in programs] == [0, 0, 0]
    assert shell("exec", "sorted(seen)").stdout == "[0, 1, 2]\n"
    assert len(shell.data("sessions", "list")) == 1


def test_who_waits_for_another_command_says_so_and_can_give_up(shell: Shell) -> None:
    with shell.start("exec", _PRINTS_FOR_LONG) as first:
        assert first.stdout is not None
        first.stdout.readline()
        with shell.start("exec", "1") as second:
            assert second.stderr is not None
            said = second.stderr.readline()
            second.send_signal(signal.SIGINT)
            second.communicate(timeout=PATIENCE)
        first.kill()

    assert f"process {first.pid}" in said
    assert second.returncode == 130


def test_the_project_is_what_the_environment_says_unless_named(shell: Shell) -> None:
    shell("exec", "--project", "notes", "where = 'notes'")

    done = shell("exec", "where", environment={"RLM_PROJECT": "notes"})

    assert done.stdout == "'notes'\n"
    assert shell("exec", "where").returncode == 1


@pytest.mark.parametrize("named", ["./data", "sub/data", "data/"])
def test_a_folder_that_is_there_is_the_project_if_it_has_a_slash(shell: Shell, named: str) -> None:
    (shell.project / named).mkdir(parents=True)

    folder = shell.data("exec", "--project", named, "1")["project"]["folder"]

    assert folder == str((shell.project / named).resolve())
    assert shell.data("exec", "--project", "data", "1")["project"]["folder"] is None


def test_code_that_ends_its_process_says_so(shell: Shell) -> None:
    shell("exec", "kept = 1")

    done = shell("exec", "import ctypes; ctypes.string_at(0)", "--set", "sandbox.policy=off")

    assert done.returncode == 1
    assert "comes back" in done.stderr
    assert shell("exec", "kept").stdout == "1\n"


def test_without_code_at_a_terminal_it_says_how_to_give_some(shell: Shell) -> None:
    ours, theirs = pty.openpty()
    program = shell.start("exec", stdin=theirs)
    _, said = program.communicate(timeout=PATIENCE)
    os.close(ours)
    os.close(theirs)

    assert program.returncode == 2
    assert "no code" in said
