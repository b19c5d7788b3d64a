"""The program itself: how it is called wrongly and rightly, what it says then, and how it ends."""

from __future__ import annotations

import json
import os
import pty
import shlex
import signal
import subprocess
import sys

import pytest

from rlm_mcp.cli.main import COMMANDS

from .programs import PATIENCE, PROGRAM, Shell

_WEIGH = """
import sys
from rlm_mcp.cli.main import main
code = main(sys.argv[1:])
heavy = {"mcp", "mcp_types", "pydantic", "anyio", "rlm_sessions", "rlm_sandboxes", "asyncio"}
print(code, sorted(heavy & set(sys.modules)), file=sys.stderr)
"""


@pytest.mark.parametrize("words", [["--version"], ["--help"], ["exec", "--help"], ["completion", "bash"]])
def test_what_needs_no_session_imports_nothing_heavy(shell: Shell, words: list[str]) -> None:
    done = subprocess.run(
        [sys.executable, "-c", _WEIGH, *words],
        env=shell.environment,
        capture_output=True,
        text=True,
        timeout=PATIENCE,
        check=True,
    )

    assert done.stdout
    assert done.stderr == "0 []\n"


@pytest.mark.parametrize("command", [name for each in COMMANDS for name in each.names])
def test_each_command_explains_itself(shell: Shell, command: str) -> None:
    done = shell(command, "--help")

    assert done.returncode == 0
    assert done.stdout.startswith("usage: rlm-mcp")
    assert "--project" in done.stdout
    assert done.stderr == ""


def test_the_help_lists_each_command_once(shell: Shell) -> None:
    text = shell("--help").stdout

    for each in COMMANDS:
        assert text.count(f"\n    {each.name}") == 1, each


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["exce", "1"], "'exec'"),
        (["serve", "--transprt", "http"], "'--transport'"),
        (["serve", "--fils=write"], "'--files'"),
        (["serve", "--transport", "htp"], "'http'"),
        (["sessions", "shw"], "'show'"),
        (["exec", "--set", "sandbox.network", "1"], "SECTION.KEY=VALUE"),
        (["exec", "--timeout", "soon", "1"], "soon"),
        (["sessions", "purge"], "--all"),
        (["completion"], "required: {bash,zsh,fish}\n"),
        (["completion", "ksh"], "(choose from 'bash', 'zsh', 'fish')"),
    ],
)
def test_wrong_usage_is_exit_2_and_names_what_is_right(shell: Shell, words: list[str], said: str) -> None:
    done = shell(*words)

    assert done.returncode == 2
    assert done.stdout == ""
    assert said in done.stderr
    assert "Traceback" not in done.stderr


def test_a_failure_is_one_json_object_where_that_was_asked_for(shell: Shell) -> None:
    done = shell("serve", "--transprt=http", "--json")

    answer = json.loads(done.stdout)
    assert (answer["schema"], answer["ok"], answer["error"]["code"]) == (1, False, "usage")
    assert "--transport" in answer["error"]["hint"]


@pytest.mark.parametrize("command", [["serve"], ["exec", "1"], ["sessions", "list"]])
def test_a_wrong_setting_is_exit_3_and_nothing_on_stdout(shell: Shell, command: list[str]) -> None:
    done = shell(*command, "--set", "sandbox.memory_byts=2g")

    assert done.returncode == 3
    assert done.stdout == ""
    assert "memory_bytes" in done.stderr


def test_a_flag_of_every_command_may_stand_before_and_after_its_name(shell: Shell) -> None:
    flags = ["--set", "sandbox.wall_seconds=7", "config", "show", "--set", "sandbox.threads=9", "--json"]

    text = shell(*flags).stdout

    assert "7.0" in text
    assert "9" in text
    assert json.loads(text)["ok"]


def test_a_traceback_is_shown_only_with_debug(shell: Shell) -> None:
    plain, debugged = (shell(*words, "serve", "--set", "a=1") for words in ([], ["--debug"]))

    assert "Traceback" not in plain.stderr
    assert "Traceback" in debugged.stderr


