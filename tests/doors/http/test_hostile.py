"""Clients that mean harm, or that are broken: nothing leaks, nothing dies, and others are served."""

from __future__ import annotations

import json
import select
from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager
from typing import Any

import anyio
import anyio.abc
import httpx2
import pytest

from rlm_mcp.server import make_server
from rlm_mcp.web.connections import Patience

from .conftest import ALICE, BOB, INITIALIZE, LEGACY, MODERN, Probe, Serve, Served, converse

MODERN_HEADERS = {"MCP-Protocol-Version": MODERN, "Mcp-Method": "tools/call", "Mcp-Name": "whose"}
IMPATIENT = Patience(head_seconds=0.3, body_seconds=0.3, reader_seconds=0.5)
HEAD = (
    f"POST /mcp HTTP/1.1\r\nHost: localhost\r\nAuthorization: Bearer {ALICE}\r\n"
    "Content-Type: application/json\r\nAccept: application/json, text/event-stream\r\n"
)


async def still_serves(served: Served, token: str = BOB) -> bool:
    async with served.client(token, mode=MODERN) as client:
        return "bob" in str((await client.call_tool("whose", {})).content)


def calling(name: str, arguments: dict[str, Any], number: int = 1) -> dict[str, Any]:
    meta = {
        "io.modelcontextprotocol/protocolVersion": MODERN,
        "io.modelcontextprotocol/clientCapabilities": {},
        "io.modelcontextprotocol/clientInfo": {"name": "test", "version": "1"},
    }
    return {
        "jsonrpc": "2.0",
        "id": number,
        "method": "tools/call",
        "params": {"name": name, "arguments": arguments, "_meta": meta},
    }


# ---- messages

BROKEN = {
    "nothing": b"",
    "no JSON": b"{",
    "no text": b"\xff\xfe\x00\x80",
    "a NUL": b"\x00" * 100,
    "an array": b"[]",
    "a batch": b"[" + json.dumps(INITIALIZE).encode() + b"]",
    "a number": b"5",
    "deep arrays": b"[" * 100_000,
    "deep arrays that end": b"[" * 100_000 + b"]" * 100_000,
    "deep objects": b'{"a":' * 100_000 + b"1" + b"}" * 100_000,
    "deep arguments": json.dumps(INITIALIZE).encode()[:-1] + b',"x":' + b"[" * 5000 + b"]" * 5000 + b"}",
    "a huge number": b'{"jsonrpc":"2.0","id":' + b"9" * 100_000 + b',"method":"ping"}',
    "half a letter": b'{"jsonrpc":"2.0","id":"\\ud800","method":"ping"}',
    "no version": b'{"id":1,"method":"ping"}',
    "an object as id": b'{"jsonrpc":"2.0","id":{"a":1},"method":"ping"}',
    "a method that is none": b'{"jsonrpc":"2.0","id":1,"method":5}',
    "many keys": json.dumps({f"key{n}": n for n in range(100_000)}).encode(),
    "an answer to nothing": b'{"jsonrpc":"2.0","id":99,"result":{}}',
}


@pytest.mark.parametrize("headers", [{}, MODERN_HEADERS], ids=[LEGACY, MODERN])
@pytest.mark.parametrize("body", BROKEN.values(), ids=BROKEN)
async def test_a_broken_message_is_refused_and_the_next_one_served(
    serve: Serve, body: bytes, headers: dict[str, str]
) -> None:
    with anyio.fail_after(30):
        async with serve() as served:
            answer = await served.post(None, content=body, headers=headers)
            served_after = await still_serves(served)

    assert 400 <= answer.status_code < 500 or "error" in answer.text
    assert "Traceback" not in answer.text and "site-packages" not in answer.text
    assert len(answer.text) < 20_000
    assert served_after


@pytest.mark.parametrize("body", BROKEN.values(), ids=BROKEN)
async def test_a_broken_message_to_a_stream_ends_nobody_elses(serve: Serve, body: bytes) -> None:
    with anyio.fail_after(30):
        async with serve("sse") as served, served.client(BOB, mode=LEGACY) as client:
            async with open_stream(served, ALICE) as (web, address):
                answer = await web.post(address, content=body, headers={"Content-Type": "application/json"})
            said = str((await client.call_tool("whose", {})).content)

    assert answer.status_code < 500
    assert "bob" in said


