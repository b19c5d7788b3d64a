"""How a server ends: nothing new begins, what is at work may end, and streams have a proper end."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from pathlib import Path

import anyio
import anyio.abc
import httpx2
import pytest

from rlm_mcp.http import AddressUnusable, Transport

from .conftest import ALICE, INITIALIZE, LEGACY, MODERN, Probe, Serve
from .test_hostile import MODERN_HEADERS, calling

ERAS = [("streamable-http", MODERN), ("streamable-http", LEGACY), ("sse", LEGACY), ("sse", MODERN)]


@pytest.mark.parametrize(("transport", "mode"), ERAS)
async def test_a_call_at_work_may_end_before_the_server_does(
    serve: Serve, probe: Probe, transport: Transport, mode: str
) -> None:
    said: list[str] = []
    with anyio.fail_after(30):
        async with serve(transport) as served, served.client(mode=mode) as client:
            await client.list_tools()  # which the client would do after the call otherwise

            async def call() -> None:
                said.append(str((await client.call_tool("wait", {})).content))

            async with anyio.create_task_group() as tasks:
                tasks.start_soon(call)
                await probe.begun.wait()
                async with anyio.create_task_group() as stopping:
                    stopping.start_soon(lambda: served.door.stop(grace_seconds=20))
                    await anyio.sleep(0.1)
                    probe.go_on.set()
            cancelled = probe.cancelled.is_set()

    assert "done" in said[0]
    assert not cancelled


@pytest.mark.parametrize(("transport", "mode"), ERAS)
async def test_a_call_that_does_not_end_is_cancelled(
    serve: Serve, probe: Probe, transport: Transport, mode: str
) -> None:
    with anyio.fail_after(30):
        async with serve(transport) as served, served.client(mode=mode) as client:

            async def call() -> None:
                with pytest.raises(Exception):  # noqa: B017, PT011 -- however the client puts it
                    await client.call_tool("wait", {})

            async with anyio.create_task_group() as tasks:
                tasks.start_soon(call)
                await probe.begun.wait()
                await served.door.stop(grace_seconds=0.1)
                await probe.cancelled.wait()
                tasks.cancel_scope.cancel()


async def test_while_the_server_stops_nothing_begins_and_it_says_so(serve: Serve, probe: Probe) -> None:
    during = new = httpx2.Response(0)
    with anyio.fail_after(30):
        async with serve() as served, httpx2.AsyncClient(base_url=served.base) as web:
            headers = {"Authorization": f"Bearer {ALICE}", **MODERN_HEADERS}
            before = await web.get("/ready")
            async with anyio.create_task_group() as tasks:
                waiting = {**headers, "Mcp-Name": "wait", "Accept": "application/json, text/event-stream"}
                tasks.start_soon(
                    lambda: served.post(calling("wait", {}), headers={**MODERN_HEADERS, "Mcp-Name": "wait"})
                )
                await probe.begun.wait()
                tasks.start_soon(lambda: served.door.stop(grace_seconds=20))
                await anyio.sleep(0.05)
                during = await web.get("/ready")
                new = await web.post("/mcp", json=calling("whose", {}), headers=waiting)
                probe.go_on.set()

    assert before.status_code == 200
    assert (during.status_code, during.json()) == (503, {"status": "not ready"})
    assert new.status_code == 503
    assert probe.calls == 1


async def test_a_standing_stream_comes_to_a_proper_end(serve: Serve) -> None:
    with anyio.fail_after(30):
        async with serve() as served, httpx2.AsyncClient(timeout=20) as web:
            session = (await served.post(INITIALIZE)).headers["mcp-session-id"]
            headers = {
                "Authorization": f"Bearer {ALICE}",
                "Mcp-Session-Id": session,
                "Accept": "text/event-stream",
            }
            async with web.stream("GET", served.url, headers=headers) as stream:
                await served.door.stop(grace_seconds=0)
                rest = [
                    part async for part in stream.aiter_bytes()
                ]  # would raise for a stream that broke off

    assert stream.status_code == 200
    assert rest == []


async def test_a_port_that_is_taken_is_told(serve: Serve) -> None:
    async with serve() as served:
        with pytest.raises(AddressUnusable, match="cannot listen"):
            async with serve(port=served.door.port):
                pass


PROGRAM = """
import sys
from pathlib import Path
import anyio
from rlm_mcp.app import Surroundings, open_app
from rlm_mcp.http import serve_http
from rlm_mcp.server import make_server
from rlm_mcp.sources import Sources

