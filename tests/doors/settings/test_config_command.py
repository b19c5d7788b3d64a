"""`rlm-mcp config` tells each value's origin and never a secret, and trusts nothing that was not agreed to."""

from __future__ import annotations

import json
import os
import pty
import subprocess
import sys
from pathlib import Path

import pytest

from rlm_mcp.keys import KEYS

from .conftest import Command

# ---- show


def test_shown_is_what_somebody_set_and_who(command: Command, monkeypatch: pytest.MonkeyPatch) -> None:
    command.desk.user("[rlm]\n\nmax_depth = 3\n")
    command.desk.theirs('[sandbox]\nfiles = "none"\n')
    monkeypatch.setenv("RLM_MODEL", "m")

    lines = command("config", "show", "--set", "sandbox.threads=8").splitlines()

    assert [line.split() for line in lines] == [
        ["setting", "value", "from"],
        ["rlm.model", '"m"', "environment", "(RLM_MODEL)"],
        ["rlm.max_depth", "3", "user", "(CONFIG/rlm.toml:3)"],
        ["sandbox.files", '"none"', "project", "(PROJECT/rlm.toml:2)"],
        ["sandbox.threads", "8", "flag", "(--set", "sandbox.threads)"],
    ]
    assert f"{len(KEYS) - 4} more are as by default; --all shows them." in command.err


def test_all_of_them_are_shown_on_request(command: Command) -> None:
    lines = command("config", "show", "--all").splitlines()[1:]

    assert [line.split()[0] for line in lines] == list(KEYS)
    assert command.err == ""


def test_show_is_what_config_does_by_itself(command: Command) -> None:
    assert command("config") == ""
    assert "All settings are as by default" in command.err


