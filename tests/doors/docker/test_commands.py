"""The commands, where sessions run in containers."""

from __future__ import annotations

import contextlib
import importlib
import json
import os
import signal
from typing import Any

import pytest

from tests.doors.cli.programs import Shell

FIGURE = "class P:\n    def _repr_png_(self): return b'\\x89PNG' + bytes(1000)\nP()"


def test_exec_runs_in_a_container_and_the_next_one_has_its_variables(shell: Shell) -> None:
    first = shell("exec", "import os; x = 41; os.path.exists('/.dockerenv')")
    second = shell("exec", "x + 1")

    assert (first.returncode, first.stdout) == (0, "True\n"), first
    assert (second.returncode, second.stdout) == (0, "42\n"), second


def test_exec_keeps_no_container(shell: Shell, client: Any) -> None:
    done = shell.start("exec", "1")
    with done:
        done.wait(timeout=60)

    assert containers_of(client, done.pid) == []


def test_exec_saves_a_figure_that_a_container_showed(shell: Shell) -> None:
    data = shell.data("exec", FIGURE, "--plot-dir", str(shell.project.parent / "figures"))

    assert [os.path.getsize(figure) for figure in data["figures"]] == [1004]  # noqa: PTH202 -- it is a text


def test_what_needs_more_memory_is_told_which_flag_gives_a_container_more(shell: Shell) -> None:
    done = shell("exec", "bytearray(10**9)")

    assert done.returncode == 4
    assert "[hint: --set rlm.docker_memory=SIZE allows more.]" in done.stderr


def test_sessions_are_listed_shown_reset_and_purged(shell: Shell) -> None:
    shell("exec", "x = 41")

    (listed,) = shell.data("sessions", "list")
    shown = shell("sessions", "show", "project")
    reset = shell("sessions", "reset", "project")
    gone = shell("exec", "'x' in globals()")
    purged = shell("sessions", "purge", "project", "--yes")

    assert listed["name"] == "project"
    assert "isolation: container+" in shown.stdout and "41" in shown.stdout
    assert (reset.returncode, gone.stdout, purged.returncode) == (0, "False\n", 0)
    assert shell.data("sessions", "list") == []


# ---- the doctor


def doctor(shell: Shell, **environment: str) -> dict[str, Any]:
    done = shell("doctor", "--json", environment=environment)

    return {check["name"]: check for check in json.loads(done.stdout)["data"]["checks"]}


def test_the_doctor_opens_the_engine_and_runs_a_cell_in_a_container(shell: Shell) -> None:
    checks = doctor(shell)

    assert checks["Docker"]["state"] == "ok" and "engine " in checks["Docker"]["found"]
    assert "strong: container+" in checks["Isolation"]["found"]
    assert checks["Cell"]["state"] == "ok"


def test_the_doctor_fails_where_no_engine_answers_and_says_what_to_do(shell: Shell) -> None:
    checks = doctor(shell, RLM_DOCKER_HOST="unix:///nowhere/docker.sock")

    assert (checks["Docker"]["state"], checks["Isolation"]["state"]) == ("fail", "fail")
    assert "unix:///nowhere/docker.sock" in checks["Docker"]["found"]
    assert 'environment = "local"' in checks["Docker"]["fix"]


@pytest.mark.parametrize(("pull", "state"), [("missing", "warn"), ("never", "fail")])
def test_the_doctor_fetches_no_image_and_says_that_it_is_missing(shell: Shell, pull: str, state: str) -> None:
    checks = doctor(shell, RLM_DOCKER_IMAGE="nobody/has-this:1", RLM_DOCKER_PULL=pull)

    assert checks["Isolation"]["state"] == state
    assert "nobody/has-this:1 is not on the engine" in checks["Isolation"]["found"]


# ---- a server


def test_a_server_that_is_killed_leaves_no_container_and_its_variables_come_back(
    shell: Shell, client: Any
) -> None:
    with shell.serving() as server:
        first = server.run("x = 41; import os; os.path.exists('/.dockerenv')")
        ours = containers_of(client, server.process.pid)
        os.kill(server.process.pid, signal.SIGKILL)
        server.process.wait(timeout=30)
        wait_until_removed(client, ours)
    with shell.serving() as server:
        second = server.run("x + 1")

    assert "True" in first and ours
    assert "42" in second and "back from disk" in second


def test_exec_runs_in_the_container_that_a_server_has(shell: Shell) -> None:
    with shell.serving() as server:
        server.run("x = 41")
        shell.door(server)
        done = shell.data("exec", "x + 1")

    assert (done["value"], done["server"]) == ("42", server.process.pid)


def test_a_server_that_ends_leaves_no_container(shell: Shell, client: Any) -> None:
    with shell.serving() as server:
        server.run("1")
        assert server.process.stdin is not None
        server.process.stdin.close()
        server.process.wait(timeout=60)

    assert containers_of(client, server.process.pid) == []


def containers_of(client: Any, pid: int) -> list[str]:
    """Return the containers of a process of this machine."""
    found = client.containers(all=True, filters={"label": "rlm-mcp.owner"})
    return [str(each["Id"]) for each in found if f":{pid}:" in each["Labels"]["rlm-mcp.owner"]]


def wait_until_removed(client: Any, containers: list[str]) -> None:
    """Return when they are gone. Nobody is there who could remove them, but they themselves."""
    gone: Any = importlib.import_module("docker.errors").NotFound
    for each in containers:
        with contextlib.suppress(gone):
            client.wait(each, timeout=30, condition="removed")
