"""`rlm-mcp init` explains what can be set, is the same done twice, and never damages what is there."""

from __future__ import annotations

import json
import os
import re
import sys
import tomllib
from pathlib import Path

import pytest

from rlm_mcp.cli.init import template
from rlm_mcp.keys import KEYS
from rlm_mcp.settings import Settings

from .conftest import Command, Desk

ENTRY = {"command": "uvx", "args": ["rlm-mcp"]}


def names_in(folder: Path) -> set[str]:
    return {each.name for each in folder.iterdir()}


def test_the_file_that_is_written_sets_nothing(command: Command) -> None:
    command("init")

    loaded = command.desk.load()

    assert (command.desk.project / "rlm.toml").read_text() == template()
    assert loaded.settings == Settings() and loaded.notes == ()


def test_each_line_is_right_when_its_mark_is_taken_away(desk: Desk) -> None:
    text = re.sub(r"^#(?=\w)", "", template(), flags=re.MULTILINE)
    desk.theirs(text)

    loaded = desk.load()

    count = sum(len(table) for table in tomllib.loads(text).values())
    assert count == 18
    assert sum(origin.source == "project" for origin in loaded.origins.values()) == count - 1
    assert "sandbox.python" in loaded.notes[0] and len(loaded.notes) == 1


def test_done_twice_it_is_the_same(command: Command) -> None:
    first = command.data("init", "--mcp-json")
    before = {path: path.read_bytes() for path in command.desk.project.iterdir()}
    second = command.data("init", "--mcp-json")

    assert [each["action"] for each in first["files"]] == ["create", "create"]
    assert [each["action"] for each in second["files"]] == ["none", "none"]
    assert {path: path.read_bytes() for path in command.desk.project.iterdir()} == before


def test_a_dry_run_shows_all_and_writes_nothing(command: Command) -> None:
    shown = command("init", "--mcp-json", "--dry-run")

    assert '+#files = "read"' in shown and '+      "command": "uvx",' in shown
    assert names_in(command.desk.project) == set()


def test_another_folder_may_be_named(command: Command, tmp_path: Path) -> None:
    command("init", str(tmp_path))

    assert (tmp_path / "rlm.toml").exists()
    assert names_in(command.desk.project) == set()
    assert command.data("init", "nowhere", code=2)["code"] == "project"


def test_a_file_that_is_there_stays_as_it_is(command: Command) -> None:
    command.desk.theirs("[sandbox]\nthreads = 8\n")

    shown = command("init")

    assert shown == "PROJECT/rlm.toml is there already, and stays as it is (--force replaces it).\n"
    assert (command.desk.project / "rlm.toml").read_text() == "[sandbox]\nthreads = 8\n"


@pytest.mark.parametrize("content", [b"[sandbox]\nthreads = 8\n", b"\xff\x00 no TOML"])
def test_with_force_it_is_replaced_and_a_copy_kept(command: Command, content: bytes) -> None:
    (command.desk.project / "rlm.toml").write_bytes(content)

    command("init", "--force", "--yes")

    assert (command.desk.project / "rlm.toml").read_text() == template()
    assert (command.desk.project / "rlm.toml.bak-1").read_bytes() == content
    assert names_in(command.desk.project) == {"rlm.toml", "rlm.toml.bak-1"}


def test_what_is_there_is_not_replaced_where_there_is_nobody_to_ask(
    command: Command, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sys, "stdin", None)
    command.desk.theirs("# mine\n")
    (command.desk.project / ".mcp.json").write_text("{}")

    assert command.data("init", "--force", code=2)["code"] == "not_agreed"
    assert command.data("init", "--mcp-json", code=2)["code"] == "not_agreed"
    assert (command.desk.project / "rlm.toml").read_text() == "# mine\n"
    assert names_in(command.desk.project) == {"rlm.toml", ".mcp.json"}


# ---- .mcp.json