@asynccontextmanager
async def open_stream(served: Served, token: str) -> AsyncGenerator[tuple[httpx2.AsyncClient, str]]:
    """Open a stream of the older transport; give a client and the address to post to."""
    async with httpx2.AsyncClient(headers={"Authorization": f"Bearer {token}"}, timeout=30) as web:
        async with web.stream("GET", served.url) as stream:
            async for line in stream.aiter_lines():
                if line.startswith("data: "):
                    yield web, f"{served.base}{line.removeprefix('data: ')}"
                    return


# ---- bytes


@pytest.mark.parametrize("declared", [True, False], ids=["declared", "undeclared"])
async def test_a_request_that_is_too_large_is_refused_before_all_of_it_is_read(
    serve: Serve, declared: bool
) -> None:
    sent = 0

    async def parts() -> AsyncGenerator[bytes]:
        nonlocal sent
        for _ in range(1000):
            sent += 65536
            yield b" " * 65536

    headers = {"Authorization": f"Bearer {ALICE}", "Content-Type": "application/json"}
    if declared:
        headers["Content-Length"] = str(65536 * 1000)
    with anyio.fail_after(30):
        async with serve(body_bytes=100_000) as served, httpx2.AsyncClient() as web:
            try:
                answer = await web.post(f"{served.base}/mcp", content=parts(), headers=headers)
                status = answer.status_code
            except httpx2.HTTPError:
                status = 413  # the connection was closed while we were still sending
            served_after = await still_serves(served)
            logged = served.log

    assert status == 413
    assert sent < 65536 * 1000
    assert served_after
    assert '"status": 413' in logged.getvalue()


async def test_large_arguments_within_the_limit_arrive(serve: Serve) -> None:
    message = calling("whose", {"padding": "x" * 3_000_000})
    async with serve() as served:
        answer = await served.post(message, headers=MODERN_HEADERS)

    assert answer.status_code == 200
    assert "alice" in answer.text


async def test_one_tenant_cannot_have_everything_in_memory_at_once(serve: Serve) -> None:
    part = b" " * 900_000
    head = f"{HEAD}Content-Length: 1000000\r\n\r\n".encode()
    heard: list[bytes] = []

    async def send_most_of_it(port: int) -> None:
        heard.append(await converse(port, head + part))

    with anyio.fail_after(60):
        async with serve(body_bytes=1_000_000, patience=Patience(body_seconds=5)) as served:
            async with anyio.create_task_group() as tasks:
                for _ in range(45):  # 40 MB, of which 32 are let in
                    tasks.start_soon(send_most_of_it, served.door.port)
            served_after = await still_serves(served)

    refused = [each for each in heard if b" 429 " in each.split(b"\r\n")[0]]
    assert 5 <= len(refused) <= 15
    assert served_after


# ---- time


@pytest.mark.parametrize(
    "said",
    [b"", b"POST", HEAD.encode(), HEAD.encode() + b"X-Slow: "],
    ids=["nothing", "a word", "no end of head", "half a header"],
)
async def test_who_does_not_finish_the_head_is_cut_off(serve: Serve, said: bytes) -> None:
    with anyio.fail_after(20):
        async with serve(patience=IMPATIENT) as served:
            heard = await converse(served.door.port, said)

    assert heard == b""


async def test_who_trickles_the_head_is_cut_off(serve: Serve) -> None:
    async def trickle(stream: anyio.abc.SocketStream) -> None:
        try:
            while True:
                await stream.send(b"X")
                await anyio.sleep(0.05)
        except (anyio.BrokenResourceError, anyio.ClosedResourceError):
            return

    with anyio.fail_after(20):
        async with serve(patience=IMPATIENT) as served:
            async with await anyio.connect_tcp("127.0.0.1", served.door.port) as stream:
                await stream.send(HEAD.encode() + b"X-Slow: ")
                async with anyio.create_task_group() as tasks:
                    tasks.start_soon(trickle, stream)
                    with pytest.raises((anyio.EndOfStream, anyio.BrokenResourceError)):
                        await stream.receive()
                    tasks.cancel_scope.cancel()


async def test_who_does_not_finish_the_body_is_told_and_cut_off(serve: Serve) -> None:
    with anyio.fail_after(20):
        async with serve(patience=IMPATIENT) as served:
            heard = await converse(served.door.port, f"{HEAD}Content-Length: 100\r\n\r\n{{".encode())

    assert heard.startswith(b"HTTP/1.1 408 ")
    assert b"did not arrive whole" in heard


