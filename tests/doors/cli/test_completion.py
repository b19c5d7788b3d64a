"""Completion in real shells."""

from __future__ import annotations

import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from .programs import PATIENCE, Shell


@pytest.fixture
def programs(tmp_path: Path) -> Path:
    """A folder with the program under its name."""
    folder = tmp_path / "bin"
    folder.mkdir()
    for name in ("rlm-mcp", "rlm"):
        program = folder / name
        program.write_text(f'#!/bin/sh\nexec {sys.executable} -m rlm_mcp "$@"\n')
        program.chmod(0o755)
    return folder


def _run(shell: Shell, programs: Path, program: list[str], script: str) -> list[str]:
    environment = shell.environment | {"PATH": f"{programs}:{shell.environment['PATH']}"}
    done = subprocess.run(
        [*program, script],
        env=environment,
        cwd=shell.project,
        capture_output=True,
        text=True,
        timeout=PATIENCE,
        check=True,
    )
    assert done.stderr == ""
    return done.stdout.splitlines()


def _in_bash(shell: Shell, programs: Path, *words: str) -> list[str]:
    listed = " ".join(f"'{word}'" for word in words)
    script = (
        'compopt() { echo "compopt $*"; }; eval "$(rlm-mcp completion bash)"; '
        f'COMP_WORDS=({listed}); COMP_CWORD={len(words) - 1}; _rlm_mcp; printf "%s\\n" "${{COMPREPLY[@]}}"'
    )
    return _run(shell, programs, ["bash", "--norc", "-c"], script)


@pytest.mark.parametrize(
    ("words", "found"),
    [
        (["rlm-mcp", "ses"], ["sessions"]),
        (["rlm", "serve", "--transp"], ["--transport"]),
        (["rlm-mcp", "serve", "--transport", "s"], ["stdio", "streamable-http", "sse"]),
        (["rlm-mcp", "sessions", "re"], ["reset"]),
        (["rlm-mcp", "--color", "never", "sessions", "pur"], ["purge"]),
        (["rlm-mcp", "completion", "z"], ["zsh"]),
        (["rlm-mcp", "exec", "-f", ""], ["compopt -o default", ""]),
    ],
)
def test_bash_completes_commands_flags_and_values(
    shell: Shell, programs: Path, words: list[str], found: list[str]
) -> None:
    assert sorted(_in_bash(shell, programs, *words)) == sorted(found)


@pytest.mark.parametrize("words", [["sessions", "show", ""], ["exec", "--project", "no"]])
def test_bash_completes_projects(shell: Shell, programs: Path, words: list[str]) -> None:
    key = shell.data("exec", "--project", "notes", "1")["project"]["key"]

    assert key in _in_bash(shell, programs, "rlm-mcp", *words)


def test_what_is_wrong_in_the_settings_does_not_disturb_who_types(shell: Shell, programs: Path) -> None:
    shell.environment["RLM_SANDBOX_MEMORY_BYTES"] = "nonsense"

    assert _in_bash(shell, programs, "rlm-mcp", "exec", "--project", "x") == ["compopt -o default", ""]


def test_each_command_and_flag_can_be_completed(shell: Shell) -> None:
    top = shell("completion", "words", "").stdout
    flags = shell("completion", "words", "serve", "--").stdout

    assert {line.split("\t")[0] for line in top.splitlines()} >= {
        "serve",
        "exec",
        "sessions",
        "config",
        "doctor",
    }
    assert {line.split("\t")[0] for line in flags.splitlines()} >= {
        "--port",
        "--no-network",
        "--project",
        "--json",
    }


@pytest.mark.skipif(shutil.which("zsh") is None, reason="there is no zsh here")
def test_zsh_completes(shell: Shell, programs: Path) -> None:
    script = (
        'compdef() { :; }; _describe() { print -l -- "${(@P)2}"; }; eval "$(rlm-mcp completion zsh)"; '
        "words=(rlm-mcp sessions pu); CURRENT=3; _rlm_mcp"
    )

    assert _run(shell, programs, ["zsh", "-f", "-c"], script) == [
        "purge:remove all that is kept of a project, its trajectories too"
    ]


@pytest.mark.skipif(shutil.which("fish") is None, reason="there is no fish here")
def test_fish_completes(shell: Shell, programs: Path) -> None:
    script = "rlm-mcp completion fish | source; complete -C 'rlm-mcp sessions pu'; complete -C 'rlm serve --transport ss'"

    found = _run(shell, programs, ["fish", "--no-config", "-c"], script)

    assert found == ["purge\tremove all that is kept of a project, its trajectories too", "sse"]
