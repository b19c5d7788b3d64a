"""Where clients keep their servers, on each system."""

from __future__ import annotations

from pathlib import Path

import pytest

from rlm_mcp.clients import Client, Machine, clients
from rlm_mcp.launching import command_here, installed, uvx_of

ME = Path("/home/me")


def client(
    name: str, *, system: str = "linux", home: Path = ME, environment: dict[str, str] | None = None
) -> Client:
    machine = Machine(system, home, home / "project", environment or {})
    return next(each for each in clients(machine) if each.name == name)


@pytest.mark.parametrize(
    ("system", "environment", "expected"),
    [
        ("darwin", {}, "/home/me/Library/Application Support/Claude/claude_desktop_config.json"),
        ("win32", {"APPDATA": "/home/me/Roaming"}, "/home/me/Roaming/Claude/claude_desktop_config.json"),
        ("win32", {}, "/home/me/AppData/Roaming/Claude/claude_desktop_config.json"),
        ("linux", {}, "/home/me/.config/Claude/claude_desktop_config.json"),
        ("linux", {"XDG_CONFIG_HOME": "/elsewhere"}, "/elsewhere/Claude/claude_desktop_config.json"),
    ],
)
def test_claude_desktops_file_is_where_it_looks(
    system: str, environment: dict[str, str], expected: str
) -> None:
    assert client("claude-desktop", system=system, environment=environment).files == {"user": Path(expected)}


def test_entries_look_as_each_client_wants_them() -> None:
    command = ("/bin/uvx", "rlm-mcp", "serve")
    plain = {"command": "/bin/uvx", "args": ["rlm-mcp", "serve"]}

    assert client("claude-desktop").entry(command, ("KEY",)) == plain
    assert client("cursor").entry(command, ("KEY",)) == plain | {"env": {"KEY": "${env:KEY}"}}
    assert client("vscode").entry(command) == {"type": "stdio"} | plain
    assert client("claude-code").entry(command, ("KEY",))["env"] == {"KEY": "${KEY}"}
    assert client("vscode").path["project"] == ("servers",)


def test_what_is_local_to_claude_code_belongs_to_the_repository_and_its_worktrees(tmp_path: Path) -> None:
    repository, worktree, inside = tmp_path / "repo", tmp_path / "tree", tmp_path / "repo" / "a" / "b"
    (repository / ".git").mkdir(parents=True)
    inside.mkdir(parents=True)
    worktree.mkdir()
    (worktree / ".git").write_text(f"gitdir: {repository}/.git/worktrees/tree\n")

    for folder in (repository, inside, worktree):
        known = clients(Machine("linux", tmp_path, folder, {}))
        assert known[0].path["local"] == ("projects", str(repository), "mcpServers")


def test_a_client_is_found_by_its_program_or_its_folder(tmp_path: Path) -> None:
    assert not client("claude-desktop", home=tmp_path).found
    assert not client("claude-code", home=tmp_path).found

    (tmp_path / ".config" / "Claude").mkdir(parents=True)
    program = tmp_path / "claude"
    program.touch(mode=0o755)

    assert client("claude-desktop", home=tmp_path).found
    assert client("claude-code", home=tmp_path, environment={"PATH": str(tmp_path)}).program == program


def test_uvx_is_found_where_its_installer_puts_it_although_it_is_not_on_the_path(tmp_path: Path) -> None:
    uvx = tmp_path / ".local" / "bin" / "uvx"
    uvx.parent.mkdir(parents=True)
    uvx.touch(mode=0o755)

    assert uvx_of(Machine("linux", tmp_path, tmp_path, {"PATH": ""})) == uvx


def test_the_uvx_that_started_us_is_found_wherever_it_lies(tmp_path: Path) -> None:
    uvx = tmp_path / "uvx"
    uvx.touch(mode=0o755)

    found = uvx_of(Machine("linux", tmp_path, tmp_path, {"PATH": "", "UV": str(tmp_path / "uv")}))
    assert found == uvx


def test_the_command_is_an_absolute_path_of_what_runs_here(tmp_path: Path) -> None:
    command = command_here(Machine("linux", tmp_path, tmp_path, {"PATH": ""}), ("--project", "x"))

    assert Path(command[0]).is_absolute()
    assert Path(command[0]).is_file()
    assert command == (*installed(), "serve", "--project", "x")
