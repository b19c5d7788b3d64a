"""An engine is looked for where Docker's own command looks for it."""

from __future__ import annotations

import json
import os
import subprocess
from pathlib import Path

import pytest

from rlm_sandboxes import EngineUnavailable
from rlm_sandboxes.docker.places import Place, find_place

HOST = "unix:///named/docker.sock"
FAR = "ssh://me@far.example"


@pytest.fixture
def settings(tmp_path: Path) -> Path:
    """Return Docker's folder of settings, with a context that Docker's own command has made."""
    command = ["docker", "context", "create", "far", "--docker", f"host={FAR}"]
    environment = {**os.environ, "DOCKER_CONFIG": str(tmp_path), "DOCKER_HOST": ""}
    subprocess.run(command, env=environment, check=True, capture_output=True, timeout=30)
    return tmp_path


def in_docker(environment: dict[str, str]) -> str:
    """Return where Docker's own command looks for the engine."""
    command = ["docker", "context", "inspect", "--format", "{{.Endpoints.docker.Host}}"]
    known = {"PATH": os.environ["PATH"], "HOME": os.environ.get("HOME", "/"), **environment}
    ran = subprocess.run(command, env=known, capture_output=True, text=True, timeout=30, check=True)
    return ran.stdout.strip()


@pytest.mark.parametrize(
    ("environment", "current", "found"),
    [
        ({}, "", "unix:///var/run/docker.sock"),
        ({"DOCKER_HOST": HOST}, "", HOST),
        ({}, "far", FAR),
        ({"DOCKER_CONTEXT": "far"}, "", FAR),
        ({"DOCKER_CONTEXT": "default"}, "far", "unix:///var/run/docker.sock"),
        ({"DOCKER_HOST": HOST}, "far", HOST),
        ({"DOCKER_HOST": HOST, "DOCKER_CONTEXT": "far"}, "", HOST),
        ({"DOCKER_HOST": "", "DOCKER_CONTEXT": "far"}, "", FAR),
    ],
)
def test_what_goes_before_what_is_as_with_dockers_own_command(
    settings: Path, environment: dict[str, str], current: str, found: str
) -> None:
    if current:
        (settings / "config.json").write_text(json.dumps({"currentContext": current}))
    environment = {"DOCKER_CONFIG": str(settings), **environment}

    assert find_place(None, environment).address == found == in_docker(environment)


def test_an_engine_that_is_named_goes_before_all_else(settings: Path) -> None:
    environment = {"DOCKER_CONFIG": str(settings), "DOCKER_CONTEXT": "far", "DOCKER_HOST": HOST}

    assert find_place("unix:///ours", environment) == Place("unix:///ours")


def test_a_context_that_is_not_there_is_an_error_and_not_another_engine(settings: Path) -> None:
    environment = {"DOCKER_CONFIG": str(settings), "DOCKER_CONTEXT": "gone"}

    with pytest.raises(
        EngineUnavailable, match=r"'gone': there is no such context\. See `docker context ls`"
    ):
        find_place(None, environment)


def test_keys_are_used_where_the_environment_asks_for_them_and_by_tcp_only(tmp_path: Path) -> None:
    (tmp_path / "ca.pem").touch()
    asked = {"DOCKER_TLS_VERIFY": "1", "DOCKER_CERT_PATH": str(tmp_path)}

    with_keys = find_place("tcp://far:2376", asked).keys

    assert with_keys is not None and with_keys.authority == tmp_path / "ca.pem" and with_keys.verify
    assert with_keys.certificate is None
    assert find_place("tcp://far:2375", {"DOCKER_CERT_PATH": str(tmp_path)}).keys is None
    assert find_place(HOST, asked).keys is None


@pytest.mark.parametrize(
    ("address", "remote"),
    [(HOST, False), ("tcp://127.0.0.1:2375", True), (FAR, True), ("npipe:////./pipe/docker_engine", False)],
)
def test_files_are_shared_with_an_engine_by_a_socket_of_this_machine_only(
    address: str, *, remote: bool
) -> None:
    assert Place(address).remote is remote