async def test_who_goes_on_sending_after_a_refusal_is_cut_off(serve: Serve) -> None:
    head = HEAD.replace(ALICE, "wrong") + "Content-Length: 100000000\r\n\r\n"
    with anyio.fail_after(20):
        async with serve(patience=IMPATIENT) as served:
            heard = await converse(served.door.port, head.encode())

    assert heard.startswith(b"HTTP/1.1 401 ")


async def test_who_does_not_read_is_cut_off(serve: Serve) -> None:
    message = json.dumps(calling("much", {"characters": 20_000_000})).encode()
    head = HEAD + "".join(f"{name}: {value}\r\n" for name, value in MODERN_HEADERS.items()).replace(
        "whose", "much"
    )
    with anyio.fail_after(30):
        async with serve(patience=IMPATIENT) as served:
            async with await anyio.connect_tcp("127.0.0.1", served.door.port) as stream:
                await stream.send(f"{head}Content-Length: {len(message)}\r\n\r\n".encode() + message)
                while '"status": 200' not in served.log.getvalue():
                    await anyio.sleep(0.05)
                await until_cut_off(stream)
                heard = await read_all(stream)
            served_after = await still_serves(served)

    assert len(heard) < 20_000_000
    assert served_after


async def until_cut_off(stream: anyio.abc.SocketStream) -> None:
    poll = select.poll()
    poll.register(stream.extra(anyio.abc.SocketAttribute.raw_socket), 0)
    while not poll.poll(0):
        await anyio.sleep(0.05)


async def read_all(stream: anyio.abc.SocketStream) -> bytes:
    heard = b""
    try:
        while True:
            heard += await stream.receive()
    except (anyio.EndOfStream, anyio.BrokenResourceError):
        return heard


# ---- numbers


async def test_connections_that_ask_nothing_keep_nobody_out(serve: Serve) -> None:
    with anyio.fail_after(30):
        async with serve(connections=8) as served:
            idle = [await anyio.connect_tcp("127.0.0.1", served.door.port) for _ in range(50)]
            served_meanwhile = await still_serves(served)
            for each in idle:
                await each.aclose()

    assert served_meanwhile


async def test_connections_beyond_the_most_are_refused_while_all_are_at_work(
    serve: Serve, probe: Probe
) -> None:
    heard = b"?"
    with anyio.fail_after(30):
        async with serve(connections=2) as served:
            async with anyio.create_task_group() as tasks:
                for number in (1, 2):
                    tasks.start_soon(hold, served, number)
                while probe.calls < 2:
                    await anyio.sleep(0.01)
                heard = await converse(served.door.port, b"GET /health HTTP/1.1\r\nHost: x\r\n\r\n")
                probe.go_on.set()
            after = await served.get("/health")

    assert heard == b"" or heard.startswith(b"HTTP/1.1 503 ")
    assert after.status_code == 200


async def hold(served: Served, number: int) -> httpx2.Response:
    headers = {**MODERN_HEADERS, "Mcp-Name": "wait"}
    return await served.post(calling("wait", {}, number), headers=headers)


async def test_calls_beyond_the_most_are_refused_and_other_tenants_are_not(
    serve: Serve, probe: Probe
) -> None:
    refused = other = httpx2.Response(0)
    with anyio.fail_after(30):
        async with serve(concurrent_requests=2) as served:
            async with anyio.create_task_group() as tasks:
                for number in (1, 2):
                    tasks.start_soon(hold, served, number)
                while probe.calls < 2:
                    await anyio.sleep(0.01)
                refused = await served.post(calling("whose", {}), headers=MODERN_HEADERS)
                other = await served.post(calling("whose", {}), token=BOB, headers=MODERN_HEADERS)
                probe.go_on.set()
            after = await served.post(calling("whose", {}), headers=MODERN_HEADERS)

    assert refused.status_code == 429 and "retry-after" in refused.headers
    assert (other.status_code, after.status_code) == (200, 200)


async def test_standing_streams_do_not_keep_calls_waiting(serve: Serve) -> None:
    with anyio.fail_after(30):
        async with serve(concurrent_requests=1) as served, served.client(mode=LEGACY) as client:
            first = await client.call_tool("whose", {})
            second = await client.call_tool("whose", {})

    assert "alice" in str(first.content) and "alice" in str(second.content)


