"""`rlm-mcp install`, run as a person or a script runs it."""

from __future__ import annotations

import json
import os
import pty
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from tests.doors.install.homes import Home

OTHERS = '{\n  "mcpServers": {\n    "gh": {"command": "npx", "env": {"TOKEN": "s3cret"}}\n  },\n  "theme": "dark"\n}\n'


def test_it_adds_one_entry_to_claude_desktop_and_leaves_every_other_byte(home: Home) -> None:
    file = home.with_desktop(OTHERS)

    ran = home.run("install", "--client", "claude-desktop", "--yes", "--project", "./data")

    assert ran.code == 0, ran.err
    entry = json.loads(file.read_text())["mcpServers"]["rlm"]
    assert Path(entry["command"]).is_absolute()
    assert entry["args"][-3:] == ["serve", "--project", str(home.project / "data")]
    head, tail = OTHERS.split('}}\n  },\n  "theme"')
    assert file.read_text().startswith(head + "}},\n")
    assert file.read_text().endswith('  },\n  "theme"' + tail)
    assert (file.parent / f"{file.name}.bak-1").read_text() == OTHERS


def test_the_entry_that_is_written_starts_a_server(home: Home) -> None:
    file = home.with_desktop("")
    home.run("install", "--client", "claude-desktop", "--yes")
    entry = json.loads(file.read_text())["mcpServers"]["rlm"]
    environment = home.environment() | {"PATH": "/usr/bin:/bin"}

    greeting = {
        "protocolVersion": "2025-11-25",
        "capabilities": {},
        "clientInfo": {"name": "t", "version": "1"},
    }
    line = json.dumps({"jsonrpc": "2.0", "id": 1, "method": "initialize", "params": greeting})
    with subprocess.Popen(
        [entry["command"], *entry["args"]],
        cwd="/",
        env=environment,
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    ) as server:
        assert server.stdin and server.stdout
        server.stdin.write(line + "\n")
        server.stdin.flush()
        answer = json.loads(server.stdout.readline())
        server.stdin.close()
        server.wait(timeout=30)

    assert answer["result"]["protocolVersion"] == "2025-11-25"


def test_a_second_time_there_is_nothing_to_do_and_nothing_is_written(home: Home) -> None:
    file = home.with_desktop(OTHERS)
    home.run("install", "--client", "claude-desktop", "--yes")
    written = file.stat().st_mtime_ns

    ran = home.run("install", "--client", "claude-desktop")

    assert ran.code == 0
    assert "nothing to do" in ran.out
    assert file.stat().st_mtime_ns == written


def test_removing_gives_back_the_file_as_it_was(home: Home) -> None:
    file = home.with_desktop(OTHERS)
    home.run("install", "--client", "claude-desktop", "--yes")

    ran = home.run("install", "--client", "claude-desktop", "--remove", "--yes")

    assert ran.code == 0, ran.err
    assert file.read_text() == OTHERS
    assert "nothing to do" in home.run("install", "--client", "claude-desktop", "--remove").out


def test_a_dry_run_shows_the_change_and_no_secret_and_writes_nothing(home: Home) -> None:
    file = home.with_desktop(OTHERS)

    ran = home.run("install", "--client", "claude-desktop", "--dry-run")

    assert ran.code == 0
    assert '+    "rlm": {' in ran.out
    assert '"TOKEN"' in ran.out and "s3cret" not in ran.out + ran.err
    assert [path.name for path in file.parent.iterdir()] == [file.name]
    assert file.read_text() == OTHERS


def test_without_a_terminal_it_does_nothing_unless_told_yes(home: Home) -> None:
    file = home.with_desktop(OTHERS)

    ran = home.run("install", "--client", "claude-desktop", given="y\n")

    assert ran.code == 2
    assert "--yes" in ran.err
    assert file.read_text() == OTHERS


