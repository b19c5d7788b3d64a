"""`rlm-mcp doctor`, run as a person or a script runs it."""

from __future__ import annotations

import json
import socket
import threading
from pathlib import Path
from typing import Any

from tests.doors.install.homes import Home, Ran


def checks_of(ran: Ran) -> dict[str, Any]:
    return {check["name"]: check for check in ran.data["checks"]}


def test_on_this_machine_nothing_that_is_needed_fails(home: Home) -> None:
    ran = home.run("doctor", "--json")

    found = checks_of(ran)
    assert (ran.code, ran.data["failed"]) == (0, []), ran.out
    assert found["Cell"]["state"] == "ok"
    assert found["Handshake"]["more"]["protocol"] == "2025-11-25"
    assert found["Project"]["found"].startswith(str(home.project))
    assert found["Isolation"]["more"]["layers"]["rlimits"] is True
    assert all({"name", "state", "found", "fix"} <= set(check) for check in found.values())


def test_each_thing_has_a_line_and_what_is_amiss_a_fix(home: Home) -> None:
    (home.project / "rlm.toml").write_text("[sandbox]\nnetwork = true\n")

    ran = home.run("doctor", "--color", "never")

    lines = ran.out.splitlines()
    assert any(line.startswith("ok") and "1 + 1 gave 2" in line for line in lines)
    assert any(line.startswith("warn  Settings") and "trust" in line for line in lines)
    assert "\033" not in ran.out


def test_wrong_settings_are_a_failure_that_names_the_line(home: Home) -> None:
    config = home.folder / "config"
    config.mkdir()
    (config / "rlm.toml").write_text("[sandbox]\nfiles = 'wirte'\n")

    ran = home.run("doctor", "--json", RLM_CONFIG_DIR=str(config))

    assert ran.code == 5
    assert "rlm.toml:2" in checks_of(ran)["Settings"]["found"]


def test_keys_are_named_and_never_shown(home: Home) -> None:
    keys = {"ANTHROPIC_API_KEY": "sk-one", "OPENAI_API_KEY": "${OPENAI_API_KEY}", "SNIPARA_API_KEY": "sk-two"}

    ran = home.run("doctor", "--json", "--set", "rlm.model=m", **keys)

    found = checks_of(ran)
    assert found["Model"]["more"]["keys"] == ["ANTHROPIC_API_KEY"]
    assert found["Snipara"]["state"] == "warn" and "SNIPARA_PROJECT_SLUG" in found["Snipara"]["found"]
    assert "sk-" not in ran.out + ran.err


def test_a_place_that_cannot_be_written_is_a_failure(home: Home) -> None:
    place = home.folder / "file"
    place.touch()

    ran = home.run("doctor", "--json", "--set", f"sessions.state_dir={place / 'state'}")

    assert ran.code == 5
    assert "State" in ran.data["failed"]


def test_a_python_that_cannot_be_used_is_a_failure(home: Home) -> None:
    ran = home.run("doctor", "--json", "--set", "sandbox.python=/nowhere/python")

    assert ran.code == 5
    assert "/nowhere/python" in checks_of(ran)["Isolation"]["found"]


def test_an_entry_that_claude_desktop_cannot_start_is_found(home: Home) -> None:
    entry = {
        "mcpServers": {"mine": {"command": "uvx", "args": ["rlm-mcp", "serve"]}, "gh": {"command": "npx"}}
    }
    home.with_desktop(json.dumps(entry))

    check = checks_of(home.run("doctor", "--json"))["Claude Desktop"]

    assert check["state"] == "warn"
    assert "'mine'" in check["found"] and "absolute path" in check["fix"]


def test_what_install_wrote_is_found_and_well(home: Home) -> None:
    home.with_desktop("{}")
    home.run("install", "--client", "claude-desktop", "--yes")

    check = checks_of(home.run("doctor", "--json"))["Claude Desktop"]

    assert check["state"] == "ok"


def test_a_file_of_a_client_that_is_no_json_is_a_warning(home: Home) -> None:
    home.with_desktop("{// mine\n}")

    assert checks_of(home.run("doctor", "--json"))["Claude Desktop"]["state"] == "warn"


def test_a_docker_engine_is_asked_whether_it_answers(home: Home, tmp_path: Path) -> None:
    path = tmp_path / "engine.sock"
    with socket.socket(socket.AF_UNIX) as engine:
        engine.bind(str(path))
        engine.listen()
        thread = threading.Thread(target=_answer_once, args=(engine,))
        thread.start()
        ran = home.run("doctor", "--json", DOCKER_HOST=f"unix://{path}")
        thread.join(timeout=30)

    check = checks_of(ran)["Docker"]
    assert check["state"] == "info"
    assert f"an engine answers at {path}" in check["found"]


def _answer_once(engine: socket.socket) -> None:
    connection, _ = engine.accept()
    with connection:
        assert connection.recv(4096).startswith(b"GET /_ping ")
        connection.sendall(b"HTTP/1.0 200 OK\r\n\r\nOK")


def test_a_docker_engine_that_never_answers_holds_nothing_up(home: Home, tmp_path: Path) -> None:
    path = tmp_path / "engine.sock"
    with socket.socket(socket.AF_UNIX) as engine:
        engine.bind(str(path))
        engine.listen()
        ran = home.run("doctor", "--json", DOCKER_HOST=f"unix://{path}")

    assert ran.code == 0
    assert "no engine answers" in checks_of(ran)["Docker"]["found"]


def test_packages_that_are_missing_or_too_new_are_a_failure(home: Home) -> None:
    facts = home.folder / "site" / "rlm_mcp-9.9.9.dist-info"
    facts.mkdir(parents=True)
    needs = "Requires-Dist: mcp<2,>=1.2\nRequires-Dist: nowhere-to-be-found<3\nRequires-Dist: anyio<5,>=4"
    (facts / "METADATA").write_text(f"Metadata-Version: 2.4\nName: rlm-mcp\nVersion: 9.9.9\n{needs}\n")

    path = f"{facts.parent}:{home.environment()['PYTHONPATH']}"
    ran = home.run("doctor", "--json", PYTHONPATH=path)

    found = checks_of(ran)["Packages"]
    assert (ran.code, found["state"]) == (5, "fail")
    assert "mcp is 2" in found["found"] and "nowhere-to-be-found is missing" in found["found"]
    assert "anyio" not in found["found"]


def test_the_model_is_asked_only_where_that_is_wanted(home: Home) -> None:
    answers = ["--set", "rlm.backend=command", "--set", 'rlm.command=["/bin/echo", "yes, {prompt}"]']

    quiet = checks_of(home.run("doctor", "--json", *answers))
    asked = checks_of(home.run("doctor", "--json", "--online", *answers))

    assert quiet["Model"]["state"] == "ok" and "Model answers" not in quiet, quiet["Model"]
    assert asked["Model answers"]["state"] == "ok", asked["Model answers"]