@pytest.mark.parametrize("words", [["--help"], ["exec", "for n in range(200_000): print(n)"]])
def test_a_reader_that_is_gone_is_no_error(shell: Shell, words: list[str]) -> None:
    program = shell.start(*words)
    assert program.stdout is not None and program.stderr is not None

    program.stdout.readline()
    program.stdout.close()

    said = program.stderr.read()
    program.stderr.close()
    assert program.wait(PATIENCE) in (0, 141)
    assert said == ""


# ---- bare


def _at_a_terminal(shell: Shell, *words: str, **environment: str) -> tuple[str, int]:
    ours, theirs = pty.openpty()
    program = subprocess.Popen(
        [*PROGRAM, *words],
        stdin=theirs,
        stdout=theirs,
        stderr=theirs,
        env=shell.environment | {"TERM": "xterm", **environment},
        cwd=shell.project,
    )
    os.close(theirs)
    text = b""
    try:
        while piece := os.read(ours, 4096):
            text += piece
    except OSError:  # how a terminal says that its program is gone
        pass
    os.close(ours)
    return text.decode(), program.wait(PATIENCE)


def test_at_a_terminal_the_program_tells_what_it_is(shell: Shell) -> None:
    text, exit_code = _at_a_terminal(shell)

    assert exit_code == 0
    assert "claude mcp add rlm" in text
    assert "mcpServers" in text
    assert all(each.name in text for each in COMMANDS)
    assert "\x1b[1m" in text


def test_what_it_says_to_type_can_be_typed_where_the_program_is_not_on_the_path(shell: Shell) -> None:
    text, _ = _at_a_terminal(shell, PATH=os.defpath)

    typed = next(line for line in text.splitlines() if line.endswith(" install"))
    done = subprocess.run(
        [*shlex.split(typed), "--help"],
        env=shell.environment,
        cwd=shell.project,
        capture_output=True,
        timeout=PATIENCE,
        check=True,
    )
    assert done.stdout.startswith(b"usage: rlm-mcp install")


@pytest.mark.parametrize(
    ("words", "environment"),
    [([], {"NO_COLOR": "1"}), ([], {"TERM": "dumb"}), (["--color", "never"], {})],
)
def test_colours_can_be_turned_off(shell: Shell, words: list[str], environment: dict[str, str]) -> None:
    text, _ = _at_a_terminal(shell, *words, **environment)

    assert "claude mcp add rlm" in text
    assert "\x1b" not in text


def test_colours_can_be_forced(shell: Shell) -> None:
    assert "\x1b[" in shell("exce", environment={"FORCE_COLOR": "1"}).stderr
    assert "\x1b[" in shell("exce", "--color", "always").stderr
    assert "\x1b[" not in shell("exce", "--color=never", environment={"FORCE_COLOR": "1"}).stderr


@pytest.mark.parametrize("words", [[], ["serve"], ["mcp-serve"], ["--project", "elsewhere"]])
def test_on_a_pipe_the_program_is_a_server(shell: Shell, words: list[str]) -> None:
    program = shell.start(*words, stdin=subprocess.PIPE)
    about = {"protocolVersion": "2025-06-18", "capabilities": {}, "clientInfo": {"name": "t", "version": "1"}}
    hello = json.dumps({"jsonrpc": "2.0", "id": 1, "method": "initialize", "params": about})

    stdout, stderr = program.communicate(hello + "\n", timeout=PATIENCE)

    assert [json.loads(line)["result"]["serverInfo"]["name"] for line in stdout.splitlines()] == ["rlm"]
    assert stderr == ""
    assert program.returncode == 0


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT, signal.SIGHUP])
def test_a_server_that_is_told_to_stop_keeps_what_it_has(shell: Shell, number: signal.Signals) -> None:
    with shell.serving() as server:
        server.run("kept = 'until later'")
        server.process.send_signal(number)
        exit_code = server.process.wait(PATIENCE)

    assert exit_code == 128 + number
    assert shell("exec", "kept").stdout == "'until later'\n"