@pytest.mark.parametrize(
    ("answer", "code", "added"), [("y\n", 0, True), ("\n", 1, False), ("no\n", 1, False)]
)
def test_at_a_terminal_it_asks_and_only_yes_is_yes(home: Home, answer: str, code: int, added: bool) -> None:
    file = home.with_desktop(OTHERS)
    ours, theirs = pty.openpty()
    os.write(ours, answer.encode())

    command = [sys.executable, "-m", "rlm_mcp", "install", "--client", "claude-desktop"]
    ran = subprocess.run(
        command,
        cwd=home.project,
        env=home.environment(),
        stdin=theirs,
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    os.close(ours)
    os.close(theirs)

    assert ran.returncode == code
    assert "[y/N]" in ran.stderr
    assert ("rlm" in json.loads(file.read_text())["mcpServers"]) is added


@pytest.mark.parametrize("text", ["{// mine\n}", '{"mcpServers": [],}', "{", '{"mcpServers": []}', "[1]"])
def test_a_file_that_it_does_not_understand_is_left_alone_with_advice(home: Home, text: str) -> None:
    file = home.with_desktop(text)

    ran = home.run("install", "--client", "claude-desktop", "--yes")

    assert ran.code == 1
    assert str(file) in ran.err and "Nothing was written" in ran.err and '"command"' in ran.err
    assert file.read_text() == text
    assert len(list(file.parent.iterdir())) == 1


def test_an_entry_of_that_name_that_differs_stays_unless_forced(home: Home) -> None:
    theirs: dict[str, Any] = {"command": "other", "args": [], "env": {"MINE": "1"}, "timeout": 5}
    file = home.with_desktop(json.dumps({"mcpServers": {"rlm": theirs}}, indent=2))

    refused = home.run("install", "--client", "claude-desktop", "--yes")
    kept = json.loads(file.read_text())["mcpServers"]["rlm"]
    forced = home.run("install", "--client", "claude-desktop", "--yes", "--force")
    replaced = json.loads(file.read_text())["mcpServers"]["rlm"]

    assert (refused.code, kept) == (1, theirs)
    assert "--force" in refused.err and '"other"' in refused.out
    assert forced.code == 0
    assert replaced["args"][-1] == "serve"
    assert (replaced["env"], replaced["timeout"]) == ({"MINE": "1"}, 5)


def test_claude_code_is_told_by_its_own_command(home: Home) -> None:
    home.with_claude()

    ran = home.run(
        "install", "--scope", "user", "--yes", "--env", "OPENAI_API_KEY", "--set", "rlm.verbose=true"
    )

    assert ran.code == 0, ran.err
    [asked] = home.asked_of_claude()
    assert asked[:5] == ["mcp", "add", "--scope", "user", "rlm"]
    assert asked[5:8] == ["-e", "OPENAI_API_KEY=${OPENAI_API_KEY}", "--"]
    assert Path(asked[8]).is_absolute()
    assert asked[-3:] == ["serve", "--set", "rlm.verbose=true"]


def test_what_claude_code_has_already_is_read_from_its_file(home: Home) -> None:
    home.with_claude()
    dry = home.run("install", "--dry-run", "--json").data["changes"][0]
    command = dry["commands"][0]
    start = command[command.index("--") + 1 :]
    entry: dict[str, Any] = {"type": "stdio", "command": start[0], "args": start[1:], "env": {}}
    known = {"projects": {str(home.project): {"mcpServers": {"rlm": entry}}}}
    (home.folder / ".claude.json").write_text(json.dumps(known))

    again = home.run("install")
    removed = home.run("install", "--remove", "--yes")

    assert (again.code, removed.code) == (0, 0)
    assert "nothing to do" in again.out
    assert home.asked_of_claude() == [["mcp", "remove", "--scope", "local", "rlm"]]


def test_an_entry_of_claude_code_is_put_back_when_its_replacement_is_refused(home: Home) -> None:
    home.with_claude()
    program = home.programs / "claude"
    program.write_text(program.read_text().replace("exit 0", '[ "$2" != add ]'))
    known = {"mcpServers": {"rlm": {"command": "other", "args": ["a"]}}}
    (home.folder / ".claude.json").write_text(json.dumps(known))

    ran = home.run("install", "--scope", "user", "--force", "--yes")

    assert ran.code == 1
    assert [asked[1] for asked in home.asked_of_claude()] == ["remove", "add", "add-json"]
    assert json.loads(home.asked_of_claude()[-1][-1]) == {"type": "stdio", "command": "other", "args": ["a"]}


def test_what_claude_code_answers_when_it_refuses_is_passed_on(home: Home) -> None:
    home.with_claude(code=3)
    with (home.programs / "claude").open("a") as program:
        program.write("\n")

    ran = home.run("install", "--client", "claude-code", "--yes")

    assert ran.code == 1
    assert "exit code 3" in ran.err


def test_without_its_command_claude_codes_own_file_is_not_touched_but_a_projects_is_made(home: Home) -> None:
    own = home.folder / ".claude.json"
    own.write_text("{}")

    refused = home.run("install", "--client", "claude-code", "--yes")
    made = home.run("install", "--client", "claude-code", "--scope", "project", "--yes")

    assert refused.code == 1 and "not on the PATH" in refused.err
    assert own.read_text() == "{}"
    assert made.code == 0, made.err
    assert json.loads((home.project / ".mcp.json").read_text())["mcpServers"]["rlm"]["type"] == "stdio"


@pytest.mark.parametrize("client", ["claude-code", "vscode", "cursor"])
@pytest.mark.parametrize("words", [(), ("--remove",)], ids=["add", "remove"])
def test_a_project_whose_file_leads_elsewhere_changes_nothing_there(
    home: Home, client: str, words: tuple[str, ...]
) -> None:
    text = '{"mcpServers": {"rlm": {"command": "mine"}}, "servers": {"rlm": {"command": "mine"}}}'
    theirs = home.folder / "elsewhere.json"
    theirs.write_text(text)
    for name in (".mcp.json", ".vscode/mcp.json", ".cursor/mcp.json"):
        file = home.project / name
        file.parent.mkdir(exist_ok=True)
        file.symlink_to(theirs)

    ran = home.run("install", "--client", client, "--scope", "project", "--yes", "--force", *words)

    assert ran.code == 1 and "leads out of the project" in ran.err
    assert theirs.read_text() == text


def test_vscode_and_cursor_get_theirs_in_the_form_that_they_read(home: Home) -> None:
    (home.folder / ".cursor").mkdir()

    code = home.run("install", "--client", "vscode", "--yes")
    cursor = home.run("install", "--client", "cursor", "--yes", "--env", "KEY")

    assert (code.code, cursor.code) == (0, 0)
    assert (
        json.loads((home.project / ".vscode" / "mcp.json").read_text())["servers"]["rlm"]["type"] == "stdio"
    )
    entry = json.loads((home.folder / ".cursor" / "mcp.json").read_text())["mcpServers"]["rlm"]
    assert entry["env"] == {"KEY": "${env:KEY}"}


def test_with_no_client_here_it_says_where_it_looked_and_how_to_do_it_by_hand(home: Home) -> None:
    ran = home.run("install")

    assert ran.code == 5
    assert str(home.desktop.parent) in ran.err and "`claude` on the PATH" in ran.err
    assert '"mcpServers"' in ran.err and '"command"' in ran.err


@pytest.mark.parametrize(
    "words",
    [
        ("--set", "rlm.api_key=sk-123"),
        ("--set", "http.tokens=a=sk-123"),
        ("--env", "KEY=sk-123"),
    ],
)
def test_a_secret_is_never_written(home: Home, words: tuple[str, str]) -> None:
    file = home.with_desktop(OTHERS)

    ran = home.run("install", "--client", "claude-desktop", "--yes", *words)

    assert ran.code == 2
    assert "sk-123" not in ran.err + ran.out
    assert file.read_text() == OTHERS


def test_settings_with_which_a_server_would_not_start_are_not_written(home: Home) -> None:
    file = home.with_desktop(OTHERS)

    ran = home.run("install", "--client", "claude-desktop", "--yes", "--set", "sandbox.files=wirte")

    assert ran.code == 3
    assert file.read_text() == OTHERS


@pytest.mark.parametrize("words", [("--name", "a b"), ("--client", "claude-desktop", "--scope", "project")])
def test_what_cannot_be_is_refused_as_wrong_usage(home: Home, words: tuple[str, ...]) -> None:
    home.with_desktop(OTHERS)

    assert home.run("install", "--yes", *words).code == 2


def test_scripts_read_what_was_done(home: Home) -> None:
    file = home.with_desktop(OTHERS)

    [change] = home.run("install", "--client", "all", "--yes", "--json").data["changes"]

    assert (change["client"], change["action"], change["done"]) == ("claude-desktop", "add", True)
    assert change["file"] == str(file)
    assert "s3cret" not in change["diff"]


@pytest.mark.parametrize(
    ("version", "origin", "by_uvx"),
    [
        ("9.9.9", None, True),
        ("9.9.9.dev0", None, False),
        ("9.9.9", {"url": "file:///src", "dir_info": {"editable": True}}, False),
        ("9.9.9", {"url": "file:///rlm_mcp.whl", "archive_info": {}}, False),
    ],
)
def test_uvx_is_named_by_its_absolute_path_if_it_would_start_what_runs_here(
    home: Home, version: str, origin: dict[str, Any] | None, by_uvx: bool
) -> None:
    file = home.with_desktop("{}")
    uvx = home.programs / "uvx"
    uvx.touch(mode=0o755)
    site = _site_with(home.folder / "site", version, origin)

    home.run("install", "--client", "all", "--yes", PYTHONPATH=f"{site}:{home.environment()['PYTHONPATH']}")

    entry = json.loads(file.read_text())["mcpServers"]["rlm"]
    assert ([entry["command"], *entry["args"]] == [str(uvx), "rlm-mcp", "serve"]) is by_uvx


def test_what_is_shared_with_others_names_uvx_and_no_path_of_this_machine(home: Home) -> None:
    (home.programs / "uvx").touch(mode=0o755)
    site = _site_with(home.folder / "site", "9.9.9", None)
    words = ("install", "--client", "vscode", "--yes")

    home.run(*words, PYTHONPATH=f"{site}:{home.environment()['PYTHONPATH']}")

    entry = json.loads((home.project / ".vscode" / "mcp.json").read_text())["servers"]["rlm"]
    assert entry == {"type": "stdio", "command": "uvx", "args": ["rlm-mcp", "serve"]}


def test_what_runs_in_containers_is_started_with_what_it_needs_for_that(home: Home) -> None:
    (home.programs / "uvx").touch(mode=0o755)
    site = _site_with(home.folder / "site", "9.9.9", None)
    words = ("install", "--client", "vscode", "--yes", "--set", "rlm.environment=docker")

    home.run(*words, PYTHONPATH=f"{site}:{home.environment()['PYTHONPATH']}")

    entry = json.loads((home.project / ".vscode" / "mcp.json").read_text())["servers"]["rlm"]
    assert entry["args"][:4] == ["--from", "rlm-mcp[docker]", "rlm-mcp", "serve"]


def _site_with(site: Path, version: str, origin: dict[str, Any] | None) -> Path:
    """Make a folder in which this package is installed in some version, from somewhere."""
    facts = site / f"rlm_mcp-{version}.dist-info"
    facts.mkdir(parents=True)
    (facts / "METADATA").write_text(f"Metadata-Version: 2.4\nName: rlm-mcp\nVersion: {version}\n")
    if origin:
        (facts / "direct_url.json").write_text(json.dumps(origin))
    return site
