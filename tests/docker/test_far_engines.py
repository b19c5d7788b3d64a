"""Engines that share no files with this machine: by TCP, by TLS and by ssh, each as Docker's own command is told of it."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path

import anyio
import anyio.to_thread
import pytest

from rlm_sandboxes import EngineUnavailable, Limits
from rlm_sandboxes.docker import DockerSandbox
from rlm_sessions import open_session
from tests.contracts.asking import ask, evaluate
from tests.contracts.conftest import PROBE
from tests.docker.engine import Engine
from tests.docker.far import Certificates, forwarded, make_certificates, ssh_with, sshd
from tests.sessions.homes import Home

NAMES = ("DOCKER_HOST", "DOCKER_TLS_VERIFY", "DOCKER_CERT_PATH", "DOCKER_CONTEXT", "DOCKER_CONFIG")


@pytest.fixture(autouse=True)
def plain(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in NAMES:
        monkeypatch.delenv(name, raising=False)


@pytest.fixture(scope="module")
def certificates(tmp_path_factory: pytest.TempPathFactory) -> Certificates:
    return make_certificates(tmp_path_factory.mktemp("certificates"))


@pytest.fixture
def by_tcp(docker_engine: Engine) -> Iterator[str]:
    with forwarded(docker_engine) as address:
        yield address


@pytest.fixture
def by_tls(docker_engine: Engine, certificates: Certificates) -> Iterator[str]:
    with forwarded(docker_engine, certificates.for_server()) as address:
        yield address


@pytest.fixture
def by_ssh(docker_engine: Engine, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[str]:
    monkeypatch.setenv("PATH", f"{ssh_with(tmp_path)}{os.pathsep}{os.environ['PATH']}")
    with sshd(tmp_path, docker_engine) as address:
        yield address


async def echo(image: str, address: str | None = None) -> str:
    """Start a program on an engine and have it answer."""
    with anyio.fail_after(60):
        async with (
            DockerSandbox(image, engine=address, pull="never") as sandbox,
            sandbox.start(PROBE, None, Limits()) as process,
        ):
            answer: str = await ask(process, "echo", text="far")
            return answer


async def test_a_session_by_tcp_has_copies_which_stay_there(
    docker_engine: Engine, by_tcp: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "data.txt").write_text("42")
    monkeypatch.setenv("DOCKER_HOST", by_tcp)

    with anyio.fail_after(60):
        async with (
            DockerSandbox(docker_engine.image, pull="never") as sandbox,
            open_session(sandbox, project=tmp_path, limits=Limits(files="write")) as session,
        ):
            read = await session.run("open('data.txt').read()")
            written = await session.run("open('data.txt', 'w').write('changed')")
            where = session.isolation.layers[0].detail

    assert (read.value, written.value) == ("'42'", "7")
    assert "copies, and what changes in them stays there" in where
    assert (tmp_path / "data.txt").read_text() == "42"


async def test_the_state_of_a_session_is_kept_here_and_restored_over_there(
    docker_engine: Engine, by_tcp: str, tmp_path: Path
) -> None:
    with anyio.fail_after(60):
        async with DockerSandbox(docker_engine.image, engine=by_tcp, pull="never") as sandbox:
            home = Home(sandbox, tmp_path)
            async with home.session() as session:
                await session.run("kept = {'text': 'x' * 300_000}")
            async with home.session() as session:
                again = await session.run("len(kept['text'])")

    assert again.value == "300000"


async def test_the_control_of_a_program_by_tcp_takes_the_way_through_the_engine(
    docker_engine: Engine, by_tcp: str
) -> None:
    with anyio.fail_after(60):
        async with (
            DockerSandbox(docker_engine.image, engine=by_tcp, pull="never") as sandbox,
            open_session(sandbox, limits=Limits(wall_seconds=1)) as session,
        ):
            await session.run("kept = 7")
            endless = await session.run("while True: pass")
            after = await session.run("kept")

    assert endless.error is not None and endless.error.limit == "wall_seconds"
    assert after.value == "7"


async def test_an_engine_by_tls_lets_in_whom_it_knows(
    docker_engine: Engine, by_tls: str, certificates: Certificates, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("DOCKER_HOST", by_tls)
    monkeypatch.setenv("DOCKER_TLS_VERIFY", "1")
    monkeypatch.setenv("DOCKER_CERT_PATH", str(certificates.client))

    assert await echo(docker_engine.image) == "far"


async def test_an_engine_by_tls_that_another_authority_stands_for_is_not_spoken_to(
    docker_engine: Engine, by_tls: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    others = await anyio.to_thread.run_sync(make_certificates, tmp_path)
    monkeypatch.setenv("DOCKER_HOST", by_tls)
    monkeypatch.setenv("DOCKER_TLS_VERIFY", "1")
    monkeypatch.setenv("DOCKER_CERT_PATH", str(others.client))

    with pytest.raises(EngineUnavailable, match=r"TLS fails: .*certificate"):
        await echo(docker_engine.image)


async def test_an_engine_by_tls_that_is_spoken_to_without_is_named(
    docker_engine: Engine, by_tls: str
) -> None:
    with pytest.raises(EngineUnavailable, match=r"DOCKER_TLS_VERIFY"):
        await echo(docker_engine.image, by_tls)


async def test_a_context_names_an_engine_and_its_keys(
    docker_engine: Engine,
    by_tls: str,
    certificates: Certificates,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setenv("DOCKER_CONFIG", str(tmp_path))
    keys = ",".join(f"{name}={certificates.client}/{name}.pem" for name in ("ca", "cert", "key"))
    await anyio.run_process(["docker", "context", "create", "far", "--docker", f"host={by_tls},{keys}"])

    monkeypatch.setenv("DOCKER_CONTEXT", "far")
    by_name = await echo(docker_engine.image)
    monkeypatch.delenv("DOCKER_CONTEXT")
    await anyio.run_process(["docker", "context", "use", "far"])
    by_setting = await echo(docker_engine.image)

    assert (by_name, by_setting) == ("far", "far")


async def test_a_session_by_ssh_works_as_one_nearby(
    docker_engine: Engine, by_ssh: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("DOCKER_HOST", by_ssh)
    project = tmp_path / "project"
    project.mkdir()
    (project / "data.txt").write_text("42")

    with anyio.fail_after(60):
        async with (
            DockerSandbox(docker_engine.image, pull="never") as sandbox,
            open_session(sandbox, project=project, limits=Limits(wall_seconds=2)) as session,
        ):
            read = await session.run("open('data.txt').read()")
            large = await session.run("'x' * 1000000")
            endless = await session.run("while True: pass")
            after = await session.run("1 + 1")

    assert read.value == "'42'"
    assert large.error is None
    assert endless.error is not None and endless.error.limit == "wall_seconds"
    assert after.value == "2"


async def test_an_address_by_ssh_may_name_the_socket_over_there(docker_engine: Engine, by_ssh: str) -> None:
    assert await echo(docker_engine.image, by_ssh + docker_engine.host.removeprefix("unix://")) == "far"


async def test_a_host_that_ssh_does_not_know_is_an_error_in_the_words_of_ssh(
    docker_engine: Engine, by_ssh: str, tmp_path: Path
) -> None:
    (tmp_path / "known").unlink()

    with (
        anyio.fail_after(30),
        pytest.raises(EngineUnavailable, match=r"ssh says: .*Host key verification failed"),
    ):
        await echo(docker_engine.image, by_ssh)


async def test_nothing_of_an_ssh_is_left(docker_engine: Engine, by_ssh: str, tmp_path: Path) -> None:
    async with DockerSandbox(docker_engine.image, engine=by_ssh, pull="never") as sandbox:
        async with sandbox.start(PROBE, None, Limits()) as process:
            await evaluate(process, "1")
            during = await _speaking(tmp_path)

    assert during
    assert await _speaking(tmp_path) == []


async def _speaking(folder: Path) -> list[str]:
    ran = await anyio.run_process(["pgrep", "-f", f"ssh -F {folder}/config"], check=False)
    return ran.stdout.decode().split()