async def test_requests_beyond_those_of_a_minute_are_refused_and_other_tenants_are_not(serve: Serve) -> None:
    async with serve(requests_per_minute=5) as served:
        statuses = [
            (await served.post(calling("whose", {}), headers=MODERN_HEADERS)).status_code for _ in range(8)
        ]
        other = await served.post(calling("whose", {}), token=BOB, headers=MODERN_HEADERS)

    assert statuses[:5] == [200] * 5
    assert 429 in statuses[5:]
    assert other.status_code == 200


async def test_a_flood_of_requests_leaves_the_server_able_to_answer(serve: Serve) -> None:
    async def flood(port: int) -> None:
        await converse(
            port, b"GET / HTTP/1.1\r\nHost: localhost\r\n\r\n" * 200, until=lambda heard: len(heard) > 1000
        )

    with anyio.fail_after(60):
        async with serve(connections=64) as served:
            async with anyio.create_task_group() as tasks:
                for _ in range(100):
                    tasks.start_soon(flood, served.door.port)
            served_after = await still_serves(served)

    assert served_after


@pytest.mark.parametrize(
    "said",
    [
        b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03" * 20,
        b"GET / HTTP/9.9\r\n\r\n",
        b"GET " + b"/" * 100_000,
        b"GET /mcp HTTP/1.1\r\nHost: localhost\r\n" + b"A: b\r\n" * 50_000,
        b"POST /mcp HTTP/1.1\r\nHost: localhost\r\nContent-Length: -5\r\n\r\n",
        b"POST /mcp HTTP/1.1\r\nHost: localhost\r\nContent-Length: 5\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n",
        b"POST /mcp HTTP/1.1\r\nHost: localhost\r\nTransfer-Encoding: chunked\r\n\r\nFFFFFFFFFFFFFFFFFF\r\n",
        b"GET /mcp HTTP/1.1\r\nHost: localhost\r\nHost: evil.example\r\n\r\n",
        b"GET http://evil.example/mcp HTTP/1.1\r\nHost: localhost\r\n\r\n",
        b"GET /%00%ff%2e%2e/mcp HTTP/1.1\r\nHost: localhost\r\n\r\n",
        b"GET /mcp HTTP/1.1\r\nHost: localhost\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n\r\n",
    ],
)
async def test_bytes_that_are_no_proper_http_end_nothing_but_their_connection(
    serve: Serve, said: bytes
) -> None:
    with anyio.fail_after(30):
        async with serve(patience=IMPATIENT) as served:
            heard = await converse(served.door.port, said)
            served_after = await still_serves(served)

    assert heard == b"" or heard.split(b" ")[1][:1] in (b"4", b"5")
    assert b"Traceback" not in heard
    assert served_after


async def test_one_tenant_cannot_take_all_sessions(serve: Serve) -> None:
    async with serve(client_sessions=6) as served:
        answers = [await served.post(INITIALIZE) for _ in range(5)]
        other = await served.post(INITIALIZE, token=BOB)
        headers = {"Authorization": f"Bearer {ALICE}", "Mcp-Session-Id": answers[0].headers["mcp-session-id"]}
        async with httpx2.AsyncClient() as web:
            ended = await web.delete(served.url, headers=headers)
        after = await served.post(INITIALIZE)
        modern = await served.post(calling("whose", {}), headers=MODERN_HEADERS)

    assert [answer.status_code for answer in answers] == [200, 200, 200, 429, 429]
    assert (other.status_code, ended.status_code, after.status_code, modern.status_code) == (
        200,
        200,
        200,
        200,
    )


async def test_a_session_that_was_not_opened_is_not_counted(serve: Serve) -> None:
    async with serve(client_sessions=2) as served:
        wrong = [
            (await served.post({"jsonrpc": "2.0", "id": 1, "method": "ping"})).status_code for _ in range(5)
        ]
        right = await served.post(INITIALIZE)

    assert wrong == [400] * 5
    assert right.status_code == 200


async def test_who_listens_for_changes_can_still_call_and_is_told_when_the_server_ends(serve: Serve) -> None:
    with anyio.fail_after(60):
        async with serve(make=make_server, concurrent_requests=1) as served, served.client(ALICE) as client:
            async with client.listen(resources_list_changed=True) as changes:
                result = await client.call_tool("get_repl_context", {})
                await served.door.stop(grace_seconds=0)
                rest = [change async for change in changes]  # would raise for a stream that broke off

    assert not result.is_error
    assert all("ResourcesListChanged" in type(change).__name__ for change in rest)