@pytest.mark.parametrize(
    ("before", "after"),
    [
        (
            '{\n    "z": 1.0,\n    "mcpServers": {\n        "b": {"command": "x"},\n        "a": {}\n    },\n    "é": "\\u00e9"\n}',
            '{\n    "z": 1.0,\n    "mcpServers": {\n        "b": {"command": "x"},\n        "a": {},\n        "rlm": {\n'
            '            "command": "uvx",\n            "args": [\n                "rlm-mcp"\n            ]\n        }\n    },\n    "é": "\\u00e9"\n}',
        ),
        ('{"mcpServers":{"a":{}}}\n', '{"mcpServers":{"a":{},"rlm": {"command": "uvx", "args": ["rlm-mcp"]}}}\n'),
        (
            '{\r\n\t"mcpServers": {}\r\n}\r\n',
            '{\r\n\t"mcpServers": {\r\n\t\t"rlm": {\r\n\t\t\t"command": "uvx",\r\n\t\t\t"args": [\r\n\t\t\t\t"rlm-mcp"\r\n\t\t\t]\r\n\t\t}\r\n\t}\r\n}\r\n',
        ),
    ],
    ids=["four spaces", "one line", "tabs"],
)  # fmt: skip
def test_everything_in_it_is_kept_as_it_was_written(command: Command, before: str, after: str) -> None:
    path = command.desk.project / ".mcp.json"
    path.write_bytes(before.encode())

    command("init", "--mcp-json", "--yes")

    assert path.read_bytes().decode() == after
    assert json.loads(after)["mcpServers"]["rlm"] == ENTRY
    assert (command.desk.project / ".mcp.json.bak-1").read_bytes() == before.encode()


def test_keys_of_other_servers_are_not_shown(command: Command) -> None:
    text = json.dumps({"mcpServers": {"x": {"command": "y", "env": {"TOKEN": "hush"}}}}, indent=1)
    (command.desk.project / ".mcp.json").write_text(text)

    assert "hush" not in command("init", "--mcp-json", "--yes") + command.err


@pytest.mark.parametrize(
    "content",
    ["{", "[]", '{"a": 1, "a": 2}', '{"mcpServers": []}', '{"mcpServers": {"a": NaN}}', "// x\n{}", '{"a": 1,}', "[" * 99999],
)  # fmt: skip
def test_a_file_that_is_not_understood_is_left_alone_and_so_is_everything(
    command: Command, content: str
) -> None:
    (command.desk.project / ".mcp.json").write_text(content)

    error = command.data("init", "--mcp-json", "--yes", code=1)

    assert error["message"].startswith("PROJECT/.mcp.json ") and "Nothing was written." in error["message"]
    assert (command.desk.project / ".mcp.json").read_text() == content
    assert names_in(command.desk.project) == {".mcp.json"}


def test_another_entry_of_that_name_is_replaced_with_force_only(command: Command) -> None:
    path = command.desk.project / ".mcp.json"
    path.write_text('{"mcpServers": {"rlm": {"command": "other"}}}')

    assert command.data("init", "--mcp-json", "--yes", code=1)["code"] == "other_entry"
    assert names_in(command.desk.project) == {".mcp.json"}

    command("init", "--mcp-json", "--yes", "--force")
    assert json.loads(path.read_text()) == {"mcpServers": {"rlm": ENTRY}}


@pytest.mark.parametrize("name", ["rlm.toml", ".mcp.json"])
def test_nothing_is_written_through_a_link_that_leads_out(
    command: Command, tmp_path: Path, name: str
) -> None:
    (tmp_path / "outside").write_text("{}")
    (command.desk.project / name).symlink_to(tmp_path / "outside")

    error = command.data("init", "--mcp-json", "--force", "--yes", code=1)

    assert error["code"] == "leads_out"
    assert (tmp_path / "outside").read_text() == "{}"
    assert names_in(command.desk.project) == {name}


@pytest.mark.parametrize("name", ["rlm.toml", ".mcp.json"])
def test_a_pipe_or_a_folder_in_their_place_is_refused(command: Command, name: str) -> None:
    path = command.desk.project / name
    path.mkdir()
    command("init", "--mcp-json", "--force", "--yes", code=1)
    path.rmdir()
    os.mkfifo(path)
    command("init", "--mcp-json", "--force", "--yes", code=1)

    assert names_in(command.desk.project) == {name}


def test_what_is_explained_can_be_set_by_a_project() -> None:
    explained = re.findall(r"^#(\w+) = ", template(), flags=re.MULTILINE)

    assert len(explained) == 18
    assert not any(key.secret for key in KEYS.values() if key.name in explained)
