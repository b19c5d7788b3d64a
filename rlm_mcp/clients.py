"""The programs that can start this server: where each keeps its servers, and how an entry looks there.

Values only. Nothing is run or written here, and no file of a client is read.

Claude Desktop starts servers with a short PATH of its own and replaces nothing in its file, so its entries
need absolute paths and can name no variables. A file in a project is shared with others, for whom
the paths of this machine mean nothing.
"""

from __future__ import annotations

import os
import shutil
import sys
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal, TypeAlias

ClientName: TypeAlias = Literal["claude-code", "claude-desktop", "vscode", "cursor"]
Scope: TypeAlias = Literal["local", "project", "user"]

DESKTOP_FILE = "claude_desktop_config.json"


@dataclass(frozen=True)
class Machine:
    """What of a machine and an account says where clients keep things."""

    system: str
    home: Path
    folder: Path
    environment: Mapping[str, str] = field(repr=False)

    @staticmethod
    def here() -> Machine:
        """Return this machine, account and working directory."""
        return Machine(sys.platform, Path.home(), Path.cwd(), os.environ)

    def program(self, *names: str) -> Path | None:
        """Return the absolute path of the first program of these that is on the PATH."""
        for name in names:
            found = shutil.which(name, path=self.environment.get("PATH", ""))
            if found:
                return Path(found).absolute()
        return None

    def folder_of_settings(self) -> Path:
        """Return where this system has programs with windows keep their settings."""
        if self.system == "darwin":
            return self.home / "Library" / "Application Support"
        if self.system == "win32":
            return Path(self.environment.get("APPDATA") or self.home / "AppData" / "Roaming")
        return Path(self.environment.get("XDG_CONFIG_HOME") or self.home / ".config")


@dataclass(frozen=True)
class Client:
    """A program that starts MCP servers.

    `files` says for each scope that it has which file holds the entries, and `path` under which
    names there. `signs` are what it is known by: one of them is there if the client is. `program` is
    its own command for adding servers, if it has one and it was found.
    """

    name: ClientName
    title: str
    files: Mapping[Scope, Path]
    usual: Scope
    path: Mapping[Scope, tuple[str, ...]]
    signs: tuple[Path, ...]
    program: Path | None = None
    variable: str | None = None
    typed: bool = False
    restart: str = ""

    @property
    def found(self) -> bool:
        """Whether it seems to be installed here."""
        return self.program is not None or any(sign.exists() for sign in self.signs)

    def entry(self, command: tuple[str, ...], variables: tuple[str, ...] = ()) -> dict[str, Any]:
        """Return an entry that starts `command`, with `variables` by name only, if the client replaces names."""
        entry: dict[str, Any] = {"type": "stdio"} if self.typed else {}
        entry |= {"command": command[0], "args": list(command[1:])}
        if variables and self.variable:
            entry["env"] = {name: self.variable.format(name=name) for name in variables}
        return entry


def clients(machine: Machine) -> tuple[Client, ...]:
    """Return all clients that are known, found or not."""
    return (_claude_code(machine), _claude_desktop(machine), _vscode(machine), _cursor(machine))


def _claude_code(machine: Machine) -> Client:
    config = machine.environment.get("CLAUDE_CONFIG_DIR")
    own = Path(config) / ".claude.json" if config else machine.home / ".claude.json"
    local = ("projects", str(_claude_project(machine.folder)), "mcpServers")
    return Client(
        "claude-code",
        "Claude Code",
        {"local": own, "project": machine.folder / ".mcp.json", "user": own},
        usual="local",
        path={"local": local, "project": ("mcpServers",), "user": ("mcpServers",)},
        signs=(own,),
        program=machine.program("claude"),
        variable="${{{name}}}",
        typed=True,
        restart="Start a new session of Claude Code; /mcp shows its servers.",
    )


def _claude_project(folder: Path) -> Path:
    """Return the folder under which Claude Code keeps what is local: that of the repository, if in one."""
    folder = folder.resolve()
    for each in (folder, *folder.parents):
        git = each / ".git"
        if git.is_dir():
            return each
        if git.is_file():
            _, _, place = git.read_text("utf-8", "replace").partition("gitdir:")
            repository, worktree, _ = place.strip().partition("/.git/worktrees/")
            return Path(repository) if worktree else each
    return folder


def _claude_desktop(machine: Machine) -> Client:
    folder = machine.folder_of_settings() / "Claude"
    return Client(
        "claude-desktop",
        "Claude Desktop",
        {"user": folder / DESKTOP_FILE},
        usual="user",
        path={"user": ("mcpServers",)},
        signs=(folder,),
        restart="Quit Claude Desktop wholly (closing its window is not enough) and start it again.",
    )


def _vscode(machine: Machine) -> Client:
    folder = machine.folder_of_settings() / "Code"
    return Client(
        "vscode",
        "VS Code",
        {"project": machine.folder / ".vscode" / "mcp.json", "user": folder / "User" / "mcp.json"},
        usual="project",
        path={"project": ("servers",), "user": ("servers",)},
        signs=(folder, machine.folder / ".vscode", *_as_signs(machine.program("code"))),
        variable="${{env:{name}}}",
        typed=True,
        restart='In VS Code, "MCP: List Servers" starts it.',
    )


def _cursor(machine: Machine) -> Client:
    return Client(
        "cursor",
        "Cursor",
        {"project": machine.folder / ".cursor" / "mcp.json", "user": machine.home / ".cursor" / "mcp.json"},
        usual="user",
        path={"project": ("mcpServers",), "user": ("mcpServers",)},
        signs=(machine.home / ".cursor", *_as_signs(machine.program("cursor"))),
        variable="${{env:{name}}}",
        restart="In Cursor, the settings' page for MCP shows it.",
    )


def _as_signs(program: Path | None) -> tuple[Path, ...]:
    return (program,) if program else ()
