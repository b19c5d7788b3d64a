"""An engine that is not there, is too old, hangs, or ends while sessions run: each is an error in bounded time."""

from __future__ import annotations

import socket
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from functools import partial
from pathlib import Path

import anyio
import anyio.to_thread
import pytest
import requests

from rlm_sandboxes import EngineUnavailable, Limits, ProcessEnded, SandboxError
from rlm_sandboxes.docker import DockerSandbox, engine
from tests.contracts.asking import ask
from tests.contracts.conftest import PROBE
from tests.docker.engine import Engine
from tests.docker.far import forwarded, free_port, listening


@pytest.fixture
def opened() -> Iterator[ExitStack]:
    with ExitStack() as stack:
        yield stack


async def find(address: str) -> None:
    with anyio.fail_after(20):
        async with DockerSandbox(engine=address):
            pass


async def test_an_engine_by_tcp_that_is_not_there_is_named() -> None:
    with pytest.raises(EngineUnavailable, match=r"none answers there\. If it wants TLS, .* Start Docker"):
        await find(f"tcp://127.0.0.1:{free_port()}")


async def test_an_engine_that_takes_connections_and_never_answers_is_given_up(
    opened: ExitStack, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(engine, "_FIND_SECONDS", 0.5)
    held: list[socket.socket] = []
    address = opened.enter_context(listening(held.append, tmp_path / "engine.sock"))

    with pytest.raises(EngineUnavailable, match="it does not answer in time"):
        await find(address)

    for connection in held:
        connection.close()


async def test_an_engine_that_is_too_old_says_which_it_is(opened: ExitStack, tmp_path: Path) -> None:
    answers = {b"/version": b'{"ApiVersion": "1.40"}', b"/v1.40/info": b"{}"}
    address = opened.enter_context(listening(partial(answer, answers), tmp_path / "engine.sock"))

    with pytest.raises(EngineUnavailable, match=r"it speaks API 1\.40, and 1\.41 is the oldest.* Update it"):
        await find(address)


async def test_what_is_no_engine_is_an_error(opened: ExitStack, tmp_path: Path) -> None:
    address = opened.enter_context(listening(lambda connection: connection.close(), tmp_path / "engine.sock"))

    with pytest.raises(EngineUnavailable, match=r"closed the connection without an answer|Connection reset"):
        await find(address)


def test_a_socket_that_went_while_we_spoke_is_told_in_plain_words() -> None:
    def ask_nobody() -> None:
        raise requests.ConnectionError("Connection aborted.") from FileNotFoundError(
            2, "No such file or directory"
        )

    with pytest.raises(EngineUnavailable, match=r"engine\.sock: none answers there\. Start Docker"):
        engine._translated("unix:///engine.sock", ask_nobody)  # pyright: ignore[reportPrivateUsage]


async def test_an_address_of_no_kind_is_an_error() -> None:
    with pytest.raises(SandboxError, match="gopher"):
        await find("gopher://127.0.0.1")


async def test_a_program_ends_with_its_engine_and_the_next_one_starts_when_that_is_back(
    docker_engine: Engine, opened: ExitStack
) -> None:
    port = free_port()
    closing: Callable[[], object] = opened.enter_context(_switch(docker_engine, port)).close

    with anyio.fail_after(90):
        async with DockerSandbox(
            docker_engine.image, engine=f"tcp://127.0.0.1:{port}", pull="never"
        ) as sandbox:
            async with sandbox.start(PROBE, None, Limits()) as process:
                await anyio.to_thread.run_sync(closing)
                with pytest.raises(ProcessEnded):
                    await ask(process, "echo", text="lost")
                with pytest.raises(EngineUnavailable, match="none answers there"):
                    async with sandbox.start(PROBE, None, Limits()):
                        pass
            opened.enter_context(_switch(docker_engine, port))
            async with sandbox.start(PROBE, None, Limits()) as process:
                answer_ = await ask(process, "echo", text="back")

    assert answer_ == "back"


def _switch(docker_engine: Engine, port: int) -> ExitStack:
    """Have the engine answer at a port until that is closed."""
    with ExitStack() as stack:
        stack.enter_context(forwarded(docker_engine, port=port))
        return stack.pop_all()


def answer(answers: dict[bytes, bytes], connection: socket.socket) -> None:
    """Answer one request by its path."""
    with connection:
        request = connection.recv(65536)
        if request:
            body = answers[request.split()[1]]
            connection.sendall(
                b"HTTP/1.1 200 OK\r\nContent-Type: application/json\r\nConnection: close\r\n"
                b"Content-Length: %d\r\n\r\n%s" % (len(body), body)
            )
