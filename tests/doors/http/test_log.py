"""The log: one line for each request, and no secret in any."""

from __future__ import annotations

import io
import json
import logging
import os
import sys
import threading
from typing import Any

import anyio

from rlm_mcp.web.access_log import LogLines

from .conftest import ALICE, BOB, INITIALIZE, Serve
from .test_hostile import MODERN_HEADERS, calling

SECRET = "planted-9f8e7d6c5b4a-secret-value-0123456789"


def lines_of(log: io.StringIO) -> list[dict[str, Any]]:
    return [json.loads(line) for line in log.getvalue().splitlines()]


async def test_each_request_is_one_line_with_what_is_needed_and_no_more(serve: Serve) -> None:
    async with serve() as served:
        await served.post(calling("whose", {}), headers=MODERN_HEADERS)
        log = served.log
    (line,) = lines_of(log)

    assert line.pop("ms") >= 0 and line.pop("bytes") > 0 and line.pop("time").endswith("Z")
    assert line == {
        "event": "request",
        "level": "info",
        "tenant": "alice",
        "client": "127.0.0.1",
        "method": "POST",
        "path": "/mcp",
        "mcp_method": "tools/call",
        "mcp_name": "whose",
        "status": 200,
    }


async def test_a_session_id_is_shortened(serve: Serve) -> None:
    async with serve() as served:
        session = (await served.post(INITIALIZE)).headers["mcp-session-id"]
        await served.post({"jsonrpc": "2.0", "id": 2, "method": "ping"}, headers={"Mcp-Session-Id": session})
        await served.post(
            {"jsonrpc": "2.0", "id": 2, "method": "ping"}, token=BOB, headers={"Mcp-Session-Id": session}
        )
        log = served.log

    assert lines_of(log)[1]["session"] == session[:8]
    assert session not in log.getvalue()


async def test_a_secret_is_in_no_line_and_no_answer_wherever_a_client_puts_it(serve: Serve) -> None:
    said: list[str] = []
    async with serve(tokens={"alice": SECRET, "bob": BOB}) as served:
        for token in (SECRET, BOB, None, SECRET + "x", "x" + SECRET):
            for headers in (
                {},
                MODERN_HEADERS,
                {"Mcp-Name": SECRET, "Mcp-Method": SECRET, "Mcp-Session-Id": SECRET},
            ):
                for body in (
                    calling(SECRET, {"a": SECRET}),
                    SECRET,
                    {"jsonrpc": "2.0", "id": SECRET, "method": SECRET},
                ):
                    answer = await served.post(body, headers, token=token)
                    said.append(
                        f"{answer.headers}"
                    )  # a body may tell a client its own id of the request again
            for headers in ({}, MODERN_HEADERS):
                said.append((await served.post(calling("nothing", {}), headers, token=token)).text)
            said.append((await served.get(f"/mcp?token={SECRET}", token=token)).text)
            said.append((await served.get(f"/{SECRET}", token=token, Cookie=SECRET, Referer=SECRET)).text)
            said.append((await served.get("/health", token=token, Host=SECRET)).text)
            said.append((await served.get("/mcp", token=token, Host=SECRET, Origin=f"http://{SECRET}")).text)
        log = served.log

    assert len(lines_of(log)) > 50
    assert SECRET not in log.getvalue()
    assert not any(SECRET in each for each in said)


async def test_broken_messages_to_a_stream_are_not_in_the_log(serve: Serve) -> None:
    from .test_hostile import open_stream

    with anyio.fail_after(30):
        async with serve("sse") as served, open_stream(served, ALICE) as (web, address):
            for body in (
                f'{{"secret": "{SECRET}"}}',
                f'["{SECRET}"',
                f'{{"jsonrpc":"2.0","method":{{"a":"{SECRET}"}}}}',
            ):
                answer = await web.post(address, content=body, headers={"Content-Type": "application/json"})
                assert answer.status_code == 400
            log = served.log

    assert SECRET not in log.getvalue()
    assert address.partition("=")[2] not in log.getvalue()


async def test_the_logging_of_others_is_as_before_afterwards(serve: Serve) -> None:
    before = [
        (each.propagate, each.level, list(each.handlers))
        for each in map(logging.getLogger, ("mcp", "uvicorn"))
    ]
    root = list(logging.getLogger().handlers)
    async with serve() as served:
        await served.post(INITIALIZE)
        during = list(logging.getLogger().handlers)
    after = [
        (each.propagate, each.level, list(each.handlers))
        for each in map(logging.getLogger, ("mcp", "uvicorn"))
    ]

    assert before == after
    assert root == during


async def test_a_log_that_stands_still_does_not_stop_the_server() -> None:
    go_on = threading.Event()

    class Stuck(io.StringIO):
        def write(self, text: str) -> int:
            go_on.wait(30)
            return super().write(text)

    stream = Stuck()
    lines = LogLines(stream)
    with lines.open():
        for number in range(20_000):
            lines.note("request", number=number)
        go_on.set()
    await anyio.to_thread.run_sync(lines.flush)

    said = stream.getvalue().splitlines()
    assert 10_000 <= len(said) < 10_100
    assert any("lines were dropped" in line for line in said)


async def test_the_log_can_be_made_for_people(serve: Serve, flags: dict[str, object]) -> None:
    flags["rlm.verbose"] = True
    async with serve() as served:
        await served.post(INITIALIZE)
        log = served.log

    assert not log.getvalue().startswith("{")
    assert "tenant=alice" in log.getvalue()


async def test_a_proxy_on_this_machine_may_say_for_whom_it_asks(serve: Serve) -> None:
    async with serve() as served:
        await served.post(INITIALIZE, {"X-Forwarded-For": "10.9.8.7"})
        log = served.log

    assert lines_of(log)[0]["client"] == "10.9.8.7"


async def test_serving_over_stdio_imports_nothing_of_this() -> None:
    program = (
        "import sys, rlm_mcp.server\n"
        "print([name for name in sys.modules if name.startswith(('rlm_mcp.web', 'rlm_mcp.http', 'structlog'))])"
    )
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)}
    with anyio.fail_after(30):
        ended = await anyio.run_process([sys.executable, "-c", program], env=environment)

    assert ended.stdout.decode().strip() == "[]"