def test_a_secret_is_shown_as_set_and_where(command: Command, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("RLM_API_KEY", "hush-1")
    monkeypatch.setenv("SNIPARA_API_KEY", "hush-2")
    monkeypatch.setenv("RLM_HTTP_TOKEN", "hush-3")
    command.desk.user('[http]\noauth_client_secret = "hush-4"\n')

    text, data = command("config", "show", "--all"), command.data("config", "show")

    assert "hush" not in text + json.dumps(data)
    assert "rlm.api_key                  set                 environment (RLM_API_KEY)" in text
    assert data["settings"]["http.tokens"] == {
        "value": "set",
        "source": "environment",
        "where": "RLM_HTTP_TOKEN",
    }
    assert data["settings"]["http.oauth_client_secret"]["where"] == "CONFIG/rlm.toml:2"


def test_json_has_every_setting_typed(command: Command) -> None:
    command.desk.theirs('[sandbox]\nmemory_bytes = "1g"\nfolders = ["data"]\n')

    data = command.data("config", "show")

    assert list(data["settings"]) == list(KEYS)
    assert data["project"] == "PROJECT"
    assert data["settings"]["sandbox.memory_bytes"] == {
        "value": 1 << 30,
        "source": "project",
        "where": "PROJECT/rlm.toml:2",
    }
    assert data["settings"]["sandbox.folders"]["value"] == ["PROJECT/data"]
    assert data["settings"]["sandbox.network"] == {"value": False, "source": "default", "where": ""}


def test_what_is_not_applied_is_shown(command: Command) -> None:
    command.desk.theirs("[sandbox]\nnetwork = true\n")

    assert "sandbox.network = true, which is not applied" in command("config", "show")
    assert len(command.data("config", "show")["notes"]) == 1


def test_another_project_may_be_named(command: Command, tmp_path: Path) -> None:
    (tmp_path / "other").mkdir()
    (tmp_path / "other" / "rlm.toml").write_text("[rlm]\nmax_depth = 1\n")

    assert "max_depth" in command("config", "show", "--project", str(tmp_path / "other"))
    assert "max_depth" not in command("config", "show")


def test_what_is_wrong_ends_with_the_code_for_it(command: Command) -> None:
    command.desk.theirs("[sandbox]\nnetwrok = true\n")

    error = command.data("config", "show", code=3)

    assert error["message"] == "PROJECT/rlm.toml:2: [sandbox] netwrok is not a setting; did you mean network?"
    assert command("config", "show", "--set", "sandbox.netwrok=1", code=3) == ""


# ---- path


def test_the_path_of_the_users_own_file_is_all_that_goes_to_stdout(command: Command) -> None:
    assert command("config", "path") == "CONFIG/rlm.toml\n"
    assert command.err == "That file is not there yet. The project's is PROJECT/rlm.toml.\n"
    assert command.data("config", "path") == {
        "user": {"path": "CONFIG/rlm.toml", "exists": False},
        "project": {"path": "PROJECT/rlm.toml", "exists": False},
    }


def test_the_path_is_told_even_if_the_file_is_wrong(command: Command) -> None:
    command.desk.user("[")

    assert command("config", "path") == "CONFIG/rlm.toml\n"


# ---- trust


def test_nothing_is_trusted_where_there_is_nobody_to_ask(
    command: Command, monkeypatch: pytest.MonkeyPatch
) -> None:
    command.desk.theirs("[sandbox]\nnetwork = true\n")
    monkeypatch.setattr(sys, "stdin", None)

    shown = command("config", "trust", code=2)

    assert shown.splitlines()[2:4] == [
        "setting          it asks for  now    what it is",
        "sandbox.network  true         false  Whether code has the machine's network.",
    ]
    assert "There is nobody to ask, so nothing was changed." in command.err
    assert command.data("config", "trust", code=2)["code"] == "not_agreed"
    assert not command.desk.load().settings.sandbox.network


def test_trust_that_was_agreed_to_holds_until_it_is_taken_back(command: Command) -> None:
    command.desk.theirs("[sandbox]\nnetwork = true\n")

    given = command.data("config", "trust", "--yes")
    again = command.data("config", "trust")
    held = command.desk.load().settings.sandbox.network
    taken = command.data("config", "distrust")
    nothing = command.data("config", "distrust")

    assert given == {
        "project": "PROJECT",
        "file": "PROJECT/rlm.toml",
        "asks": {"sandbox.network": True},
        "trusted": True,
        "changed": True,
    }
    assert (again["trusted"], again["changed"]) == (True, False)
    assert (taken["changed"], nothing["changed"]) == (True, False)
    assert held and not command.desk.load().settings.sandbox.network


def test_a_file_that_asks_for_nothing_wide_needs_no_trust(command: Command) -> None:
    command.desk.theirs("[sandbox]\nthreads = 8\n")

    assert (
        command("config", "trust")
        == "PROJECT/rlm.toml asks for nothing that needs your trust. Nothing was changed.\n"
    )
    assert not (command.desk.config / "trusted.json").exists()


def test_a_folder_without_a_file_or_none_at_all_cannot_be_trusted(command: Command) -> None:
    assert command.data("config", "trust", "--yes", code=1)["code"] == "no_file"
    assert command.data("config", "trust", "nowhere", "--yes", code=2)["code"] == "project"


def test_a_file_that_is_wrong_is_not_trusted(command: Command) -> None:
    command.desk.theirs("[sandbox]\nnetwork = true\nx = 1\n")

    command("config", "trust", "--yes", code=3)

    assert not (command.desk.config / "trusted.json").exists()


def test_what_a_file_says_cannot_move_the_cursor(command: Command) -> None:
    command.desk.theirs('[rlm]\ndocker_image = "x\\u001b[2J\\r\\n\\u202e"\n')

    shown = command("config", "trust", "--yes") + command("config", "show")

    assert all(char.isprintable() or char == "\n" for char in shown) and "\\u001b" in shown


@pytest.mark.parametrize(
    ("answer", "agreed"), [("y\n", True), ("yes\n", True), ("\n", False), ("no\n", False)]
)
def test_at_a_terminal_the_person_is_asked(command: Command, answer: str, agreed: bool) -> None:
    command.desk.theirs("[sandbox]\nnetwork = true\n")
    ours, theirs = pty.openpty()
    try:
        with subprocess.Popen(
            [sys.executable, "-m", "rlm_mcp", "config", "trust", str(command.desk.project)],
            stdin=theirs, stdout=subprocess.PIPE, stderr=subprocess.PIPE,
            env={**os.environ, "PYTHONPATH": os.pathsep.join(filter(None, sys.path))},
        ) as process:  # fmt: skip
            os.write(ours, answer.encode())
            _, err = process.communicate(timeout=60)
    finally:
        os.close(ours)
        os.close(theirs)

    assert b"Allow this? [y/N]" in err
    assert command.desk.load().settings.sandbox.network is agreed
    assert process.returncode == (0 if agreed else 1)