async def main() -> None:
    place = Path(sys.argv[1])
    flags = {"sessions.state_dir": str(place / "state"), "sandbox.files": "write", "http.port": 0}
    flags |= {"http.shutdown_seconds": float(sys.argv[2])}
    project = place / "project"
    project.mkdir()
    async with open_app(Sources(flags, {}, place), Surroundings(None, project)) as app:
        ended = await serve_http(app, make_server(app), transport=sys.argv[3])
    print("ended by", ended.name, flush=True)

anyio.run(main)
"""


@pytest.mark.parametrize("transport", ["streamable-http", "sse"])
@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
async def test_a_signal_ends_the_program_and_all_that_it_started(
    tmp_path: Path, transport: str, number: signal.Signals
) -> None:
    with anyio.fail_after(60):
        async with await started(tmp_path, "20", transport) as program:
            url, token, _ = await announced(program)
            async with httpx2.AsyncClient() as web:
                up = await web.get(f"{url.rsplit('/', 1)[0]}/health")
            program.send_signal(number)
            said = await read(program.stdout)
            status = await program.wait()

    assert up.status_code == 200
    assert len(token) > 30
    assert said.strip() == f"ended by {number.name}"
    assert status == 0


async def test_a_second_signal_does_not_wait_for_the_cell_at_work(tmp_path: Path) -> None:
    from mcp import Client
    from mcp.client.streamable_http import streamable_http_client

    still_there, said, status, outcome = False, "", -1, [""]
    code = "import time\nopen('begun', 'w').close()\ntime.sleep(1000)"
    with anyio.fail_after(60):
        async with await started(tmp_path, "300", "streamable-http") as program:
            url, token, _ = await announced(program)
            headers = {"Authorization": f"Bearer {token}"}
            async with httpx2.AsyncClient(headers=headers, timeout=60) as web:
                async with Client(streamable_http_client(url, http_client=web), mode=MODERN) as client:
                    await client.list_tools()
                    async with anyio.create_task_group() as tasks:

                        async def call() -> None:
                            try:
                                outcome.append(str(await client.call_tool("execute_python", {"code": code})))
                            except Exception as problem:
                                outcome.append(repr(problem))

                        tasks.start_soon(call)
                        while not (tmp_path / "project" / "begun").exists() and outcome == [""]:
                            await anyio.sleep(0.05)
                        program.send_signal(signal.SIGTERM)
                        await anyio.sleep(0.3)
                        still_there = program.returncode is None
                        program.send_signal(signal.SIGTERM)
                        said = await read(program.stdout)
                        status = await program.wait()
                        tasks.cancel_scope.cancel()
    left = await anyio.run_process(["pgrep", "-f", str(tmp_path)], check=False)

    assert "interrupted this call" in outcome[-1]
    assert still_there
    assert said.strip() == "ended by SIGTERM"
    assert status == 0
    assert left.stdout == b""


async def started(place: Path, seconds: str, transport: str) -> anyio.abc.Process:
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)}
    return await anyio.open_process(
        [sys.executable, "-c", PROGRAM, str(place), seconds, transport],
        env=environment,
        stderr=subprocess.PIPE,
    )


async def announced(program: anyio.abc.Process) -> tuple[str, str, str]:
    """Return where a program listens, its token, and all that it said of that."""
    assert program.stderr is not None
    said = ""
    while "only this once" not in said:
        said += (await program.stderr.receive()).decode()
    url = said.split("listens at ")[1].split()[0]
    token = said.split("Bearer ")[1].split('"')[0]
    return url, token, said


async def read(stream: anyio.abc.ByteReceiveStream | None) -> str:
    assert stream is not None
    return b"".join([part async for part in stream]).decode()


async def test_a_client_that_only_listens_does_not_keep_the_server_from_stopping(serve: Serve) -> None:
    from rlm_mcp.server import make_server

    with anyio.fail_after(30):
        for transport in ("streamable-http", "sse"):
            async with serve(transport, make=make_server) as served, served.client(mode=LEGACY) as client:
                await client.list_tools()
                await served.door.stop(grace_seconds=100)
